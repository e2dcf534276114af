#!/usr/bin/env bash
# SimpleITK 2.5.7, itk 5.4.7 (MetaIO), numpy 2.4.6.
# Behaviour: a MetaImage says in two documented lines that intensity = slope * stored number + offset
#   (ElementToIntensityFunctionSlope, ElementToIntensityFunctionOffset). MetaIO knows both lines, and SimpleITK and ITK give
#   the stored numbers, without a warning and without an entry of what they passed over.
# A good guess: they are applied, as scl_slope of NIfTI and RescaleSlope of DICOM are by the same library.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m pip install --quiet --target "$folder/packages" SimpleITK==2.5.7 itk-io==5.4.7 itk-core==5.4.7 numpy==2.4.6
cd "$folder"; PYTHONPATH="$folder/packages" python3 - <<'PYTHON'
import itk
import SimpleITK as sitk

open("a.mha", "wb").write(
    b"ObjectType = Image\nNDims = 3\nDimSize = 4 3 2\nElementSpacing = 1 1 1\nElementToIntensityFunctionSlope = 2\n"
    b"ElementToIntensityFunctionOffset = -1024\nElementType = MET_UCHAR\nElementDataFile = LOCAL\n" + bytes(range(24))
)
image = sitk.ReadImage("a.mha")
found = sitk.GetArrayFromImage(image).ravel()[:3].tolist()
too = itk.array_from_image(itk.imread("a.mha")).ravel()[:3].tolist()
print("expected [-1024, -1022, -1020]; SimpleITK", found, "ITK", too)
print("entries:", {key: image.GetMetaData(key) for key in image.GetMetaDataKeys()})
assert found == too == [0, 1, 2], "this has changed"
PYTHON
