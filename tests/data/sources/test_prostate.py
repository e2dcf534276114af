"""The three prostate domains together: duplicates by number and by content, leaks, splits."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from monai.transforms import Compose, LoadImaged

from aide_monai.data.datalist import Datalist
from aide_monai.data.sources.prostate import prostate_classes, prostate_datalist
from aide_monai.errors import InputError
from aide_monai.io.readers import DicomSeriesReader, VolumeReader
from aide_monai.transforms import AsClassIndicesd, ByVotesd

from .nci_isbi_files import patients, write_nci_isbi, write_patient
from .promise12_files import prostate_volume, write_case, write_promise12


def counts(datalist: Datalist) -> dict[tuple[str, str], int]:
    return dict(Counter((record["domain"], record["split"]) for record in datalist.records))


def cases(datalist: Datalist, domain: str) -> list[str]:
    return [record["case"] for record in datalist.records if record["domain"] == domain]


def two_sets(folder: Path) -> tuple[Path, Path]:
    """3 training and 2 test patients per NCI domain (seeds 100 to 109), PROMISE12 cases 0 to 11, 13 and 14."""
    nci = write_nci_isbi(folder / "nci", (3, 1, 1))
    return nci, write_promise12(folder / "promise", [*range(12), 13, 14])


def test_the_papers_domains_and_splits(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    datalist = prostate_datalist(write_nci_isbi(tmp_path / "nci"), write_promise12(tmp_path / "promise"))
    assert counts(datalist) == {
        ("Domain 1", "training"): 30,
        ("Domain 1", "test"): 10,
        ("Domain 2", "training"): 30,
        ("Domain 2", "test"): 10,
        ("Domain 3", "training"): 27,
        ("Domain 3", "test"): 10,
    }
    assert (datalist.labels, datalist.modality) == ({0: "background", 1: "prostate"}, {0: "T2"})
    (line,) = caplog.messages
    assert "52 files are not used" in line
    assert line.endswith("(cases 13 to 25 repeat patients of Domain 2)")


def test_every_domain_reads_through_one_pipeline(tmp_path: Path) -> None:
    datalist = prostate_datalist(*two_sets(tmp_path), test=2)
    read = Compose(
        [
            LoadImaged(["image", "label"], reader=[DicomSeriesReader, VolumeReader], ensure_channel_first=True),
            ByVotesd("label"),
            AsClassIndicesd("label", classes=prostate_classes(), image_key="image"),
        ]
    )
    for domain, seed in (("Domain 1", 100), ("Domain 2", 105), ("Domain 3", 0)):
        record = next(record for record in datalist.records if record["domain"] == domain)
        image, label = prostate_volume(seed)
        loaded = read(record)
        assert np.array_equal(loaded["image"][0], image)
        assert np.array_equal(loaded["label"][0], label)


def test_duplicates_go_by_number_whatever_they_show(tmp_path: Path) -> None:
    datalist = prostate_datalist(*two_sets(tmp_path), test=2)
    assert not {"Case13", "Case14"} & set(cases(datalist, "Domain 3"))
    assert len(cases(datalist, "Domain 3")) == 12


@pytest.mark.parametrize("copy", ["as it is", "8 bit", "mirrored storage"])
def test_duplicates_under_another_number_go_by_content(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, copy: str
) -> None:
    nci, promise = two_sets(tmp_path)
    image = prostate_volume(105)[0]
    if copy == "8 bit":
        image = np.round(np.clip(image / np.percentile(image, 99.5), 0, 1) * 255).astype(np.uint8)
    write_case(promise, 30, voxels=image)
    if copy == "mirrored storage":
        header = promise / "Case30.mhd"
        header.write_text(
            header.read_text().replace("TransformMatrix = 1 0 0 0 1 0", "TransformMatrix = -1 0 0 0 -1 0")
        )
        write_raw = image[::-1, ::-1].T
        (promise / "Case30.raw").write_bytes(np.ascontiguousarray(write_raw).tobytes())
    with caplog.at_level(logging.WARNING):
        datalist = prostate_datalist(nci, promise, test=2)
    assert "Case30 of PROMISE12 is left out: the same scan as Prostate3T-01-0001 (likeness" in caplog.text
    assert "Case30" not in cases(datalist, "Domain 3")


def test_the_test_cases_are_drawn_after_the_duplicates_are_gone(tmp_path: Path) -> None:
    nci, promise = two_sets(tmp_path)
    without = prostate_datalist(nci, promise, test=2, seed=4)
    write_case(promise, 30, seed=105)
    assert prostate_datalist(nci, promise, test=2, seed=4) == without


def test_leaks_are_errors(tmp_path: Path) -> None:
    nci, promise = two_sets(tmp_path)
    write_case(promise, 31, seed=101)  # Domain 1 in Domain 3
    write_patient(nci, "Prostate3T-01-0009", seed=102)  # Domain 1 in Domain 2
    write_patient(nci, "ProstateDx-03-0009", seed=100)  # Domain 1, training and test
    write_patient(nci, "ProstateDx-01-0009", seed=101)  # Domain 1, twice in training, and in Domain 3
    with pytest.raises(InputError) as caught:
        prostate_datalist(nci, promise, test=None)
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{nci} and {promise}: the domains cannot be used together: 4 problems"
    assert all(line.endswith("a leak; remove one of the two") for line in lines[1:])
    text = "\n".join(lines)
    for part in (
        "cases Prostate3T-01-0009 and ProstateDx-01-0003: found one scan (likeness 1.0000) in domain Domain 2 and "
        "Domain 1",
        "cases ProstateDx-01-0001 and ProstateDx-03-0009: found one scan (likeness 1.0000) in split training and test",
        "cases ProstateDx-01-0002 and Case31: found one scan (likeness 1.0000) in domain Domain 1 and Domain 3",
        "cases ProstateDx-01-0009 and Case31",
    ):
        assert part in text


def test_one_scan_twice_in_training_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    nci, promise = two_sets(tmp_path)
    write_patient(nci, "ProstateDx-01-0009", seed=101)
    prostate_datalist(nci, promise)
    assert (
        "cases ProstateDx-01-0002 and ProstateDx-01-0009: found one scan (likeness 1.0000) in two cases" in caplog.text
    )


def test_numbers_that_differ_from_the_papers_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    datalist = prostate_datalist(*two_sets(tmp_path))
    assert counts(datalist)["Domain 3", "test"] == 10
    assert "Domain 1: 3 training and 2 test cases; the paper has 30 and 10" in caplog.text
    assert "Domain 3: 2 training and 10 test cases; the paper has 27 and 10" in caplog.text


def test_seeded_splits_are_drawn_within_each_domain(tmp_path: Path) -> None:
    roots = two_sets(tmp_path)
    datalist = prostate_datalist(*roots, test=2, seed=1)
    assert {key: number for key, number in counts(datalist).items() if key[1] == "test"} == {
        ("Domain 1", "test"): 2,
        ("Domain 2", "test"): 2,
        ("Domain 3", "test"): 2,
    }
    assert datalist == prostate_datalist(*roots, test=2, seed=1)
    assert datalist != prostate_datalist(*roots, test=2, seed=2)


def test_the_problems_of_both_sets_are_told_together(tmp_path: Path) -> None:
    nci, promise = two_sets(tmp_path)
    (nci / "Training" / f"{patients('ProstateDx', (1, 0, 0))[0]}.nrrd").unlink()
    (promise / "Case05.raw").unlink()
    with pytest.raises(InputError) as caught:
        prostate_datalist(nci, promise)
    assert "ProstateDx-01-0001: found no labels" in str(caught.value)
    assert 'voxels in "Case05.raw", which does not exist' in str(caught.value)
