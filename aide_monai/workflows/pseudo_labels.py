"""Task standardisation: unlabelled cases get the predictions of a model as low-quality labels (semi-supervised)."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

from aide_monai.data.datalist import Datalist
from aide_monai.data.records import read_json
from aide_monai.errors import InputError
from aide_monai.handlers import load_weights
from aide_monai.io.opening import image_header
from aide_monai.io.writers import write_label
from aide_monai.labels.manifest import labels_folder
from aide_monai.moved import moved_name
from aide_monai.stream.preprocessing import load_volumes, volume_transforms
from aide_monai.stream.share_sampler import share_files
from aide_monai.utils import distributed
from aide_monai.utils.files import write_atomically
from aide_monai.utils.stored_values import stored_values
from aide_monai.workflows.evaluate import predict
from aide_monai.workflows.warm_start import labels_before


def standardize_datalist(
    datalist: Datalist,
    folder: str | Path,
    *,
    pretrainer: Any,
    network: nn.Module,
    weights: str | Path,
    axis: int,
    slice_size: Sequence[int],
    classes: Mapping[Any, int] | None = None,
    device: str | torch.device = "cpu",
    start: str | None = None,
    started: nn.Module | None = None,
    **preprocessing: Any,
) -> Datalist:
    """Make a semi-supervised task a noisy-label task: pretrain on the labelled cases, label the others.

    A folder that was standardised before is used as it is, so that the steps can also be run one by one. Without
    unlabelled training cases nothing is trained. Many processes pretrain together.

    A training that begins from an earlier run does not pretrain: cases that had no label there either begin with the
    same one as there, and that run's networks label the others.

    Args:
        datalist: labelled and unlabelled training cases.
        folder: output folder, see ``write_pseudo_labels``.
        pretrainer: engine that trains ``network`` on the labelled cases when its ``run()`` is called.
        network: the network it trains.
        weights: file of a finished pretraining; when it exists it is loaded instead of training again.
        axis: slice axis.
        slice_size: window (H, W) in pixels.
        classes: stored label value to class index.
        device: where the network runs.
        start: the earlier run that the training begins from, see ``started_from``; None: none.
        started: networks with the weights of that run.
        preprocessing: as in ``write_pseudo_labels``.

    Returns:
        The data set to train AIDE on.

    Raises:
        InputError: if no training case has a label, ``folder`` holds the standardisation of others, or the earlier run
            had other channels.
    """
    done = _standardized_before(datalist, Path(folder))
    if done is not None:
        return done
    training = datalist.of_split("training")
    if all(case.label is None for case in training):
        raise InputError(f"data set {datalist.name!r} has no labelled training case; expected at least one")
    how: dict[str, Any] = {"axis": axis, "slice_size": slice_size, "classes": classes, "device": device}
    if start is not None and started is not None:
        _require_channels(datalist, start)
        return write_pseudo_labels(started, datalist, folder, known=labels_before(start), **how, **preprocessing)
    if any(case.label is None for case in training):
        if distributed.on_main(Path(weights).exists):
            distributed.on_main(lambda: load_weights(network, weights) and None)
        else:
            pretrainer.run()
        distributed.copy_from_main(network)
    return write_pseudo_labels(network, datalist, folder, **how, **preprocessing)


def _require_channels(datalist: Datalist, start: str) -> None:
    """Refuse channels of other names, or in another order, than those of an earlier run, as far as it knows them."""
    before = distributed.on_main(lambda: modality_of(labels_folder(start).parent / "standardized"))
    if before is not None and before != datalist.modality:
        found, expected = (", ".join(names[k] for k in sorted(names)) for names in (datalist.modality, before))
        raise InputError(
            f"--from {start}: found the channels {found}; expected {expected}, which it was trained with: bring them "
            "into that order, or train anew, without --from"
        )


def _standardized_before(datalist: Datalist, folder: Path) -> Datalist | None:
    """What ``folder`` holds already; None where it holds nothing yet."""
    finished = folder / "datalist.json"
    if not distributed.on_main(finished.exists):
        return None
    share_files(path for path in sorted(folder.rglob("*")) if path.is_file())
    try:
        done = Datalist.load(finished, roots=[folder, *datalist.folders])
    except InputError as error:
        raise InputError(
            f"{finished}: the data that this run began with are not where they were; put them back, or choose a "
            "new run folder",
            problems=error.problems,
        ) from error
    if _roles(done, folder) != _roles(datalist, folder):
        raise InputError(
            f"{finished} holds other cases than this run, or others of them with labels; choose a new run folder, "
            "or the same labeled, unlabeled and seed"
        )
    return done


def write_pseudo_labels(
    network: nn.Module,
    datalist: Datalist,
    folder: str | Path,
    *,
    axis: int,
    slice_size: Sequence[int],
    classes: Mapping[Any, int] | None = None,
    device: str | torch.device = "cpu",
    known: Mapping[str, Path] | None = None,
    on_case: Callable[[], None] | None = None,
    **preprocessing: Any,
) -> Datalist:
    """Label every unlabelled training case with a model's prediction, as a case of low quality.

    Writes ``folder/pseudo_labels/<case>.nii.gz`` on each image's own grid, in the stored values of ``classes``, and
    then ``folder/datalist.json``, which is the data set to train AIDE on. Of many processes each predicts a share of
    the cases and the main one writes; machines that do not see its files get a copy.

    Args:
        network: a model trained on the labelled cases.
        datalist: the data set; its labelled cases stay as they are.
        folder: output folder.
        axis: slice axis.
        slice_size: window (H, W) in pixels.
        classes: stored label value to class index, as in ``volume_transforms``.
        device: where the network runs.
        known: case to a file of such a label that it has already, which is copied instead.
        on_case: called after every case.
        preprocessing: further arguments of ``volume_transforms``.

    Returns:
        The new datalist.
    """
    folder = Path(os.path.abspath(folder))
    values = stored_values(classes)
    transform = volume_transforms(keys=["image"], axis=axis, slice_size=slice_size, **preprocessing)
    before = known or {}
    without = [case for case in datalist.of_split("training") if case.label is None]
    made = {case.name: folder / "pseudo_labels" / f"{case.name}.nii.gz" for case in without}
    distributed.on_main(lambda: _copy({before[name]: path for name, path in made.items() if name in before}))
    unlabelled = [case for case in without if case.name not in before]
    paths = [made[case.name] for case in unlabelled]

    def predicted(number: int) -> tuple[Tensor, Tensor]:
        image = load_volumes([unlabelled[number].record()], transform)[0]["image"]
        prediction = predict(network, image, axis=axis, slice_size=slice_size, transform=transform, device=device)
        affine = torch.as_tensor(image.meta["original_affine"])
        said = datalist.loadable(unlabelled[number]).get("annotated")
        if said is not None:  # a hidden label that had some structures alone: no more is said of it
            known = [i for i in range(int(prediction.max()) + 1) if (i if values is None else int(values[i])) in said]
            prediction = prediction.where(torch.isin(prediction, torch.tensor(known, dtype=torch.uint8)), 0)
        return prediction if values is None else values[prediction.long()], affine

    for first in range(0, len(unlabelled), distributed.world_size()):
        number = first + distributed.rank()
        labels = distributed.gather(predicted(number) if number < len(unlabelled) else None)
        for path, case, label in zip(
            paths[first:], unlabelled[first:], labels, strict=False
        ):  # the last round may be short
            assert label is not None
            place = image_header(case.images[0]).place
            distributed.on_main(partial(write_label, path, *label, place))
            if on_case is not None:
                on_case()
    cases = [replace(c, label=str(made[c.name]), quality="low") if c.name in made else c for c in datalist.cases]
    standardized = replace(datalist, cases=cases)
    distributed.on_main(lambda: standardized.save(folder / "datalist.json"))
    share_files([*made.values(), folder / "datalist.json"])
    return standardized


def _copy(files: Mapping[Path, Path]) -> None:
    for source, target in files.items():
        write_atomically(target, partial(_write, source.read_bytes()))


def _write(content: bytes, file: BinaryIO) -> None:
    file.write(content)


def _roles(datalist: Datalist, folder: str | Path) -> dict[str, tuple[str, bool]]:
    """Case to its split and whether it came with a label; those in ``folder`` were made here."""
    made = os.path.join(os.path.abspath(folder), "pseudo_labels")
    return {
        case.name: (case.split, case.label is not None and os.path.dirname(case.label) != made)
        for case in datalist.cases
    }


def modality_of(folder: str | Path) -> dict[int, str] | None:
    """Names of the channels in the datalist that ``standardize_datalist`` wrote; None where there is none.

    A bundle asks the file and not the datalist, because MONAI Label's own app trains without one.
    """
    file = Path(folder) / "datalist.json"
    if not file.is_file():
        return None
    return {int(channel): str(name) for channel, name in read_json(file)["modality"].items()}


def __getattr__(name: str) -> object:
    return moved_name(__name__, name)
