"""NCI-ISBI 2013 from its download: series matched to labels, labels in another orientation, and what is refused."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from monai.transforms import Compose, LoadImaged

from aide_monai.data.datalist import Datalist
from aide_monai.data.sources.nci_isbi import nci_isbi_classes, nci_isbi_datalist
from aide_monai.errors import InputError
from aide_monai.io.readers import DicomSeriesReader, VolumeReader
from aide_monai.transforms import AsClassIndicesd, ByVotesd
from tests.io.dicom.dicom_files import write_series

from .nci_isbi_files import patients, write_label, write_nci_isbi, write_patient
from .promise12_files import prostate_volume

DX, T3 = "ProstateDx-01-0001", "Prostate3T-01-0001"


def cases(datalist: Datalist, split: str = "training") -> list[str]:
    return [record["case"] for record in datalist.split(split)]


def series_of(root: Path, patient: str) -> Path:
    return next(root.glob(f"*/{patient}/*/*"))


def load(record: dict[str, str], *, merge_zones: bool = True) -> dict[str, np.ndarray]:
    return Compose(
        [
            LoadImaged(["image", "label"], reader=[DicomSeriesReader, VolumeReader], ensure_channel_first=True),
            ByVotesd("label"),
            AsClassIndicesd("label", classes=nci_isbi_classes(merge_zones=merge_zones), image_key="image"),
        ]
    )(record)


def test_the_download_gives_the_papers_domains_and_splits(tmp_path: Path) -> None:
    datalist = nci_isbi_datalist(write_nci_isbi(tmp_path))
    counts = Counter((record["domain"], record["split"]) for record in datalist.records)
    assert counts == {
        ("Domain 1", "training"): 30,
        ("Domain 1", "test"): 10,
        ("Domain 2", "training"): 30,
        ("Domain 2", "test"): 10,
    }
    assert cases(datalist, "test")[:2] == ["Prostate3T-02-0001", "Prostate3T-02-0002"]
    assert datalist.records[40] == {
        "case": DX,
        "image": str(series_of(tmp_path, DX)),
        "label": str(tmp_path / f"Training/{DX}.nrrd"),
        "quality": "high",
        "patient": DX,
        "domain": "Domain 1",
        "split": "training",
    }
    assert (datalist.labels, datalist.modality) == ({0: "background", 1: "prostate"}, {0: "T2"})
    assert [record["case"] for record in datalist.records] == sorted(record["case"] for record in datalist.records)


@pytest.mark.parametrize("orientation", ["axial", "oblique"])
@pytest.mark.parametrize(
    "stored",
    [{}, {"flip": (2,)}, {"flip": (0, 1)}, {"order": "zyx"}, {"slices": slice(1, 6), "flip": (2,), "order": "yxz"}],
)
def test_labels_stored_otherwise_come_out_on_the_images_grid(
    tmp_path: Path, orientation: str, stored: dict[str, object]
) -> None:
    image, zones = write_patient(tmp_path, DX, seed=1, orientation=orientation, **stored)
    record = nci_isbi_datalist(tmp_path, merge_zones=False).records[0]
    loaded = load(record, merge_zones=False)
    if "slices" in stored:
        zones[:, :, [0, 6, 7]] = 0
    assert np.array_equal(loaded["image"][0], image)
    assert np.array_equal(loaded["label"][0], zones)
    assert set(np.unique(zones)) == {0, 1, 2}


def test_zones_are_merged_or_kept(tmp_path: Path) -> None:
    _, zones = write_patient(tmp_path, T3, seed=2)
    record = nci_isbi_datalist(tmp_path).records[0]
    assert np.array_equal(load(record)["label"][0], zones > 0)
    kept = nci_isbi_datalist(tmp_path, merge_zones=False)
    assert kept.labels == {0: "background", 1: "peripheral zone", 2: "central gland"}
    assert nci_isbi_classes() == {0: 0, 1: 1, 2: 1}
    assert nci_isbi_classes(merge_zones=False) == {0: 0, 1: 1, 2: 2}


@pytest.mark.parametrize("ending", ["_truth", "_correctedLabels", "-label"])
def test_names_of_labels(tmp_path: Path, ending: str) -> None:
    write_patient(tmp_path, DX, seed=1, ending=ending)
    label = tmp_path / f"Training/{DX}{ending}.nrrd"
    assert nci_isbi_datalist(tmp_path).records[0]["label"] == str(label)
    lower = label.with_name(label.name.lower())
    label.rename(lower)
    record = nci_isbi_datalist(tmp_path).records[0]
    assert (record["case"], record["label"]) == (DX, str(lower))


@pytest.mark.parametrize("transfer_syntax", ["big-endian", "rle", "jpeg-lossless"])
def test_compressed_and_big_endian_series(tmp_path: Path, transfer_syntax: str) -> None:
    image, _ = write_patient(tmp_path, DX, seed=1, transfer_syntax=transfer_syntax)
    assert np.array_equal(load(nci_isbi_datalist(tmp_path).records[0])["image"][0], image)


def test_the_series_that_the_label_was_drawn_on_is_taken(tmp_path: Path) -> None:
    image, _ = write_patient(tmp_path, T3, seed=1)
    folder = series_of(tmp_path, T3)
    coarse = image[::2, ::2]
    write_series(folder.parent / "localizer", coarse, spacing=(1.25, 1.25, 3.6), position=(-5, -4, 12))
    write_series(
        folder.parent / "coronal", image, spacing=(0.625, 0.625, 3.6), orientation="coronal", position=(60, 0, 90)
    )
    record = nci_isbi_datalist(tmp_path).records[0]
    assert record["image"] == str(folder)
    assert np.array_equal(load(record)["image"][0], image)


def test_several_series_in_one_folder_are_told_apart_by_a_selection(tmp_path: Path) -> None:
    image, _ = write_patient(tmp_path, T3, seed=1)
    folder = series_of(tmp_path, T3)
    write_series(folder, image[::2, ::2], spacing=(1.25, 1.25, 3.6), names="other-{}.dcm")
    record = nci_isbi_datalist(tmp_path).records[0]
    patient_folder = tmp_path / "Prostate-3T" / T3
    assert record["image"].startswith(f"{patient_folder}#series=")
    assert np.array_equal(load(record)["image"][0], image)


def test_two_series_that_fit_are_refused(tmp_path: Path) -> None:
    image, _ = write_patient(tmp_path, T3, seed=1)
    folder = series_of(tmp_path, T3)
    write_series(folder.parent / "again", image, spacing=(0.625, 0.625, 3.6), position=(-5, -4, 12))
    with pytest.raises(InputError) as caught:
        nci_isbi_datalist(tmp_path)
    message = str(caught.value)
    assert f"{T3}: found 2 volumes, 2 of them of the pixel size and place of {tmp_path}/Training/{T3}.nrrd" in message
    assert message.count("- series=") == 2


def test_everything_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    names = patients("ProstateDx", (9, 0, 0))
    for seed, name in enumerate(names):
        write_patient(tmp_path, name, seed=seed)
    label = {name: tmp_path / f"Training/{name}.nrrd" for name in names}
    label[names[0]].unlink()
    for file in series_of(tmp_path, names[1]).iterdir():
        file.unlink()
    write_label(label[names[2]].with_name(f"{names[2]}_truth.nrrd"), np.ones((2, 2, 2), np.uint8), np.eye(4))
    write_label(label[names[3]], np.full((4, 4, 4), 3, np.uint8), np.eye(4))
    write_label(label[names[4]], np.zeros((4, 4, 4), np.uint8), np.eye(4))
    write_label(label[names[5]], np.ones((4, 4, 4), np.uint8), np.eye(4))
    label[names[6]].write_bytes(b"NRRD0004\n")
    gone = sorted(series_of(tmp_path, names[7]).iterdir())[3]
    gone.unlink()
    write_patient(tmp_path / "again", names[8], seed=8, label=False)
    with pytest.raises(InputError) as caught:
        nci_isbi_datalist(tmp_path)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path}: NCI-ISBI 2013 cannot be used: 9 problems")
    for part in (
        f"{names[0]}: found no labels; download its .nrrd file, or remove the patient's folder",
        f"{names[1]}: found no folders of images; download the patient's DICOM series, or remove the label",
        f"{names[2]}: found the labels {label[names[2]]}, {tmp_path}/Training/{names[2]}_truth.nrrd; expected one",
        f"{label[names[3]]}: found the values 3; expected one label of 1 peripheral zone and 2 central gland",
        f"{label[names[4]]}: found the values 0; expected",
        f"{label[names[5]]}: found 64 of 64 label voxels outside of the image {series_of(tmp_path, names[5])}/",
        f"{label[names[6]]}: found a header that cannot be read",
        "1 slice is missing",
        f"{names[8]}: found the folders of images {tmp_path}/PROSTATE-DIAGNOSIS/{names[8]}, {tmp_path}/again/",
    ):
        assert part in message


def test_a_label_that_leaves_the_image_a_little_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _, zones = write_patient(tmp_path, DX, seed=1)
    folder = series_of(tmp_path, DX)
    for file in sorted(folder.iterdir())[-3:]:  # names run against the slices: these are the first three
        file.unlink()
    lost = int((zones[:, :, :3] > 0).sum())
    assert 0 < lost < (zones > 0).sum() / 2
    record = nci_isbi_datalist(tmp_path).records[0]
    assert int((load(record, merge_zones=False)["label"] > 0).sum()) == int((zones > 0).sum()) - lost
    assert f"found {lost} of {int((zones > 0).sum())} label voxels outside of the image" in caplog.text
    assert "resampling onto the image loses them" in caplog.text


def test_the_split_can_be_drawn_for_each_domain(tmp_path: Path) -> None:
    write_nci_isbi(tmp_path, (4, 1, 1))
    datalist = nci_isbi_datalist(tmp_path, test=2, seed=3)
    counts = Counter((record["domain"], record["split"]) for record in datalist.records)
    assert set(counts.items()) == {
        (("Domain 1", "training"), 4),
        (("Domain 1", "test"), 2),
        (("Domain 2", "training"), 4),
        (("Domain 2", "test"), 2),
    }
    assert cases(datalist, "test") != cases(nci_isbi_datalist(tmp_path), "test")
    assert datalist == nci_isbi_datalist(tmp_path, test=2, seed=3)
    with pytest.raises(InputError, match="NCI-ISBI 2013 Domain 1: found test=6 of 6 cases; expected 1 to 5"):
        nci_isbi_datalist(tmp_path, test=6)


def test_other_files_are_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_patient(tmp_path, DX, seed=1)
    (tmp_path / "metadata.csv").write_text("Series UID")
    (series_of(tmp_path, DX) / "LICENSE").write_text("CC BY")
    (tmp_path / "Training/._hidden.nrrd").write_bytes(b"")
    write_label(tmp_path / "Training/atlas.nrrd", np.ones((2, 2, 2), np.uint8), np.eye(4))
    with caplog.at_level(logging.WARNING):
        assert cases(nci_isbi_datalist(tmp_path)) == [DX]
    assert "1 file is not used: Training/atlas.nrrd (labels without a patient" in caplog.text


def test_nothing_may_lead_out_of_the_folder(tmp_path: Path) -> None:
    root = tmp_path / "set"
    write_patient(root, DX, seed=1)
    secret = tmp_path / "secret.raw"
    secret.write_bytes(bytes(8))
    label = root / f"Training/{DX}.nrrd"
    label.write_text(
        "NRRD0004\ntype: uint8\ndimension: 3\nsizes: 2 2 2\nencoding: raw\nspace: left-posterior-superior\n"
        f"space directions: (1,0,0) (0,1,0) (0,0,1)\nspace origin: (0,0,0)\ndata file: {secret}\n"
    )
    with pytest.raises(InputError, match=rf'{label}: found voxels in "{secret}", outside {root}'):
        nci_isbi_datalist(root)
    write_patient(tmp_path / "elsewhere", T3, seed=2)
    (root / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=rf"{root}/link: found a link to {tmp_path}/elsewhere, outside {root}"):
        nci_isbi_datalist(root)


def test_nothing_to_find(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"no patient ProstateDx-XX-XXXX or Prostate3T-XX-XXXX; expected ProstateDx-01"
    ):
        nci_isbi_datalist(tmp_path)
    with pytest.raises(InputError, match="no such folder; expected NCI-ISBI 2013 from TCIA"):
        nci_isbi_datalist(tmp_path / "none")


def test_phantoms_differ() -> None:
    assert not np.array_equal(prostate_volume(1)[0], prostate_volume(2)[0])
