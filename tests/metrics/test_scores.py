"""Scores of one pass: by hand, golden numbers of real scans, properties."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from monai.metrics import DiceMetric
from PIL import Image
from scipy.spatial.distance import cdist

from aide_monai.errors import InputError
from aide_monai.ignored import IGNORED
from aide_monai.metrics import (
    SegmentationScores,
    aggregate,
    class_scores,
    relative_volume_difference,
    segmentation_scores,
)


def brute_force(first: np.ndarray, second: np.ndarray, spacing: Sequence[float], edge: str) -> tuple[float, float]:
    """ASSD (pooled) and MSSD from every pair of border voxels, each border found by rolling."""

    def border_points(mask: np.ndarray) -> np.ndarray:
        padded = np.pad(mask, 1, constant_values=edge == "chaos")
        inner = (slice(1, -1),) * mask.ndim
        neighbours = [np.roll(padded, step, axis)[inner] for axis in range(mask.ndim) for step in (-1, 1)]
        return np.argwhere(mask & ~np.all(neighbours, axis=0)) * np.asarray(spacing)

    points = border_points(first), border_points(second)
    if not len(points[0]) or not len(points[1]):
        value = math.inf if len(points[0]) or len(points[1]) else 0.0
        return value, value
    nearest = []
    for source, target in (points, points[::-1]):
        nearest += [cdist(part, target).min(axis=1) for part in np.array_split(source, len(source) // 1000 + 1)]
    distances = np.concatenate(nearest)
    return float(distances.mean()), float(distances.max())


def assert_close(found: SegmentationScores, expected: SegmentationScores) -> None:
    np.testing.assert_allclose(astuple(found), astuple(expected), rtol=1e-12, atol=1e-12)


# By hand


def test_hand_computed_scores() -> None:
    prediction, reference = np.zeros((4, 6), dtype=bool), np.zeros((4, 6), dtype=bool)
    prediction[1, 1:4] = True
    reference[1, 2:4] = True
    found = segmentation_scores(prediction, reference, spacing_mm=(1.0, 3.0))
    # distances 3, 0, 0 and 0, 0: the 95th percentile of the first three lies 0.9 of the way from 0 to 3
    distances = {"assd": 3 / 5, "mssd": 3.0, "hd95": 2.7, "nsd": 4 / 5, "tolerance_mm": 2.0}
    assert_close(found, SegmentationScores(dsc=4 / 5, ravd=50.0, ravd_signed=50.0, tp=2, fp=1, fn=0, **distances))
    assert segmentation_scores(prediction, reference, spacing_mm=(1.0, 3.0), tolerance_mm=3.0).nsd == 1.0
    swapped = segmentation_scores(reference, prediction, spacing_mm=(1.0, 3.0))
    assert (swapped.ravd, swapped.ravd_signed) == (pytest.approx(100 / 3), pytest.approx(-100 / 3))
    assert segmentation_scores(
        prediction, reference, spacing_mm=(1.0, 3.0), average="directed_means"
    ).assd == pytest.approx(0.5)


def test_empty_masks() -> None:
    empty, some = np.zeros((3, 3, 3), dtype=bool), np.zeros((3, 3, 3), dtype=bool)
    some[1, 1, 1:] = True
    inf = math.inf
    spacing = (1, 1, 1)
    assert astuple(segmentation_scores(empty, empty, spacing_mm=spacing)) == (1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2)
    assert astuple(segmentation_scores(empty, some, spacing_mm=spacing)) == (0, 100, -100, inf, inf, 0, 0, 2, inf, 0, 2)
    assert astuple(segmentation_scores(some, empty, spacing_mm=spacing)) == (0, inf, inf, inf, inf, 0, 2, 0, inf, 0, 2)


def test_arrays_and_tensors_give_the_same() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.random((2, 5, 6, 7)) > 0.6
    expected = segmentation_scores(first, second, spacing_mm=(1, 2, 3))
    for cast in (
        torch.from_numpy,
        lambda m: m.astype(np.uint8),
        lambda m: torch.from_numpy(m).float(),
    ):
        assert segmentation_scores(cast(first), cast(second), spacing_mm=(1, 2, 3)) == expected


@pytest.mark.parametrize("order", [("F", "F"), ("C", "F"), ("F", "C")])
def test_order_in_memory_does_not_matter(order: tuple[str, str]) -> None:
    first, second = np.random.default_rng(0).random((2, 5, 6, 7)) > 0.6
    expected = segmentation_scores(first, second, spacing_mm=(1, 2, 3))
    laid_out = first.copy(order[0]), second.copy(order[1])
    assert_close(segmentation_scores(*laid_out, spacing_mm=(1, 2, 3)), expected)


def test_inputs_are_not_changed() -> None:
    first, second = np.ones((3, 4), dtype=np.uint8), np.eye(3, 4, dtype=np.uint8)
    segmentation_scores(first, second, spacing_mm=(1, 1), edge="monai")
    assert first.all()
    assert (second == np.eye(3, 4)).all()


def test_class_scores_are_the_scores_of_each_class() -> None:
    rng = np.random.default_rng(1)
    first, second = rng.integers(0, 3, (2, 6, 7, 5))
    found = class_scores(first, torch.from_numpy(second), num_classes=4, spacing_mm=(1, 2, 3), edge="monai")
    assert list(found) == [1, 2, 3]
    for label in (1, 2):
        assert found[label] == segmentation_scores(first == label, second == label, spacing_mm=(1, 2, 3), edge="monai")
    assert found[3] == SegmentationScores(1.0, 0.0, 0.0, 0.0, 0.0, 0, 0, 0, 0.0, 1.0, 2.0)


def test_class_scores_refuse_what_is_no_label_map() -> None:
    labels = np.zeros((2, 3), dtype=np.uint8)
    with pytest.raises(InputError, match=r"reference holds labels from 0 to 63; expected 0 to 1"):
        class_scores(labels, labels + np.eye(2, 3, dtype=np.uint8) * np.uint8(63), num_classes=2, spacing_mm=(1, 1))
    with pytest.raises(InputError, match=r"prediction holds labels from -1 to 0"):
        class_scores(labels.astype(int) - np.eye(2, 3, dtype=int), labels, num_classes=2, spacing_mm=(1, 1))
    with pytest.raises(InputError, match=r"prediction has the dtype float64; expected an integer label map"):
        class_scores(labels.astype(float), labels, num_classes=2, spacing_mm=(1, 1))
    with pytest.raises(InputError, match=r"label maps have the shape \(3,\)"):
        class_scores(labels[0], labels[0], num_classes=2, spacing_mm=(1,))
    with pytest.raises(InputError, match=r"prediction has the shape \(2, 3\), reference \(3, 2\)"):
        class_scores(labels, labels.T, num_classes=2, spacing_mm=(1, 1))


def test_aggregate_counts_what_it_leaves_out() -> None:
    summary = aggregate([1.0, math.inf, 3.0, -math.inf])
    assert (summary.mean, summary.n, summary.n_infinite) == (2.0, 4, 2)
    assert summary.std == pytest.approx(math.sqrt(2))
    alone, none = aggregate([2.0, math.inf]), aggregate([])
    assert alone.mean == 2.0
    assert math.isnan(alone.std)
    assert math.isnan(none.mean)
    assert (none.n, none.n_infinite) == (0, 0)
    with pytest.raises(InputError, match=r"value 1 is NaN"):
        aggregate([1.0, math.nan])


# Golden numbers of real scans


def chaos_case(folder: Path, prediction: str) -> tuple[np.ndarray, np.ndarray, tuple[float, float, float]]:
    """Liver masks of case 10, slices in order of position, and the spacing from positions."""
    scan = folder / "chaos/Train_Sets/MR/10/T1DUAL"
    headers = [pydicom.dcmread(file, stop_before_pixels=True) for file in (scan / "DICOM_anon/InPhase").glob("*.dcm")]
    headers.sort(key=lambda header: float(header.ImagePositionPatient[2]))
    names = [Path(str(header.filename)).with_suffix(".png").name for header in headers]
    positions = np.array([float(header.ImagePositionPatient[2]) for header in headers])
    steps = np.diff(positions)
    assert np.ptp(steps) < 1e-4

    def read(source: Path) -> np.ndarray:
        return np.stack([np.abs(np.asarray(Image.open(source / name)).astype(int) - 63) <= 8 for name in names])

    masks = read(folder / "chaos/reference_predictions" / prediction / "10"), read(scan / "Ground")
    rows, columns = (float(step) for step in headers[0].PixelSpacing)
    return *masks, (float(steps.mean()), rows, columns)


@pytest.mark.parametrize(
    ("prediction", "assd", "mssd"),
    [
        ("30cases_aide", 6.1172, 49.0376),
        ("30cases_supervised", 16.0911, 75.9656),
        ("1case_supervised", None, None),
    ],
)
def test_published_predictions(aide_data: Path, prediction: str, assd: float | None, mssd: float | None) -> None:
    table = (aide_data / "chaos/reference_predictions" / prediction / "per_case.csv").read_text().splitlines()
    published = next(row for row in csv.DictReader(table) if row["Patient_case"] == "10")
    predicted, reference, spacing = chaos_case(aide_data, prediction)
    assert spacing[0] == pytest.approx(5.5, abs=1e-6)
    scores = segmentation_scores(predicted, reference, spacing_mm=spacing)
    assert (scores.tp, scores.fp, scores.fn) == tuple(int(published[name]) for name in ("TP", "FP", "FN"))
    assert scores.dsc == float(published["Dice"])
    if assd is not None:
        assert (round(scores.assd, 4), round(scores.mssd, 4)) == (assd, mssd)
    assert (scores.assd, scores.mssd) == pytest.approx(brute_force(predicted, reference, spacing, "chaos"), abs=1e-9)


# Properties


shapes = st.one_of(st.tuples(*[st.integers(1, 6)] * 2), st.tuples(*[st.integers(1, 5)] * 3))


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, tuple[float, ...], str]:
    """Two masks of one shape, a spacing and an edge rule."""
    shape = draw(shapes)
    first, second = draw(hnp.arrays(bool, shape)), draw(hnp.arrays(bool, shape))
    spacing = draw(st.tuples(*[st.floats(0.1, 10)] * len(shape)))
    return first, second, spacing, draw(st.sampled_from(["chaos", "monai"]))


properties = settings(max_examples=50, deadline=None)


@properties
@given(cases())
def test_brute_force(case: tuple) -> None:
    first, second, spacing, edge = case
    found = segmentation_scores(first, second, spacing_mm=spacing, edge=edge)
    expected = brute_force(first, second, spacing, edge)
    if first.any() and second.any():
        assert (found.assd, found.mssd) == pytest.approx(expected, abs=1e-9)
    assert found.mssd >= found.assd * (1 - 1e-12)
    assert found.hd95 <= found.mssd
    assert 0 <= found.nsd <= 1
    assert (found.tp, found.fp, found.fn) == ((first & second).sum(), (first & ~second).sum(), (second & ~first).sum())
    assert found.ravd_signed == relative_volume_difference(first, second)


@properties
@given(cases())
def test_symmetry_and_identity(case: tuple) -> None:
    first, second, spacing, edge = case
    forth = segmentation_scores(first, second, spacing_mm=spacing, edge=edge)
    back = segmentation_scores(second, first, spacing_mm=spacing, edge=edge)
    assert (forth.dsc, forth.mssd, forth.tp, forth.fp) == (back.dsc, back.mssd, back.tp, back.fn)
    assert forth.assd == pytest.approx(back.assd)
    same = segmentation_scores(first, first, spacing_mm=spacing, edge=edge)
    assert (same.dsc, same.ravd, same.assd, same.mssd, same.fp, same.fn) == (1, 0, 0, 0, 0, 0)


@properties
@given(cases(), st.randoms())
def test_axis_permutation(case: tuple, random: object) -> None:
    first, second, spacing, edge = case
    axes = list(range(first.ndim))
    random.shuffle(axes)  # type: ignore[attr-defined]
    expected = segmentation_scores(first, second, spacing_mm=spacing, edge=edge)
    permuted = [spacing[axis] for axis in axes]
    assert_close(
        segmentation_scores(first.transpose(axes), second.transpose(axes), spacing_mm=permuted, edge=edge), expected
    )


@properties
@given(cases(), st.integers(0, 3), st.integers(0, 3))
def test_translation_and_background_padding(case: tuple, before: int, after: int) -> None:
    first, second, spacing, edge = case
    framed = segmentation_scores(np.pad(first, 1), np.pad(second, 1), spacing_mm=spacing, edge=edge)
    moved = [np.pad(mask, (1 + before, 1 + after)) for mask in (first, second)]
    assert_close(segmentation_scores(*moved, spacing_mm=spacing, edge=edge), framed)


@properties
@given(cases(), st.floats(0.1, 10))
def test_distances_scale_with_the_spacing(case: tuple, factor: float) -> None:
    first, second, spacing, edge = case
    once = segmentation_scores(first, second, spacing_mm=spacing, edge=edge)
    scaled = segmentation_scores(first, second, spacing_mm=[factor * step for step in spacing], edge=edge)
    assert (scaled.assd, scaled.mssd) == pytest.approx((factor * once.assd, factor * once.mssd))
    assert (scaled.dsc, scaled.ravd) == (once.dsc, once.ravd)


@properties
@given(cases(), st.floats(0.1, 10), st.integers(0, 2))
def test_a_slice_is_a_volume_of_one_slice(case: tuple, thickness: float, axis: int) -> None:
    first, second, spacing, _ = case
    if first.ndim == 3:
        first, second, spacing = first[0], second[0], spacing[1:]
    volumes = np.expand_dims(first, axis), np.expand_dims(second, axis)
    steps = [*spacing[:axis], thickness, *spacing[axis:]]
    assert_close(
        segmentation_scores(*volumes, spacing_mm=steps), segmentation_scores(first, second, spacing_mm=spacing)
    )


def test_voxels_without_a_verdict_are_left_out_by_hand() -> None:
    reference = np.array([[0, 1, 1, IGNORED, IGNORED, 2]], dtype=np.uint8)
    prediction = np.array([[1, 1, 0, 1, 2, 2]], dtype=np.uint8)
    found = class_scores(prediction, reference, num_classes=3, spacing_mm=(1, 1))
    assert (found[1].tp, found[1].fp, found[1].fn, found[1].dsc) == (1, 1, 1, 0.5)
    assert found[2].dsc == 1.0
    assert found[2].mssd == 0.0
    assert reference[0, 3] == IGNORED  # the input is as it was


def test_a_label_without_any_verdict_scores_as_two_empty_masks() -> None:
    found = class_scores(np.ones((2, 3), int), np.full((2, 3), IGNORED), num_classes=2, spacing_mm=(1, 1))
    assert (found[1].dsc, found[1].assd, found[1].tp) == (1.0, 0.0, 0)


def test_monai_leaves_the_same_voxels_out() -> None:
    rng = np.random.default_rng(3)
    prediction, reference = rng.integers(0, 3, (2, 9, 8, 5))
    reference[:3], reference[:, 2] = IGNORED, IGNORED
    found = class_scores(prediction, reference, num_classes=3, spacing_mm=(1, 1, 1), edge="monai")
    one_hot = torch.nn.functional.one_hot(torch.from_numpy(prediction), 3).movedim(-1, 0)[None]
    options = {"include_background": False, "reduction": "none", "ignore_index": IGNORED}
    dice = DiceMetric(num_classes=3, **options)(one_hot, torch.from_numpy(reference)[None, None])
    assert [score.dsc for score in found.values()] == pytest.approx(dice[0].tolist())
