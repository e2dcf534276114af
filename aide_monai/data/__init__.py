"""From volumes on disk to a stream of slices with current labels."""

from aide_monai.data.label_store import LabelChange, LabelStore
from aide_monai.data.slice_dataset import SliceDataset, slice_loader, through_plane_axis

__all__ = ["LabelChange", "LabelStore", "SliceDataset", "slice_loader", "through_plane_axis"]
