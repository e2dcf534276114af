#!/usr/bin/env bash
# monai 1.6.1 (torch 2.13.0, numpy 2.4.6): texts of a bundle's config are changed where they hold a "#".
#
# Behaviour: every text value of a config, also one given on the command line, has "#" replaced by "::" when it is read:
# "/data/scan#1.nii.gz" becomes "/data/scan::1.nii.gz". Nothing is said; the run fails later, at a file that is not there.
# A good guess: "#" means something in an id such as "train#trainer" alone; a path or a name is kept as it is.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6 monai==1.6.1 fire
cd "$work"
mkdir "data#1"
cat > config.json <<'JSON'
{"dataset_dir": "unset", "names": ["left#1"], "run": ["$print('seen:', @dataset_dir, @names)"]}
JSON
seen=$("$work/venv/bin/python" -m monai.bundle run --config_file config.json --dataset_dir "$work/data#1" 2>/dev/null | grep '^seen:')
echo "given: $work/data#1 ['left#1']"
echo "$seen"
[ "$seen" = "seen: $work/data::1 ['left::1']" ] || { echo "this has changed"; exit 1; }
