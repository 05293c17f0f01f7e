"""Checkouts in a worker process: what it reads of one, and how several live in one process without seeing each other.

Two processes of the same code differ by more than a change that is looked for, and on a busy machine they are never
side by side; two checkouts in one process are, call by call. What one of them changes for the whole process would
count for both: such checkouts are told, and timed apart. A worker loads this file by its path.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

FOLDER = Path(__file__).resolve().parent
OWN_MODULES = ("__main__", "__mp_main__", "senet_bench_facts", "senet_bench_tenants")
UNSEEN_EVENTS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "socket.connect")
SETTINGS_READ = (
    "get_num_threads",
    "get_default_dtype",
    "is_grad_enabled",
    "is_anomaly_enabled",
    "get_float32_matmul_precision",
    "are_deterministic_algorithms_enabled",
    "_C._get_mkldnn_enabled",
    "_C._len_torch_function_stack",
    "_C._len_torch_dispatch_stack",
    "_C._dispatch_get_all_op_names",
)
"""What torch tells of its state: its settings, the modes that are on, the operators that it knows."""
PROCESS_ENDS = ("_exit", "execv", "execve")
"""What the boundary around code of others replaces for as long as it lasts."""
HOOKS = ("_global_forward_hooks", "_global_forward_pre_hooks")


class Reading:
    """What this process reads of the checkout at `root`, as Python's audit events tell."""

    def __init__(self, root: str) -> None:
        self.root = os.path.realpath(root)
        self.opened: set[str] = set()
        self.unseen = False

    def hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Keep the path of a file that is opened, and whether something begins that reads files by itself."""
        if event in ("open", "ctypes.dlopen") and isinstance(arguments[0], str | bytes):
            self.opened.add(os.path.abspath(os.fsdecode(arguments[0])))
        elif event in UNSEEN_EVENTS:
            self.unseen = True

    def told(self) -> dict[str, Any]:
        """The modules and other files that were read below the root, and modules from elsewhere but libraries."""
        loaded = {
            name: os.path.realpath(file)
            for name, module in list(sys.modules.items())
            if name not in OWN_MODULES and (file := getattr(module, "__file__", None))
        }
        modules = {name: inside for name, file in loaded.items() if (inside := self._inside(file))}
        opened = {inside for file in self.opened if (inside := self._inside(os.path.realpath(file)))}
        files = sorted(file for file in opened - set(modules.values()) if not file.endswith(".pyc"))
        foreign = {file for name, file in loaded.items() if name not in modules and os.path.isfile(file)}
        elsewhere = sorted(file for file in foreign if not of_library(file))
        return {"modules": modules, "files": files, "elsewhere": elsewhere, "unseen": self.unseen}

    def _inside(self, file: str) -> str:
        """A file as seen from the root, empty where it lies elsewhere or is none."""
        inside = file.startswith(self.root + os.sep) and os.path.isfile(file)
        return os.path.relpath(file, self.root).replace(os.sep, "/") if inside else ""


def of_library(file: str) -> bool:
    """Whether a file is of an installed package, of Python or of senet-bench."""
    return any(file.startswith(os.path.realpath(place)) for place in (sys.prefix, sys.base_prefix, FOLDER.parent))


class Tenant:
    """A checkout in a process that holds others too; within this context its modules are those that are seen.

    `strange` names modules that others would see as well: compiled, made by hand, or of a place that is no library.
    """

    shared: set[str] = set()  # noqa: RUF012 - names of modules that are no checkout's

    def __init__(self, root: str) -> None:
        self.root = os.path.realpath(root)
        self.modules: dict[str, ModuleType] = {}
        self.strange: set[str] = set()
        self._path = [path for path in (self.root, os.path.join(self.root, "src")) if os.path.isdir(path)] + sys.path
        Tenant.shared |= sys.modules.keys()

    def __enter__(self) -> None:
        self._outside = sys.path[:]
        sys.path[:] = self._path
        os.chdir(self.root)
        sys.modules.update(self.modules)

    def __exit__(self, *_: object) -> None:
        self._path, sys.path[:] = sys.path[:], self._outside
        for name in sys.modules.keys() - Tenant.shared:
            if self._is_own(name, sys.modules[name]):
                self.modules[name] = sys.modules.pop(name)
            else:
                Tenant.shared.add(name)

    def expect(self, file: str) -> None:
        """Take a file that is not of this checkout, where it is to be, for strange."""
        if not os.path.realpath(file).startswith(self.root + os.sep):
            self.strange.add(file)

    def _is_own(self, name: str, module: ModuleType) -> bool:
        if name in self.modules:
            return True
        places = [getattr(module, "__file__", None), *list(getattr(module, "__path__", None) or [])]
        file = next((os.path.realpath(place) for place in places if isinstance(place, str)), None)
        inside = file is not None and file.startswith(self.root + os.sep)
        if inside and of_library(str(file)):
            return False
        if inside and os.path.splitext(str(file))[1] in (".py", ""):
            return True
        made = file is None and getattr(module, "__spec__", None) is None
        if inside or made or (file is not None and not of_library(file)):
            self.strange.add(name)
        return inside


class ProcessState:
    """What code can change for all of a process, as it is now: functions, classes and switches of shared modules."""

    def __init__(self) -> None:
        self.entries = dict(_entries())
        self.settings = _settings()

    def changed(self) -> list[str]:
        """What is another than it was; what has come since is no change."""
        now, settings = dict(_entries()), _settings()
        missing = object()
        changed = [name for name, value in self.entries.items() if now.get(name, missing) is not value]
        return changed + [name for name, value in self.settings.items() if settings[name] != value]


def _entries() -> Iterator[tuple[str, object]]:
    """The functions, classes and switches of modules, and those of their classes, by name."""
    for name, module in list(sys.modules.items()):
        members = getattr(module, "__dict__", None)
        for key, value in list(members.items()) if isinstance(members, dict) else ():
            if (callable(value) or value is True or value is False) and key not in PROCESS_ENDS:
                yield f"{name}.{key}", value
            if issubclass(type(value), type) and value.__module__ == name:
                for part, inner in list(vars(value).items()):
                    if callable(inner) or isinstance(inner, property | staticmethod | classmethod | bool):
                        yield f"{name}.{key}.{part}", inner


def _settings() -> dict[str, object]:
    import torch
    from torch.nn.modules import module

    settings: dict[str, object] = {}
    for name in SETTINGS_READ:
        place: Any = torch
        for part in name.split("."):
            place = getattr(place, part, None)
        settings[name] = place() if callable(place) else None
    settings |= {name: len(getattr(module, name, ())) for name in HOOKS}
    settings["implementations"] = len(getattr(torch.library, "_impls", ()))
    settings["denormals"] = bool((torch.tensor(1e-310, dtype=torch.float64) * 1).item())
    settings["threads"] = threading.active_count()
    settings["traced"] = (sys.gettrace(), sys.getprofile(), sys.getswitchinterval())
    settings["collection"] = (gc.isenabled(), gc.get_threshold())
    settings["environment"] = dict(os.environ)
    return settings
