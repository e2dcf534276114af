"""Algorithm 1 a second time, as naively as possible, to check the package against.

Written from Algorithm 1 and the meaning of its options. Only their names are shared with the package: one sample, one
class and, where bearable, one pixel at a time, in double precision.

The views are the only random thing. A generator seeded like the trainer's gives ``rand(2, K * samples)`` for the
pseudo-labels that train network 1, then for those that train network 2: first all angles, then all flips, view by view
and sample by sample within a view. A view is rotated about the image centre, then mirrored: the pixel at offset v from
the centre of the view shows what lies at the offset R(angle) m(v) in the image.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


@dataclass
class Case:
    """One volume with slices along its last axis: image (M, X, Y, Z), label (X, Y, Z)."""

    name: str
    image: Tensor
    label: Tensor
    trusted: bool


@dataclass(order=True)
class Change:
    """One replaced label, as the label store records it; ``slice`` is -1 for a whole case."""

    epoch: int
    network: int
    case: str
    slice: int
    dice_before: float
    voxels_changed: int


@dataclass
class Epoch:
    """What one epoch did; pairs are of network 1 and network 2."""

    ramp: float = 0.0
    losses: list[list[float]] = field(default_factory=list)
    kept: list[list[list[int]]] = field(default_factory=list)
    weights: list[dict[str, Tensor]] = field(default_factory=list)
    dsc_train: float = 0.0
    changes: list[Change] = field(default_factory=list)
    labels: list[dict[str, np.ndarray]] = field(default_factory=list)
    # not compared, but a comparison in which these stay 0 shows little
    skipped_high_quality: int = 0
    withheld: int = 0
    voxels_outside_the_largest_component: int = 0


class NaiveAide:
    """Both networks, their labels and optimisers.

    Args:
        networks: network 1 and 2; they are copied.
        cases: the training set.
        options: an object with the options of the algorithm as attributes.
        make_optimizer: optimiser of a network's parameters.
        seed: seed of the views.
    """

    def __init__(
        self,
        networks: Sequence[nn.Module],
        cases: Sequence[Case],
        *,
        options: Any,
        make_optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer],
        seed: int,
    ) -> None:
        self.networks = [copy.deepcopy(network).double() for network in networks]
        self.averages = copy.deepcopy(self.networks) if options.average else self.networks
        self.steps = 0
        self.optimizers = [make_optimizer(network.parameters()) for network in self.networks]
        self.cases = cases
        self.options = options
        self.generator = torch.Generator().manual_seed(seed)
        self.initial = {case.name: case.label.numpy().astype(int) for case in cases}
        self.labels = [copy.deepcopy(self.initial), copy.deepcopy(self.initial)]
        self.sound = copy.deepcopy(self.labels)  # what the networks agreed with the trusted labels after
        self.corrected_since = self.taken_back = False
        self.best = 0.0

    def run(self, batches: Sequence[Sequence[Sequence[tuple[int, int]]]]) -> Iterator[Epoch]:
        """Train on the (case, slice) pairs of each batch of each epoch."""
        for number, batches_of_epoch in enumerate(batches, start=1):
            epoch = Epoch(ramp=naive_ramp(number, self.options.warmup_epochs))
            for batch in batches_of_epoch:
                self._step(batch, epoch)
            epoch.weights = [copy.deepcopy(network.state_dict()) for network in self.averages]
            self._correct_labels(number, epoch)
            epoch.labels = copy.deepcopy(self.labels)
            yield epoch

    # One iteration

    def _step(self, batch: Sequence[tuple[int, int]], epoch: Epoch) -> None:
        samples = range(len(batch))
        images = torch.stack([self._image(*sample) for sample in batch])
        for network in self.networks:
            network.train()
        logits = [network(images) for network in self.networks]
        losses = [[naive_segmentation(logits[i][b], self._label(i, *batch[b])) for b in samples] for i in (0, 1)]
        kept = []
        for i in (0, 1):
            groups = [list(samples)]
            if self.options.filter_strata == "foreground":
                empty = [b for b in samples if not (self._label(i, *batch[b]) > 0).any()]
                groups = [empty, [b for b in samples if b not in empty]]
            selected = []
            for group in groups:
                number = max(1, math.floor(self.options.keep * len(group)))
                selected += sorted(group, key=lambda b, i=i: (losses[i][b].item(), b))[:number]
            kept.append(selected)

        totals = []
        for i in (0, 1):
            peer = 1 - i
            trusted, suspicious = kept[peer], [b for b in samples if b not in kept[peer]]
            total = sum(losses[i][b] for b in trusted) / len(trusted)
            if suspicious:
                pseudo = self._pseudo_labels(i, images, [o.detach() for o in logits], suspicious, epoch.ramp)
                supervised = max(1 - epoch.ramp, self.options.supervised_floor)
                total = total + supervised * sum(losses[i][b] for b in suspicious) / len(suspicious)
                if pseudo:
                    distances = [
                        naive_consistency(logits[i][b], pseudo[b], self.options.confidence) for b in suspicious
                    ]
                    weight = self.options.consistency_weight * epoch.ramp
                    total = total + weight * sum(distances) / len(suspicious)
            totals.append(total)
        for optimizer, total in zip(self.optimizers, totals, strict=True):
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
        self._average_weights()
        epoch.losses.append([total.item() for total in totals])
        epoch.kept.append([sorted(selected) for selected in kept])

    def _average_weights(self) -> None:
        self.steps += 1
        past = min(self.options.average, self.steps / (self.steps + 9))
        for network, average in zip(self.networks, self.averages, strict=True):
            for name, now in network.state_dict().items():
                before = average.state_dict()[name]
                before.copy_(past * before + (1 - past) * now if now.is_floating_point() else now)

    def _pseudo_labels(
        self, index: int, images: Tensor, logits: list[Tensor], suspicious: list[int], ramp: float
    ) -> dict[int, Tensor]:
        """By suspicious sample: (C, H, W) probabilities for network ``index`` to agree with."""
        options = self.options
        if ramp == 0 and options.view_statistics == "running":
            return {}  # without a weight and without an effect on the network
        source = index if options.pseudo_label_source == "own" else 1 - index
        viewed = list(range(len(images))) if options.view_samples == "all" else suspicious
        turns = self._draw(options.views * len(viewed))
        views = []
        for k in range(options.views):
            for position, b in enumerate(viewed):
                views.append(view_of(images[b].numpy(), turns[k * len(viewed) + position]))
        network = self.networks[source]
        if options.view_statistics == "running":
            network = self.averages[source].eval()
        with torch.no_grad():
            outputs = network(torch.from_numpy(np.stack(views))).numpy()
        network.train()

        pseudo = {}
        for position, b in enumerate(viewed):
            if b in suspicious:
                mine = [k * len(viewed) + position for k in range(options.views)]
                average = self._average([outputs[n] for n in mine], [turns[n] for n in mine], logits[source][b].numpy())
                pseudo[b] = torch.from_numpy(average)
        return pseudo

    def _average(self, outputs: list[np.ndarray], turns: list[Turn], plain: np.ndarray) -> np.ndarray:
        """The views' logits (C, H, W) taken back, averaged and sharpened."""
        _, height, width = plain.shape
        average = np.zeros_like(plain)
        for i in range(height):
            for j in range(width):
                found = []
                for output, turn in zip(outputs, turns, strict=True):
                    row, column, visible = where_in_the_view(turn, i, j, height, width)
                    if self.options.view_inverse == "logits":
                        value = between(output, row, column, outside="edge") if visible else np.zeros(len(plain))
                        found.append(softmax(value))
                    elif visible:
                        found.append(between(softmax(output), row, column, outside="edge"))
                value = sum(found) / len(found) if found else softmax(plain[:, i, j])
                average[:, i, j] = sharpened(value, self.options.temperature, self.options.sharpening)
        return average

    def _draw(self, number: int) -> list[Turn]:
        angles, flips = torch.rand(2, number, generator=self.generator).tolist()
        limit, probability = math.radians(self.options.max_angle), self.options.flip_probability
        return [
            Turn((2 * angle - 1) * limit, self.options.flip_axis if flip < probability else None)
            for angle, flip in zip(angles, flips, strict=True)
        ]

    def _image(self, number: int, z: int) -> Tensor:
        return self.cases[number].image[..., z].double()

    def _label(self, i: int, number: int, z: int) -> Tensor:
        return torch.from_numpy(self.labels[i][self.cases[number].name][..., z].copy())

    # After each epoch

    def _correct_labels(self, epoch: int, result: Epoch) -> None:
        options = self.options
        units = [
            (number, z)
            for number, case in enumerate(self.cases)
            for z in ([None] if options.unit == "case" else range(case.label.shape[2]))
        ]
        mean = options.correction_source == "mean"
        predictions = [[self._predict((0, 1) if mean else (i,), case, result) for case in self.cases] for i in (0, 1)]
        agreement = [[self._dice(predictions[i], self.labels[i], unit) for unit in units] for i in (0, 1)]
        result.dsc_train = sum(sum(dice) / len(dice) for dice in agreement) / 2

        if self._left_the_trusted(epoch, agreement, units, result):
            return
        if epoch < options.correction_start:
            return
        if epoch > options.warmup_epochs and epoch % options.update_interval != 0:
            return
        trusted = [n for n, (number, _) in enumerate(units) if self.cases[number].trusted] or range(len(units))
        if sum(sum(dice[n] for n in trusted) / len(trusted) for dice in agreement) / 2 < options.correction_dice:
            return
        ranked = agreement
        if options.ranking_reference == "released":
            against = [self.initial, self.labels[0]]
            ranked = [[self._dice(predictions[i], against[i], unit) for unit in units] for i in (0, 1)]
        candidates = [
            n for n, (number, _) in enumerate(units) if options.rank_high_quality or not self.cases[number].trusted
        ]
        for i in (0, 1):
            order = sorted(candidates, key=lambda n, i=i: (ranked[i][n], n))
            for n in order[: math.floor(options.update_ratio * len(candidates))]:
                number, z = units[n]
                if self.cases[number].trusted:
                    result.skipped_high_quality += 1
                    continue
                name = self.cases[number].name
                where = (..., slice(None) if z is None else z)
                old, new = self.labels[1 - i][name][where].copy(), predictions[i][number][where]
                has = np.count_nonzero(self.labels[1 - i][name])
                left = has - np.count_nonzero(old) + np.count_nonzero(new)
                if left < min(has, options.correction_foreground * np.count_nonzero(self.initial[name])):
                    result.withheld += 1
                    continue
                self.labels[1 - i][name][where] = new
                self.corrected_since = True
                changed = sum(1 for a, b in zip(old.flat, new.flat, strict=True) if a != b)
                result.changes.append(
                    Change(epoch, 2 if i == 0 else 1, name, -1 if z is None else z, ranked[i][n], changed)
                )

    def _left_the_trusted(self, epoch: int, agreement: list[list[float]], units: list, result: Epoch) -> bool:
        """Whether corrections are over; in the epoch in which that is found, labels become the sound ones again."""
        trusted = [n for n, (number, _) in enumerate(units) if self.cases[number].trusted]
        if not trusted or self.options.trusted_share == 0 or self.options.trusted_drop == 1:
            return False
        dice = sum(sum(found[n] for n in trusted) / len(trusted) for found in agreement) / 2
        self.best = max(self.best, dice)
        if self.taken_back:
            return True
        if dice >= self.best - self.options.trusted_drop:
            self.sound, self.corrected_since = copy.deepcopy(self.labels), False
            return False
        if self.corrected_since:
            for i in (0, 1):
                for name, label in self.sound[i].items():
                    if changed := int((label != self.labels[i][name]).sum()):
                        result.changes.append(Change(epoch, i + 1, name, -1, dice, changed))
            self.labels, self.taken_back = copy.deepcopy(self.sound), True
        return True

    def _predict(self, which: Sequence[int], case: Case, result: Epoch) -> np.ndarray:
        """(X, Y, Z) classes of one network, or of the mean of both, slice by slice."""
        networks = [self.averages[i].eval() for i in which]
        prediction = np.zeros(case.label.shape, dtype=int)
        with torch.no_grad():
            for z in range(prediction.shape[2]):
                found = [softmax(network(case.image[..., z].double()[None])[0].numpy()) for network in networks]
                likely = sum(found) / len(found)
                for x in range(prediction.shape[0]):
                    for y in range(prediction.shape[1]):
                        prediction[x, y, z] = max(range(len(likely)), key=lambda c, at=(x, y): likely[(c, *at)])
        if self.options.largest_component == "none":
            return prediction
        kept = prediction
        if self.options.largest_component == "foreground":
            kept = np.where(largest_components((prediction > 0).astype(np.uint8)), prediction, 0)
        kept = largest_components(kept)
        result.voxels_outside_the_largest_component += int((kept != prediction).sum())
        return kept

    def _dice(self, predictions: list[np.ndarray], labels: dict[str, np.ndarray], unit: tuple[int, Any]) -> float:
        number, z = unit
        where = (..., slice(None) if z is None else z)
        prediction, label = predictions[number][where], labels[self.cases[number].name][where]
        classes = self.averages[0](self._image(0, 0)[None]).shape[1]
        return naive_dice(prediction, label, classes)


