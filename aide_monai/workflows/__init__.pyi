from . import labels
from .audit import AuditSettings, audit_data
from .bundle import history_folder, run_bundle
from .check import check_data
from .demo import demo_settings, run_demo
from .evaluate_folders import EvaluationSettings, evaluate_folders
from .merge import merge_data_sets
from .network_plan import NetworkPlan, plan_network
from .nnunet import export_nnunet, write_nnunet
from .plan import Plan, plan_roles
from .prepare import prepare_datalist, write_datalist
from .pseudo_labels import modality_of, standardize_datalist, write_pseudo_labels
from .run import RunResult, RunSettings, run_folder
from .studies import write_studies
from .warm_start import start_weights, started_from

__all__ = [
    "AuditSettings",
    "EvaluationSettings",
    "NetworkPlan",
    "Plan",
    "RunResult",
    "RunSettings",
    "audit_data",
    "check_data",
    "demo_settings",
    "evaluate_folders",
    "export_nnunet",
    "history_folder",
    "labels",
    "merge_data_sets",
    "modality_of",
    "plan_network",
    "plan_roles",
    "prepare_datalist",
    "run_bundle",
    "run_demo",
    "run_folder",
    "standardize_datalist",
    "start_weights",
    "started_from",
    "write_datalist",
    "write_nnunet",
    "write_pseudo_labels",
    "write_studies",
]
