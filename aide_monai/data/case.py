"""One case of a data set: its images, its label and who vouches for it, and what it is held out for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, get_args

Quality: TypeAlias = Literal["high", "low"]
Split: TypeAlias = Literal["training", "validation", "test"]
Record: TypeAlias = dict[str, Any]
"""A case as a dictionary: what a datalist holds in JSON, and what MONAI's dictionary transforms take."""

QUALITIES: tuple[Quality, ...] = get_args(Quality)
SPLITS: tuple[Split, ...] = get_args(Split)


@dataclass(frozen=True, kw_only=True)
class Case:
    """What a datalist knows of one case.

    Attributes:
        name: unique id, usable as a file name; "case" in JSON.
        image: one path (its channels last when M > 1), or M paths.
        label: path, or None.
        quality: "high" (trusted) or "low" (doubtful), present exactly when there is a label.
        split: "training", "validation" or "test".
        clean_label: a trusted label kept to study label quality, never trained on.
        patient: cases of one patient stay together; a case without it is a patient of its own.
        rater, domain: text.
        annotated: names of the structures that somebody has looked for in this case; where its label says background,
            others may be. None: all of them.
        spacing: of the image when the datalist was made, in mm, one number for each axis.
        orientation: of the image then, such as "RAS".
        sha256: of the files then, by key.

    Examples:
        >>> case = Case(name="a", image="/data/a.nii.gz", label="/data/a_label.nii.gz", quality="high")
        >>> case.trusted, case.hidden().label, case.hidden().clean_label
        (True, None, '/data/a_label.nii.gz')
    """

    name: str
    image: str | tuple[str, ...]
    label: str | None = None
    quality: Quality | None = None
    split: Split = "training"
    clean_label: str | None = None
    patient: str | None = None
    rater: str | None = None
    domain: str | None = None
    annotated: tuple[str, ...] | None = None
    spacing: tuple[float, ...] | None = None
    orientation: str | None = None
    sha256: Mapping[str, str | list[str]] | None = None

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Case:
        """The case of a well-formed record; a record without a split is a training case."""
        values = {"name" if key == "case" else key: value for key, value in record.items() if value is not None}
        for key in ("image", "spacing", "annotated"):
            if isinstance(values.get(key), list):
                values[key] = tuple(values[key])
        return cls(**values)

    def record(self) -> Record:
        """The case as a dictionary, without what it does not have."""
        values = dict(vars(self))
        record = {"case": values.pop("name"), **{key: value for key, value in values.items() if value is not None}}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in record.items()}

    @property
    def images(self) -> tuple[str, ...]:
        """The paths of the image, of all its channels."""
        return (self.image,) if isinstance(self.image, str) else self.image

    @property
    def labels(self) -> tuple[str, ...]:
        """The paths of the label and of the clean label, where there are such."""
        return tuple(path for path in (self.label, self.clean_label) if path is not None)

    @property
    def trusted(self) -> bool:
        """Whether there is a label that is right."""
        return self.quality == "high"

    @property
    def doubtful(self) -> bool:
        """Whether there is a label that may be wrong."""
        return self.quality == "low"

    @property
    def group(self) -> tuple[str, str]:
        """What no two splits may share: the patient, or the case where no patient is named."""
        return ("case", self.name) if self.patient is None else ("patient", self.patient)

    def hidden(self) -> Case:
        """As a training case without a label; the one that it gives up is kept as ``clean_label``.

        A clean label that it has already stays, for that is the one to measure by: the label may be a doubtful one.
        """
        return replace(self, label=None, quality=None, clean_label=self.clean_label or self.label, split="training")
