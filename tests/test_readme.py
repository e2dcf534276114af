"""What the README says is true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = [*ROOT.glob("*.md"), *sorted((ROOT / "docs").rglob("*.md")), *sorted(ROOT.glob("findings/*.md"))]


def test_the_python_snippet_runs_is_short_and_replaces_labels(tmp_path, monkeypatch, capsys):
    (snippet,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(snippet.splitlines()) < 25
    monkeypatch.chdir(tmp_path)
    exec(compile(snippet, "README.md", "exec"), {})
    (replaced,) = re.findall(r"(\d+) labels replaced", capsys.readouterr().out)
    assert int(replaced) > 0


def test_the_snippet_on_python_runs(tmp_path, monkeypatch, capsys):
    (snippet,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(snippet, "python.md", "exec"), {})
    assert "labels replaced" in capsys.readouterr().out
    assert (tmp_path / "run" / "model.pt").exists()
    assert (tmp_path / "run" / "labels" / "journal.jsonl").exists()


def test_the_snippet_on_the_engine_trains_on_patches(tmp_path, monkeypatch, capsys):
    snippets = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "engine.md").read_text(), re.DOTALL)
    (snippet,) = [snippet for snippet in snippets if "PatchDataset" in snippet]
    monkeypatch.chdir(tmp_path)
    exec(compile(snippet, "engine.md", "exec"), {})
    assert re.search(r"'\d+:\d+,\d+:\d+,0:8'", capsys.readouterr().out)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_linked_file_exists(page):
    for link in re.findall(r"\]\((?!https?:)([^)#\s]+)", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)):
        assert (page.parent / link).exists(), link


def test_the_readme_is_short():
    assert len(README.split()) < 800
