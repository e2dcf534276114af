"""Mistakes in what was typed after ``aide``: the one sentence about each, with what was probably meant."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

from aide_monai.errors import InputError
from aide_monai.utils.texts import did_you_mean

UsageError: type[Exception] = typer.BadParameter.__mro__[1]
"""What typer raises for an option, argument or verb that it cannot use."""


def advise(error: Any) -> InputError:
    """The mistake as a sentence that says what to type; without a text when the help has been shown already."""
    context, message = error.ctx, error.format_message().rstrip(".")
    if not message or context is None:
        return InputError(message[:1].lower() + message[1:])
    advice = ""
    if message.startswith("No such option"):
        wrong = error.option_name.replace("_", "-")
        message = f"no such option {error.option_name}"
        advice = did_you_mean(wrong, _options(context.command)) or _where_it_is(wrong, context)
    elif message.startswith("No such command"):
        wrong = message.split("'")[1]
        message = f"no such command {wrong}"
        verbs = context.command.commands
        advice = did_you_mean(wrong, verbs) or f"expected one of {', '.join(verbs)}"
    told = "; ".join(part for part in (message[:1].lower() + message[1:], advice) if part)
    return InputError(f"{told} (see {context.command_path} --help)")


def _options(command: Any) -> Iterator[str]:
    for parameter in command.params:
        yield from (name for name in parameter.opts if name.startswith("--"))


def _where_it_is(option: str, context: Any) -> str:
    """The other verbs that have an option; those beside this one before those further away."""
    above = context if hasattr(context.command, "commands") else context.parent
    while above is not None:
        users = [f"{above.command_path} {name}" for name in _users(option, above.command)]
        if users:
            return f"it is an option of {', '.join(users[:3])}{' and others' if len(users) > 3 else ''}"
        above = above.parent
    return ""


def _users(option: str, group: Any) -> Iterator[str]:
    for name, command in group.commands.items():
        if option in _options(command):
            yield name
        yield from (f"{name} {inner}" for inner in _users(option, command)) if hasattr(command, "commands") else ()
