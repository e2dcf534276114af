"""Nested content as leaves that can be compared bit for bit."""

from __future__ import annotations

import hashlib
from typing import Any

import torch


def digest(content: Any, name: str = "") -> dict[str, str]:
    """Every leaf of nested containers by its path, tensors by dtype, shape and the hash of their bytes."""
    if isinstance(content, dict):
        return {k: v for key, value in content.items() for k, v in digest(value, f"{name}/{key}").items()}
    if isinstance(content, (list, tuple)):
        return {k: v for i, value in enumerate(content) for k, v in digest(value, f"{name}/{i}").items()}
    if isinstance(content, torch.Tensor):
        flat = content.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        return {name: f"{content.dtype} {tuple(content.shape)} {hashlib.sha256(flat.tobytes()).hexdigest()}"}
    return {name: repr(content)}
