"""Which labels of a data set are likely wrong: cases, slices and regions ranked by predictions that never saw them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
