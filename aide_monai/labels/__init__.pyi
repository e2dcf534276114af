from .store import LabelChange, LabelStore

__all__ = ["LabelChange", "LabelStore"]
