"""The page about extending: its diffs apply to this checkout, and an editable install sees them."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.documentation import transcripts
from tests.documentation.pages import ROOT, blocks

BACKEND = ("hatchling", "editables", "pip")
INSTALLED = {package.metadata["Name"] for package in importlib.metadata.distributions()}
MISSING = [name for name in BACKEND if name not in INSTALLED]
"""Told without looking for modules: setuptools changes what `distutils` is for a process that looks for pip."""


def installed_editable(checkout: Path, prefix: Path) -> Path:
    """The folder of site-packages in which an editable install of `checkout` lies; nothing is downloaded."""
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-build-isolation", "--no-deps", "--ignore-installed"]
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INDEX": "1"}
    command = [*pip, "--prefix", str(prefix), "-e", str(checkout)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return next(prefix.rglob("*.pth")).parent


def test_the_diffs_of_the_page_apply_to_this_checkout(tmp_path: Path) -> None:
    text = (ROOT / "senet_bench" / "docs" / "extending.md").read_text()
    for name in re.findall(r"^--- a/(.+)$", text, re.MULTILINE):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    for block in blocks(text):
        transcripts.prepare(block, tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(bool(MISSING), reason=f"the build backend is not installed: {', '.join(MISSING)}")
def test_what_the_page_adds_is_there_in_an_editable_install(tmp_path: Path) -> None:
    text = (ROOT / "senet_bench" / "docs" / "extending.md").read_text()
    checkout, elsewhere = tmp_path / "checkout", tmp_path / "elsewhere"
    for folder in (checkout, elsewhere):
        folder.mkdir()
    transcripts.begin(text, checkout)
    site = installed_editable(checkout, tmp_path / "prefix")
    for block in blocks(text):
        transcripts.prepare(block, checkout)
    first = f"before = sys.path[:]; sys.path.clear(); site.addsitedir({str(site)!r}); sys.path += before"
    code = f"import site, sys; {first}; from senet_bench.__main__ import main; main()"
    command = [sys.executable, "-c", code, "compare", "setiny", "--no-latency", "-q", "--format", "csv"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=elsewhere, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "setiny" in done.stdout
