"""One module per layout in which data sets come; each turns a folder into a datalist."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from aide_monai.data.datalist import SPLITS, Datalist, read_json
from aide_monai.data.sources.decathlon import decathlon_datalist
from aide_monai.data.sources.folder import folder_datalist
from aide_monai.errors import InputError

__all__ = ["decathlon_datalist", "find_datalist", "folder_datalist", "is_datalist"]

_LAYOUTS = (
    "a datalist.json; a dataset.json of the Medical Segmentation Decathlon; or the folders images/ and labels/ (and "
    "unlabeled/) with files of the same names"
)


def find_datalist(root: str | Path, *, roots: Iterable[str | Path] = ()) -> Datalist:
    """Recognise the layout of a data set and read its cases.

    Args:
        root: a JSON file (datalist or Decathlon), or a folder with, in this order, ``datalist.json``,
            ``dataset.json``, or ``images/`` (or ``unlabeled/``).
        roots: further folders that the files of a JSON list may lie in.

    Raises:
        InputError: nothing there, or no layout that is known; tells what was found and what is accepted.
    """
    root = Path(root)
    if not root.exists():
        raise InputError(f"{root}: no such folder; expected one with {_LAYOUTS}")
    files = [root] if root.is_file() else [root / "datalist.json", root / "dataset.json"]
    for file in files:
        if file.is_file():
            return Datalist.load(file, roots=roots) if is_datalist(file) else decathlon_datalist(file, roots=roots)
    if (root / "images").is_dir() or (root / "unlabeled").is_dir():
        return folder_datalist(root)
    names = sorted(path.name + ("/" if path.is_dir() else "") for path in root.iterdir())
    if not names:
        raise InputError(f"{root}: the folder is empty; expected {_LAYOUTS}")
    found = ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
    raise InputError(f"{root}: no known layout; found {found}; expected {_LAYOUTS}")


def is_datalist(file: Path) -> bool:
    """Whether a JSON file is a datalist, which names its cases, or a Decathlon list, which has paths alone.

    Raises:
        InputError: if it is no JSON file.
    """
    content = read_json(file)
    sections = [content[split] for split in SPLITS if isinstance(content.get(split), list)]
    return any(isinstance(entry, dict) and "case" in entry for entries in sections for entry in entries)
