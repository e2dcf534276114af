"""Labels in the order in which they should be looked at, with probabilities that mean what they say."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from aide_monai.audit import rank
from aide_monai.audit.calibration import calibrate
from aide_monai.audit.kinds import MISTAKES
from aide_monai.errors import InputError
from aide_monai.transforms.label_noise import shift_boundary

SPACING = (1.0, 1.0, 2.0)


def organs(seed: int) -> np.ndarray:
    """Two ellipsoids of two classes, of a size and place of their own."""
    rng = np.random.default_rng(seed)
    x, y, z = np.ogrid[:36, :36, :14]
    truth = np.zeros((36, 36, 14), np.uint8)
    for index, (middle, radius) in enumerate(((12, 7), (26, 5)), start=1):
        centre, size = middle + rng.uniform(-1.5, 1.5), radius + rng.uniform(-0.8, 0.8)
        truth[(x - centre) ** 2 + (y - 18) ** 2 + 4 * (z - 7) ** 2 < size**2] = index
    return truth


def predicted(truth: np.ndarray, seed: int) -> np.ndarray:
    """Probabilities of a network that is right but for its borders."""
    moved = shift_boundary(truth, magnitude_mm=0.4, spacing_mm=SPACING, generator=np.random.default_rng(seed + 1000))
    shares = np.stack([ndimage.gaussian_filter((moved == k).astype(np.float32), 0.8) for k in range(3)])
    return shares / shares.sum(axis=0)


TRUTH = {f"c{number:02d}": organs(number) for number in range(30)}
SHARES = {case: predicted(truth, number) for number, (case, truth) in enumerate(TRUTH.items())}
WRONG = ["c03", "c11", "c24"]


def spoilt(name: str) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(7)
    return {c: MISTAKES[name](t, SPACING, 2, rng) if c in WRONG else t for c, t in TRUTH.items()}


@pytest.mark.parametrize("name", ["larger", "smaller", "elastic", "dropped", "swapped", "missing"])
def test_wrong_labels_come_first(name: str) -> None:
    found = rank(spoilt(name), SHARES, spacing_mm=SPACING).cases
    assert sorted(verdict.case for verdict in found[:3]) == WRONG
    assert min(verdict.score for verdict in found[:3]) > 0.5
    assert np.mean([verdict.score for verdict in found[3:]]) < 0.2


def test_mistakes_of_a_kind_that_was_not_learned_are_found_too() -> None:
    others = [name for name in MISTAKES if name not in ("missing", "dropped")]
    found = rank(spoilt("missing"), SHARES, spacing_mm=SPACING, mistakes=others).cases
    assert sorted(verdict.case for verdict in found[:3]) == WRONG


def test_labels_that_are_right_are_not_accused() -> None:
    found = rank(TRUTH, SHARES, spacing_mm=SPACING)
    assert np.mean([verdict.score > 0.5 for verdict in found.cases]) <= 0.1
    assert found.calibration.error < 0.1


def test_a_region_of_a_wrong_label_is_likelier_than_one_of_a_right_label() -> None:
    found = {verdict.case: verdict for verdict in rank(spoilt("missing"), SHARES, spacing_mm=SPACING).cases}
    assert all(found[case].regions[0][1] > 0.5 for case in WRONG)
    others = [score for case, verdict in found.items() if case not in WRONG for _, score in verdict.regions]
    assert np.mean(others or [0.0]) < 0.3


def test_the_order_depends_on_nothing_but_the_seed() -> None:
    labels = spoilt("elastic")
    scores = [
        [(v.case, v.score) for v in rank(labels, SHARES, spacing_mm=SPACING, seed=seed).cases] for seed in (1, 1, 2)
    ]
    assert scores[0] == scores[1] != scores[2]


def test_masks_and_several_models_and_flat_images() -> None:
    masks = {case: shares.argmax(axis=0).astype(np.uint8) for case, shares in SHARES.items()}
    assert sorted(v.case for v in rank(spoilt("missing"), masks, spacing_mm=SPACING).cases[:3]) == WRONG
    both = {case: np.stack([shares, shares]) for case, shares in SHARES.items()}
    one, two = ([v.score for v in rank(spoilt("larger"), p, spacing_mm=SPACING).cases] for p in (SHARES, both))
    assert one == pytest.approx(two)
    flat = {case: label[..., 7] for case, label in spoilt("missing").items()}
    found = rank(flat, {case: shares[..., 7] for case, shares in SHARES.items()}, spacing_mm=(1.0, 1.0)).cases
    assert sorted(verdict.case for verdict in found[:3]) == WRONG


def test_voxels_without_a_verdict_on_arrays() -> None:
    """Where 255 covers all that is wrong, nothing is; the arrays stay as they were."""
    label, shares = TRUTH["c00"].copy(), SHARES["c00"].copy()
    label[:20], shares[:, :20] = 255, np.eye(3)[2][:, None, None, None]  # nonsense under the 255
    before = label.copy(), shares.copy()
    found = rank({"a": label}, {"a": shares}, spacing_mm=SPACING).cases[0]
    assert all(region.box[0][0] >= 20 for region, _ in found.regions)
    assert all(np.array_equal(*pair) for pair in zip(before, (label, shares), strict=True))
    mask = rank({"a": label}, {"a": shares.argmax(axis=0)}, spacing_mm=SPACING).cases[0]
    assert all(region.box[0][0] >= 20 for region, _ in mask.regions)


def test_one_label_alone() -> None:
    found = rank({"a": TRUTH["c00"]}, {"a": SHARES["c00"]}, spacing_mm=SPACING)
    assert 0 <= found.cases[0].score <= 1
    empty = rank({"a": np.zeros((9, 9, 3), np.uint8)}, {"a": np.zeros((9, 9, 3), np.uint8)}, spacing_mm=SPACING)
    assert empty.cases[0].score == pytest.approx(0.1)  # what is expected, for nothing is known


def test_everything_that_is_wrong_is_told_at_once() -> None:
    label = TRUTH["c00"]
    share = SHARES["c00"]
    labels = dict.fromkeys("abcdefgh", label)
    given = {
        "a": share[:, :-1],
        "b": 8 * share - 4,
        "c": share[:2] / share[:2].sum(axis=0),
        "d": 0.5 * share,
        "e": np.where(share > 2, 0, np.nan),
        "f": share[1],
        "x": share,
        "g": share,
    }
    with pytest.raises(InputError) as caught:
        rank(labels, given, spacing_mm=SPACING)
    message = str(caught.value)
    for part in (
        'case "a": found probabilities of shape (3, 35, 36, 14) for a label of shape (36, 36, 14)',
        "apply softmax if these are logits",
        'case "c": found the class 2 in the label; expected below 2',
        "probabilities that add up to 0.5 to 0.5",
        "probabilities that are no numbers",
        'case "f": found one number per voxel',
        'case "x": found no label',
        'case "h": found no prediction',
    ):
        assert part in message
    assert "8 problems" in message
    with pytest.raises(InputError, match="no labels"):
        rank({}, {}, spacing_mm=SPACING)
    with pytest.raises(InputError, match=r"mistakes is 'bigger'; expected one of larger, smaller"):
        rank({"g": label}, {"g": share}, spacing_mm=SPACING, mistakes=["larger", "bigger"])
    with pytest.raises(InputError, match=r"expected is 1.5"):
        rank({"g": label}, {"g": share}, spacing_mm=SPACING, expected=1.5)


def test_probabilities_are_those_of_the_drawing() -> None:
    """Two normal distributions, three apart, a tenth of the given from the second: what is said happens as often."""
    rng = np.random.default_rng(0)
    given = np.concatenate([rng.normal(0, 1, (900, 1)), rng.normal(3, 1, (100, 1))])
    model = calibrate(given.tolist(), rng.normal(3, 1, (300, 1)).tolist(), expected=0.1, doubtful=0.1)
    said, so = model(given.tolist()), np.repeat([0.0, 1.0], [900, 100])
    for low, high in ((0.0, 0.1), (0.1, 0.5), (0.5, 1.0)):
        inside = (said >= low) & (said < high)
        assert abs(said[inside].mean() - so[inside].mean()) < 0.12
    assert model([[5.0]])[0] > model([[1.0]])[0] > model([[-3.0]])[0]


def test_mistakes_that_are_there_do_not_teach_that_they_are_right() -> None:
    """A tenth of what was given is as bad as what was spoilt, and is said to be."""
    rng = np.random.default_rng(1)
    given = np.concatenate([rng.normal(0, 1, (90, 2)), rng.normal(6, 1, (10, 2))])
    model = calibrate(given.tolist(), rng.normal(6, 1, (60, 2)).tolist(), expected=0.1, doubtful=0.1)
    said = model(given.tolist())
    assert said[90:].min() > 0.8
    assert said[:90].max() < 0.5


def test_more_of_a_measure_never_speaks_for_a_label() -> None:
    rng = np.random.default_rng(2)
    given, made = rng.normal(0, 1, (50, 2)), rng.normal([3, -3], 1, (50, 2))
    assert (calibrate(given.tolist(), made.tolist(), expected=0.1).weights[:-1] >= 0).all()
