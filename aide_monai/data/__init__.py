"""From volumes on disk to a stream of slices with current labels."""

from aide_monai.data.cache_dataset import AIDECacheDataset
from aide_monai.data.label_store import LabelChange, LabelStore
from aide_monai.data.patch_dataset import PatchDataset
from aide_monai.data.sharing import ShareBatchSampler, collate_share
from aide_monai.data.slice_dataset import SliceDataset, slice_loader, through_plane_axis

__all__ = [
    "AIDECacheDataset",
    "LabelChange",
    "LabelStore",
    "PatchDataset",
    "ShareBatchSampler",
    "SliceDataset",
    "collate_share",
    "slice_loader",
    "through_plane_axis",
]
