"""A problem, and the error that tells problems, in words."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from aide_monai import InputError, Problem


@pytest.mark.parametrize(
    ("problem", "text"),
    [
        (Problem("2 axes"), "2 axes"),
        (Problem("2 axes", "3"), "2 axes; expected 3"),
        (Problem("2 axes", advice="stack its slices"), "2 axes; stack its slices"),
        (Problem("2 axes", "3", "stack its slices"), "2 axes; expected 3; stack its slices"),
        (Problem("2 axes", place="a.nii"), "a.nii: found 2 axes"),
        (Problem("2 axes", case="p1"), 'case "p1": found 2 axes'),
        (
            Problem("2 axes", "3", "stack its slices", Path("Study 1: MR/a.nii"), "p1", "warning"),
            'case "p1", Study 1: MR/a.nii: found 2 axes; expected 3; stack its slices',
        ),
    ],
)
def test_a_problem_in_words(problem: Problem, text: str) -> None:
    assert str(problem) == text


def test_a_path_is_the_place_that_its_text_is() -> None:
    assert Problem("2 axes", place=Path("a.nii")) == Problem("2 axes", place="a.nii")
    with pytest.raises(dataclasses.FrozenInstanceError):
        Problem("2 axes").found = "3 axes"  # type: ignore[misc]


def test_an_error_of_one_problem() -> None:
    error = InputError("2 axes", expected="3", advice="stack its slices", place="a.nii")
    assert str(error) == "a.nii: found 2 axes; expected 3; stack its slices"
    assert (error.title, error.problems) == ("", (Problem("2 axes", "3", "stack its slices", "a.nii"),))
    assert isinstance(error, ValueError)


def test_a_report() -> None:
    problems = [Problem("2 axes", "3", place="a.nii"), "a sentence"]
    error = InputError("set: cannot be used", problems=problems)
    assert str(error) == "set: cannot be used: 2 problems\n  - a.nii: found 2 axes; expected 3\n  - a sentence"
    assert (error.title, error.problems) == ("set: cannot be used", (problems[0], Problem("a sentence")))
    assert str(InputError("set", problems=["one"])) == "set: 1 problem\n  - one"
    assert str(InputError(problems=["one", "two"])) == "one\ntwo"


def test_a_long_report_counts_what_it_leaves_out() -> None:
    error = InputError("title", problems=[f"p{number}" for number in range(25)])
    lines = str(error).splitlines()
    assert lines[0] == "title: 25 problems"
    assert lines[20] == "  - p19"
    assert lines[21:] == ["  and 5 more"]
    assert len(error.problems) == 25
    assert str(InputError("title", problems=["p"] * 20)).splitlines()[20:] == ["  - p"]


def test_who_catches_an_error_adds_what_it_does_not_say() -> None:
    bare = InputError("2 axes")
    assert str(bare.at("a.nii", case="p1", expected="3", advice="stack")) == (
        'case "p1", a.nii: found 2 axes; expected 3; stack'
    )
    assert str(bare) == "2 axes"
    full = InputError("2 axes", expected="3", advice="stack", place="a.nii")
    assert str(full.at("b.nii", expected="4", advice="cut")) == str(full)
    report = InputError("set", problems=[Problem("2 axes", place="a.nii"), Problem("no axes", "3")])
    assert str(report.at("b.nii", expected="4")) == (
        "set: 2 problems\n  - a.nii: found 2 axes; expected 4\n  - b.nii: found no axes; expected 3"
    )
