"""Networks beyond MONAI's own."""

from aide_monai.networks.mean_network import MeanNetwork
from aide_monai.networks.multi_stream_unet import MultiStreamUNet
from aide_monai.networks.seeded import seeded

__all__ = ["MeanNetwork", "MultiStreamUNet", "seeded"]
