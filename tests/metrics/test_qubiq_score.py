"""QUBIQ score by hand and on real raters."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from aide_monai.errors import InputError
from aide_monai.metrics import QUBIQScoreMetric, qubiq_dice, qubiq_score


def test_hand_computed_thresholds() -> None:
    raters = np.array([[[1, 1, 0]], [[1, 0, 0]]], dtype=np.uint8)
    probability = np.array([[0.95, 0.25, 0.05]])
    # The mean is 1, 0.5, 0: to 0.2 both maps have two voxels, from 0.3 to 0.5 they have one and two, then one.
    expected = [1, 1, 2 / 3, 2 / 3, 2 / 3, 1, 1, 1, 1]
    np.testing.assert_allclose(qubiq_dice(probability, raters), expected)
    assert qubiq_score(probability, raters) == pytest.approx(8 / 9)


def test_both_empty_is_one_and_one_empty_is_zero() -> None:
    empty, full = np.zeros((2, 2)), np.ones((1, 2, 2))
    assert qubiq_score(empty, 0 * full) == 1.0
    assert qubiq_score(empty, full) == 0.0


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_map_equal_to_a_threshold_reaches_it(dtype: type) -> None:
    tenths = (np.arange(11) / 10).astype(dtype)
    raters = (np.arange(10)[:, None] < np.arange(11)[None]).astype(np.uint8)
    np.testing.assert_array_equal(qubiq_dice(tenths, raters), np.ones(9))
    np.testing.assert_array_equal(qubiq_dice(tenths, raters.mean(axis=0, keepdims=True).astype(dtype)), np.ones(9))


def test_real_raters(aide_data: Path) -> None:
    files = sorted((aide_data / "qubiq/brain-growth").rglob("case*/task01_seg*.nii.gz"))
    case = [file for file in files if file.parent == files[0].parent]
    raters = np.stack([np.squeeze(nib.load(file).get_fdata()) for file in case])
    assert len(raters) == 7
    assert qubiq_score(raters.mean(axis=0), raters) == 1.0
    alone = qubiq_score(raters[0], raters)
    mean = raters.mean(axis=0)
    by_hand = [
        2 * (raters[0] * (mean >= tenth / 10)).sum() / (raters[0].sum() + (mean >= tenth / 10).sum())
        for tenth in range(1, 10)
    ]
    assert 0.5 < alone < 1
    assert alone == pytest.approx(np.mean(by_hand))


def test_metric_over_batches_and_lists() -> None:
    torch.manual_seed(0)
    probability, raters = torch.rand(2, 1, 6, 7), (torch.rand(2, 3, 6, 7) > 0.5).float()
    expected = [qubiq_score(p[0], r) for p, r in zip(probability, raters, strict=True)]
    metric = QUBIQScoreMetric(get_not_nans=True)
    assert metric(probability, raters).flatten().tolist() == expected
    assert metric([probability[0]], [raters[0, :2]]).flatten().tolist() == [
        qubiq_score(probability[0, 0], raters[0, :2])
    ]
    value, count = metric.aggregate()
    assert count == 3
    assert value.item() == pytest.approx((sum(expected) + qubiq_score(probability[0, 0], raters[0, :2])) / 3)


def test_wrong_input() -> None:
    mask = np.zeros((2, 4, 4))
    with pytest.raises(InputError, match=r"prediction has the shape \(4, 3\), reference \(4, 4\)"):
        qubiq_score(np.zeros((4, 3)), mask)
    with pytest.raises(InputError, match=r"probability: found values from 0\.0 to 2\.0; expected 0 to 1"):
        qubiq_score(np.diag([2.0, 0, 0, 0]), mask)
    with pytest.raises(InputError, match=r"raters: found values from nan to nan"):
        qubiq_score(mask[0], mask * np.nan)
    with pytest.raises(InputError, match=r"raters have the shape \(4,\)"):
        qubiq_score(mask[0], mask[0, 0])
    metric = QUBIQScoreMetric()
    with pytest.raises(InputError, match=r"found y_pred \(2, 2, 4, 4\) and y \(2, 3, 4, 4\); expected \(B, 1"):
        metric(torch.zeros(2, 2, 4, 4), torch.zeros(2, 3, 4, 4))
    with pytest.raises(InputError, match=r"QUBIQScoreMetric has no values"):
        metric.aggregate()
