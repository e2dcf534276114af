"""Voxels without a verdict: nobody has said what they are, so nothing learns from them and nothing is judged by them.

Files store such voxels as any value, which the datalist names ("ignore"); from reading to writing they are ``IGNORED``.
"""

IGNORED = 255
"""Class index of voxels without a verdict: the largest that a label of bytes can hold, and never a class."""
