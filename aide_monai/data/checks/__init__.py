"""What may be wrong with a data set: its list, its cases, its voxels, its patients."""
