"""Modules from outside that go with a job to where it runs: another machine need not have them."""

from __future__ import annotations

import atexit
import hashlib
import importlib
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from senet_bench.core.source import source_files
from senet_bench.core.specs import ModelSpec, is_outside
from senet_bench.run.engines import Engine, Result


@dataclass(frozen=True, slots=True)
class WithSources:
    """A function that brings along the files of modules, by their paths below a folder of modules."""

    function: Callable[..., Any]
    files: Mapping[str, bytes]

    def __call__(self, *arguments: Any) -> Any:
        """What the function gives where those modules can be imported, before any others of their names."""
        folder = str(self._unpacked())
        if folder not in sys.path:
            sys.path.insert(0, folder)
            importlib.invalidate_caches()
        return self.function(*arguments)

    def _unpacked(self) -> Path:
        """The folder of this machine that holds the files, named by what is in them."""
        digest = hashlib.sha256(repr(sorted(self.files.items())).encode()).hexdigest()[:16]
        folder = _UNPACKED.get(digest)
        if folder is None:
            folder = _UNPACKED[digest] = Path(tempfile.mkdtemp(prefix=f"senet-bench-{digest}-"))
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
        for name, content in self.files.items():
            place = folder / name
            if not place.is_file():
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(content)
        return folder


_UNPACKED: dict[str, Path] = {}
"""The folders that this process has made, by the digest of what is in them."""


def with_sources(engine: Engine, function: Callable[..., Result], specs: Iterable[ModelSpec]) -> Callable[..., Result]:
    """The function as an engine needs it: with the modules of networks and blocks from outside if it runs elsewhere."""
    if not engine.remote:
        return function
    names = dict[str, None]()
    for spec in specs:
        if spec.outside:
            names[str(spec.options["source"])] = None
        if spec.attention is not None and is_outside(spec.attention.block):
            names[spec.attention.block] = None
    files = {path: content for name in names for path, content in source_files(name).items()}
    return WithSources(function, files) if files else function
