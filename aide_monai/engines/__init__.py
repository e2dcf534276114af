"""Training engines with two networks."""

from aide_monai.engines.aide import AIDETrainer
from aide_monai.engines.prepare import PrepareAugmented, prepare_two_labels
from aide_monai.engines.two_network import TwoNetworkTrainer
from aide_monai.options import AIDEOptions

__all__ = ["AIDEOptions", "AIDETrainer", "PrepareAugmented", "TwoNetworkTrainer", "prepare_two_labels"]
