from .case import Case
from .datalist import Datalist
from .folders import image_records
from .rater_fusion import FuseRatersd
from .raters import fuse_raters
from .roles import with_roles
from .split import SplitSettings, adapt_domains, fold_cases, hold_out, split_cases

__all__ = [
    "Case",
    "Datalist",
    "FuseRatersd",
    "SplitSettings",
    "adapt_domains",
    "fold_cases",
    "fuse_raters",
    "hold_out",
    "image_records",
    "split_cases",
    "with_roles",
]
