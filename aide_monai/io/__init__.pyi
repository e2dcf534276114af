from .location import Location, open_location
from .readers import DicomSeriesReader, LocationReader, PNGStackReader, VolumeReader
from .segmentations import Segmentation, find_segmentations, read_segmentation
from .volumes import Volume, open_volume
from .writers import SaveSegmentationd, write_label

__all__ = [
    "DicomSeriesReader",
    "Location",
    "LocationReader",
    "PNGStackReader",
    "SaveSegmentationd",
    "Segmentation",
    "Volume",
    "VolumeReader",
    "find_segmentations",
    "open_location",
    "open_volume",
    "read_segmentation",
    "write_label",
]
