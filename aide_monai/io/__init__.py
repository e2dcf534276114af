"""Voxels and files: reads and writes volumes of every format, and knows no case."""
