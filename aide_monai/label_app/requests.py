"""What a request to the label server may say: every value is typed and checked, and nothing else is passed on."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeAlias

from aide_monai.errors import InputError
from aide_monai.options import PROFILES

TaskRequest: TypeAlias = dict[str, Any]
"""What a client asks for, or what is left of it once it is checked: value by key."""

Info: TypeAlias = dict[str, Any]
"""What a datastore or a task knows of an image, a label or itself: value by key, as JSON."""

_DEVICE = re.compile(r"cpu|cuda(:[0-9]{1,2})?")
_NAME = re.compile(r"\w[\w .,()+=-]{0,199}")
_GPUS = re.compile(r"all|[0-9]{1,2}(,[0-9]{1,2})*")
_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_TYPES = ("uint8", "uint16", "int16", "int32", "float32")
_SUFFIXES = (".nii.gz", ".nii", ".nrrd")

_Check = Callable[[Any], bool]


def checked(task: str, request: Mapping[str, Any], *, devices: Collection[str] = ()) -> TaskRequest:
    """The values of a request that a task knows; what it does not know is left out.

    Clients send a list where they offer a choice and none was made; the first one counts then. None and an empty text
    stand for a value that was not given.

    Args:
        task: "train", "infer", "batch/infer", "scoring" or "activelearning".
        request: what a client has sent.
        devices: further names of devices that the server has told the client.

    Raises:
        InputError: naming all values that are none for their key.

    Examples:
        >>> checked("train", {"max_epochs": 20, "device": ["cpu"], "comment": "mine"})
        {'max_epochs': 20, 'device': 'cpu'}
    """
    if not isinstance(request, Mapping):
        raise InputError(f'found {_shown(request)}; expected an object, such as {{"device": "cpu"}}')
    values, problems = {}, []
    for key, (expected, good) in _KNOWN[task].items():
        value = request.get(key)
        if isinstance(value, (list, tuple)) and key in _CHOICES:
            value = value[0] if value else None
        if value is None or value == "":
            continue
        if good(value) or (key == "device" and isinstance(value, str) and value in devices):
            values[key] = value
        else:
            problems.append(f"{key} is {_shown(value)}; expected {expected}")
    if problems:
        raise InputError("; ".join(problems))
    return values


def is_part(name: str) -> bool:
    """Whether a name is a single part of a path in text that can be shown."""
    return re.search(r"[/\\]", name) is None and name.isprintable() and name not in ("", ".", "..")


def require_part(what: str, name: str) -> None:
    """Refuse what is no single part of a path; images that lie in the folder already may have any name that is.

    Raises:
        InputError: naming it.
    """
    if name and not is_part(name):
        raise InputError(f"{what} is {_shown(name)}; expected a plain name, without slashes and control characters")


def require_name(what: str, name: Any) -> None:
    """Refuse what cannot be the name of a new image, a tag or a session.

    Raises:
        InputError: naming it.
    """
    if not _matches(_NAME)(name) or str(name) != str(name).strip(" ."):
        raise InputError(
            f"{what} is {_shown(name)}; "
            "expected a plain name: at most 200 letters, digits and . , - _ + = ( ) or spaces"
        )


def _shown(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= 80 else f"{text[:76]} ..."


def _matches(pattern: re.Pattern[str]) -> _Check:
    return lambda value: isinstance(value, str) and pattern.fullmatch(value) is not None


def _one_of(*choices: str) -> tuple[str, _Check]:
    return f"one of {', '.join(choices)}", lambda value: isinstance(value, str) and value in choices


def _whole(low: int, high: int) -> tuple[str, _Check]:
    return f"a whole number in {low}..{high}", lambda value: type(value) is int and low <= value <= high


def _share(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < 1


_TRUTH = ("true or false", lambda value: isinstance(value, bool))
_PLAIN = ("a plain name", _matches(_NAME))
_COMMON: dict[str, tuple[str, _Check]] = {
    "device": ("cpu, cuda or cuda:N", _matches(_DEVICE)),
    "multi_gpu": _TRUTH,
    "gpus": ("all, or numbers of GPUs, such as 0,1", _matches(_GPUS)),
    "logging": _one_of(*_LEVELS),
}
_KNOWN: dict[str, dict[str, tuple[str, _Check]]] = {
    "train": {
        "max_epochs": _whole(1, 100_000),
        "val_split": ("a share from 0 up to but not including 1", _share),
        "profile": _one_of(*PROFILES),
        **_COMMON,
    },
    "infer": {
        "save_label": _TRUTH,
        "label_tag": _PLAIN,
        "model_filename": _PLAIN,
        "result_extension": _one_of(*_SUFFIXES),
        "result_dtype": _one_of(*_TYPES),
        "result_compress": _TRUTH,
        **_COMMON,
    },
    "batch/infer": {
        "images": _one_of("all", "labeled", "unlabeled"),
        "save_label": _TRUTH,
        "label_tag": _PLAIN,
        "max_workers": _whole(0, 64),
        "max_batch_size": _whole(0, 1_000_000),
        **_COMMON,
    },
    "scoring": _COMMON,
    "activelearning": {"strategy": _PLAIN, "review": _TRUTH, "client_id": _PLAIN},
}
_CHOICES = ("device", "profile", "model_filename")
