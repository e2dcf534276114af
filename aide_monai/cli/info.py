"""The verb of the ``aide`` command that says what runs here: info."""

from __future__ import annotations

from aide_monai.cli.console import console, print_json
from aide_monai.cli.options import AsJSON


def info(as_json: AsJSON = False) -> None:
    """Show versions, hardware and precision: what a report of a fault needs."""
    from aide_monai.workflows.installation import installation

    found = installation()
    if as_json:
        print_json(found)
        return
    for key, value in found.items():
        values = value if isinstance(value, list) else [value]
        console.print(f"{key + ':':22} {', '.join(map(str, values)) or 'none'}", highlight=False, soft_wrap=True)