def naive_ramp(epoch: int, warmup_epochs: int) -> float:
    """Lambda of a 1-based epoch."""
    if warmup_epochs == 0 or epoch > warmup_epochs:
        return 1.0
    return ((epoch - 1) / warmup_epochs) ** 2


# Losses of one sample


def naive_segmentation(logits: Tensor, label: Tensor) -> Tensor:
    """Eq. 1, logits (C, H, W) and label (H, W): foreground Dice with 1 added above and below, plus cross-entropy."""
    probability = logits.exp() / logits.exp().sum(dim=0)
    cross_entropy, dice = torch.tensor(0.0), torch.tensor(0.0)
    for c in range(len(logits)):
        truth = (label == c).double()
        cross_entropy = cross_entropy - (truth * probability[c].log()).sum() / truth.numel()
        if c > 0:
            overlap, total = (truth * probability[c]).sum(), truth.sum() + probability[c].sum()
            dice = dice + (1 - (2 * overlap + 1) / (total + 1)) / (len(logits) - 1)
    return dice + cross_entropy


def naive_consistency(logits: Tensor, pseudo: Tensor, confidence: str) -> Tensor:
    """Eq. 2, each pixel weighted by the confidence of its pseudo-label."""
    probability = logits.exp() / logits.exp().sum(dim=0)
    squared = torch.tensor(0.0)
    weight = torch.ones_like(pseudo[0])
    if confidence == "binary":
        weight = 1 - 4 * pseudo[0] * pseudo[1]
    for c in range(len(logits)):
        squared = squared + (probability[c] - pseudo[c]) ** 2
        if confidence == "entropy":
            weight = weight + pseudo[c] * pseudo[c].log() / math.log(len(logits))
    return (weight * squared).sum() / squared.numel() / 2


