"""DICOM: series, stacks, headers, pixels and segmentations."""
