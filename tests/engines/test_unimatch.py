"""UniMatch by hand: which pixels are sure, what strong views learn, whose labels pasted boxes have."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from aide_monai.engines import UniMatchTrainer
from aide_monai.engines.unimatch import confident_loss
from aide_monai.errors import InputError
from tests.engines.by_hand import Scale, batch, trainer


class Deep(Scale):
    """``Scale`` with features, of half the size, that can be dropped: a channel for each class."""

    def __init__(self, weight: float) -> None:
        super().__init__(weight)
        self.encoder, self.decoder = nn.MaxPool2d(2), nn.Upsample(scale_factor=2)

    def forward(self, image: Tensor) -> Tensor:
        return self.decoder(self.encoder(super().forward(image)))


def engine_of(data: list, weight: float = 2.0, **options):
    engine = trainer(UniMatchTrainer, [], strong=lambda image: image, **options)
    networks = [Deep(weight), Deep(weight)]
    optimizers = [torch.optim.SGD(network.parameters(), lr=0.0) for network in networks]
    return UniMatchTrainer(
        "cpu",
        1,
        data,
        networks[0],
        optimizers[0],
        networks[1],
        optimizers[1],
        loss_function=engine.segmentation_loss,
        strong=engine.strong,
        **options,
    )


def test_only_sure_pixels_are_learnt_and_all_count() -> None:
    # Probabilities of class 1: 0.9, 0.05, 0.6. The first two are sure, of class 1 and 0.
    target = torch.tensor([[[[0.1, 0.95, 0.4]], [[0.9, 0.05, 0.6]]]], requires_grad=True)
    logits = torch.tensor([[[[0.0, 0.0, 0.0]], [[0.0, math.log(3), 7.0]]]], requires_grad=True)
    loss = confident_loss(logits, target, 0.9)
    assert loss.item() == pytest.approx((math.log(2) + math.log(4)) / 3)
    loss.backward()
    assert target.grad is None
    assert confident_loss(logits, target, 0.96).item() == 0.0


def test_strong_views_learn_what_the_weak_one_is_sure_of() -> None:
    # One doubtful image of ones: the probability of class 1 is sigmoid(2) = 0.88, for all passes where nothing changes.
    data = batch([[[1.0] * 4] * 4, [[1.0] * 4] * 4], [[[2] * 4] * 4, [[0] * 4] * 4], [True, False])
    nll = -math.log(1 / (1 + math.exp(-2)))
    for threshold, expected in ((0.8, (0.5 + 0.5) * nll), (0.9, 0.0)):
        engine = engine_of([data], threshold=threshold, dropout=0.0)
        engine.run()
        assert float(engine.state.output["loss_1"]) == pytest.approx(expected / 2, rel=1e-5)  # trusted: (2 - 2)^2 = 0


def test_weights_of_features_and_views() -> None:
    data = batch([[[1.0] * 4] * 4, [[1.0] * 4] * 4], [[[2] * 4] * 4, [[0] * 4] * 4], [True, False])
    nll = -math.log(1 / (1 + math.exp(-2)))
    engine = engine_of([data], threshold=0.8, dropout=0.0, feature_weight=0.25, view_weight=1.0)
    engine.run()
    assert float(engine.state.output["loss_1"]) == pytest.approx(1.25 * nll / 2, rel=1e-5)
    # With all features dropped but for rounding, both classes have the same logits.
    engine = engine_of([data], threshold=0.8, dropout=0.999, feature_weight=1.0, view_weight=0.0)
    engine.run()
    assert float(engine.state.output["loss_1"]) == pytest.approx(math.log(2) / 2, rel=1e-5)


def test_labels_move_with_pasted_boxes() -> None:
    # Two doubtful images, +1 and -1: a box takes its class along, so that each view is predicted as its labels say.
    data = batch(
        [[[1.0] * 4] * 4, [[1.0] * 4] * 4, [[-1.0] * 4] * 4],
        [[[2] * 4] * 4, [[0] * 4] * 4, [[0] * 4] * 4],
        [True, False, False],
    )
    engine = engine_of([data], threshold=0.8, dropout=0.0, box_probability=1.0, size=0.5)
    engine.boxes._mix = even_corners(engine.boxes._mix)
    engine.run()
    nll = -math.log(1 / (1 + math.exp(-2)))
    assert float(engine.state.output["loss_1"]) == pytest.approx(nll / 2, rel=1e-5)


def even_corners(draw):
    """Boxes of two pixels whose corners lie on even pixels, which the network's pooling keeps apart."""

    def drawn(*arguments):
        mix = draw(*arguments)
        return type(mix)(mix.turn, mix.order, mix.chosen, torch.zeros_like(mix.corner), size=mix.size)

    return drawn


def test_a_batch_of_one_kind_is_trained_on() -> None:
    kinds = [batch([[[1.0] * 4] * 4] * 2, [[[2] * 4] * 4] * 2, [trusted] * 2) for trusted in (True, False)]
    engine = engine_of(kinds)
    engine.run()
    assert engine.state.iteration == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [("threshold", 1.5), ("feature_weight", -1), ("view_weight", -1), ("dropout", 1.0), ("box_probability", 1.5)],
)
def test_wrong_options_are_refused(name, value) -> None:
    with pytest.raises(InputError, match=f"{name} is {value}"):
        trainer(UniMatchTrainer, [], **{name: value})