# Views


@dataclass
class Turn:
    """A rotation in radians and the axis that is mirrored afterwards, if any."""

    angle: float
    mirrored_axis: int | None


def view_of(image: np.ndarray, turn: Turn) -> np.ndarray:
    """The view (M, H, W) of an image, black where it shows what lies outside."""
    _, height, width = image.shape
    view = np.zeros_like(image)
    for i in range(height):
        for j in range(width):
            offset = [i - (height - 1) / 2, j - (width - 1) / 2]
            if turn.mirrored_axis is not None:
                offset[turn.mirrored_axis] *= -1
            down, right = rotated(offset, turn.angle)
            view[:, i, j] = between(image, down + (height - 1) / 2, right + (width - 1) / 2, outside="black")
    return view


def where_in_the_view(turn: Turn, i: int, j: int, height: int, width: int) -> tuple[float, float, bool]:
    """Row and column at which a view shows the image's pixel (i, j), and whether that is within the view at all.

    The view ends at the rim of its outermost pixels, half a pixel beyond their centres.
    """
    offset = rotated([i - (height - 1) / 2, j - (width - 1) / 2], -turn.angle)
    if turn.mirrored_axis is not None:
        offset[turn.mirrored_axis] *= -1
    visible = abs(offset[0]) <= height / 2 and abs(offset[1]) <= width / 2
    return offset[0] + (height - 1) / 2, offset[1] + (width - 1) / 2, visible


