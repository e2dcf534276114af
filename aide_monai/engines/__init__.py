"""Training engines: AIDE, and the rivals that it is compared with."""

from aide_monai.engines.aide import AIDETrainer
from aide_monai.engines.co_teaching import CoTeachingTrainer
from aide_monai.engines.confident_learning import ConfidentLearningTrainer
from aide_monai.engines.copy_paste import CopyPasteTrainer
from aide_monai.engines.cross_pseudo import CrossPseudoTrainer
from aide_monai.engines.mean_teacher import MeanTeacherTrainer
from aide_monai.engines.prepare_batch import PrepareAugmented, prepare_two_labels
from aide_monai.engines.pseudo_label import PseudoLabels, PseudoLabelTrainer
from aide_monai.engines.rivals import RIVALS, rival, rival_options
from aide_monai.engines.side_by_side import SideBySideTrainer
from aide_monai.engines.supervised import AIDESupervisedTrainer
from aide_monai.engines.two_network import TwoNetworkTrainer
from aide_monai.engines.unimatch import UniMatchTrainer
from aide_monai.options import AIDEOptions

__all__ = [
    "RIVALS",
    "AIDEOptions",
    "AIDESupervisedTrainer",
    "AIDETrainer",
    "CoTeachingTrainer",
    "ConfidentLearningTrainer",
    "CopyPasteTrainer",
    "CrossPseudoTrainer",
    "MeanTeacherTrainer",
    "PrepareAugmented",
    "PseudoLabelTrainer",
    "PseudoLabels",
    "SideBySideTrainer",
    "TwoNetworkTrainer",
    "UniMatchTrainer",
    "prepare_two_labels",
    "rival",
    "rival_options",
]
