#!/usr/bin/env bash
# surface-distance 0.1, numpy 2.4.6 and 1.26.4, scipy 1.15.3.
# Behaviour: with NumPy 1 the distances to an empty mask, which a network that has found nothing predicts, are infinite. With NumPy
#   2, which pip installs beside it, for the package does not say which NumPy it needs, they are an AttributeError.
# A good guess: infinite with whatever NumPy pip takes.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
for numpy in 1.26.4 2.4.6; do
  python3 -m pip install --quiet --target "$folder/$numpy" surface-distance==0.1 scipy==1.15.3 "numpy==$numpy" absl-py==2.3.1
done
cat > "$folder/measure.py" <<'PYTHON'
import warnings

import numpy as np
import surface_distance

warnings.simplefilter("ignore")
empty, cube = np.zeros((5, 5, 5), bool), np.zeros((5, 5, 5), bool)
cube[1:4, 1:4, 1:4] = True
try:
    found = surface_distance.compute_surface_distances(cube, empty, (1, 1, 1))
    said = str(surface_distance.compute_robust_hausdorff(found, 95))
except AttributeError as error:
    said = f"AttributeError: {error}"
print(f"NumPy {np.__version__}: {said}")
PYTHON
first=$(PYTHONPATH="$folder/1.26.4" python3 "$folder/measure.py"); echo "$first"
second=$(PYTHONPATH="$folder/2.4.6" python3 "$folder/measure.py"); echo "$second"
[[ $first == *": inf" && $second == *": AttributeError"* ]] || { echo "this has changed"; exit 1; }
