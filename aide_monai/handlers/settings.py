"""What the input of a network depends on, kept beside its weights, so that it is not used on other input."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aide_monai.errors import InputError
from aide_monai.stream.trained_on import read_settings, settings_file
from aide_monai.utils.files import JsonObject, write_atomically

_OF_LABELS_ONLY = "volume_options#resample_labels"  # images are the same with and without


def save_settings(weights: str | Path, settings: Mapping[str, Any]) -> None:
    """Write the settings that the networks are trained with beside their weights.

    Args:
        weights: file of the weights.
        settings: a bundle's ``model_settings``.

    Raises:
        InputError: as ``write_atomically``.
    """
    content = json.dumps(_by_id(settings), indent=4, ensure_ascii=False) + "\n"
    write_atomically(settings_file(weights), lambda file: file.write(content.encode()))


def require_settings(weights: str | Path, settings: Mapping[str, Any]) -> None:
    """Refuse other settings than the weights were trained with; weights without a record of them are accepted.

    Args:
        weights: file of the weights.
        settings: a bundle's ``model_settings``, of which those are compared that the record has too.

    Raises:
        InputError: naming the first that differs, or if the record cannot be read.
    """
    file = settings_file(weights)
    if not file.exists():
        return
    recorded, given = read_settings(file), _by_id(settings)
    for key, value in given.items():
        if value != recorded.get(key, value):
            raise InputError(
                f"{weights}: found {key} {json.dumps(value)}; expected {json.dumps(recorded[key])}, which it was "
                f"trained with: repeat {_override(key, recorded[key])}, or write it into the bundle's configs "
                f"({file.name} beside it has all such values)"
            )


def trained_classes(weights: str | Path) -> dict[int, str]:
    """The names of the classes that the networks were trained with; empty for weights without a record of them.

    Raises:
        InputError: if the record cannot be read.
    """
    if not settings_file(weights).exists():
        return {}
    recorded = read_settings(settings_file(weights))
    return {int(key[7:]): str(name) for key, name in recorded.items() if key.startswith("labels#")}


def copy_settings(weights: str | Path, target: str | Path) -> None:
    """Bring the record of ``weights`` to other weights that become the same, or remove that of the former ones."""
    if settings_file(weights).exists():
        content = settings_file(weights).read_bytes()
        write_atomically(settings_file(target), lambda file: file.write(content))
    else:
        settings_file(target).unlink(missing_ok=True)


def _by_id(settings: Mapping[str, Any]) -> JsonObject:
    """Settings by config id as JSON has them, for example "volume_options#fit"."""
    flat: JsonObject = {}
    for key, value in settings.items():
        flat |= {f"{key}#{name}": part for name, part in value.items()} if isinstance(value, Mapping) else {key: value}
    flat.pop(_OF_LABELS_ONLY, None)
    plain: JsonObject = json.loads(json.dumps(flat, default=str))
    return plain


def _override(key: str, value: Any) -> str:
    """How a value is given on the command line."""
    return f"--{key} {shlex.quote(value if isinstance(value, str) else json.dumps(value, separators=(',', ':')))}"
