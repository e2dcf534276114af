"""The MONAI metrics: by hand, against MONAI and SimpleITK, spacing, reduction and errors."""

from __future__ import annotations

import math
import threading
import warnings
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from ignite.engine import Engine
from monai.data import MetaTensor
from monai.handlers import IgniteMetricHandler
from monai.metrics import (
    CumulativeIterationMetric,
    DiceMetric,
    HausdorffDistanceMetric,
    SurfaceDiceMetric,
    SurfaceDistanceMetric,
)
from scipy.ndimage import gaussian_filter

from aide_monai.errors import InputError
from aide_monai.metrics import (
    AverageSymmetricSurfaceDistanceMetric,
    HausdorffDistance95Metric,
    MaximumSymmetricSurfaceDistanceMetric,
    NormalizedSurfaceDistanceMetric,
    RelativeVolumeDifferenceMetric,
    SegmentationMetrics,
    class_scores,
    mask_border,
    segmentation_scores,
)

SPACING = (2.0, 0.7, 1.3)


def blobs(seed: int, shape: tuple[int, ...], classes: int = 3) -> torch.Tensor:
    """(1, classes, shape...) one-hot float32 of a smooth random label map that reaches the image's edge."""
    rng = np.random.default_rng(seed)
    labels = np.stack([gaussian_filter(rng.normal(size=shape), 1.5) for _ in range(classes)]).argmax(axis=0)
    return torch.from_numpy(np.stack([labels == label for label in range(classes)])[None]).float()


def pair(batch: int = 2, shape: tuple[int, ...] = (9, 10, 11)) -> tuple[torch.Tensor, torch.Tensor]:
    return (
        torch.cat([blobs(seed, shape) for seed in range(batch)]),
        torch.cat([blobs(100 + seed, shape) for seed in range(batch)]),
    )


@pytest.mark.parametrize("shape", [(9, 10, 11), (20, 21)])
@pytest.mark.parametrize("include_background", [False, True])
def test_equal_to_monai_with_its_edge_rule(shape: tuple[int, ...], include_background: bool) -> None:
    prediction, reference = pair(shape=shape)
    spacing = SPACING[: len(shape)]
    ours = {"include_background": include_background, "edge": "monai", "spacing": spacing}
    theirs = {"include_background": include_background}
    assd = AverageSymmetricSurfaceDistanceMetric(**ours)(prediction, reference)
    mssd = MaximumSymmetricSurfaceDistanceMetric(**ours)(prediction, reference)
    np.testing.assert_allclose(
        assd, SurfaceDistanceMetric(symmetric=True, **theirs)(prediction, reference, spacing=spacing), rtol=1e-6
    )
    np.testing.assert_allclose(
        mssd, HausdorffDistanceMetric(**theirs)(prediction, reference, spacing=spacing), rtol=1e-6
    )
    all_of_them = SegmentationMetrics(**ours)(prediction, reference)
    np.testing.assert_allclose(all_of_them[..., 0], DiceMetric(**theirs)(prediction, reference), rtol=1e-6)
    torch.testing.assert_close(all_of_them[..., 3], assd)
    torch.testing.assert_close(all_of_them[..., 4], mssd)
    hd95 = HausdorffDistance95Metric(**ours)(prediction, reference)
    np.testing.assert_allclose(
        hd95, HausdorffDistanceMetric(percentile=95, **theirs)(prediction, reference, spacing=spacing), rtol=1e-6
    )
    tolerance = 1.4
    nsd = NormalizedSurfaceDistanceMetric(tolerance_mm=tolerance, **ours)(prediction, reference)
    limits = [tolerance] * (prediction.shape[1] - (not include_background))
    np.testing.assert_allclose(
        nsd, SurfaceDiceMetric(limits, **theirs)(prediction, reference, spacing=spacing), rtol=1e-6
    )
    assert (nsd > 0).all()
    assert (nsd < 1).all()
    torch.testing.assert_close(all_of_them[..., 5], hd95)
    at_default = NormalizedSurfaceDistanceMetric(**ours)(prediction, reference)
    torch.testing.assert_close(all_of_them[..., 6], at_default)


