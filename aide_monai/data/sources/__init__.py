"""One module per layout in which data sets come; each turns a folder into a datalist."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
