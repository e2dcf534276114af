"""The examples of docstrings run and show what they say."""

import doctest
import importlib
import pkgutil

import pytest

import aide_monai

MODULES = [
    found.name
    for found in pkgutil.walk_packages(aide_monai.__path__, "aide_monai.")
    if not found.ispkg and not found.name.startswith(("aide_monai.label_app", "aide_monai.cli"))
]
FINDER = doctest.DocTestFinder(exclude_empty=True)


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_run(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    failed = []
    for example in FINDER.find(importlib.import_module(name), name):
        folder = tmp_path / example.name
        folder.mkdir()
        monkeypatch.chdir(folder)  # each example starts in an empty folder
        if doctest.DocTestRunner(verbose=False, optionflags=doctest.ELLIPSIS).run(example).failed:
            failed.append(capsys.readouterr().out)
    assert not failed, "\n".join(failed)


def test_every_name_of_the_front_door_has_an_example():
    assert [name for name in aide_monai.__all__ if ">>>" not in (getattr(aide_monai, name).__doc__ or "")] == []