def test_edge_rule_matters_where_the_image_cuts_a_mask_off() -> None:
    prediction, reference = pair()
    chaos = AverageSymmetricSurfaceDistanceMetric(spacing=SPACING)(prediction, reference)
    monai = AverageSymmetricSurfaceDistanceMetric(spacing=SPACING, edge="monai")(prediction, reference)
    assert (chaos != monai).all()


def test_equal_to_simpleitk_on_borders() -> None:
    """SimpleITK measures from all voxels of a set, so it is given the borders, found by its own contour filter."""
    first, second = (np.pad(blobs(seed, (12, 14, 16))[0, 1].numpy().astype(np.uint8), 2) for seed in (0, 1))
    contours = []
    for mask in (first, second):
        image = sitk.GetImageFromArray(mask)
        image.SetSpacing(SPACING[::-1])
        contour = sitk.BinaryContour(image, fullyConnected=False, backgroundValue=0, foregroundValue=1)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(contour) == 1, mask_border(mask))
        contours.append(contour)
    filter_ = sitk.HausdorffDistanceImageFilter()
    filter_.Execute(*contours)
    scores = segmentation_scores(first, second, spacing_mm=SPACING, average="directed_means")
    assert scores.mssd == pytest.approx(filter_.GetHausdorffDistance(), rel=1e-6)
    assert scores.assd == pytest.approx(filter_.GetAverageHausdorffDistance(), rel=1e-6)
    overlap = sitk.LabelOverlapMeasuresImageFilter()
    overlap.Execute(sitk.GetImageFromArray(first), sitk.GetImageFromArray(second))
    assert scores.dsc == pytest.approx(overlap.GetDiceCoefficient(), rel=1e-12)


def test_relative_volume_difference_by_hand() -> None:
    reference = torch.zeros(2, 2, 1, 4)
    reference[:, 1, 0, :2] = 1
    prediction = torch.zeros(2, 2, 1, 4)
    prediction[0, 1, 0, :1] = prediction[1, 1, 0, :] = 1
    metric = RelativeVolumeDifferenceMetric()
    assert metric(prediction, reference).tolist() == [[50.0], [100.0]]
    assert metric.aggregate().item() == 75.0
    signed = RelativeVolumeDifferenceMetric(signed=True, reduction="none")
    signed(prediction, reference)
    assert signed.aggregate().tolist() == [[-50.0], [100.0]]


def test_spacing_of_each_item_comes_from_its_affine() -> None:
    first, second = torch.zeros(1, 4, 4, 4), torch.zeros(1, 4, 4, 4)
    first[0, 1, 1, 1] = second[0, 1, 1, 3] = 1
    turned = torch.tensor([[0.0, -3, 0, 7], [2, 0, 0, 7], [0, 0, -5, 7], [0, 0, 0, 1]])
    affines = [torch.diag(torch.tensor([1.0, 1, 4, 1])), turned]
    metric = MaximumSymmetricSurfaceDistanceMetric(reduction="none")
    as_list = metric([MetaTensor(first, affine=a) for a in affines], [MetaTensor(second, affine=a) for a in affines])
    assert as_list.tolist() == [[8.0], [10.0]]
    batch = MetaTensor(torch.stack([second, second]), affine=torch.stack(affines))
    assert metric(torch.stack([first, first]), batch).tolist() == [[8.0], [10.0]]
    assert metric.aggregate().tolist() == [[8.0], [10.0], [8.0], [10.0]]


