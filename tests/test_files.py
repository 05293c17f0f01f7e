"""Files that are written whole, with the permissions that are theirs, and lines that are appended whole."""

from __future__ import annotations

import errno
import io
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from senet_bench.core.files import append_line, write_anew, write_atomically
from senet_bench.errors import MeasurementError


class Full(io.FileIO):
    """A file on a disk that takes three bytes more."""

    torn = False

    def write(self, data: Any) -> int:
        """Write three bytes once, then none."""
        if self.torn:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.torn = True
        return super().write(bytes(data)[:3])


def test_a_line_that_the_disk_does_not_take_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "lines"
    append_line(path, "first")
    with monkeypatch.context() as full:
        full.setattr(Path, "open", lambda path, mode, **_: Full(path, mode))
        with pytest.raises(MeasurementError, match="No space left on device"):
            append_line(path, "second")
    assert path.read_bytes() == b"first\n"
    append_line(path, "third")
    assert path.read_bytes() == b"first\nthird\n"


def test_a_line_behind_a_torn_one_is_a_line_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"first\nsec")
    append_line(path, "third")
    append_line(path, "fourth")
    assert path.read_bytes() == b"first\nsec\nthird\nfourth\n"


@pytest.mark.parametrize("write", [write_atomically, write_anew])
def test_a_file_keeps_its_permissions_and_a_new_one_has_those_of_the_process(tmp_path: Path, write: Any) -> None:
    def mode(path: Path) -> int:
        return stat.S_IMODE(path.stat().st_mode)

    before = os.umask(0o027)
    try:
        write(tmp_path / "new", "text")
        assert mode(tmp_path / "new") == 0o640
        (tmp_path / "new").chmod(0o660)
        write(tmp_path / "new", "another")
        assert mode(tmp_path / "new") == 0o660
        (tmp_path / "link").symlink_to(tmp_path / "new")
        write(tmp_path / "link", "a third")
        assert mode(tmp_path / "new") == 0o660
    finally:
        os.umask(before)


def test_a_disk_without_permissions_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "chmod", refused)
    write_atomically(tmp_path / "file", "text")
    assert (tmp_path / "file").read_text() == "text"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
