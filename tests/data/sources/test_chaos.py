"""CHAOS straight from its download: layouts, echoes, labels, the paper's split, and all problems in one report."""

from __future__ import annotations

import logging
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from monai.transforms import Compose, LoadImaged
from PIL import Image

from aide_monai.data.datalist import Datalist
from aide_monai.data.sources.chaos import (
    MR_VALUES,
    PAPER_LABELED,
    PAPER_TEST,
    PAPER_TRAINING,
    chaos_classes,
    chaos_datalist,
)
from aide_monai.errors import InputError
from aide_monai.io.readers import DicomSeriesReader, PNGStackReader
from aide_monai.transforms import AsClassIndicesd
from tests.io.dicom.dicom_files import Written, edit, write_series

SHAPE = (5, 6, 3)
LABEL = np.resize(np.array([0, 63, 126, 189, 252], dtype=np.uint8), SHAPE)
TEST_SETS = (4, 6, 7, 9, 11, 12, 14, 16, 17, 18, 23, 24, 25, 26, 27, 28, 29, 30, 35, 40)


def write_label(ground: Path, names: list[str], label: np.ndarray = LABEL) -> None:
    ground.mkdir(parents=True)
    for z, name in enumerate(names):
        Image.fromarray(np.ascontiguousarray(label[:, :, z].T)).save(ground / name)


def write_dual(case: Path, *, labelled: bool = True, phases: tuple[str, str] = ("InPhase", "OutPhase")) -> Written:
    """T1-DUAL: one series, in-phase slices with even numbers, backwards; returns what is in phase."""
    image = np.arange(np.prod(SHAPE)).reshape(SHAPE).astype("u2")
    folder = case / "T1DUAL/DICOM_anon"
    options: dict[str, Any] = {"position": (0, 0, 0), "spacing": (2, 2, 6), "tags": {"AcquisitionTime": "100000"}}
    inside = write_series(folder / phases[0], image, echo_ms=4.6, instance_numbers=[6, 4, 2], **options)
    uid = inside.series_uid
    write_series(folder / phases[1], image + 100, echo_ms=2.3, instance_numbers=[5, 3, 1], series_uid=uid, **options)
    if labelled:
        write_label(case / "T1DUAL/Ground", [file.stem + ".png" for file in inside.files])
    return inside


@pytest.fixture
def download(tmp_path: Path) -> Path:
    """One case with a label and one without, as the two archives of the challenge unpack."""
    write_dual(tmp_path / "Train_Sets/MR/10")
    write_dual(tmp_path / "Test_Sets/MR/9", labelled=False)
    return tmp_path


# Layouts


def test_both_archives(download: Path) -> None:
    datalist = chaos_datalist(download)
    train, test = download / "Train_Sets/MR/10/T1DUAL", download / "Test_Sets/MR/9/T1DUAL"
    assert datalist.name == "CHAOS T1DUAL"
    assert datalist.labels == {0: "background", 1: "liver"}
    assert datalist.classes == chaos_classes()
    assert datalist.modality == {0: "T1 in-phase", 1: "T1 out-of-phase"}
    assert datalist.records == [
        {
            "case": "MR-9",
            "image": [str(test / "DICOM_anon/InPhase"), str(test / "DICOM_anon/OutPhase")],
            "patient": "MR-9",
            "split": "training",
        },
        {
            "case": "MR-10",
            "image": [str(train / "DICOM_anon/InPhase"), str(train / "DICOM_anon/OutPhase")],
            "patient": "MR-10",
            "split": "training",
            "label": str(train / "Ground"),
            "quality": "high",
        },
    ]


def test_where_the_root_may_be(download: Path) -> None:
    cases = [record["case"] for record in chaos_datalist(download).records]
    assert cases == ["MR-9", "MR-10"]
    for root in ("Train_Sets", "Train_Sets/MR"):
        assert [record["case"] for record in chaos_datalist(download / root).records] == ["MR-10"]
    for part in ("Train_Sets", "Test_Sets"):  # some unpackers make a folder of the archive's name
        (download / f"CHAOS_{part}").mkdir()
        shutil.move(download / part, download / f"CHAOS_{part}" / part)
    assert [record["case"] for record in chaos_datalist(download).records] == cases


def test_the_datalist_survives_a_file(download: Path) -> None:
    datalist = chaos_datalist(download)
    datalist.save(download / "datalist.json")
    assert Datalist.load(download / "datalist.json").records == sorted(
        datalist.records, key=lambda record: record["case"] != "MR-9"
    )