def rotated(offset: Sequence[float], angle: float) -> list[float]:
    cos, sin = math.cos(angle), math.sin(angle)
    return [cos * offset[0] - sin * offset[1], sin * offset[0] + cos * offset[1]]


def between(picture: np.ndarray, row: float, column: float, *, outside: str) -> np.ndarray:
    """Bilinear value (C,) of a picture (C, H, W); outside lies "black", or what lies at the "edge"."""
    _, height, width = picture.shape
    if outside == "edge":
        row, column = min(max(row, 0), height - 1), min(max(column, 0), width - 1)
    total = np.zeros(len(picture))
    for i in (math.floor(row), math.floor(row) + 1):
        for j in (math.floor(column), math.floor(column) + 1):
            if 0 <= i < height and 0 <= j < width:
                total += (1 - abs(row - i)) * (1 - abs(column - j)) * picture[:, i, j]
    return total


def softmax(logits: np.ndarray) -> np.ndarray:
    return np.exp(logits) / np.exp(logits).sum(axis=0)


def sharpened(probability: np.ndarray, temperature: float, kind: str) -> np.ndarray:
    raised = np.exp(probability / temperature) if kind == "softmax" else probability ** (1 / temperature)
    return raised / raised.sum()


# Labels


def naive_dice(prediction: np.ndarray, label: np.ndarray, classes: int) -> float:
    """Mean over the foreground classes; 1 for a class that neither has."""
    values = []
    for c in range(1, classes):
        both = either = 0
        for a, b in zip(prediction.flat, label.flat, strict=True):
            both += int(a == c and b == c)
            either += int(a == c) + int(b == c)
        values.append(2 * both / either if either else 1.0)
    return sum(values) / len(values)


def largest_components(volume: np.ndarray) -> np.ndarray:
    """Of each class the largest component of face neighbours; of equal ones that which begins in an earlier slice."""
    kept = np.zeros_like(volume)
    for c in range(1, volume.max() + 1):
        largest: list[tuple[int, ...]] = []
        reached: set[tuple[int, ...]] = set()
        for start in ((x, y, z) for z in range(volume.shape[2]) for x, y in np.ndindex(*volume.shape[:2])):
            if volume[start] != c or start in reached:
                continue
            component, waiting = [], [start]
            reached.add(start)
            while waiting:
                voxel = waiting.pop()
                component.append(voxel)
                for axis in range(3):
                    for step in (-1, 1):
                        near = tuple(n + step * (a == axis) for a, n in enumerate(voxel))
                        inside = all(0 <= n < size for n, size in zip(near, volume.shape, strict=True))
                        if inside and volume[near] == c and near not in reached:
                            reached.add(near)
                            waiting.append(near)
            if len(component) > len(largest):
                largest = component
        for voxel in largest:
            kept[voxel] = c
    return kept
