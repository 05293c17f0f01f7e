"""The base's files beside this checkout's: a git worktree of a commit, removed afterwards."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from senet_bench.errors import MeasurementError, UsageError
from senet_bench.regression.baselines import git


@dataclass(frozen=True, slots=True)
class Checkout:
    """The files of a commit: the folder that corresponds to this one, and which commit it is."""

    folder: Path
    commit: str
    created: str


@contextlib.contextmanager
def checked_out(ref: str, folder: Path) -> Iterator[Checkout]:
    """The checkout of `ref` in a temporary git worktree; `UsageError` outside git and for an unknown ref."""
    top = git(folder, "rev-parse", "--show-toplevel")
    if not top:
        raise UsageError(f"{folder.resolve()} is in no git repository", "leave --base out to compare with stored facts")
    commit = git(folder, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}")
    if not commit:
        raise UsageError(f"git knows no commit {ref!r}", "name a commit, or fetch it (in CI: fetch-depth: 0)")
    inside = folder.resolve().relative_to(Path(top).resolve())
    parent = Path(tempfile.mkdtemp(prefix="senet-bench-base-"))
    try:
        _add(folder, parent / "base", commit)
        created = git(folder, "show", "-s", "--format=%cI", commit)
        found = parent / "base" / inside
        if not found.is_dir():
            raise UsageError(f"{ref} has no folder {inside}", "run it in a folder that both have")
        with _ended_as_by_ctrl_c():
            yield Checkout(found, commit[:12], created)
    finally:
        git(folder, "worktree", "remove", "--force", str(parent / "base"))
        shutil.rmtree(parent, ignore_errors=True)
        git(folder, "worktree", "prune")


@contextlib.contextmanager
def _ended_as_by_ctrl_c() -> Iterator[None]:
    """SIGTERM, with which CI systems and schedulers end a job, raises `KeyboardInterrupt`: the worktree is removed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _add(folder: Path, place: Path, commit: str) -> None:
    done = subprocess.run(  # noqa: S603 - fixed program, no shell
        ["git", "-C", str(folder), "worktree", "add", "--detach", "--force", str(place), commit],  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["git worktree failed"])[-1]
        raise MeasurementError(f"the base cannot be checked out ({said})", "make room, or remove stale worktrees")
