#!/usr/bin/env bash
# SimpleITK 2.5.7 (ITK), numpy 2.4.6.
# Behaviour: of one volume with voxels of 2 micron, written in three formats that each state the unit, SimpleITK brings
#   NIfTI (xyzt_units) to mm and leaves MetaImage (DistanceUnits, which it keeps as the entry "ITK_VoxelUnits") and NRRD
#   (space units, of which no entry is left) as they are: 0.002, 2 and 2. Converting a file changes its size a thousandfold.
# A good guess: all three formats are brought to mm, or none.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m pip install --quiet --target "$folder/packages" SimpleITK==2.5.7 numpy==2.4.6
cd "$folder"; PYTHONPATH="$folder/packages" python3 - <<'PYTHON'
import struct
import SimpleITK as sitk

voxels = bytes(range(24))
header = bytearray(352)
struct.pack_into("<i8h", header, 0, 348, *[0] * 8)
struct.pack_into("<8h", header, 40, 3, 4, 3, 2, 1, 1, 1, 1)
struct.pack_into("<hh", header, 70, 2, 8)  # uint8
struct.pack_into("<8f", header, 76, 1, 2, 2, 2, 0, 0, 0, 0)
struct.pack_into("<f", header, 108, 352)
struct.pack_into("<f", header, 112, 1)
header[123] = 3  # xyzt_units: micron
struct.pack_into("<hh", header, 252, 1, 0)  # qform_code
header[344:348] = b"n+1\0"
open("a.nii", "wb").write(bytes(header) + voxels)
open("a.mha", "wb").write(
    b"ObjectType = Image\nNDims = 3\nDimSize = 4 3 2\nElementSpacing = 2 2 2\nDistanceUnits = um\n"
    b"ElementType = MET_UCHAR\nElementDataFile = LOCAL\n" + voxels
)
open("a.nrrd", "wb").write(
    b"NRRD0004\ntype: uchar\ndimension: 3\nspace: left-posterior-superior\nsizes: 4 3 2\n"
    b"space directions: (2,0,0) (0,2,0) (0,0,2)\nspace origin: (0,0,0)\n"
    b'space units: "um" "um" "um"\nencoding: raw\n\n' + voxels
)
spacing = {}
for name in ("a.nii", "a.mha", "a.nrrd"):
    reader = sitk.ImageFileReader()
    reader.SetFileName(name)
    image = reader.Execute()
    units = {key: image.GetMetaData(key) for key in image.GetMetaDataKeys() if "nit" in key}
    spacing[name] = image.GetSpacing()[0]
    print(f"{name}: spacing {spacing[name]:g}, entries about units {units}")
assert abs(spacing["a.nii"] - 0.002) < 1e-9 and spacing["a.mha"] == spacing["a.nrrd"] == 2, "this has changed"
PYTHON
