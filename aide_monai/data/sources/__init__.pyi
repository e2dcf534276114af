from .chaos import chaos_classes
from .decathlon import decathlon_datalist
from .folder import folder_datalist
from .layouts import LAYOUTS, Layout, find_datalist, is_datalist
from .nnunet import nnunet_datalist
from .phantom import write_phantoms

__all__ = [
    "LAYOUTS",
    "Layout",
    "chaos_classes",
    "decathlon_datalist",
    "find_datalist",
    "folder_datalist",
    "is_datalist",
    "nnunet_datalist",
    "write_phantoms",
]
