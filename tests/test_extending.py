"""The page about extending: its diffs apply to this checkout, and an editable install, which is a path, sees them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.documentation import transcripts
from tests.documentation.pages import ROOT, blocks


@pytest.mark.slow
def test_what_the_page_adds_is_there_in_an_editable_install(tmp_path: Path) -> None:
    text = (ROOT / "senet_bench" / "docs" / "extending.md").read_text()
    checkout, elsewhere = tmp_path / "checkout", tmp_path / "elsewhere"
    for folder in (checkout, elsewhere):
        folder.mkdir()
    transcripts.begin(text, checkout)
    assert (checkout / "pyproject.toml").exists()
    for block in blocks(text):
        transcripts.prepare(block, checkout)
    code = "from senet_bench.__main__ import main; main()"
    command = [sys.executable, "-c", code, "compare", "setiny", "--no-latency", "-q", "--format", "csv"]
    environment = {**os.environ, "PYTHONPATH": str(checkout)}  # what an editable install writes into a .pth file
    done = subprocess.run(command, cwd=elsewhere, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "setiny" in done.stdout
