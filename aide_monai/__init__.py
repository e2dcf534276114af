"""AIDE-MONAI: segmentation models from few good labels and many doubtful ones, on MONAI."""

__version__ = "0.1.0"