def test_t2_spir(tmp_path: Path) -> None:
    case = tmp_path / "MR/1/T2SPIR"
    written = write_series(case / "DICOM_anon", np.zeros(SHAPE, "u2"))
    write_label(case / "Ground", [file.stem + ".png" for file in written.files])
    datalist = chaos_datalist(tmp_path, modality="T2SPIR", organs=("spleen", "liver"))
    assert datalist.records[0]["image"] == str(case / "DICOM_anon")
    assert (datalist.labels, datalist.modality) == ({0: "background", 1: "spleen", 2: "liver"}, {0: "T2-SPIR"})


def test_ct(tmp_path: Path) -> None:
    case = tmp_path / "Train_Sets/CT/1"
    names = [f"i{number:04},0000b.dcm" for number in (2, 1, 0)]
    write_series(case / "DICOM_anon", np.full(SHAPE, -1024, "i2"), names=names, modality="CT")
    label = np.where(LABEL == 63, 255, 0).astype("u1")
    write_label(case / "Ground", [f"liver_GT_{number:03}.png" for number in (2, 1, 0)], label)
    datalist = chaos_datalist(tmp_path, modality="CT")
    assert datalist.records[0] == {
        "case": "CT-1",
        "image": str(case / "DICOM_anon"),
        "patient": "CT-1",
        "split": "training",
        "label": str(case / "Ground"),
        "quality": "high",
    }
    assert np.array_equal(load(datalist, chaos_classes("CT"))["label"][0], label == 255)


def load(datalist: Datalist, classes: dict[int, int]) -> dict[str, Any]:
    """The last case through MONAI."""
    transform = Compose(
        [
            LoadImaged("image", reader=DicomSeriesReader, ensure_channel_first=True),
            LoadImaged("label", reader=PNGStackReader, ensure_channel_first=True),
            AsClassIndicesd("label", classes=classes, image_key="image"),
        ]
    )
    return transform(datalist.records[-1])


# The two phases


def test_phases_and_label_through_monai(download: Path) -> None:
    datalist = chaos_datalist(download, organs=("spleen", "liver"))
    loaded = load(datalist, chaos_classes(organs=("spleen", "liver")))
    image = np.arange(np.prod(SHAPE)).reshape(SHAPE)
    assert np.array_equal(loaded["image"], np.stack([image, image + 100]))
    assert np.array_equal(loaded["label"][0], np.where(LABEL == 252, 1, np.where(LABEL == 63, 2, 0)))


