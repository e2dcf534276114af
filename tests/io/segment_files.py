"""Segmentations as 3D Slicer writes them, byte by byte after the NRRD format and Slicer's keys."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np


def seg_nrrd(path: Path, layers: Sequence[np.ndarray], segments: Sequence[tuple[str, int, int, str]]) -> Path:
    """A ``.seg.nrrd``, or an ``.nhdr`` with its voxels in a ``.raw`` file beside it.

    Args:
        path: file to write.
        layers: one or more label maps (X, Y, Z) uint8; several become an axis of their own, the fastest.
        segments: (name, label value, layer, tags) of each segment.
    """
    several = len(layers) > 1
    sizes = " ".join(map(str, (*([len(layers)] if several else []), *layers[0].shape)))
    lines = [
        "NRRD0004",
        "# Complete NRRD file format specification at:",
        "# http://teem.sourceforge.net/nrrd/format.html",
        "type: unsigned char",
        f"dimension: {4 if several else 3}",
        "space: left-posterior-superior",
        f"sizes: {sizes}",
        f"space directions: {'none ' if several else ''}(-1,0,0) (0,-1,0) (0,0,2)",
        f"kinds: {'list ' if several else ''}domain domain domain",
        "encoding: raw",
        "space origin: (0,0,0)",
    ]
    for number, (name, value, layer, tags) in enumerate(segments):
        lines += [
            f"Segment{number}_Color:=0.5 0.68 0.5",
            f"Segment{number}_Extent:=0 {layers[0].shape[0] - 1} 0 {layers[0].shape[1] - 1} 0 {layers[0].shape[2] - 1}",
            f"Segment{number}_ID:=Segment_{number + 1}",
            f"Segment{number}_LabelValue:={value}",
            f"Segment{number}_Layer:={layer}",
            f"Segment{number}_Name:={name}",
            f"Segment{number}_Tags:=Segmentation.Status:inprogress|{tags}|",
        ]
    voxels = np.stack(layers) if several else layers[0]
    path.parent.mkdir(parents=True, exist_ok=True)
    content = voxels.tobytes(order="F")
    if path.suffix == ".nhdr":
        lines.insert(lines.index("encoding: raw") + 1, f"data file: {path.stem}.raw")
        path.with_suffix(".raw").write_bytes(content)
        content = b""
    path.write_bytes("\n".join([*lines, "", ""]).encode() + content)
    return path
