"""The page is done, command by command, in an empty folder."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "first-five-minutes.md"


def test_every_command_of_the_page_runs_in_order(tmp_path: Path) -> None:
    blocks = re.findall(r"```bash\n(.*?)```", PAGE.read_text(), re.DOTALL)
    commands = [line for block in blocks for line in block.splitlines()]
    assert len(commands) == 10
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for command in commands:
        program, *arguments = shlex.split(command)
        assert program == "aide"
        started = [sys.executable, "-m", "aide_monai.cli", *arguments]
        done = subprocess.run(started, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        assert done.stdout.strip(), command
    assert (tmp_path / "first" / "report.html").is_file()
    assert len(list((tmp_path / "masks").glob("*.nii.gz"))) == 40
    assert {"per_case.csv", "summary.md", "worst_cases.png"} <= {path.name for path in (tmp_path / "scores").iterdir()}
