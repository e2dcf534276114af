"""Files, validation, processes and tensors: what every floor above may use."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
