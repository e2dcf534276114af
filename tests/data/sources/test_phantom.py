"""The procedural phantoms."""

from __future__ import annotations

import json

import nibabel
import numpy as np

from aide_monai.data.sources import find_datalist
from aide_monai.data.sources.phantom import phantom, write_phantoms


def test_a_case_depends_on_seed_and_number_alone(tmp_path):
    few = write_phantoms(tmp_path / "few", cases=1, seed=3)
    many = write_phantoms(tmp_path / "many", cases=2, seed=3)
    other = write_phantoms(tmp_path / "other", cases=1, seed=4)
    images = [nibabel.load(f / "imagesTr" / "phantom_000.nii.gz").get_fdata() for f in (few, many, other)]
    assert np.array_equal(images[0], images[1])
    assert not np.array_equal(images[0], images[2])


def test_image_and_label_are_plausible():
    image, label = phantom(np.random.default_rng(0))
    assert image.shape == label.shape == (64, 64, 20)
    assert image.dtype == np.int16
    assert image.min() >= 0
    assert set(np.unique(label)) == {0, 1}
    assert 0.02 < label.mean() < 0.25  # an organ of a body, not a speck and not everything
    centre = np.argwhere(label).mean(axis=0)
    assert centre[0] < 31.5  # on one side, like a liver
    assert image[label == 1].mean() > image[:4].mean()  # brighter than the air beside the body


def test_cases_differ_in_size_and_place_of_the_organ():
    labels = [phantom(np.random.default_rng(seed))[1] for seed in range(6)]
    volumes = [int(label.sum()) for label in labels]
    assert max(volumes) > 1.3 * min(volumes)
    first_and_last = [label[:, :, [0, -1]].any() for label in labels]
    assert not all(first_and_last)  # some volumes end beyond the organ: empty slices exist


def test_folder_reads_as_a_decathlon_data_set(tmp_path):
    folder = write_phantoms(tmp_path / "data", cases=3, shape=(32, 32, 8), spacing_mm=(6, 6, 15))
    datalist = find_datalist(folder)
    assert len(datalist.records) == 3
    assert datalist.labels == {0: "background", 1: "organ"}
    image = nibabel.load(datalist.records[0]["image"])
    assert image.header.get_zooms() == (6, 6, 15)
    assert image.affine[0, 3] == -6 * 31 / 2  # the world's origin is the volume's centre
    assert json.loads((folder / "dataset.json").read_text())["numTraining"] == 3
