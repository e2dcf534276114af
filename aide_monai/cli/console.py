"""Where the commands print: text from data is shown as it is."""

from __future__ import annotations

from rich.console import Console

console = Console(markup=False, emoji=False)  # paths and names may hold brackets and colons
errors = Console(stderr=True, markup=False, emoji=False)
