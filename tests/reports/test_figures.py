"""The pictures exist, have content and survive odd input; how they look is judged by eye."""

from __future__ import annotations

import matplotlib.image
import numpy as np
import pytest

from aide_monai.reports import figures
from aide_monai.reports.figures import Overlay


def colours(path) -> np.ndarray:
    """(N, 3) distinct colours of a picture, 0..255."""
    pixels = (matplotlib.image.imread(path)[..., :3] * 255).round().astype(int)
    return np.unique(pixels.reshape(-1, 3), axis=0)


def has(path, hexadecimal: str) -> bool:
    wanted = [int(hexadecimal[i : i + 2], 16) for i in (1, 3, 5)]
    return bool((np.abs(colours(path) - wanted).max(axis=1) <= 2).any())


def test_learning_curves_draw_one_colour_per_method(tmp_path):
    plain = [{"epoch": "1", "loss": "2.0"}, {"epoch": "2", "loss": "1.0"}]
    aide = [{"epoch": 1, "loss": 1.5, "consistency": 0.0, "dsc_train": 0.5, "disagreement": 0.2}]
    figures.learning_curves({"plain": plain, "AIDE": aide}, tmp_path / "deep" / "curves.png")
    assert has(tmp_path / "deep" / "curves.png", figures.COLOURS[0])
    assert has(tmp_path / "deep" / "curves.png", figures.COLOURS[1])


def test_label_quality_needs_the_start(tmp_path):
    rows = [
        {"epoch": epoch, "network": network, "mean_dice": 0.5 + 0.1 * epoch, "corrected": epoch}
        for epoch in (0, 1, 2)
        for network in (1, 2)
    ]
    figures.label_quality(rows, tmp_path / "quality.png")
    assert has(tmp_path / "quality.png", figures.COLOURS[1])


def test_memorisation_draws_given_and_clean_labels(tmp_path):
    plain = [{"epoch": epoch, "fit_given": 0.5 + 0.1 * epoch, "fit_clean": 0.7 - 0.1 * epoch} for epoch in (1, 2)]
    aide = [row | {"label_quality_1": 0.6, "label_quality_2": 0.7} for row in plain]
    figures.memorisation({"plain": plain, "AIDE": aide}, tmp_path / "memorisation.png")
    for colour in (figures.LABEL_COLOUR, figures.REFERENCE_COLOUR, figures.COLOURS[0], figures.COLOURS[1]):
        assert has(tmp_path / "memorisation.png", colour)


@pytest.mark.parametrize("values", [[0.5], [0.1, 0.2, float("inf")]])
def test_box_plot_takes_one_case_and_leaves_out_infinite_values(tmp_path, values):
    rows = [{"method": "AIDE", "network": "mean", "assd": value} for value in values]
    figures.per_case_boxplot(rows, tmp_path / "box.png", metric="assd")
    assert (tmp_path / "box.png").stat().st_size > 5000


def test_names_with_dollar_signs_are_no_mathematics(tmp_path):
    rows = [{"method": "AIDE", "network": "mean", "label_name": "a$_$b", "assd": 1.0, "dsc": 0.5, "ravd": 0, "mssd": 1}]
    figures.metric_boxplots(rows, tmp_path / "box.png")
    figures.overlays([[Overlay(np.eye(8), None, None, "c_$1_$2_")]], tmp_path / "o.png", title="$_$", legend=("a", "b"))


def test_overlays_draw_label_and_reference(tmp_path):
    image = np.random.default_rng(0).random((32, 32))
    mask = np.zeros((32, 32), np.uint8)
    mask[8:20, 8:20] = 1
    panels = [
        [Overlay(image, mask, np.roll(mask, 5), "a"), Overlay(image, None, None, "nothing drawn")],
        [Overlay(image, mask, np.ones_like(mask), "all foreground"), Overlay(image, np.zeros_like(mask), mask, "b")],
    ]
    path = tmp_path / "overlay.png"
    figures.overlays(panels, path, title="Title", legend=("reference", "prediction"))
    assert has(path, figures.REFERENCE_COLOUR)
    assert has(path, figures.LABEL_COLOUR)


def test_overlay_without_masks_has_no_contours(tmp_path):
    path = tmp_path / "plain.png"
    figures.overlays([[Overlay(np.zeros((8, 8)), None, None, "")]], path, title="", legend=("a", "b"))
    assert not has(path, figures.LABEL_COLOUR)