def test_spacing_of_an_oblique_slice_counts_all_its_columns() -> None:
    first, second = torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)
    first[..., 1, 1] = second[..., 2, 1] = 1
    sagittal = torch.tensor([[0.0, 0, 1, 0], [0, 2, 0, 0], [3, 0, 0, 0], [0, 0, 0, 1]])
    metric = MaximumSymmetricSurfaceDistanceMetric()
    assert metric(MetaTensor(first, affine=sagittal), MetaTensor(second, affine=sagittal)).tolist() == [[3.0]]


def test_a_tilted_stack_is_measured_in_space() -> None:
    first, second = torch.zeros(1, 1, 3, 9, 3), torch.zeros(1, 1, 3, 9, 3)
    first[..., 1, 4, 0] = second[..., 1, 1, 1] = 1
    tilted = torch.eye(4, dtype=torch.float64)
    tilted[1, 2], tilted[2, 2] = 2.5, 5.0
    metric = SegmentationMetrics(reduction="none")
    batches = [MetaTensor(batch, affine=tilted) for batch in (first, second)]
    lists = [[MetaTensor(batch[0], affine=tilted)] for batch in (first, second)]
    for values in (metric(*batches), metric(*lists)):
        assert values[0, 0, metric.names.index("mssd")].item() == pytest.approx(math.hypot(0.5, 5), abs=1e-12)
    upright = torch.diag(torch.tensor([1.0, 1, math.hypot(2.5, 5), 1], dtype=torch.float64))
    with pytest.raises(InputError, match="other angles between their axes"):
        metric(MetaTensor(first, affine=upright), MetaTensor(second, affine=tilted))


def test_given_spacing_goes_before_the_affine() -> None:
    first, second = torch.zeros(2, 1, 3, 3), torch.zeros(2, 1, 3, 3)
    first[..., 0, 0] = second[..., 0, 2] = 1
    first, second = MetaTensor(first), MetaTensor(second)
    metric = MaximumSymmetricSurfaceDistanceMetric(spacing=3)
    assert metric(first, second).tolist() == [[6.0], [6.0]]
    assert metric(first, second, spacing=(1.0, 5.0)).tolist() == [[10.0], [10.0]]
    assert metric(first, second, spacing=[[1, 5], [1, 2]]).tolist() == [[10.0], [4.0]]
    assert metric(list(first), list(second), spacing=[[1, 5], [1, 2]]).tolist() == [[10.0], [4.0]]
    with pytest.raises(InputError, match=r"spacing is \(1, 2, 3\); expected one number, 2 numbers"):
        metric(first, second, spacing=(1, 2, 3))


def test_spacing_must_be_known_and_agree() -> None:
    first, second = pair()
    metric = AverageSymmetricSurfaceDistanceMetric()
    with pytest.raises(InputError, match=r"no spacing: found plain tensors"):
        metric(first, second)
    scaled = torch.diag(torch.tensor([1.0, 1, 2, 1]))
    with pytest.raises(
        InputError, match=r"reference has the spacing \[\[1\.0, 1\.0, 2\.0\].*prediction \[\[1\.0, 1\.0, 1\.0\]"
    ):
        metric(MetaTensor(first), MetaTensor(second, affine=scaled))
    assert RelativeVolumeDifferenceMetric()(first, second).shape == (2, 2)


def test_infinite_values_are_counted_not_dropped() -> None:
    prediction, reference = pair(batch=3)
    prediction[1, 1] = 0
    metric = SegmentationMetrics(spacing=SPACING, get_not_nans=True, reduction="mean_batch")
    scores = metric(prediction, reference)
    assert scores[1, 0].tolist() == [0.0, 100.0, -100.0, math.inf, math.inf, math.inf, 0.0]
    mean, not_nans = metric.aggregate()["assd"]
    assert mean[0] == math.inf
    assert mean[1] == pytest.approx(scores[:, 1, 3].mean().item())
    assert not_nans.tolist() == [3.0, 3.0]
    summary = metric.summaries()["assd"][0]
    assert (summary.n, summary.n_infinite) == (3, 1)
    assert summary.mean == pytest.approx(scores[[0, 2], 0, 3].mean().item())
    assert metric.summaries()["dsc"][0].n_infinite == 0