def test_echo_times_count_not_the_names_of_folders(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_dual(tmp_path / "MR/1", phases=("OutPhase", "InPhase"))
    image = chaos_datalist(tmp_path).records[0]["image"]
    assert [Path(path).name for path in image] == ["OutPhase", "InPhase"]  # in phase is what has the longer echo time
    assert "the folders are named the wrong way round" in caplog.text


def test_both_phases_in_one_folder(tmp_path: Path) -> None:
    write_dual(tmp_path / "MR/1", phases=("", ""))
    datalist = chaos_datalist(tmp_path)
    folder = tmp_path / "MR/1/T1DUAL/DICOM_anon"
    assert datalist.records[0]["image"] == [f"{folder}#echo=4.6", f"{folder}#echo=2.3"]
    assert load(datalist, chaos_classes())["image"][:, 0, 0, 0].tolist() == [0, 100]


@pytest.mark.parametrize(
    ("echoes", "message"),
    [
        ((4.6, 4.4), "found echo times of 4.6 and 4.4 ms; expected the one in phase to be twice the other"),
        ((9.2, 2.3), "found echo times of 9.2 and 2.3 ms"),
        ((4.6, 4.6), "found echo times of 4.6 and 4.6 ms; expected the one in phase to be twice the other"),
        ((None, None), "expected two with their echo times"),
    ],
)
def test_echo_times_that_are_no_pair(tmp_path: Path, echoes: tuple[float | None, float | None], message: str) -> None:
    write_dual(tmp_path / "MR/1")
    for phase, echo in zip(("InPhase", "OutPhase"), echoes, strict=True):
        for file in (tmp_path / "MR/1/T1DUAL/DICOM_anon" / phase).iterdir():
            edit(file, EchoTime=None if echo is None else str(echo))
    with pytest.raises(InputError, match=re.escape(message)):
        chaos_datalist(tmp_path)


def test_phases_that_lie_apart(tmp_path: Path) -> None:
    write_dual(tmp_path / "MR/1")
    out = sorted((tmp_path / "MR/1/T1DUAL/DICOM_anon/OutPhase").iterdir())
    for file, z in zip(out, (13, 7, 1), strict=True):
        edit(file, ImagePositionPatient=["0", "0", str(z)])
    with pytest.raises(InputError, match="found two phases 1 mm apart; expected one place"):
        chaos_datalist(tmp_path)
    out[0].unlink()
    with pytest.raises(InputError, match="found shape 5 x 6 x 3 in phase and shape 5 x 6 x 2 out of phase"):
        chaos_datalist(tmp_path)


# Labels


def test_values_near_those_of_an_organ_count() -> None:
    classes = chaos_classes(organs=tuple(MR_VALUES))
    for organ, index in zip(MR_VALUES, (1, 2, 3, 4), strict=True):
        value = MR_VALUES[organ]
        assert [classes.get(value + step) for step in (-9, -8, 0, 8, 9)] == [None, index, index, index, None]
    assert (classes[0], classes[8], classes.get(9)) == (0, 0, None)
    assert {value for value, index in chaos_classes(organs=("left kidney",)).items() if index} == {*range(181, 198)}
    assert {value for value, index in chaos_classes("CT").items() if index} == {*range(247, 264)}


def test_other_values_are_refused_by_name(download: Path) -> None:
    file = download / "Train_Sets/MR/10/T1DUAL/Ground/IMG-00004.png"
    pixels = np.array(Image.open(file))
    pixels[0, :3] = [55, 71, 100]
    Image.fromarray(pixels).save(file)
    text = f"{file}: found label value 100; expected 0 to 8, 55 to 71, 118 to 134, 181 to 197, 244 to 260; correct the"
    with pytest.raises(InputError, match=re.escape(text)):
        chaos_datalist(download)


def test_a_missing_label_slice_is_named(download: Path) -> None:
    (download / "Train_Sets/MR/10/T1DUAL/Ground/IMG-00004.png").unlink()
    with pytest.raises(InputError, match=r"without a DICOM slice in .*: none; without a PNG: IMG-00004; add or remove"):
        chaos_datalist(download)


def test_labels_of_another_size(download: Path) -> None:
    ground = download / "Train_Sets/MR/10/T1DUAL/Ground"
    for file in ground.iterdir():
        Image.new("L", (6, 6)).save(file)
    with pytest.raises(InputError, match="found labels of 6 x 6 x 3 voxels; expected 5 x 6 x 3 as the images"):
        chaos_datalist(download)
    shutil.rmtree(ground)
    ground.mkdir()
    with pytest.raises(InputError, match="Ground: found no PNG files; expected one per slice; remove the folder if"):
        chaos_datalist(download)


# All problems in one report


def test_the_problems_of_all_cases_are_told_at_once(download: Path) -> None:
    mr = download / "Train_Sets/MR"
    (mr / "1/T1DUAL").mkdir(parents=True)
    write_dual(mr / "2")
    (mr / "2/T1DUAL/DICOM_anon/InPhase/IMG-00004.dcm").unlink()
    write_dual(mr / "3")
    (mr / "3/T1DUAL/DICOM_anon/OutPhase/IMG-00003.dcm").write_bytes(b"cut")
    write_dual(mr / "5")
    (mr / "5/T1DUAL/Ground/IMG-00002.png").write_bytes(b"cut")
    shutil.rmtree(mr / "5/T1DUAL/DICOM_anon/OutPhase")
    write_dual(mr / "9")
    with pytest.raises(InputError) as caught:
        chaos_datalist(download)
    lines = str(caught.value).splitlines()
    assert lines[0].startswith(f"{download}: CHAOS cannot be used: ")
    assert [line for line in lines if f"{mr}/10/" in line] == []
    for pattern in (
        f"{mr}/1/T1DUAL: found no folder DICOM_anon; expected the images of case 1 in it",
        f"{mr}/2/T1DUAL/DICOM_anon: found shape 5 x 6 x 2 in phase and shape 5 x 6 x 3 out of phase",
        f"{mr}/3/T1DUAL/DICOM_anon/OutPhase/IMG-00003.dcm: found no DICOM file",
        f"{mr}/5/T1DUAL/DICOM_anon: found 1 volumes (MR, 5 x 6 x 3 voxels of 2 x 2 x 6 mm, echo 4.6 ms); expected two",
        f"{mr}/5/T1DUAL/Ground/IMG-00002.png: found no readable PNG",
        f'case "9": found {mr}/9/T1DUAL and {download}/Test_Sets/MR/9/T1DUAL; expected one; remove the other',
    ):
        assert any(pattern in line for line in lines), pattern


def test_faulty_stacks_are_reported_with_their_files(tmp_path: Path) -> None:
    folder = tmp_path / "MR/1/T2SPIR/DICOM_anon"
    written = write_series(folder, np.zeros((5, 6, 5), "u2"))
    written.files[2].unlink()
    with pytest.raises(
        InputError, match=re.escape(f"{written.files[1]} and {written.files[3]}: found 2 mm between them")
    ):
        chaos_datalist(tmp_path, modality="T2SPIR")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modality": "T1"}, 'modality "T1": expected one of T1DUAL, T2SPIR, CT'),
        ({"organs": ("heart",)}, "organs heart: expected some of liver, right kidney, left kidney, spleen, each once"),
        ({"organs": ("liver", "liver")}, "organs liver, liver: expected some of"),
        ({"organs": ()}, "organs : expected some of"),
        ({"modality": "CT", "organs": ("spleen",)}, "organs spleen: expected some of liver, each once"),
        ({"modality": "CT", "paper_split": True}, "paper_split: the paper has MR cases only"),
        ({"modality": "T2SPIR"}, "found no T2SPIR cases; expected the download of CHAOS: Train_Sets/MR/<case>/T1DUAL"),
        ({"modality": "CT"}, "found no CT cases; expected the download of CHAOS"),
    ],
)
def test_arguments(download: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        chaos_datalist(download, **options)


def test_a_root_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="missing: found no such folder; expected the download of CHAOS"):
        chaos_datalist(tmp_path / "missing")


