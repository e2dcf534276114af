"""What the README says is true."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_python_snippet_runs_and_is_short(tmp_path, monkeypatch, capsys):
    (snippet,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(snippet.splitlines()) < 40
    monkeypatch.chdir(tmp_path)
    exec(compile(snippet, "README.md", "exec"), {})
    assert "labels replaced" in capsys.readouterr().out
    assert (tmp_path / "run" / "model.pt").exists()
    assert (tmp_path / "run" / "labels" / "manifest.json").exists()


def test_the_snippet_on_the_engine_trains_on_patches(tmp_path, monkeypatch, capsys):
    snippets = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "engine.md").read_text(), re.DOTALL)
    (snippet,) = [snippet for snippet in snippets if "PatchDataset" in snippet]
    monkeypatch.chdir(tmp_path)
    exec(compile(snippet, "engine.md", "exec"), {})
    assert re.search(r"'\d+:\d+,\d+:\d+,0:8'", capsys.readouterr().out)


def test_every_linked_file_exists():
    links = re.findall(r"\]\((?!https?:)([^)#]+)", README)
    assert links
    for link in links:
        assert (ROOT / link).exists(), link
