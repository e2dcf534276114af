"""The datalist file: what is written, what MONAI reads of it, and what is refused."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from monai.data import load_decathlon_datalist

from aide_monai.data.case import Case
from aide_monai.data.datalist import Datalist
from aide_monai.errors import InputError
from aide_monai.ignored import IGNORED
from aide_monai.io.location import Location


def content(**changes: Any) -> dict[str, Any]:
    """A small valid file: one labelled, one unlabelled training case and one test case."""
    valid = {
        "name": "livers",
        "labels": {"0": "background", "1": "liver"},
        "modality": {"0": "MRI"},
        "numTraining": 2,
        "numTest": 1,
        "training": [
            {"case": "a", "image": "images/a.nii.gz", "label": "labels/a.nii.gz", "quality": "high"},
            {"case": "b", "image": "images/b.nii.gz"},
        ],
        "validation": [],
        "test": [{"case": "c", "image": "images/c.nii.gz", "label": "labels/c.nii.gz", "quality": "high"}],
    }
    return {key: value for key, value in {**valid, **changes}.items() if value is not None}


def written(folder: Path, **changes: Any) -> Path:
    path = folder / "datalist.json"
    path.write_text(json.dumps(content(**changes)))
    return path


def test_load_makes_paths_absolute_and_keeps_the_split(tmp_path: Path) -> None:
    datalist = Datalist.load(written(tmp_path))
    assert datalist.name == "livers"
    assert datalist.labels == {0: "background", 1: "liver"}
    assert datalist.modality == {0: "MRI"}
    assert datalist.num_classes == 2
    assert datalist.split("training") == [
        {
            "case": "a",
            "image": str(tmp_path / "images/a.nii.gz"),
            "label": str(tmp_path / "labels/a.nii.gz"),
            "quality": "high",
            "split": "training",
        },
        {"case": "b", "image": str(tmp_path / "images/b.nii.gz"), "split": "training"},
    ]
    assert [record["case"] for record in datalist.split("test")] == ["c"]
    assert datalist.split("validation") == []


def test_monai_reads_a_saved_datalist(tmp_path: Path) -> None:
    outside = tmp_path / "elsewhere" / "b.nii.gz"
    folder = tmp_path / "set"
    image, label, clean = (str(folder / name) for name in ("a.nii.gz", "a_label.nii.gz", "a_clean.nii.gz"))
    folder.mkdir()
    (folder / "a_clean.nii.gz").touch()  # MONAI resolves other keys than image and label only when the file exists
    training = {
        "case": "a",
        "image": [image, str(outside)],
        "label": label,
        "quality": "low",
        "patient": "p",
        "rater": "r",
        "domain": "d",
        "clean_label": clean,
        "split": "training",
    }
    validation = {"case": "v", "image": [image, image], "split": "validation"}
    held_out = {"case": "t", "image": [image, image], "label": label, "quality": "high", "split": "test"}
    datalist = Datalist("set", {0: "background"}, {0: "T1", 1: "T2"}, [held_out, training, validation])
    path = folder / "datalist.json"
    datalist.save(path)

    assert load_decathlon_datalist(path, True, "training") == [training]
    assert load_decathlon_datalist(path, True, "validation") == [validation]
    assert load_decathlon_datalist(path, True, "test") == [held_out]
    on_disk = json.loads(path.read_text())
    assert on_disk["training"][0]["image"] == ["a.nii.gz", str(outside)]
    assert (on_disk["numTraining"], on_disk["numTest"]) == (1, 1)
    assert Datalist.load(path, roots=[outside.parent]).records == [training, validation, held_out]


def test_empty_sections_can_be_read_by_monai_or_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "list.json"
    Datalist("set", {0: "background"}, {0: "T1"}, [{"case": "a", "image": "/a.nii"}]).save(path)
    assert load_decathlon_datalist(path, True, "validation") == []
    with pytest.raises(ValueError, match="test not specified"):
        load_decathlon_datalist(path, True, "test")


def test_a_folder_of_a_saved_datalist_can_be_moved(tmp_path: Path) -> None:
    Datalist.load(written(tmp_path)).save(tmp_path / "old" / ".." / "datalist.json")
    folder = tmp_path / "data"
    folder.mkdir()
    (tmp_path / "datalist.json").rename(folder / "datalist.json")
    assert Datalist.load(folder / "datalist.json").records[0]["image"] == str(folder / "images/a.nii.gz")


def test_paths_are_relative_when_the_folder_is_reached_by_a_link(tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    real.mkdir()
    link.symlink_to(real)
    datalist = Datalist("set", {0: "background"}, {0: "T1"}, [{"case": "a", "image": str(link / "a.nii")}])
    datalist.save(real / "list.json")
    assert json.loads((real / "list.json").read_text())["training"][0]["image"] == "a.nii"


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failed_save_leaves_the_old_file_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    path = tmp_path / "list.json"
    path.write_text("old")
    datalist = Datalist("set", {0: "background"}, {0: "T1"}, [{"case": "a", "image": "/a.nii"}])

    def full_disk(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, step, full_disk)
    with pytest.raises(InputError, match=r"list\.json: cannot be written \(no space left\)"):
        datalist.save(path)
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["list.json"]


def test_save_refuses_a_text_that_monai_would_take_for_a_path(tmp_path: Path) -> None:
    (tmp_path / "10").mkdir()
    datalist = Datalist("set", {0: "background"}, {0: "T1"}, [{"case": "10", "image": "/a.nii"}])
    with pytest.raises(InputError, match=r'case "10": found "case": "10", which is also the name of a file or folder'):
        datalist.save(tmp_path / "list.json")
    assert not (tmp_path / "list.json").exists()


def test_save_checks_records_that_were_changed(tmp_path: Path) -> None:
    datalist = Datalist("set", {0: "background"}, {0: "T1"}, [{"case": "a", "image": "/a.nii"}])
    datalist.cases[0] = replace(datalist.cases[0], quality="medium")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r'"quality": .medium.; expected one of high, low'):
        datalist.save(tmp_path / "list.json")


def test_everything_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        labels={"0": "background", "2": "liver"},
        modality=None,
        colour="blue",
        numTraining=7,
        training=[
            {"case": "a", "image": "a.nii", "lable": "b.nii"},
            {"image": "a.nii"},
            {"case": "d", "image": 3, "quality": "good", "label": None},
            {"case": "e", "image": []},
            {"case": "f", "image": "f.nii", "split": "test"},
            {"case": "c", "image": "g.nii"},
            {"case": "../h", "image": "h.nii"},
            {"case": "i", "image": "../../i.nii"},
            "j.nii",
            {"case": "k", "image": "k.nii", "sha256": {"image": None}},
        ],
        test=[{"case": "c", "image": "images/c.nii.gz"}],
    )
    with pytest.raises(InputError) as caught:
        Datalist.load(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: the datalist cannot be used: 16 problems")
    for part in (
        'unknown key "colour"; the keys are',
        'no key "modality"',
        "labels: found the numbers [0, 2]; expected 0, 1, 2, ... without gaps",
        'training[0]: found unknown key "lable"; the keys are case,',
        'training[1]: found no key "case"',
        'training[2]: found "image": 3; expected a path or a list of paths',
        "training[2]: found \"quality\": 'good'; expected one of high, low",
        'training[2]: found "label": None; expected text',
        'training[3]: found "image": []; expected a path or a list of paths',
        'training[4]: found "split": "test" of a case under "training"',
        "training[6]: found \"case\": '../h'; expected a name without slashes",
        'training[7]: found path "../../i.nii", which leads to',
        "training[8]: found text; expected an object",
        "training[9]: found \"sha256\": {'image': None}; expected a hash",
        'key "numTraining": found 7, but "training" lists 10 cases',
        'the case "c" twice, in training[5] and test[0]',
    ):
        assert part in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{", "not readable as JSON"),
        ("[" * 100_000, "not readable as JSON"),
        ("[1]", "found a list; expected a JSON object"),
        ('{"name": "a", "name": "b"}', "keys given twice in one object: name"),
        (
            '{"labels": {"background": 0}}',
            r'key "labels": found the number "background"; expected names of whole numbers',
        ),
        ('{"labels": {"0": 0}}', "labels: found the name 0 of 0; expected text"),
        (
            r'{"labels": {"0": "a\u0007"}}',
            r"labels: found the name 'a.x07' of 0; expected text without control characters",
        ),
        (r'{"modality": {"0": "\ud800"}}', r"modality: found the name '.ud800' of 0; expected text without control"),
        (r'{"name": "a\nb"}', r"key .name.: found 'a.nb'; expected text without control characters"),
        ('{"classes": {"1": true}}', 'key "classes": found {"1": true}; expected stored values up to'),
        ('{"labels": []}', 'key "labels": found a list; expected numbers with names'),
        ('{"labels": {}}', r"labels: found the numbers \[\]"),
        ('{"name": 3}', 'key "name": found a number; expected text'),
        ('{"training": null}', 'key "training": found null; expected a list'),
    ],
)
def test_malformed_files(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "datalist.json"
    path.write_text(text)
    with pytest.raises(InputError, match=expected):
        Datalist.load(path)


def test_a_file_that_is_no_text_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "datalist.json"
    path.write_bytes(b"\xff\xfe\x00{")
    with pytest.raises(InputError, match="not readable as JSON"):
        Datalist.load(path)
    with pytest.raises(InputError, match=r"none\.json: found no such file"):
        Datalist.load(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        *(
            (key, "a\x1b[1m", "text without control characters")
            for key in ("case", "patient", "rater", "domain", "image")
        ),
        *((key, "\udcff.nii", "text without control characters") for key in ("case", "image", "label")),
        ("spacing", float("nan"), "positive numbers in mm, one for each axis"),
        ("spacing", [1.0, float("nan"), 1.0], "positive numbers in mm"),
        ("spacing", 1.5, "positive numbers in mm"),
        ("spacing", [1, 0, True], "positive numbers in mm"),
        ("orientation", 7, 'three letters, such as "RAS"'),
        ("orientation", "RAL", "three letters"),
    ],
)
def test_values_that_are_none_for_their_key(tmp_path: Path, key: str, value: object, expected: str) -> None:
    record = {"case": "a", "image": "a.nii", "label": "b.nii", "quality": "low", key: value}
    path = tmp_path / "datalist.json"
    path.write_text(json.dumps({"name": "x", "labels": {"0": "b"}, "modality": {"0": "CT"}, "training": [record]}))
    with pytest.raises(InputError, match=rf'training\[0\]: found "{key}": .*; expected {expected}') as caught:
        Datalist.load(path)
    str(caught.value).encode()  # the message itself can be shown
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize("place", ["../secret.nii", "/secret.nii", "link/secret.nii", "images/../../secret.nii"])
def test_paths_that_escape_are_refused_unless_their_folder_is_a_root(tmp_path: Path, place: str) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path)
    place = str(tmp_path / "secret.nii") if place.startswith("/") else place
    path = written(folder, numTraining=1, training=[{"case": "a", "image": place}])
    with pytest.raises(InputError, match=rf"training\[0\]: found path .* leads to {tmp_path}/secret.nii, outside"):
        Datalist.load(path)
    assert Datalist.load(path, roots=[tmp_path]).records[0]["case"] == "a"


def test_a_root_is_no_prefix_of_a_name(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    path = written(tmp_path / "set", numTraining=1, training=[{"case": "a", "image": "../set_2/a.nii"}])
    with pytest.raises(InputError, match="outside"):
        Datalist.load(path)


def test_in_memory_paths_must_be_absolute() -> None:
    with pytest.raises(InputError, match=r'records\[0\]: found "image": "a.nii"; expected an absolute path'):
        Datalist("set", {0: "background"}, {0: "T1"}, [{"case": "a", "image": "a.nii"}])


def test_in_memory_names_must_be_given() -> None:
    with pytest.raises(InputError, match="modality: found the numbers"):
        Datalist("set", {0: "background"}, {}, [])
    with pytest.raises(InputError, match="name: found ''; expected text"):
        Datalist("", {0: "background"}, {0: "T1"}, [])


def test_an_unknown_split_is_refused() -> None:
    datalist = Datalist("set", {0: "background"}, {0: "T1"}, [])
    with pytest.raises(InputError, match='split "train"; expected one of training, validation, test'):
        datalist.split("train")


names = st.text(st.characters(categories=("L", "N")), min_size=1, max_size=8)


@given(
    st.lists(
        st.fixed_dictionaries(
            {"image": names, "split": st.sampled_from(("training", "validation", "test"))},
            optional={"patient": names, "domain": names, "rater": names},
        ),
        max_size=6,
    ),
    names,
)
def test_saving_and_loading_gives_the_same_cases(
    tmp_path_factory: pytest.TempPathFactory, entries: list[dict[str, str]], name: str
) -> None:
    folder = tmp_path_factory.mktemp("set")
    records = [
        {**entry, "case": f"case {index}", "image": str(folder / entry["image"])} for index, entry in enumerate(entries)
    ]
    datalist = Datalist(name, {0: "background", 1: name}, {0: "MR"}, records)
    datalist.save(folder / ".list.json")
    loaded = Datalist.load(folder / ".list.json")
    assert (loaded.name, loaded.labels, loaded.modality) == (datalist.name, datalist.labels, datalist.modality)
    for split in ("training", "validation", "test"):
        assert loaded.split(split) == datalist.split(split)


def test_a_number_sign_in_the_name_of_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "case#1"
    folder.mkdir()
    assert Location.parse(folder) == Location(str(folder))
    assert Location.parse(f"{folder}#echo=2.3") == Location(str(folder), "echo=2.3")
    assert Location.parse("plain") == Location("plain")


@pytest.mark.parametrize("key", ["labels", "modality"])
def test_numbers_of_thousands_of_digits(tmp_path: Path, key: str) -> None:
    with pytest.raises(
        InputError, match=rf'key "{key}": found the number "1111.*1\.\.\.; expected names of whole numbers below'
    ) as caught:
        Datalist.load(written(tmp_path, **{key: {"0": "background", "1" * 5000: "liver"}}))
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("stored", ["1" * 5000, "999999999", "65536"])
def test_stored_values_that_no_file_has(tmp_path: Path, stored: str) -> None:
    with pytest.raises(InputError, match=r'key "classes": found .*; expected stored values up to 65535') as caught:
        Datalist.load(written(tmp_path, classes={stored: 1}))
    assert len(str(caught.value)) < 1000


def test_as_many_labels_as_a_byte_has_values(tmp_path: Path) -> None:
    names = {str(value): f"structure {value}" for value in range(193)}
    with pytest.raises(InputError, match="labels: found 193 names; expected at most 192, for a label takes one byte"):
        Datalist.load(written(tmp_path, labels=names))
    names.pop("192")
    assert Datalist.load(written(tmp_path, labels=names)).num_classes == 192


def test_the_value_of_voxels_without_a_verdict_is_kept_and_is_no_class(tmp_path: Path) -> None:
    datalist = Datalist.load(written(tmp_path, ignore=4, classes={"63": 1}))
    assert datalist.ignore == 4
    assert datalist.stored_classes == {0: 0, 63: 1, 4: IGNORED}
    assert datalist.num_classes == 2
    datalist.save(tmp_path / "saved.json")
    assert Datalist.load(tmp_path / "saved.json").ignore == 4
    assert json.loads((tmp_path / "saved.json").read_text())["ignore"] == 4
    assert Datalist.load(written(tmp_path)).ignore is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1, 'key "ignore": found 1, which is also the value of a class; expected a value of its own'),
        (0, "found 0, which is also the value of a class"),
        (-1, 'key "ignore": found -1; expected the value of voxels without a verdict'),
        (70000, "found 70000; expected the value"),
        ("255", 'found "255"; expected the value'),
        (True, "found true; expected the value"),
    ],
)
def test_a_value_that_cannot_mean_no_verdict_is_refused(tmp_path: Path, value: Any, text: str) -> None:
    with pytest.raises(InputError) as caught:
        Datalist.load(written(tmp_path, ignore=value))
    assert text in str(caught.value)
    if type(value) is int:
        with pytest.raises(InputError, match="ignore"):
            replace(Datalist.load(written(tmp_path)), ignore=value)


def test_structures_that_a_case_has_annotated_are_kept_and_become_stored_values(tmp_path: Path) -> None:
    training = [
        {"case": "a", "image": "a.nii.gz", "label": "a_l.nii.gz", "quality": "high", "annotated": ["liver"]},
        {"case": "b", "image": "b.nii.gz", "label": "b_l.nii.gz", "quality": "high"},
    ]
    labels = {"0": "background", "1": "liver", "2": "spleen"}
    file = written(tmp_path, labels=labels, training=training, classes={"63": 1, "252": 2})
    datalist = Datalist.load(file)
    assert [case.annotated for case in datalist.cases[:2]] == [("liver",), None]
    assert [record.get("annotated") for record in datalist.split("training")] == [[63], None]
    datalist.save(tmp_path / "saved.json")
    assert Datalist.load(tmp_path / "saved.json").cases == datalist.cases


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (["kidney"], '"annotated": "kidney"; expected names of labels: liver'),
        (["background"], '"annotated": "background"; expected names of labels'),
        ([], '"annotated": []; expected names of the structures that were looked for'),
        ("liver", "\"annotated\": 'liver'; expected names"),
    ],
)
def test_structures_that_cannot_be_annotated_are_refused(tmp_path: Path, value: Any, text: str) -> None:
    training = [{"case": "a", "image": "a.nii.gz", "label": "l.nii.gz", "quality": "high", "annotated": value}]
    with pytest.raises(InputError) as caught:
        Datalist.load(written(tmp_path, training=training, numTraining=1))
    assert text in str(caught.value)


def test_more_structures_than_a_byte_can_tell_apart_are_refused_with_annotated_ones(tmp_path: Path) -> None:
    labels = {str(n): f"organ {n}" for n in range(8)}
    training = [{"case": "a", "image": "a.nii.gz", "label": "l.nii.gz", "quality": "high", "annotated": ["organ 1"]}]
    with pytest.raises(InputError, match="7 structures; expected at most 6 where cases have not all"):
        Datalist.load(written(tmp_path, labels=labels, training=training, numTraining=1))


def test_each_folder_is_looked_up_once_however_many_files_lie_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "data").symlink_to(tmp_path / "store")  # written through a link, as the folder may be reached
    cases = [Case(name=f"c{number}", image=f"{tmp_path}/store/images/{number}.nii.gz") for number in range(40)]
    looked_up: list[str] = []
    realpath = os.path.realpath
    monkeypatch.setattr(os.path, "realpath", lambda path: (looked_up.append(str(path)), realpath(path))[1])
    Datalist("many", {0: "background"}, {0: "MR"}, cases).save(tmp_path / "data" / "datalist.json")
    assert len(looked_up) == 2, looked_up  # the folder of the datalist, and that of the images
    loaded = Datalist.load(tmp_path / "data" / "datalist.json").cases
    assert len(looked_up) == 4
    assert [case.image for case in loaded] == [f"{tmp_path}/data/images/{number}.nii.gz" for number in range(40)]
