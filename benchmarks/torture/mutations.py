"""Random changes of the bytes of a file."""

from __future__ import annotations

import numpy as np


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """Few changes, half of them in the first kilobyte: bytes, digits, what is cut off, left out, doubled or moved."""
    result = bytearray(data)
    for _ in range(int(rng.geometric(0.4))):
        reach = min(len(result), 1024) if rng.random() < 0.5 else len(result)
        at = int(rng.integers(reach)) if reach else 0
        _change(result, at, int(rng.integers(8)), rng)
    return bytes(result)


def _change(result: bytearray, at: int, kind: int, rng: np.random.Generator) -> None:
    length = int(rng.integers(1, 64))
    if kind == 0:
        del result[at:]
    elif kind == 1:
        result[at:at] = result[at : at + length]
    elif kind == 2:
        result[at : at + 4] = b"\xff\xff\xff\x7f"
    elif kind == 3:
        del result[at : at + length % 16 + 1]
    elif kind == 4:  # the next digit, as text headers have them
        digit = next((i for i in range(at, min(at + 64, len(result))) if 48 <= result[i] < 58), at)
        result[digit : digit + 1] = bytes([48 + length % 10])
    elif kind == 5:  # a line, or what lies between two such bytes, moves to the start of another
        start, end = result.find(b"\n", at) + 1, result.find(b"\n", at + length) + 1
        line = result[start:end]
        del result[start:end]
        result[result.find(b"\n") + 1 : result.find(b"\n") + 1] = line
    else:
        result[at : at + 1] = bytes([int(rng.integers(256))])
