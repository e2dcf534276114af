"""Training engines: AIDE, and the rivals that it is compared with."""

from aide_monai.engines.aide import AIDETrainer
from aide_monai.engines.co_teaching import CoTeachingTrainer
from aide_monai.engines.prepare_batch import PrepareAugmented, prepare_two_labels
from aide_monai.engines.pseudo_label import PseudoLabels, PseudoLabelTrainer
from aide_monai.engines.side_by_side import SideBySideTrainer
from aide_monai.engines.supervised import AIDESupervisedTrainer
from aide_monai.engines.two_network import TwoNetworkTrainer
from aide_monai.options import AIDEOptions

__all__ = [
    "AIDEOptions",
    "AIDESupervisedTrainer",
    "AIDETrainer",
    "CoTeachingTrainer",
    "PrepareAugmented",
    "PseudoLabelTrainer",
    "PseudoLabels",
    "SideBySideTrainer",
    "TwoNetworkTrainer",
    "prepare_two_labels",
]
