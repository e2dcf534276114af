"""Breast DCE-MR: phases by time in every layout, labels of volumes and of central slices, centres and splits."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from monai.transforms import Compose, LoadImaged

from aide_monai.data.sources.breast_dce import breast_datalist
from aide_monai.errors import InputError
from aide_monai.io.readers import DicomSeriesReader, VolumeReader
from aide_monai.transforms import AsClassIndicesd, ByVotesd
from aide_monai.transforms.subtraction import SubtractPhasesd
from tests.io.dicom.dicom_files import write_series

from .breast_files import (
    AFFINE,
    TIMES_S,
    one_slice,
    uptake,
    write_central_study,
    write_centres,
    write_dicom_study,
    write_nifti,
    write_phase_files,
    write_study,
)


def load(record: dict[str, Any], *, subtract: bool = False) -> dict[str, np.ndarray]:
    steps: list[Any] = [
        LoadImaged(["image", "label"], reader=[DicomSeriesReader, VolumeReader], ensure_channel_first=True),
        ByVotesd("label"),
        AsClassIndicesd("label", image_key="image"),
    ]
    return Compose([*steps, SubtractPhasesd("image")] if subtract else steps)(record)


def only(root: Path, **options: Any) -> dict[str, Any]:
    return breast_datalist(root, centre="HPPH", **options).records[0]


def require_phases(record: dict[str, Any], seed: int, times_s: tuple[float, ...]) -> None:
    """The record reads as the phases of these times, and its label as the tumour."""
    loaded = load(record)
    phases, label = uptake(seed, times_s)
    assert np.array_equal(loaded["image"], phases)
    assert np.array_equal(loaded["label"][0], label)


def test_a_study_with_times_in_a_json_file(tmp_path: Path) -> None:
    write_study(tmp_path / "HPPH/P001", 1)
    datalist = breast_datalist(tmp_path)
    folder = tmp_path / "HPPH/P001"
    assert datalist.records == [
        {
            "case": "HPPH_P001",
            "image": [str(folder / "c.nii.gz"), str(folder / "b.nii.gz")],
            "label": str(folder / "label.nii.gz"),
            "quality": "high",
            "patient": "HPPH_P001",
            "domain": "HPPH",
            "split": "training",
        }
    ]
    assert datalist.labels == {0: "background", 1: "tumour"}
    assert datalist.modality == {0: "before contrast", 1: "phase 1 after contrast"}
    require_phases(datalist.records[0], 1, (0, 90))


@pytest.mark.parametrize(
    ("names", "times_s"),
    [
        (("dce_t0s.nii.gz", "dce_t90s.nii.gz", "dce_t180s.nii.gz"), TIMES_S),
        (("x-t=-20.5s.nii", "a_t7s_b.nii", "t100s.nii"), (-20.5, 7, 100)),
    ],
)
def test_times_in_the_names(tmp_path: Path, names: tuple[str, ...], times_s: tuple[float, ...]) -> None:
    """By number, not by letter: t90s comes before t180s."""
    write_phase_files(tmp_path / "P1", 2, names=names, times_s=times_s)
    write_nifti(tmp_path / "P1/P1_label.nii", uptake(2)[1])
    require_phases(only(tmp_path, phases=(0, 1, 2)), 2, times_s)


@pytest.mark.parametrize(
    ("clock", "times_s"),
    [
        (("13:45:30", "13:47:00.5", "134830"), (0, 90.5, 180)),
        (("23:59:00", "00:00:30", "00:02:00"), (0, 90, 180)),  # past midnight
    ],
)
def test_times_in_side_files(tmp_path: Path, clock: tuple[str, ...], times_s: tuple[float, ...]) -> None:
    names = ("late", "mid", "early")
    write_phase_files(tmp_path / "P1", 2, names=[f"{name}.nii.gz" for name in names], times_s=times_s)
    for name, time in zip(names, clock, strict=True):
        (tmp_path / f"P1/{name}.json").write_text(json.dumps({"AcquisitionTime": time}))
    write_nifti(tmp_path / "P1/label.nii.gz", uptake(2)[1])
    record = only(tmp_path, phases=(0, 1, -1))
    assert [Path(path).name for path in record["image"]] == ["late.nii.gz", "mid.nii.gz", "early.nii.gz"]
    require_phases(record, 2, times_s)


@pytest.mark.parametrize("where", ["phases.json", "dce.json"])
def test_one_file_of_four_axes(tmp_path: Path, where: str) -> None:
    """The file has the last phase first."""
    phases, label = uptake(3)
    write_nifti(tmp_path / "P1/dce.nii.gz", np.stack(phases[::-1], axis=-1))
    times = list(TIMES_S[::-1])
    content = {"dce.nii.gz": times} if where == "phases.json" else {"VolumeTiming": times, "RepetitionTime": 4}
    (tmp_path / "P1" / where).write_text(json.dumps(content))
    write_nifti(tmp_path / "P1/label.nii.gz", label)
    record = only(tmp_path, phases=(0, 1))
    assert record["image"] == [f"{tmp_path}/P1/dce.nii.gz#channel=2", f"{tmp_path}/P1/dce.nii.gz#channel=1"]
    require_phases(record, 3, (0, 90))


def test_files_of_four_axes_in_the_centres_folder(tmp_path: Path) -> None:
    for seed, patient in enumerate(("P1", "P2")):
        phases, label = uptake(seed)
        write_nifti(tmp_path / f"GPPH/{patient}.nii.gz", np.stack(phases, axis=-1))
        (tmp_path / f"GPPH/{patient}.json").write_text(json.dumps({"VolumeTiming": list(TIMES_S)}))
        write_nifti(tmp_path / f"GPPH/{patient}_label.nii.gz", label)
    datalist = breast_datalist(tmp_path)
    assert [record["case"] for record in datalist.records] == ["GPPH_P1", "GPPH_P2"]
    require_phases(datalist.records[1], 1, (0, 90))


@pytest.mark.parametrize("one_series", [False, True])
@pytest.mark.parametrize("start", ["134500", "235830"])
def test_dicom_series_by_their_time(tmp_path: Path, one_series: bool, start: str) -> None:
    write_dicom_study(tmp_path / "P1", 4, one_series=one_series, start=start)
    write_nifti(tmp_path / "P1/label.nii.gz", uptake(4)[1])
    require_phases(only(tmp_path, phases=(0, 1, 2)), 4, TIMES_S)


def test_dicom_phases_by_temporal_position(tmp_path: Path) -> None:
    write_dicom_study(tmp_path / "P1", 4, one_series=True, clock=False, temporal_position=True)
    write_nifti(tmp_path / "P1_label.nii.gz", uptake(4)[1])
    require_phases(only(tmp_path, phases=(0, -1)), 4, (0, 180))
    with pytest.raises(InputError, match="P1: found phases without times; choose them by phases"):
        only(tmp_path, times_s=(0, 90))


def test_other_dicom_volumes_beside_the_phases(tmp_path: Path) -> None:
    """A localiser on another grid, and a subtraction that the scanner made."""
    phases = write_dicom_study(tmp_path / "P1", 4)
    spacing, position = (0.8, 0.8, 2.5), (-10, -20, 30)
    write_series(tmp_path / "P1/localizer", phases[0][::2, ::2], spacing=(1.6, 1.6, 2.5))
    write_series(
        tmp_path / "P1/sub",
        phases[2] - phases[0],
        spacing=spacing,
        position=position,
        image_type=("DERIVED", "PRIMARY", "SUBTRACT"),
        tags={"AcquisitionTime": "100000"},
    )
    write_nifti(tmp_path / "P1/label.nii.gz", uptake(4)[1])
    record = only(tmp_path, phases=(0, 1, 2))
    assert record["image"] == [str(tmp_path / f"P1/series_{9 - number}") for number in range(3)]
    require_phases(record, 4, TIMES_S)


def test_dicom_phases_that_nothing_tells_apart(tmp_path: Path) -> None:
    write_dicom_study(tmp_path / "P1", 4, clock=False)
    write_nifti(tmp_path / "P1/label.nii.gz", uptake(4)[1])
    with pytest.raises(InputError, match="P1: found phases without a time of acquisition of their own; expected Acqu"):
        only(tmp_path)
    write_dicom_study(tmp_path / "P2", 5, times_s=(0,))
    shutil.rmtree(tmp_path / "P1")
    with pytest.raises(InputError, match=r"P2: found 1 volumes, which are not several phases on one grid"):
        only(tmp_path, keep_unlabeled=True)


def test_phases_by_number_and_by_time(tmp_path: Path) -> None:
    write_study(tmp_path / "P1", 1)
    assert Path(only(tmp_path, phases=(-1,))["image"]).name == "a.nii.gz"
    assert [Path(path).name for path in only(tmp_path, times_s=(0, 200))["image"]] == ["c.nii.gz", "a.nii.gz"]
    assert breast_datalist(tmp_path, centre="HPPH", times_s=(0, 200)).modality == {0: "0 s", 1: "200 s"}
    for options, message in (
        ({"phases": (0, 3)}, r"P1: found 3 phases; expected a phase 3 \(0 is the first\)"),
        ({"phases": (2, -1)}, "P1: found 3 phases, of which one stands for two of those asked for"),
        ({"times_s": (80, 100)}, "P1: found 3 phases, of which one stands for two"),
        ({"times_s": (0, 250)}, "P1: found phases at 0, 90, 180 s; expected one within 60 s of 250 s"),
        ({"phases": ()}, r"phases=\(\), times_s=None: expected at least one phase"),
        ({"phases": (0, 0)}, r"phases=\(0, 0\), times_s=None: expected at least one phase, each once"),
        ({"centre": "XYZ"}, 'centre="XYZ": expected one of GGH, GPPH, HPPH'),
    ):
        with pytest.raises(InputError, match=message):
            breast_datalist(tmp_path, **{"centre": "HPPH", **options})


def test_subtraction_images_become_channels(tmp_path: Path) -> None:
    write_study(tmp_path / "P1", 1)
    loaded = load(only(tmp_path, phases=(0, 2)), subtract=True)
    phases, label = uptake(1)
    assert loaded["image"].shape[0] == 3
    assert np.array_equal(loaded["image"][2], phases[2].astype(int) - phases[0])
    assert np.array_equal(loaded["image"][2] > 0, label > 0)


@pytest.mark.parametrize("stored", ["whole volume", "slice alone", "mirrored"])
def test_a_label_of_the_central_slice_alone(tmp_path: Path, stored: str) -> None:
    """The record is that slice: of the other slices nobody knows what they show."""
    write_central_study(tmp_path / "GGH/P1", 5, index=3)
    label = tmp_path / "GGH/P1/label.nii.gz"
    tumour = uptake(5)[1]
    affine = AFFINE.copy()
    if stored == "slice alone":
        affine[2, 3] += 3 * 2.5
        write_nifti(label, tumour[:, :, 3:4], affine)
    if stored == "mirrored":
        affine[:3, 3] += AFFINE[:3, 2] * 5 + AFFINE[:3, 1] * 17
        affine[:, [1, 2]] *= -1
        write_nifti(label, one_slice(tumour, 3)[:, ::-1, ::-1], affine)
    record = breast_datalist(tmp_path).records[0]
    folder = tmp_path / "GGH/P1"
    assert record["image"] == [f"{folder}/c.nii.gz#z=3", f"{folder}/b.nii.gz#z=3"]
    fragment = {"whole volume": "#z=3", "slice alone": "", "mirrored": "#z=2"}[stored]
    assert record["label"] == f"{label}{fragment}"
    loaded = load(record)
    assert np.array_equal(loaded["image"], [phase[:, :, 3:4] for phase in uptake(5)[0][:2]])
    assert np.array_equal(loaded["label"][0], tumour[:, :, 3:4])
    assert loaded["image"].affine[2, 3] == 30 + 3 * 2.5


def test_a_central_slice_of_dicom_phases(tmp_path: Path) -> None:
    write_dicom_study(tmp_path / "GGH/P1", 5)
    tumour = uptake(5)[1]
    write_nifti(tmp_path / "GGH/P1/label.nii.gz", one_slice(tumour, 3))
    record = breast_datalist(tmp_path).records[0]
    assert record["image"] == [str(tmp_path / f"GGH/P1/series_{n}/{n}_003.dcm") for n in (9, 8)]
    loaded = load(record)
    assert np.array_equal(loaded["image"], [phase[:, :, 3:4] for phase in uptake(5)[0][:2]])
    assert np.array_equal(loaded["label"][0], tumour[:, :, 3:4])


def test_central_slices_that_are_none(tmp_path: Path) -> None:
    write_central_study(tmp_path / "P1", 5)
    label, tumour = tmp_path / "P1/label.nii.gz", uptake(5)[1]
    between, outside, tilted = AFFINE.copy(), AFFINE.copy(), AFFINE.copy()
    between[2, 3] += 3.4 * 2.5
    outside[2, 3] += 9 * 2.5
    angle = np.radians(5)
    tilted[:3, 1:3] = tilted[:3, 1:3] @ [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]
    tilted[:3, 3] = (AFFINE @ [9.5, 8.5, 3, 1])[:3] - tilted[:3, :2] @ [9.5, 8.5]  # its middle lies in slice 3
    for voxels, affine, message in (
        (tumour, AFFINE, r"found marks in \d slices; expected one slice, the central one"),
        (tumour[:, :, :1] + 1, between, r"found a slice that lies between or across .* \(at 3.4 along z\)"),
        (tumour[:, :, :1] + 1, outside, "found slice z=9; expected one of the 6 slices of the image"),
        (tumour[:, :, :1] + 1, tilted, "found a slice that lies between or across"),
        (tumour[:, :, 0], AFFINE, r"found shape 20 x 18; expected \(x, y, z\), so that its slices have a place"),
        (one_slice(tumour, 3) * 0, AFFINE, "found no marked voxels; expected a tumour"),
        (one_slice(tumour, 3) * 255, AFFINE, "found the values 255; expected a mask of 0 and 1"),
    ):
        write_nifti(label, voxels.clip(0, 255).astype(np.uint8), affine)
        with pytest.raises(InputError, match=f"label.nii.gz: {message}"):
            breast_datalist(tmp_path, centre="GGH")
    write_nifti(label, tumour)
    assert len(breast_datalist(tmp_path, centre="GGH", central=()).records) == 1


def test_every_fault_of_every_study_is_told_at_once(tmp_path: Path) -> None:
    root = tmp_path / "HPPH"
    for number in range(1, 13):
        write_study(root / f"P{number:02d}", number)
    (root / "P01/label.nii.gz").unlink()
    write_nifti(root / "P02/P02_label.nii.gz", uptake(2)[1])
    (root / "P03/phases.json").unlink()
    (root / "P04/phases.json").write_text('{"a.nii.gz": 0, "b.nii.gz": "1"}')
    (root / "P05/phases.json").write_text('{"a.nii.gz": 0, "b.nii.gz": 90, "c.nii.gz": 90}')
    write_nifti(root / "P06/b.nii.gz", uptake(6)[0][1][:, :, :5])
    write_nifti(root / "P07/b.nii.gz", uptake(7)[0][1], AFFINE * 2)
    (root / "P08/a.nii.gz").write_bytes(b"nothing")
    for name in "ab":
        (root / f"P09/{name}.nii.gz").unlink()
    shifted = AFFINE.copy()
    shifted[0, 3] += 500
    write_nifti(root / "P10/label.nii.gz", uptake(10)[1], shifted)
    write_nifti(root / "P11/a.nii.gz", np.stack(uptake(11)[0], axis=-1))
    shutil.rmtree(root / "P12")
    write_nifti(root / "P12_label.nii.gz", uptake(12)[1])
    marked = int(uptake(10)[1].sum())
    with pytest.raises(InputError) as caught:
        breast_datalist(tmp_path)
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{tmp_path}: the breast studies cannot be used: 12 problems"
    for line, part in zip(
        lines[1:],
        (
            f"{root}/P01: found no label.nii.gz; add it, or set keep_unlabeled (--keep-unlabeled; of a bundle "
            "--source#keep_unlabeled true)",
            f"{root}/P02: found the labels P02_label.nii.gz, label.nii.gz; expected one",
            f"{root}/P03: found no time of acquisition of a.nii.gz, b.nii.gz, c.nii.gz; write phases.json: {{FILE",
            f'{root}/P04/phases.json: found {{"a.nii.gz": 0, "b.nii.gz": "1"}}; expected a number of seconds for each',
            f"{root}/P05/b.nii.gz and c.nii.gz: found the same time, 90 s; expected a time of its own",
            f"{root}/P06/b.nii.gz: found shape 20 x 18 x 5; expected shape 20 x 18 x 6 as in a.nii.gz",
            f"{root}/P07/b.nii.gz: found affine [-1.6 0 0 20;",
            f"{root}/P08/a.nii.gz: found a header that cannot be read",
            f"{root}/P09/c.nii.gz: found shape 20 x 18 x 6; expected a file per phase, or one of four axes",
            f"{root}/P10/label.nii.gz: found {marked} of {marked} label voxels outside of the image of P10, up to",
            f"{root}/P11/a.nii.gz: found shape 20 x 18 x 6 x 3; expected one phase beside others",
            f"{root}/P12_label.nii.gz: found no images of P12; add them, or remove the label",
        ),
        strict=True,
    ):
        assert line.startswith(f"  - {part}")


@pytest.mark.parametrize(
    ("times", "message"),
    [
        (
            None,
            r"dce\.nii\.gz: found no times of its 3 phases; write phases\.json: \{\"dce\.nii\.gz\": \[seconds",
        ),
        ({"dce.nii.gz": [0, 1]}, r'"dce\.nii\.gz": \[0, 1\]; expected 3 times in seconds, one per phase'),
        ({"dce.nii.gz": [0, 1, None]}, "expected 3 times in seconds"),
        ({"other.nii.gz": [0, 1, 2]}, '"dce.nii.gz": null; expected 3 times'),
        ({"dce.nii.gz": [0, 1, 1]}, "found the same time, 1 s"),
    ],
)
def test_times_of_a_4d_file_that_do_not_fit(tmp_path: Path, times: Any, message: str) -> None:
    phases, label = uptake(3)
    write_nifti(tmp_path / "P1/dce.nii.gz", np.stack(phases, axis=-1))
    write_nifti(tmp_path / "P1/label.nii.gz", label)
    if times is not None:
        (tmp_path / "P1/phases.json").write_text(json.dumps(times))
    with pytest.raises(InputError, match=message):
        only(tmp_path)


def test_unreadable_clock_times(tmp_path: Path) -> None:
    names = ("a", "b")
    write_phase_files(tmp_path / "P1", 2, names=[f"{name}.nii.gz" for name in names], times_s=(0, 1))
    for name in names:
        (tmp_path / f"P1/{name}.json").write_text('{"AcquisitionTime": "noon"}')
    with pytest.raises(
        InputError, match=r'a\.json: found "AcquisitionTime": "noon"; expected text such as "13:45:30\.25"'
    ):
        only(tmp_path, keep_unlabeled=True)


def test_studies_without_a_label_on_demand(tmp_path: Path) -> None:
    write_study(tmp_path / "P1", 1)
    write_study(tmp_path / "P2", 2, label=False)
    write_study(tmp_path / "P3", 3)
    datalist = breast_datalist(tmp_path, centre="HPPH", keep_unlabeled=True, test=1)
    assert "label" not in datalist.records[1]
    assert "quality" not in datalist.records[1]
    assert sorted(record["split"] for record in datalist.records) == ["test", "training", "training"]
    assert datalist.records[1]["split"] == "training"


def test_each_centre_is_a_domain_with_test_cases_of_its_own(tmp_path: Path) -> None:
    write_centres(tmp_path, {"GGH": 4, "GPPH": 5, "HPPH": 3})
    datalist = breast_datalist(tmp_path, test=2, seed=1)
    assert Counter((record["domain"], record["split"]) for record in datalist.records) == {
        ("GGH", "test"): 2,
        ("GGH", "training"): 2,
        ("GPPH", "test"): 2,
        ("GPPH", "training"): 3,
        ("HPPH", "test"): 2,
        ("HPPH", "training"): 1,
    }
    assert datalist == breast_datalist(tmp_path, test=2, seed=1)
    assert datalist != breast_datalist(tmp_path, test=2, seed=2)
    one = breast_datalist(tmp_path, centre="GPPH", test=2, seed=1)
    assert one.records == [record for record in datalist.records if record["domain"] == "GPPH"]
    with pytest.raises(InputError, match="Breast DCE-MR HPPH: found test=3 of 3 cases; expected 1 to 2"):
        breast_datalist(tmp_path, test=3)


def test_the_papers_hold_out(tmp_path: Path) -> None:
    write_centres(tmp_path, {"GPPH": 103})
    datalist = breast_datalist(tmp_path, test=100, check_content=False)
    assert (len(datalist.split("training")), len(datalist.split("test"))) == (3, 100)


def test_one_scan_in_two_centres_is_a_leak(tmp_path: Path) -> None:
    write_centres(tmp_path, {"GPPH": 2})
    write_study(tmp_path / "HPPH/Q1", 0)
    with pytest.raises(InputError) as caught:
        breast_datalist(tmp_path)
    assert str(caught.value).splitlines() == [
        f"{tmp_path}: the breast studies cannot be used together: 1 problem",
        "  - cases GPPH_P001 and HPPH_Q1: found one scan (likeness 1.0000) in domain GPPH and HPPH: a leak; remove one "
        "of the two",
    ]
    assert len(breast_datalist(tmp_path, check_content=False).records) == 3


def test_one_patient_twice(tmp_path: Path) -> None:
    write_study(tmp_path / "P1", 1)
    write_nifti(tmp_path / "P1.nii.gz", np.stack(uptake(2)[0], axis=-1))
    (tmp_path / "P1.json").write_text(json.dumps({"VolumeTiming": list(TIMES_S)}))
    with pytest.raises(InputError, match='case "HPPH_P1": found two studies of this name; leave one of them'):
        only(tmp_path, keep_unlabeled=True)


def test_nothing_may_lead_out_of_the_folder(tmp_path: Path) -> None:
    write_study(tmp_path / "elsewhere/P1", 1)
    root = tmp_path / "set"
    write_study(root / "HPPH/P2", 2)
    (root / "HPPH/P1").symlink_to(tmp_path / "elsewhere/P1")
    with pytest.raises(InputError, match=rf"HPPH/P1: found a link to {tmp_path}/elsewhere/P1, outside {root}/HPPH"):
        breast_datalist(root)


def test_nothing_to_find(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder; expected breast DCE-MR studies: CENTRE/PATIENT/"):
        breast_datalist(tmp_path / "none")
    with pytest.raises(InputError, match=r"no folder GGH, GPPH, HPPH; expected CENTRE/PATIENT/.*; or name the centre"):
        breast_datalist(tmp_path)
    with pytest.raises(InputError, match=f"{tmp_path}: found no studies; expected"):
        breast_datalist(tmp_path, centre="GGH")


def test_labels_on_the_other_side_are_brought_onto_the_image(tmp_path: Path) -> None:
    """A converter that flips an axis changes the file, not the place."""
    write_study(tmp_path / "P1", 1)
    affine = AFFINE.copy()
    affine[:3, 3] += AFFINE[:3, 1] * 17
    affine[:, 1] *= -1
    write_nifti(tmp_path / "P1/label.nii.gz", uptake(1)[1][:, ::-1], affine)
    require_phases(only(tmp_path), 1, (0, 90))
    assert nibabel.load(tmp_path / "P1/label.nii.gz").affine[1, 1] > 0


def test_broken_files_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "P1"
    folder.mkdir()
    (folder / "dce.nii.gz").write_bytes(b"nothing")
    with pytest.raises(
        InputError, match=r"dce\.nii\.gz: found a header that cannot be read.*; expected the phases of a"
    ):
        only(tmp_path)
    (folder / "dce.nii.gz").unlink()
    (folder / "dce.mhd").write_text("NDims = 4\nElementDataFile = /etc/passwd\n")
    with pytest.raises(InputError, match=rf'dce\.mhd: found voxels in "/etc/passwd", outside {tmp_path}'):
        only(tmp_path)
    (folder / "dce.mhd").unlink()
    write_study(folder, 1)
    (folder / "label.nii.gz").write_bytes(b"nothing")
    with pytest.raises(
        InputError, match=r"label\.nii\.gz: found a header that cannot be read.*; expected the label of"
    ):
        only(tmp_path)
    (folder / "label.nii.gz").unlink()
    (folder / "label.mhd").write_text("ElementDataFile = ../../secret.raw\n")
    with pytest.raises(InputError, match=r'label\.mhd: found voxels in "\.\./\.\./secret\.raw", outside'):
        only(tmp_path)


def test_several_files_beside_each_other_need_a_folder(tmp_path: Path) -> None:
    for name in ("P1.nii.gz", "P1.nii"):
        write_nifti(tmp_path / name, np.stack(uptake(1)[0], axis=-1))
    with pytest.raises(InputError, match=r"P1\.nii: found 2 files of P1; put them into a folder"):
        only(tmp_path, keep_unlabeled=True)


def test_a_dicom_phase_that_lacks_a_slice(tmp_path: Path) -> None:
    write_dicom_study(tmp_path / "P1", 4)
    for number in range(7, 10):
        (tmp_path / f"P1/series_{number}/{number}_002.dcm").unlink()
    with pytest.raises(InputError) as caught:
        only(tmp_path, keep_unlabeled=True)
    assert str(caught.value).count("1 slice is missing") == 3


def test_a_central_slice_across_the_dicom_slices(tmp_path: Path) -> None:
    write_dicom_study(tmp_path / "P1", 5)
    sagittal = np.zeros_like(uptake(5)[1])
    sagittal[10] = uptake(5)[1][10]
    write_nifti(tmp_path / "P1/label.nii.gz", sagittal)
    with pytest.raises(
        InputError, match="P1: found DICOM files of other slices; expected a file for each slice, cut as the label"
    ):
        breast_datalist(tmp_path, centre="GGH")