def test_links_that_leave_the_data_set(download: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside")
    shutil.move(download / "Train_Sets/MR/10", outside / "10")
    (download / "Train_Sets/MR/10").symlink_to(outside / "10")
    with pytest.raises(InputError, match=f"leads to {outside}/10/T1DUAL/DICOM_anon, outside {download}"):
        chaos_datalist(download)
    assert len(chaos_datalist(download, roots=[outside]).records) == 2


# The paper's split


def test_the_lists_of_the_authors() -> None:
    """design/algorithm.md: 30 training cases with case 37 among them, 10 test cases, all 40 patients."""
    assert (len(PAPER_TRAINING), len(PAPER_TEST)) == (30, 10)
    assert sorted(PAPER_TRAINING + PAPER_TEST) == list(range(1, 41))
    assert PAPER_LABELED in PAPER_TRAINING
    assert not set(PAPER_TEST) & set(TEST_SETS)  # only cases with public labels can be tested on


def test_the_split_of_the_paper(tmp_path: Path) -> None:
    template = tmp_path / "template" / "case"
    write_dual(template)
    for number in range(1, 41):
        part = "Test_Sets" if number in TEST_SETS else "Train_Sets"
        shutil.copytree(template, tmp_path / part / "MR" / str(number))
        if number in TEST_SETS:
            shutil.rmtree(tmp_path / part / "MR" / str(number) / "T1DUAL/Ground")
    datalist = chaos_datalist(tmp_path, paper_split=True)
    training, test = datalist.split("training"), datalist.split("test")
    assert {record["case"] for record in test} == {f"MR-{number}" for number in PAPER_TEST}
    assert all("label" in record and record["quality"] == "high" for record in test)
    assert [record["case"] for record in training if "label" in record] == ["MR-37"]
    kinds = Counter("clean" if "clean_label" in record else "label" in record for record in training)
    assert kinds == {"clean": 9, True: 1, False: 20}
    assert not any("quality" in record for record in training if "label" not in record)


def test_the_split_of_the_paper_with_cases_missing(download: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    with pytest.raises(InputError, match="no case 37, the paper's only labelled one"):
        chaos_datalist(download, paper_split=True)
    write_dual(download / "Train_Sets/MR/37", labelled=False)
    with pytest.raises(InputError, match='case "37": found no label'):
        chaos_datalist(download, paper_split=True)
    shutil.rmtree(download / "Train_Sets/MR/37")
    write_dual(download / "Train_Sets/MR/37")
    assert [record["split"] for record in chaos_datalist(download, paper_split=True).records] == [
        "training",
        "test",
        "training",
    ]
    assert "37 of the paper's 40 cases are missing: 1, 2, 3, " in caplog.text
    write_dual(download / "Train_Sets/MR/41")
    with pytest.raises(InputError, match='case "41": found a case of none of the paper\'s lists'):
        chaos_datalist(download, paper_split=True)


# Real scans


@pytest.mark.parametrize("root", ["", "Train_Sets", "Train_Sets/MR"])
def test_real_cases(aide_data: Path, root: str) -> None:
    datalist = chaos_datalist(aide_data / "chaos" / root, organs=tuple(MR_VALUES))
    assert [record["case"] for record in datalist.records] == ["MR-10", "MR-37"]
    assert all([Path(path).name for path in record["image"]] == ["InPhase", "OutPhase"] for record in datalist.records)


def test_real_cases_through_monai(aide_data: Path) -> None:
    loaded = load(chaos_datalist(aide_data / "chaos", paper_split=True), chaos_classes())
    assert loaded["case"] == "MR-37"
    assert loaded["image"].shape == (2, 256, 256, 30)
    assert int(loaded["label"].sum()) == 80746
