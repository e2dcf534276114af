"""AIDE-MONAI: segmentation models from few good labels and many doubtful ones, on MONAI.

What is named here is the front door; each name comes from its module when it is first used.
"""

import lazy_loader

from aide_monai import moved

__version__ = "0.2.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

moved.install()