def test_empty_masks_are_no_nan_and_no_warning() -> None:
    empty = torch.zeros(1, 2, 4, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert SegmentationMetrics(spacing=1)(empty, empty).tolist() == [[[1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]]]


@pytest.mark.parametrize("as_list", [False, True])
def test_items_of_a_batch_are_scored_at_the_same_time(monkeypatch: pytest.MonkeyPatch, as_list: bool) -> None:
    """Each of two items waits until the other is being scored too."""
    both = threading.Barrier(2, timeout=20)

    class Meeting(RelativeVolumeDifferenceMetric):
        def _score(self, *pair: Any) -> float:
            both.wait()
            return super()._score(*pair)

    monkeypatch.setattr("aide_monai.metrics.monai_metrics.os.cpu_count", lambda: 2)
    prediction, reference = (masks[:, :2] for masks in pair(batch=2))
    found = Meeting()(*(list(masks) if as_list else masks for masks in (prediction, reference)))
    torch.testing.assert_close(found, RelativeVolumeDifferenceMetric()(prediction, reference))


def test_four_foreground_classes_in_items_of_different_spacing() -> None:
    prediction, reference = (
        torch.cat([blobs(seed, (9, 10, 11), classes=5) for seed in seeds]) for seeds in ((0, 1), (2, 3))
    )
    rows = [SPACING, (5.5, 1.0, 0.4)]
    found = SegmentationMetrics(spacing=rows)(prediction, reference)
    assert found.shape == (2, 4, 7)
    for item, spacing in enumerate(rows):
        labels = [masks[item].argmax(dim=0) for masks in (prediction, reference)]
        for label, scores in class_scores(*labels, num_classes=5, spacing_mm=spacing).items():
            expected = [getattr(scores, name) for name in SegmentationMetrics.names]
            np.testing.assert_allclose(found[item, label - 1], expected, rtol=1e-12)


def test_works_in_an_ignite_engine() -> None:
    prediction, reference = pair()
    metric = SegmentationMetrics(spacing=SPACING)
    assert isinstance(metric, CumulativeIterationMetric)
    engine = Engine(lambda engine, batch: batch)
    IgniteMetricHandler(metric_fn=metric, output_transform=lambda output: output).attach(engine, "scores")
    state = engine.run([(prediction, reference)])
    assert state.metrics["dsc"] == pytest.approx(
        DiceMetric(include_background=False)(prediction, reference).mean().item()
    )
    metric.reset()
    with pytest.raises(InputError, match=r"SegmentationMetrics has no values to aggregate"):
        metric.aggregate()


def test_wrong_input() -> None:
    prediction, reference = pair()
    metric = AverageSymmetricSurfaceDistanceMetric(spacing=1)
    with pytest.raises(InputError, match=r"prediction has the shape \(2, 3, 9, 10, 11\), reference \(1, 3"):
        metric(prediction, reference[:1])
    with pytest.raises(InputError, match=r"found 2 predictions and 1 references"):
        metric(list(prediction), list(reference[:1]))
    with pytest.raises(InputError, match=r"no reference"):
        metric(prediction)
    with pytest.raises(InputError, match=r"y has the shape \(2, 3, 9\)"):
        metric(prediction[..., 0, 0], reference[..., 0, 0])
    with pytest.raises(
        InputError, match=r"prediction holds the values 2\.0; expected a binary mask of 0 and 1: one-hot"
    ):
        metric(2 * prediction, reference)
    with pytest.raises(InputError, match=r'edge is "itk"'):
        AverageSymmetricSurfaceDistanceMetric(edge="itk")
    with pytest.raises(InputError, match=r'average is "mean"'):
        SegmentationMetrics(average="mean")
