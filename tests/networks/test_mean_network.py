"""The mean of two networks behaves like the logits of one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from aide_monai.networks import MeanNetwork


class Constant(nn.Module):
    """Outputs the same logits in every pixel."""

    def __init__(self, logits: list[float]) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))

    def forward(self, image: Tensor) -> Tensor:
        shape = (len(image), len(self.logits), *image.shape[2:])
        return self.logits.view(1, -1, *[1] * (image.ndim - 2)).expand(shape)


def test_the_softmax_is_the_mean_of_both_by_hand() -> None:
    first = Constant(torch.tensor([0.9, 0.1]).log().add(3).tolist())  # a constant in the logits changes nothing
    second = Constant(torch.tensor([0.2, 0.8]).log().sub(5).tolist())
    output = MeanNetwork(first, second)(torch.zeros(2, 1, 3, 3))
    assert output.shape == (2, 2, 3, 3)
    torch.testing.assert_close(output.softmax(dim=1)[1, :, 2, 2], torch.tensor([0.55, 0.45]))
    torch.testing.assert_close(output.exp(), output.softmax(dim=1))


@pytest.mark.parametrize("shape", [(2, 1, 5, 4), (1, 1, 3, 4, 2)])
def test_agrees_with_the_mean_probability_for_three_classes(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d if len(shape) == 4 else nn.Conv3d
    networks = [conv(1, 3, 3, padding=1) for _ in range(2)]
    image = torch.randn(shape)
    expected = sum(network(image).softmax(dim=1) for network in networks) / 2
    torch.testing.assert_close(MeanNetwork(*networks)(image).softmax(dim=1), expected)


def test_certain_networks_that_disagree_stay_finite() -> None:
    output = MeanNetwork(Constant([1e4, -1e4]), Constant([-1e4, 1e4]))(torch.zeros(1, 1, 1, 1))
    torch.testing.assert_close(output.softmax(dim=1).flatten(), torch.tensor([0.5, 0.5]))


def test_one_state_dict_holds_both() -> None:
    torch.manual_seed(0)
    mean = MeanNetwork(nn.Conv2d(1, 2, 3), nn.Conv2d(1, 2, 3))
    other = MeanNetwork(nn.Conv2d(1, 2, 3), nn.Conv2d(1, 2, 3))
    other.load_state_dict(mean.state_dict())
    image = torch.randn(1, 1, 5, 5)
    assert torch.equal(mean(image), other(image))
    assert set(mean.state_dict()) == {f"network_{i}.{name}" for i in (1, 2) for name in ("weight", "bias")}
