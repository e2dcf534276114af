"""From MONAI Label's datastore to the cases of a training, and back to what is known of each image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from aide_monai.data.case import Case
from aide_monai.data.checks.datalist import Problem, check_datalist
from aide_monai.data.datalist import Datalist
from aide_monai.errors import InputError
from aide_monai.label_app.requests import Info

INFO = "aide"
"""Key in an image's info under which all findings of this app lie."""

_TYPES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("suspicion", "disagreement", "label_quality"), (int, float)),
    **dict.fromkeys(("scored", "problem"), (str,)),
}


class Datastore(Protocol):
    """What this app needs of ``monailabel.interfaces.datastore.Datastore``."""

    def list_images(self) -> Sequence[str]: ...

    def get_labeled_images(self) -> Sequence[str]: ...

    def get_unlabeled_images(self) -> Sequence[str]: ...

    def get_image_uri(self, image_id: str) -> str: ...

    def get_image_info(self, image_id: str) -> Info: ...

    def get_label_uri(self, label_id: str, label_tag: str) -> str: ...

    def get_label_info(self, label_id: str, label_tag: str) -> Info: ...

    def update_image_info(self, image_id: str, info: Info) -> None: ...

    def refresh(self) -> None: ...


FINAL = "final"
"""Tag of a label that an annotator has submitted."""


def datastore_cases(
    datastore: Datastore,
    *,
    labels: Mapping[Any, str],
    classes: Mapping[Any, int] | None = None,
    channels: int = 1,
    validation: float = 0.0,
) -> tuple[Datalist, list[Problem]]:
    """The images of a datastore as training cases: those with a final label are high quality, the others unlabelled.

    Broken images and labels are left out, so that one bad upload does not stop the training of all others.

    Args:
        datastore: the images.
        labels: class index to name.
        classes: stored label value to class index.
        channels: number of channels M of an image.
        validation: share of the labelled images, 0 up to but not including 1, that is used to select the best weights
            instead of to train; rounded down.

    Returns:
        The cases, and the errors of those that were left out.

    Raises:
        InputError: if no labelled image is left to train on, or ``validation`` is out of range.
    """
    if not 0 <= validation < 1:
        raise InputError(f"val_split is {validation}; expected a share from 0 up to but not including 1")
    cases = _cases(datastore)
    names = {int(index): name for index, name in labels.items()}
    datalist = Datalist(
        name="MONAI Label datastore",
        labels=names,
        modality={channel: f"channel {channel}" for channel in range(channels)},
        cases=cases,
        classes={int(stored): index for stored, index in (classes or {}).items()},
    )
    problems = [p for p in check_datalist(datalist) if p.severity == "error" and p.case] if cases else []
    broken = {problem.case for problem in problems}
    sound = [case for case in cases if case.name not in broken]
    trainable = [case.name for case in sound if case.label is not None]
    if not trainable:
        labelled = sum(case.label is not None for case in cases)
        left_out = "".join(f"\n  - {problem}" for problem in problems)
        raise InputError(
            f"found {len(cases)} images, {labelled} of them labelled, and none to learn from; expected at least "
            f"one image with a sound label: label one, then train{left_out}"
        )
    held_out = trainable[len(trainable) - int(validation * len(trainable)) :]
    datalist.cases = [replace(case, split="validation") if case.name in held_out else case for case in sound]
    return datalist, problems


def _cases(datastore: Datastore) -> list[Case]:
    """Those with a final label first, by name."""
    labelled = [
        Case(name=name, image=datastore.get_image_uri(name), label=datastore.get_label_uri(name, FINAL), quality="high")
        for name in sorted(datastore.get_labeled_images())
    ]
    unlabelled = sorted(datastore.get_unlabeled_images())
    return labelled + [Case(name=name, image=datastore.get_image_uri(name)) for name in unlabelled]


def findings_of(info: Mapping[str, Any]) -> Info:
    """What this app has found of an image; nothing of what a client may have put in its place.

    Args:
        info: of the image, from the datastore.
    """
    found = info.get(INFO)
    return (
        {key: value for key, value in found.items() if type(value) in _TYPES.get(key, ())}
        if isinstance(found, dict)
        else {}
    )


def remember(datastore: Datastore, findings: Mapping[str, Mapping[str, Any]]) -> None:
    """Add findings to the info of images, under ``aide``; what else is known of them stays.

    Args:
        datastore: the images.
        findings: image to what was found, numbers and texts; None removes an entry.
    """

    def known(image: str) -> Info:
        return findings_of(datastore.get_image_info(image))

    def updated(image: str) -> Info:
        return {key: value for key, value in {**known(image), **findings[image]}.items() if value is not None}

    datastore.refresh()
    there = set(datastore.list_images())
    for image in [image for image in findings if image in there and updated(image) != known(image)]:
        datastore.refresh()  # an update writes all that is known of all images, so with what others have just written
        if image in datastore.list_images():
            datastore.update_image_info(image, {INFO: updated(image)})


def broken_images(datastore: Datastore, problems: Sequence[Problem]) -> dict[str, Info]:
    """Findings that tell what is wrong with an image, and take back what was wrong before."""
    findings: dict[str, Info] = {image: {"problem": None} for image in datastore.list_images()}
    for problem in problems:
        findings.setdefault(problem.case, {})["problem"] = str(problem)
    return findings
