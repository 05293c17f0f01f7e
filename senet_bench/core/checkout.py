"""What git knows of a folder."""

from __future__ import annotations

import subprocess
from pathlib import Path


def git(folder: Path, *arguments: str) -> str:
    """What git prints, empty where it fails or is not there."""
    try:
        done = subprocess.run(  # noqa: S603 - fixed program, no shell
            ["git", "-C", str(folder), *arguments],  # noqa: S607
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def commit_of(folder: Path) -> str:
    """The short commit that a checkout is at, with `+` when files differ from it; empty outside git."""
    commit = git(folder, "rev-parse", "--short=12", "HEAD")
    return f"{commit}+" if commit and git(folder, "status", "--porcelain", "--untracked-files=no") else commit
