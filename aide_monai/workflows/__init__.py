"""Whole jobs: what a verb of the command line, a bundle or a notebook calls."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
