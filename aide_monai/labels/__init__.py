"""The heart: the current labels of both networks, every change of them, and the way back."""

from aide_monai.labels.store import LabelChange, LabelStore

__all__ = ["LabelChange", "LabelStore"]
