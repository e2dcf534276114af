"""PROMISE12 from its download: which cases, and what is told about a damaged one."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from monai.transforms import LoadImaged

from aide_monai.data.checks.datalist import require_valid
from aide_monai.data.datalist import Datalist
from aide_monai.data.sources.promise12 import promise12_datalist
from aide_monai.errors import InputError
from aide_monai.io.readers import VolumeReader

from .promise12_files import prostate_volume, write_case, write_promise12

CENTRES = [*range(13), *range(26, 50)]


def cases(datalist: Datalist) -> list[str]:
    return [record["case"] for record in datalist.records]


@pytest.mark.parametrize("parts", [False, True])
def test_the_download_gives_37_cases_of_domain_3(tmp_path: Path, parts: bool, caplog: pytest.LogCaptureFixture) -> None:
    datalist = promise12_datalist(write_promise12(tmp_path, parts=parts))
    assert cases(datalist) == [f"Case{number:02d}" for number in CENTRES]
    folder = tmp_path / "TrainingData_Part1" if parts else tmp_path
    assert datalist.records[0] == {
        "case": "Case00",
        "image": str(folder / "Case00.mhd"),
        "label": str(folder / "Case00_segmentation.mhd"),
        "quality": "high",
        "patient": "Case00",
        "domain": "Domain 3",
        "split": "training",
    }
    assert {record["domain"] for record in datalist.records} == {"Domain 3"}
    assert (datalist.labels, datalist.modality) == ({0: "background", 1: "prostate"}, {0: "T2"})
    (line,) = caplog.messages
    assert "52 files are not used" in line
    assert line.endswith("(cases 13 to 25 repeat patients of Domain 2)")
    assert require_valid(datalist) == []


def test_duplicates_are_kept_on_demand_as_cases_of_domain_2(tmp_path: Path) -> None:
    write_promise12(tmp_path, [12, 13, 25, 26])
    assert cases(promise12_datalist(tmp_path)) == ["Case12", "Case26"]
    domains = [record["domain"] for record in promise12_datalist(tmp_path, keep_duplicates=True).records]
    assert domains == ["Domain 3", "Domain 2", "Domain 2", "Domain 3"]


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    write_promise12(tmp_path, [3])
    record = promise12_datalist(tmp_path).records[0]
    loaded = LoadImaged(["image", "label"], reader=VolumeReader, ensure_channel_first=True)(record)
    image, label = prostate_volume(3)
    assert np.array_equal(loaded["image"][0], image)
    assert np.array_equal(loaded["label"][0], label)
    # ITK's origin (-7, -8, 5) is LPS; MONAI's affine is RAS
    assert loaded["image"].affine.tolist() == [[-0.625, 0, 0, 7], [0, -0.625, 0, 8], [0, 0, 3.6, 5], [0, 0, 0, 1]]


def test_a_part_of_the_download_is_used_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        promise12_datalist(write_promise12(tmp_path, [0, 1]))
    assert "found 2 cases; the challenge's training data are 50" in caplog.text


def test_the_test_data_of_the_challenge_are_passed_over(tmp_path: Path) -> None:
    write_promise12(tmp_path / "TrainingData", [1, 2])
    for folder in ("TestData", "livechallenge_test_data"):
        write_case(tmp_path / folder, 1, segmentation=False)
    assert cases(promise12_datalist(tmp_path)) == ["Case01", "Case02"]


def test_hidden_and_foreign_files_are_passed_over(tmp_path: Path) -> None:
    write_promise12(tmp_path, [1])
    for name in ("._Case01.mhd", "Case02.txt", "mean.mhd"):
        (tmp_path / name).write_bytes(b"\0\x05\x16\x07")
    assert cases(promise12_datalist(tmp_path)) == ["Case01"]


def test_all_that_is_missing_or_doubled_is_told_at_once(tmp_path: Path) -> None:
    write_promise12(tmp_path, range(6))
    (tmp_path / "Case00.raw").unlink()
    (tmp_path / "Case01_segmentation.raw").unlink()
    (tmp_path / "Case02_segmentation.mhd").unlink()
    (tmp_path / "Case03.mhd").unlink()
    write_case(tmp_path / "again", 4)
    with pytest.raises(InputError) as caught:
        promise12_datalist(tmp_path)
    r = str(tmp_path)
    assert str(caught.value).splitlines() == [
        f"{r}: PROMISE12 cannot be used: 6 problems",
        f"  - {r}/again/Case04.mhd: found case 4, as {r}/Case04.mhd is; remove one of the two",
        f"  - {r}/again/Case04_segmentation.mhd: found case 4, as {r}/Case04_segmentation.mhd is; remove one of "
        "the two",
        f'  - {r}/Case00.mhd: found voxels in "Case00.raw", which does not exist; put that file beside it',
        f'  - {r}/Case01_segmentation.mhd: found voxels in "Case01_segmentation.raw", which does not exist; put that '
        "file beside it",
        f"  - {r}/Case02.mhd: found no Case02_segmentation.mhd; put it beside it, or remove the case",
        f"  - {r}/Case03_segmentation.mhd: found no Case03.mhd; put it beside it, or remove the case",
    ]


def test_a_damaged_duplicate_harms_nobody_unless_it_is_used(tmp_path: Path) -> None:
    write_promise12(tmp_path, [1, 13])
    (tmp_path / "Case13.raw").unlink()
    assert cases(promise12_datalist(tmp_path)) == ["Case01"]
    with pytest.raises(InputError, match=r"Case13\.raw"):
        promise12_datalist(tmp_path, keep_duplicates=True)


def test_nothing_to_find(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere: found no such folder; expected the files CaseXX\.mhd"):
        promise12_datalist(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"no CaseXX\.mhd in it or its subfolders; expected CaseXX\.mhd, CaseXX\.raw"):
        promise12_datalist(tmp_path)
    write_promise12(tmp_path, [13, 20])
    with pytest.raises(
        InputError, match="only cases of 13 to 25, which repeat Domain 2; add the others, or, in the layout promise12"
    ):
        promise12_datalist(tmp_path)


@pytest.mark.parametrize("where", ["/etc/passwd", "../secret.raw", "link/secret.raw"])
def test_a_header_cannot_point_out_of_the_folder(tmp_path: Path, where: str) -> None:
    root = write_promise12(tmp_path / "set", [1])
    (tmp_path / "secret.raw").write_bytes(bytes(32 * 32 * 8 * 2))
    (root / "link").symlink_to(tmp_path)
    header = root / "Case01.mhd"
    header.write_text(header.read_text().replace("Case01.raw", where))
    with pytest.raises(InputError, match=rf'Case01\.mhd: found voxels in "{where}", outside {root}'):
        promise12_datalist(root)


def test_voxels_in_several_files_are_refused(tmp_path: Path) -> None:
    write_promise12(tmp_path, [1])
    header = tmp_path / "Case01.mhd"
    text = header.read_text()
    for name in ("LIST", "slice%03d.raw 1 8 1"):
        header.write_text(text.replace("Case01.raw", name))
        with pytest.raises(InputError, match=rf'voxels in several files \("{name}"\); expected one'):
            promise12_datalist(tmp_path)
    header.write_text("NDims = 3\n")
    with pytest.raises(InputError, match="no line ElementDataFile"):
        promise12_datalist(tmp_path)


def test_links_may_not_leave_the_folder(tmp_path: Path) -> None:
    elsewhere = write_promise12(tmp_path / "elsewhere", [1, 2])
    root = write_promise12(tmp_path / "set", [3])
    (root / "inside").symlink_to(root)
    (root / "Case09.mhd").symlink_to(root / "nothing.mhd")
    (root / "TrainingData").symlink_to(elsewhere)
    (root / "Case02.mhd").symlink_to(elsewhere / "Case02.mhd")
    with pytest.raises(InputError) as caught:
        promise12_datalist(root)
    assert str(caught.value).splitlines()[1:] == [
        f"  - {root}/Case02.mhd: found a link to {elsewhere}/Case02.mhd, outside {root}; put the files themselves "
        "there",
        f"  - {root}/Case09.mhd: found a link to nothing; put the file itself there",
        f"  - {root}/TrainingData: found a link to {elsewhere}, outside {root}; put the files themselves there",
    ]
    linked = tmp_path / "linked"
    linked.symlink_to(elsewhere)
    assert cases(promise12_datalist(linked)) == ["Case01", "Case02"]


def test_the_papers_split_is_drawn_by_the_seed(tmp_path: Path) -> None:
    write_promise12(tmp_path)
    datalist = promise12_datalist(tmp_path, test=10)
    assert (len(datalist.split("training")), len(datalist.split("test"))) == (27, 10)
    assert cases(datalist) == [f"Case{number:02d}" for number in CENTRES]
    held_out = [record["case"] for record in datalist.split("test")]
    assert held_out == [record["case"] for record in promise12_datalist(tmp_path, test=10, seed=0).split("test")]
    assert held_out != [record["case"] for record in promise12_datalist(tmp_path, test=10, seed=1).split("test")]
    for test in (0, 37):
        with pytest.raises(InputError, match=f"PROMISE12: found test={test} of 37 cases; expected 1 to 36"):
            promise12_datalist(tmp_path, test=test)


def test_the_split_does_not_depend_on_the_place_of_the_files(tmp_path: Path) -> None:
    flat = promise12_datalist(write_promise12(tmp_path / "flat"), test=10)
    parts = promise12_datalist(write_promise12(tmp_path / "parts", parts=True), test=10)
    assert [record["split"] for record in flat.records] == [record["split"] for record in parts.records]
