"""Which cases there are, and which of them are trusted, doubtful or unlabelled."""

import lazy_loader

from aide_monai.moved import moved_name

_named, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> object:
    return _named(name) if name in __all__ or not name[:1].isalpha() else moved_name(__name__, name)
