"""The heart: the current labels of both networks, every change of them, and the way back."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
