"""Whether base and head run the same code, so that there is nothing to time.

A worker tells what it read of its checkout: the modules that it loaded, the files that Python opened, and whether it
began anything whose reading is not seen. A network's code is its module and what that imports, compared by syntax
trees: comments and docstrings take no time.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import msgspec

from senet_bench.core.checkout import changed_files, git
from senet_bench.core.source import DYNAMIC, code_digest, imports_of
from senet_bench.core.specs import is_outside
from senet_bench.regression.configfile import FILES

UNSEEN = ("import *", *DYNAMIC)
"""Where one of these stands in a module, what it imports cannot be read off it."""
IDLE_NAME = re.compile(r"\.(py|pyc|pyi|ipynb|md|rst|txt|json|toml|ya?ml|xml|html|log)$")
IDLE_PLACES = (".github", "results", ".gitignore", "LICENSE", *FILES)


class Read(msgspec.Struct, frozen=True):
    """What a worker read: files of its modules by name and of others, below its checkout; modules from elsewhere.

    `unseen`: it began a process or a connection, whose reading nobody sees.
    """

    modules: dict[str, str]
    files: list[str]
    elsewhere: list[str]
    unseen: bool


@dataclass(frozen=True, slots=True)
class Sides:
    """The checkouts of base and head, and what their workers read."""

    folders: tuple[Path, Path]
    reads: tuple[Read, Read]

    def same_data(self, commit: str) -> bool:
        """Whether all that is not a module is the same, and nothing else changed since `commit` that might matter."""
        base, head = self.reads
        top = git(self.folders[1], "rev-parse", "--show-toplevel")
        changed = changed_files(self.folders[1], commit)
        if base.unseen or head.unseen or not top or changed is None or base.elsewhere != head.elsewhere:
            return False
        if any(Path(place).is_relative_to(Path(top).resolve()) for place in base.elsewhere):
            return False  # an editable install of this checkout is what the base imports too
        prefix = self.folders[1].resolve().relative_to(Path(top).resolve()).as_posix()
        modules = {(PurePosixPath(prefix) / path).as_posix() for read in self.reads for path in read.modules.values()}
        if not all(name in modules or _idle(PurePosixPath(name)) for name in changed):
            return False
        return base.files == head.files and all(self._equal(file) for file in base.files)

    def same_code(self, network: str) -> bool:
        """Whether a network's module and all that it imports are the same."""
        base, head = (self._code(side, network) for side in (0, 1))
        return bool(base) and base == head

    def _code(self, side: int, network: str) -> Mapping[str, str]:
        """The digests of the modules that a network is made of, by name; of all where that cannot be told."""
        loaded, folder = self.reads[side].modules, self.folders[side]
        digests, waiting = dict[str, str](), [network.partition(":")[0]] if is_outside(network) else list(loaded)
        while waiting:
            name = waiting.pop()
            if name in digests or name not in loaded:
                continue
            file = folder / loaded[name]
            data = file.read_bytes()
            digests[name] = code_digest(data, file.suffix)
            unseen = file.suffix != ".py" or any(word.encode() in data for word in UNSEEN)
            waiting += loaded if unseen else imports_of(data, name, file)
        return digests

    def _equal(self, file: str) -> bool:
        one, other = (folder / file for folder in self.folders)
        return one.is_file() and other.is_file() and one.read_bytes() == other.read_bytes()


def _idle(path: PurePosixPath) -> bool:
    """Whether a changed file takes no time unless it was read: Python tells of every file of that kind it reads."""
    return bool(IDLE_NAME.search(path.name)) or path.parts[0] in IDLE_PLACES or path.name in IDLE_PLACES
