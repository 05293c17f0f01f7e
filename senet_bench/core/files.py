"""Files: read where they are regular ones, written whole or not at all; each failure is one line."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from senet_bench.errors import MeasurementError, UsageError

LONGEST_SHOWN = 120
"""Characters of a path that cannot be used which are shown of it."""
LONGEST_NAME = 150


def file_name(*parts: str) -> str:
    """The parts joined by hyphens, in lower case, of letters, digits and hyphens alone, a name that a disk takes."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(parts).lower()).strip("-")[:LONGEST_NAME]


def kind_of_path(path: Path) -> Literal["folder", "file"] | None:
    """What lies at a path, None for nothing; `UsageError` for a path that cannot be (too long, not to be encoded)."""
    try:
        return "folder" if stat.S_ISDIR(path.stat().st_mode) else "file"
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        shown = str(path).encode(errors="replace").decode()
        shown = shown if len(shown) <= LONGEST_SHOWN else f"{shown[:LONGEST_SHOWN]}..."
        raise UsageError(f"{shown} is no path that can be used ({reason})", "name another") from error


def read_file(path: Path) -> bytes:
    """The bytes of a regular file; `UsageError` when it cannot be read, or is a pipe or device that may never end."""
    try:
        check_regular(path)
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror})", "check the path and its permissions") from error


def check_regular(path: Path) -> None:
    """Raise `UsageError` where a pipe or a device lies, which may never end."""
    if kind_of_path(path) == "file" and not path.is_file():
        raise UsageError(f"{path} is no regular file", "move it away, or put the file itself in its place")


def write_atomically(path: Path, text: str | bytes) -> None:
    """Write a file whole or not at all: to a temporary name beside it, then renamed.

    Raises `MeasurementError` where the disk does not take it.
    """
    with written_whole(path) as temporary:
        temporary.write_bytes(_bytes(text))


def write_anew(path: Path, text: str | bytes) -> None:
    """Write a file that can be made again at any time, whole; one that holds the same already stays as it is.

    Raises `MeasurementError` where the disk does not take it.
    """
    data = _bytes(text)
    with contextlib.suppress(OSError):
        if path.is_file() and path.stat().st_size == len(data) and path.read_bytes() == data:
            return
    with written_whole(path, flushed=False) as temporary:
        temporary.write_bytes(data)


def _bytes(text: str | bytes) -> bytes:
    return text.encode(errors="replace") if isinstance(text, str) else text


@contextlib.contextmanager
def written_whole(path: Path, *, flushed: bool = True) -> Iterator[Path]:
    """A path to write to that becomes `path` when the block ends, flushed to the disk; where it fails nothing is left.

    It keeps the permissions of the file that it replaces; a new one has those of any new file of this process. What is
    no regular file (a pipe, a device) is written itself. Raises `MeasurementError` where the disk does not take it.
    """
    path = path.resolve() if path.is_symlink() else path  # the link stays one
    direct = path.exists() and not path.is_file()  # a pipe or a device has no name to rename to
    temporary = path if direct else path.with_name(f".{path.name[:100]}.{os.getpid()}-{secrets.token_hex(3)}")
    try:
        if not direct:
            path.parent.mkdir(parents=True, exist_ok=True)
        try:
            mode = 0 if direct else _begun(temporary, path)
            yield temporary
            if not direct:
                if flushed:
                    with temporary.open("rb") as file:
                        os.fsync(file.fileno())
                with contextlib.suppress(OSError):  # some file systems have no modes
                    temporary.chmod(mode)
                temporary.replace(path)
        finally:
            if not direct:
                temporary.unlink(missing_ok=True)
    except OSError as error:
        raise MeasurementError(
            f"{path} cannot be written ({error.strerror or error})", "free some space or name another path"
        ) from error


def _begun(temporary: Path, path: Path) -> int:
    """The permissions that a file, which is made empty, is to have in the place of another, or of none."""
    temporary.touch()
    return stat.S_IMODE((path if path.exists() else temporary).stat().st_mode)


def append_line(path: Path, line: str) -> None:
    """Append a line to a file, whole or not at all, behind what an interrupted write has left there.

    Raises `MeasurementError` where the disk does not take it.
    """
    data = line.encode(errors="replace") + b"\n"
    try:
        with path.open("ab+", buffering=0) as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(0, end - 1))
            left = (b"\n" if file.read(1) not in (b"", b"\n") else b"") + data
            try:
                while left:
                    left = left[file.write(left) :]
            except OSError:
                file.truncate(end)
                raise
    except OSError as error:
        raise MeasurementError(
            f"{path} cannot be written ({error.strerror})", "free some space or name another path"
        ) from error


def check_writable(path: Path) -> None:
    """Raise `UsageError` if a file could not be written at `path`, before anything is measured for it."""
    kind = kind_of_path(path)
    if kind == "folder":
        raise UsageError(f"output {path} is a folder", "name a file")
    if kind_of_path(path.absolute().parent) != "folder":
        raise UsageError(f"output folder {path.absolute().parent} does not exist", "make it, or name another path")
    if kind and not os.access(path, os.W_OK):
        raise UsageError(f"output {path} cannot be written", "name a path in a folder you may write to")
    if not kind or path.is_file():
        check_folder(path.absolute().parent)


def check_folder(folder: Path) -> None:
    """Raise `UsageError` if no file could be written in a folder, or below it; it need not be there yet."""
    nearest = next(place for place in (folder.absolute(), *folder.absolute().parents) if kind_of_path(place))
    if not nearest.is_dir():
        raise UsageError(f"{folder} cannot be made: {nearest} is a file", "name another folder")
    try:
        tempfile.TemporaryFile(dir=nearest).close()
    except OSError as error:
        raise UsageError(
            f"{folder} cannot be written ({error.strerror})", "name a folder you may write to, or free some space"
        ) from error
