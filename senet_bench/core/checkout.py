"""What git knows of a folder."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path


def git(folder: Path, *arguments: str) -> str:
    """What git prints, empty where it fails or is not there."""
    return _printed(folder, *arguments) or ""


def changed_files(folder: Path, commit: str) -> list[str] | None:
    """The files of the repository around `folder` that differ from a commit, relative to its top; None without git."""
    top = Path(git(folder, "rev-parse", "--show-toplevel") or folder)
    plain = ("-c", "core.quotePath=false")
    differing = _printed(top, *plain, "diff", "--name-only", "--no-renames", commit, "--")
    added = _printed(top, *plain, "ls-files", "--others", "--exclude-standard")
    return None if differing is None or added is None else [*differing.splitlines(), *added.splitlines()]


def _printed(folder: Path, *arguments: str) -> str | None:
    """What git prints, decoded as names of files are, which may be any bytes; None where it fails or is not there."""
    try:
        done = subprocess.run(  # noqa: S603 - fixed program, no shell
            ["git", "-C", str(folder), *arguments],  # noqa: S607
            capture_output=True,
            check=False,
            timeout=60,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return os.fsdecode(done.stdout).strip() if done.returncode == 0 else None


def commit_of(folder: Path) -> str:
    """The short commit that a checkout is at, with `+` when files differ from it; empty outside git."""
    commit = git(folder, "rev-parse", "--short=12", "HEAD")
    return f"{commit}+" if commit and git(folder, "status", "--porcelain", "--untracked-files=no") else commit
