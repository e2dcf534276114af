"""Whole volumes on their own grid."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from aide_monai.networks import MeanNetwork
from aide_monai.stream.preprocessing import load_volumes, volume_transforms
from aide_monai.workflows.evaluate import evaluate, network_variants, predict
from aide_monai.workflows.prepare import prepare_datalist


class Threshold(nn.Module):
    """Foreground where the image is above a value, so that the right answer is known."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, image):
        return torch.cat([torch.zeros_like(image), 10 * (image - self.value)], dim=1)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("slice_size", [(16, 16), (32, 32), (48, 40)])
def test_prediction_covers_volumes_of_any_size_along_any_axis(axis, slice_size):
    image = torch.rand(1, 20, 30, 25)
    prediction = predict(Threshold(0.5), image, axis=axis, slice_size=slice_size)
    assert prediction.dtype == torch.uint8
    assert torch.equal(prediction, (image[0] > 0.5).to(torch.uint8))


def test_a_network_that_is_right_scores_one(phantoms):
    datalist = prepare_datalist(phantoms, labeled=1, unlabeled=3)
    volumes = load_volumes(datalist.split("test"), volume_transforms(axis=2))
    volumes = [{**volume, "image": volume["label"].float()} for volume in volumes]
    networks = MeanNetwork(Threshold(0.5), Threshold(2.0))  # the second one sees nothing
    rows = evaluate(networks, volumes, labels={0: "background", 1: "organ"}, method="AIDE", axis=2, slice_size=(32, 32))
    assert [row["network"] for row in rows] == ["mean"] * 2 + ["network_1"] * 2 + ["network_2"] * 2
    assert {row["case"] for row in rows} == {volume["case"] for volume in volumes}
    single = {row["network"]: row for row in rows}
    assert single["network_1"]["dsc"] == 1
    assert single["network_1"]["mssd"] == 0
    assert single["network_2"]["dsc"] == 0
    assert single["network_2"]["ravd"] == 100
    assert single["network_2"]["assd"] == float("inf")
    assert single["network_1"]["label_name"] == "organ"
    assert single["network_1"]["tp"] == int(volumes[-1]["label"].sum())


def test_distances_are_in_mm_of_the_volume(phantoms):
    datalist = prepare_datalist(phantoms, labeled=1, unlabeled=3)
    volume = load_volumes(datalist.split("test")[:1], volume_transforms(axis=2))[0]
    label = torch.zeros_like(volume["label"])
    label[0, 10:20, 10:20, 2] = 1
    image = torch.roll(label, 1, dims=3).float()  # one slice off
    rows = evaluate(
        Threshold(0.5),
        [{**volume, "image": image, "label": label}],
        labels={0: "background", 1: "organ"},
        method="m",
        axis=2,
        slice_size=(32, 32),
    )
    assert rows[0]["mssd"] == pytest.approx(20)  # the phantoms' slice spacing


def test_variants():
    single = Threshold(0)
    assert network_variants(single) == {"single": single}
    assert list(network_variants(MeanNetwork(Threshold(0), Threshold(1)))) == ["mean", "network_1", "network_2"]
