"""Networks beyond MONAI's own."""

from aide_monai.networks.feature_dropout import FeatureDropout
from aide_monai.networks.folded import FoldedNetwork
from aide_monai.networks.global_batch_norm import GlobalBatchNorm, synchronise_batch_norm
from aide_monai.networks.mean_network import MeanNetwork
from aide_monai.networks.multi_stream_unet import MultiStreamUNet
from aide_monai.networks.seeding import reinitialised, seeded

__all__ = [
    "FeatureDropout",
    "FoldedNetwork",
    "GlobalBatchNorm",
    "MeanNetwork",
    "MultiStreamUNet",
    "reinitialised",
    "seeded",
    "synchronise_batch_norm",
]
