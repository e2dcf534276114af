"""Every problem of a data set is found, named, and told with the others."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from aide_monai.data.checks.datalist import Problem, check_datalist, require_valid
from aide_monai.data.datalist import Datalist
from aide_monai.data.sources import find_datalist
from aide_monai.errors import InputError
from aide_monai.utils.workers import Ahead

SHAPE = (6, 5, 4)
AFFINE = np.diag([2.0, 2.0, 3.0, 1.0])


class Folder:
    """Writes volumes and describes them as cases."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.random = np.random.default_rng(0)

    def nifti(self, name: str, voxels: np.ndarray, affine: np.ndarray = AFFINE) -> str:
        nibabel.save(nibabel.Nifti1Image(voxels, affine), self.path / name)
        return str(self.path / name)

    def noise(self, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
        return self.random.normal(100, 20, shape).astype(np.float32)

    def mask(self, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
        mask = np.zeros(shape, dtype=np.uint8)
        mask[1:3, 1:3, 1:3] = 1
        return mask

    def case(self, name: str, **changes: Any) -> dict[str, Any]:
        """A sound labelled case; a change of None takes a key away."""
        record = {"case": name, "quality": "high", **changes}
        if "image" not in record:
            record["image"] = self.nifti(f"{name}_image.nii.gz", self.noise())
        if "label" not in record:
            record["label"] = self.nifti(f"{name}_label.nii.gz", self.mask())
        return {key: value for key, value in record.items() if value is not None}


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def problems_of(*records: dict[str, Any], channels: int = 1, **options: Any) -> list[Problem]:
    modality = {channel: f"m{channel}" for channel in range(channels)}
    return check_datalist(Datalist("set", {0: "background", 1: "liver"}, modality, list(records)), **options)


def the_problem(*records: dict[str, Any], **options: Any) -> Problem:
    problems = problems_of(*records, **options)
    assert len(problems) == 1, [str(problem) for problem in problems]
    return problems[0]


def test_a_sound_data_set_has_no_problems(folder: Folder) -> None:
    test = folder.case("b", split="test", patient="q", domain="d")
    assert (
        problems_of(folder.case("a", patient="p", domain="d"), folder.case("c", label=None, quality=None), test) == []
    )


def test_a_problem_reads_as_a_sentence() -> None:
    problem = Problem("one", "two", "do three", "/x.nii", "a")
    assert str(problem) == 'case "a", /x.nii: found one; expected two; do three'
    assert str(Problem("no cases", "one", "add", "", "")) == "no cases; expected one; add"


def test_no_cases() -> None:
    assert the_problem().found == "no cases"


def test_no_labelled_training_case(folder: Folder) -> None:
    unlabelled = folder.case("a", label=None, quality=None)
    assert the_problem(unlabelled, folder.case("b", split="test")).found == "no labelled training case"
    assert problems_of(folder.case("c", quality="low")) == []


def test_quality_and_label_belong_together(folder: Folder) -> None:
    problems = problems_of(folder.case("a"), folder.case("b", quality=None), folder.case("c", label=None))
    assert [(problem.case, problem.found) for problem in problems] == [
        ("b", "a label without a quality"),
        ("c", 'quality "high" without a label'),
    ]


@pytest.mark.parametrize("key", ["image", "label", "clean_label"])
def test_a_missing_file(folder: Folder, key: str) -> None:
    problem = the_problem(folder.case("a", **{key: "/nowhere/x.nii"}))
    assert (problem.severity, problem.case, problem.place) == ("error", "a", "/nowhere/x.nii")
    assert problem.found == "no such file"


def test_a_folder_and_an_unknown_suffix(folder: Folder) -> None:
    (folder.path / "series").mkdir()
    (folder.path / "x.png").touch()
    assert "no DICOM images" in the_problem(folder.case("a", image=str(folder.path / "series"))).found
    assert "a file of an unknown kind" in the_problem(folder.case("b", image=str(folder.path / "x.png"))).found


@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz", "x.mhd", "x.mha", "x.nrrd"])
@pytest.mark.filterwarnings("ignore")
def test_truncated_files(folder: Folder, name: str) -> None:
    voxels = folder.noise((20, 20, 20))
    path = folder.path / name
    if ".nii" in name:
        folder.nifti(name, voxels)
    else:
        sitk.WriteImage(sitk.GetImageFromArray(voxels), str(path))
    data = path.with_suffix(".raw") if name == "x.mhd" else path
    data.write_bytes(data.read_bytes()[: data.stat().st_size * 3 // 4])
    problem = the_problem(folder.case("a", image=str(path), label=None, quality=None), folder.case("b"))
    assert problem.place == str(path)
    assert "voxels that cannot be read, truncated or damaged" in problem.found


@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz", "x.mhd", "x.nrrd"])
@pytest.mark.parametrize("read_voxels", [True, False])
def test_files_that_are_no_volumes(folder: Folder, name: str, read_voxels: bool) -> None:
    (folder.path / name).write_bytes(b"not a volume" * 50)
    problem = the_problem(folder.case("a", image=str(folder.path / name)), read_voxels=read_voxels)
    assert "header that cannot be read" in problem.found


def test_shapes_that_differ(folder: Folder) -> None:
    label = folder.nifti("l.nii", folder.mask((6, 5, 3)))
    problem = the_problem(folder.case("a", label=label))
    assert problem.found == "shape 6 x 5 x 3"
    assert problem.expected.startswith("shape 6 x 5 x 4 as in ")


def test_transposed_axes_of_one_size_differ_by_their_affines(folder: Folder) -> None:
    affine = AFFINE[[1, 0, 2, 3]]
    image = folder.nifti("i.nii", folder.noise((5, 5, 4)))
    label = folder.nifti("l.nii", folder.mask((5, 5, 4)), affine)
    assert "affine" in the_problem(folder.case("a", image=image, label=label)).found


def test_affines_that_differ_are_both_printed(folder: Folder) -> None:
    shifted = AFFINE.copy()
    shifted[0, 3] = 1.5
    problem = the_problem(folder.case("a", label=folder.nifti("l.nii", folder.mask(), shifted)))
    assert problem.found == (
        "affine [2 0 0 1.5; 0 2 0 0; 0 0 3 0], up to 1.5 mm off (shifted by 1.5 0 0 mm to the right, front, top)"
    )
    assert problem.expected.startswith("affine [2 0 0 0; 0 2 0 0; 0 0 3 0] as in ")


def test_tiny_differences_of_affines_pass(folder: Folder) -> None:
    close = AFFINE + np.pad(np.full((3, 4), 1e-3), ((0, 1), (0, 0)))
    assert problems_of(folder.case("a", label=folder.nifti("l.nii", folder.mask(), close))) == []


def test_labels_that_are_not_whole_numbers(folder: Folder) -> None:
    label = folder.nifti("l.nii", folder.mask() * np.float32(0.5))
    problem = the_problem(folder.case("a", label=label))
    assert problem.found == "values that are not whole numbers: 0.5"
    assert problem.expected == "the labels 0 background, 1 liver"


def test_labels_that_scaling_made_inexact_pass(folder: Folder) -> None:
    assert problems_of(folder.case("a", label=folder.nifti("l.nii", folder.mask() * np.float32(0.9999)))) == []


def test_values_outside_the_label_map(folder: Folder) -> None:
    label = folder.nifti("l.nii", folder.mask() * np.uint8(63))
    assert the_problem(folder.case("a", label=label)).found == "label values 63"
    clean = folder.nifti("c.nii", np.arange(120, dtype=np.uint8).reshape(SHAPE))
    problem = the_problem(folder.case("b", label=None, quality=None, clean_label=clean), folder.case("c"))
    assert problem.found == "label values 2, 3, 4, 5, 6, 7, 8, 9 and 110 more"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_voxels_that_are_not_finite(folder: Folder, value: float) -> None:
    voxels, mask = folder.noise(), folder.mask().astype(np.float32)
    voxels[0, 0, 0] = mask[0, 0, 0] = value
    image, label = folder.nifti("i.nii", voxels), folder.nifti("l.nii", mask)
    found = [problem.found for problem in problems_of(folder.case("a", image=image, label=label))]
    assert found == ["1 of 120 voxels NaN or infinite", "NaN or infinite voxels"]


def test_a_constant_image_is_a_warning(folder: Folder) -> None:
    image = folder.nifti("i.nii", np.full(SHAPE, 7, dtype=np.int16))
    problem = the_problem(folder.case("a", image=image))
    assert (problem.severity, problem.found) == ("warning", "the same value 7 in all voxels")


def test_a_constant_channel_is_a_warning(folder: Folder) -> None:
    voxels = folder.noise((*SHAPE, 2))
    voxels[..., 1] = 0
    problem = the_problem(folder.case("a", image=folder.nifti("i.nii", voxels)), channels=2)
    assert problem.found == "the same value 0 in all voxels of channel 1"


def test_colour_voxels_are_refused(folder: Folder) -> None:
    colour = np.zeros(SHAPE, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    image, label = folder.nifti("i.nii", colour), folder.nifti("l.nii", colour)
    assert all("voxels of type" in problem.found for problem in problems_of(folder.case("a", image=image, label=label)))


def test_channels_last_pass_only_when_they_are_the_modalities(folder: Folder) -> None:
    image = folder.nifti("i.nii", folder.noise((*SHAPE, 2)))
    assert problems_of(folder.case("a", image=image), channels=2) == []
    problem = the_problem(folder.case("b", image=image))
    assert (problem.found, problem.expected) == ("shape 6 x 5 x 4 x 2", "3 axes (x, y, z)")
    assert "one time point or channel per file" in problem.advice
    assert (
        the_problem(folder.case("c", image=image), channels=3).expected == "4 axes (x, y, z, channel) with 3 channels"
    )
    assert the_problem(folder.case("d"), channels=2).found == "shape 6 x 5 x 4"


def test_singleton_axes_are_dropped_but_never_the_third(folder: Folder) -> None:
    image = folder.nifti("i.nii", folder.noise((*SHAPE, 1)))
    label = folder.nifti("l.nii", folder.mask()[..., None, None])
    assert problems_of(folder.case("a", image=image, label=label)) == []
    vector = folder.nifti("v.nii", folder.noise((*SHAPE, 1, 2)))
    assert problems_of(folder.case("b", image=vector), channels=2) == []
    cine = folder.nifti("cine.nii", folder.noise((6, 5, 1, 4)))
    assert the_problem(folder.case("c", image=cine, label=None, quality=None), folder.case("d")).found == (
        "shape 6 x 5 x 1 x 4"
    )


def test_two_further_axes_and_one_hot_labels_are_refused(folder: Folder) -> None:
    image = folder.nifti("i.nii", folder.noise((*SHAPE, 2, 3)))
    label = folder.nifti("l.nii", np.stack([1 - folder.mask(), folder.mask()], axis=-1))
    problems = problems_of(folder.case("a", image=image, label=label), channels=2)
    assert [problem.found for problem in problems] == ["shape 6 x 5 x 4 x 2 x 3", "shape 6 x 5 x 4 x 2"]
    assert problems[1].advice == "write labels as one volume of whole numbers"


def test_two_dimensional_images_pass(folder: Folder) -> None:
    image, label = folder.nifti("i.nii", folder.noise((6, 5))), folder.nifti("l.nii", folder.mask((6, 5, 4))[..., 1])
    assert problems_of(folder.case("a", image=image, label=label)) == []


def test_image_lists_of_another_length(folder: Folder) -> None:
    files = [folder.nifti(f"{name}.nii", folder.noise()) for name in "xyz"]
    assert problems_of(folder.case("a", image=files[:2]), channels=2) == []
    problem = the_problem(folder.case("b", image=files), channels=2)
    assert (problem.found, problem.expected) == ("3 image files", "2, one per modality (m0, m1)")


def test_modalities_on_different_grids(folder: Folder) -> None:
    files = [folder.nifti("x.nii", folder.noise()), folder.nifti("y.nii", folder.noise((7, 5, 4)))]
    problem = the_problem(folder.case("a", image=files), channels=2)
    assert (problem.place, problem.found) == (files[1], "shape 7 x 5 x 4")


def test_one_file_as_image_and_label(folder: Folder) -> None:
    label = folder.nifti("l.nii", folder.mask())
    assert the_problem(folder.case("a", image=label, label=label)).found == "one file as image and as label"


def test_a_file_in_training_and_test_leaks(folder: Folder) -> None:
    training = folder.case("a")
    link = folder.path / "other_name.nii.gz"
    link.symlink_to(training["image"])
    problem = the_problem(training, folder.case("b", image=str(link), split="test"))
    assert problem.found == 'the same file in split "training" (case "a") and split "test" (case "b"): a leak'
    assert problem.case == "b"


@pytest.mark.parametrize("name", ["copy.nii", "copy.nii.gz", "copy.nrrd"])
def test_equal_content_in_training_and_test_leaks(folder: Folder, name: str) -> None:
    voxels = folder.noise()
    training = folder.case("a", image=folder.nifti("a.nii", voxels))
    if name == "copy.nrrd":
        copy = sitk.GetImageFromArray(voxels.transpose(2, 1, 0))
        copy.SetSpacing((2, 2, 3))
        copy.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))
        sitk.WriteImage(copy, str(folder.path / name))
    else:
        folder.nifti(name, voxels)
    problem = the_problem(training, folder.case("b", image=str(folder.path / name), split="test"))
    assert problem.found.startswith("the same image content in split")
    assert problems_of(training, folder.case("c", image=str(folder.path / name))) == []


def test_equal_labels_and_constant_images_are_no_leak(folder: Folder) -> None:
    blank = [folder.nifti(f"{name}.nii", np.zeros(SHAPE, dtype=np.int16)) for name in "xy"]
    problems = problems_of(folder.case("a", image=blank[0]), folder.case("b", image=blank[1], split="test"))
    assert [problem.severity for problem in problems] == ["warning", "warning"]


def test_a_patient_in_training_and_test_leaks(folder: Folder) -> None:
    problem = the_problem(folder.case("a", patient="p"), folder.case("b", patient="p", split="test"))
    assert problem.found == 'the same patient "p" in split "training" (case "a") and split "test" (case "b"): a leak'
    assert problems_of(folder.case("c", patient="p"), folder.case("d", patient="p")) == []


def test_a_patient_in_two_domains_leaks(folder: Folder) -> None:
    problem = the_problem(folder.case("a", patient="p", domain="1"), folder.case("b", patient="p", domain="2"))
    assert 'the same patient "p" in domain "1" (case "a") and domain "2"' in problem.found


def test_odd_geometry_is_told_once_for_all_files(folder: Folder) -> None:
    sheared, turned = AFFINE.copy(), AFFINE.copy()
    sheared[0, 1] = 0.5
    turned[0, 3] = 10

    def write(name: str, voxels: np.ndarray, sform: np.ndarray) -> str:
        image = nibabel.Nifti1Image(voxels, sform)
        image.set_qform(turned if sform is AFFINE else None, code=1 if sform is AFFINE else 0)
        nibabel.save(image, folder.path / name)
        return str(folder.path / name)

    two_forms = folder.case("a", image=write("ai.nii", folder.noise(), AFFINE))
    skewed = folder.case(
        "b", image=write("bi.nii", folder.noise(), sheared), label=write("bl.nii", folder.mask(), sheared)
    )
    problems = problems_of(two_forms, skewed)
    assert [(problem.severity, problem.found) for problem in problems] == [
        ("warning", "a qform and an sform that disagree (the sform is used)"),
        ("warning", "axes that are not at right angles (and 1 more files)"),
    ]


def test_an_affine_without_a_volume(folder: Folder) -> None:
    image = nibabel.Nifti1Image(folder.noise(), AFFINE)
    image.header["srow_z"] = 0
    image.header["sform_code"], image.header["qform_code"] = 1, 0
    (folder.path / "flat.nii.gz").write_bytes(gzip.compress(image.header.binaryblock + b"\0" * 500))
    problem = the_problem(folder.case("a", image=str(folder.path / "flat.nii.gz")))
    assert "an affine without a volume: [2 0 0 0; 0 2 0 0; 0 0 0 0]" in problem.found


def test_headers_alone(folder: Folder) -> None:
    broken = np.full(SHAPE, np.nan, dtype=np.float32)
    record = folder.case("a", image=folder.nifti("i.nii", broken), label=folder.nifti("l.nii", folder.mask((6, 5, 3))))
    assert [problem.found for problem in problems_of(record, read_voxels=False)] == ["shape 6 x 5 x 3"]
    assert len(problems_of(record)) == 2


def test_every_file_is_opened_and_decoded_once(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    started = Ahead._started

    def counted(ahead: Ahead, job: str) -> object:
        opened.append(job)
        return started(ahead, job)

    monkeypatch.setattr(Ahead, "_started", counted)
    first = folder.case("rater 1")
    second = folder.case("rater 2", image=first["image"])
    assert problems_of(first, second) == []
    assert sorted(opened) == sorted([first["image"], first["label"], second["label"]])


def test_require_valid_reports_all_errors_and_returns_the_warnings(folder: Folder) -> None:
    constant = folder.case("w", image=folder.nifti("i.nii", np.zeros(SHAPE, dtype=np.int16)))
    assert [problem.case for problem in require_valid(Datalist("set", {0: "b", 1: "l"}, {0: "MR"}, [constant]))] == [
        "w"
    ]
    missing = [{"case": f"case{index}", "image": f"/nowhere/{index}.nii"} for index in range(30)]
    with pytest.raises(InputError) as caught:
        require_valid(Datalist("livers", {0: "b", 1: "l"}, {0: "MR"}, [*missing, constant]))
    lines = str(caught.value).splitlines()
    assert lines[0] == 'datalist "livers" cannot be used: 30 problems'
    assert lines[1].startswith('  - case "case0", /nowhere/0.nii: found no such file; expected')
    assert lines[-1] == "  and 10 more"
    assert len(lines) == 22


@pytest.mark.parametrize(
    ("name", "cases", "labelled"), [("msd_hippocampus", 100, 100), ("acdc", 50, 50), ("mscmr_lge", 37, 12)]
)
def test_real_data_sets_have_no_problems(aide_data: Path, name: str, cases: int, labelled: int) -> None:
    datalist = find_datalist(aide_data / name)
    assert len(datalist.records) == cases
    assert sum("label" in record for record in datalist.records) == labelled
    orientations = ["orientation LSP (and 14 more cases)"] if name == "mscmr_lge" else []  # true: they are stored so
    assert [problem.found for problem in require_valid(datalist)] == orientations


def test_voxels_without_a_verdict_have_a_value_and_are_no_marks(folder: Folder) -> None:
    label = np.full(SHAPE, 4, dtype=np.uint8)
    label[1:3, 1:3, 1:3] = 1
    image = folder.nifti("image.nii.gz", folder.noise())
    records = [
        folder.case("drawn", label=folder.nifti("drawn.nii.gz", label)),
        folder.case("silent", image=image, label=folder.nifti("silent.nii.gz", np.full(SHAPE, 4, dtype=np.uint8))),
    ]
    names = {0: "background", 1: "liver"}
    problems = check_datalist(Datalist("set", names, {0: "m0"}, records, ignore=4))
    assert [(p.case, p.severity, p.found) for p in problems] == [
        ("drawn", "warning", "marks in 100% of all voxels"),
        ("silent", "warning", "a label without any verdict"),
    ]
    (wrong, _) = check_datalist(Datalist("set", names, {0: "m0"}, records, ignore=5))
    assert wrong.found == "label values 4"
    assert wrong.expected == "the labels 0 background, 1 liver, 5 without a verdict"
