"""Segmentation metrics as the CHAOS challenge defines them: DSC, RAVD, ASSD, MSSD, HD95 and NSD, in physical units."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
