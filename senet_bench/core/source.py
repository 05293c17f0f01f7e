"""The object that an import string names, and the source that code from outside is made of.

That source is what importing it brings in, digested so that a comment is no change. Hers is what lies neither in the
standard library nor in an installed package; an editable install is hers too.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from senet_bench.core.foreign import contained, place_of
from senet_bench.core.specs import import_hint
from senet_bench.errors import UsageError, first_line, nearest

LIBRARIES = ("timm", "torchvision")
"""Libraries whose networks are named `timm:NAME`: not an import string."""
NOT_KEYED = ("senet_bench", "torch", "numpy")
"""What every trial runs on: recorded beside it, and where its arithmetic changes the revision tells."""
DYNAMIC = ("import_module", "__import__", "spec_from_file_location", "iter_modules", "walk_packages", "run_path")
"""Calls that import what cannot be read off the code, unless their first argument is a plain name."""
SITE = ("site-packages", "dist-packages")
IMPORT_FORM = "write it as package.module:Name"


@dataclass(frozen=True, slots=True)
class Source:
    """The modules that code from outside consists of, each with its digest, and the packages they use by version."""

    modules: Mapping[str, str] = field(default_factory=dict)
    packages: Mapping[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Sixteen hexadecimal digits of all of it."""
        text = repr((sorted(self.modules.items()), sorted(self.packages.items())))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def source_of(name: str) -> Source:
    """The source behind `timm:NAME`, `torchvision:NAME` or an import string `package.module:name`.

    The module is imported unless it is already; its text is read from the disk, so that an edit after the import
    counts. Raises `UsageError` for a module without a file.
    """
    start = name.partition(":")[0]
    if start in LIBRARIES:
        return Source(packages={start: _version(start)})
    _imported_module(start, name, "the code of")
    modules, packages, waiting = dict[str, str](), set[str](), [start]
    while waiting:
        module = waiting.pop()
        top = module.partition(".")[0]
        file = None if module in modules or top in NOT_KEYED else _file(module)
        if file is None or _in_standard_library(file):
            continue
        if _installed(file):
            packages.add(top)
            continue
        data = file.read_bytes()
        modules[module] = code_digest(data, file.suffix)
        waiting += imports_of(data, module, file) if file.suffix == ".py" else ()
    if not modules and not packages:
        raise UsageError(f"{name} has no source file", "put it into a module of its own")
    return Source(modules, {_distribution(package): _version(package) for package in sorted(packages)})


def source_files(name: str) -> dict[str, bytes]:
    """The files of her own modules behind an import string, by their paths below the folder that holds them.

    Empty for `timm:NAME` and for code of installed packages, which another machine has from there.
    """
    modules = source_of(name).modules
    parents = {module.rsplit(".", parts)[0] for module in modules for parts in range(1, module.count(".") + 1)}
    files = dict[str, bytes]()
    for module in (*modules, *parents):
        if (file := _file(module)) is not None:
            package = file.name == "__init__.py"
            place = module.replace(".", "/")
            files[f"{place}/__init__.py" if package else f"{place}{''.join(file.suffixes)}"] = file.read_bytes()
    return files


def _file(module: str) -> Path | None:
    """The file of a module by its name, imported or not; None for one that is built in or not there."""
    loaded = sys.modules.get(module)
    place = getattr(loaded, "__file__", None) or _origin(module)
    file = Path(place) if place else None
    return file if file is not None and file.is_file() else None


def _origin(module: str) -> str | None:
    """Where a module would be imported from; its packages are looked for, not imported."""
    spec = _spec(module)
    return spec.origin if spec is not None and spec.has_location else None


def _spec(module: str) -> Any:
    parent = module.rpartition(".")[0]
    path: Any = None
    if parent:
        loaded = sys.modules.get(parent)
        path = getattr(loaded, "__path__", None) or getattr(_spec(parent), "submodule_search_locations", None)
        if path is None:
            return None
    specs = (finder.find_spec(module, path) for finder in sys.meta_path if hasattr(finder, "find_spec"))
    return next((spec for spec in specs if spec is not None), None)


def _in_standard_library(file: Path) -> bool:
    paths = sysconfig.get_paths()
    return not _installed(file) and any(file.is_relative_to(paths[key]) for key in ("stdlib", "platstdlib"))


def _installed(file: Path) -> bool:
    """Whether a file belongs to an installed package."""
    paths = sysconfig.get_paths()
    return not set(SITE).isdisjoint(file.parts) or any(file.is_relative_to(paths[k]) for k in ("purelib", "platlib"))


def _distribution(package: str) -> str:
    """The name under which an importable package was installed."""
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return next(iter(_distributions().get(package, ())), package)
    return package


@functools.cache
def _distributions() -> Mapping[str, list[str]]:
    return metadata.packages_distributions()


def _version(package: str) -> str:
    """The version of an importable package without its local part; empty for one that nothing says it of."""
    try:
        return metadata.version(_distribution(package)).partition("+")[0]
    except metadata.PackageNotFoundError:
        return ""


@functools.lru_cache(maxsize=1024)
def code_digest(data: bytes, suffix: str) -> str:
    """Sixteen digits of a module's syntax tree, or of its bytes where it has none."""
    try:
        text = "\n".join(_tokens(ast.parse(data))).encode() if suffix == ".py" else data
    except (SyntaxError, ValueError):
        text = data
    return hashlib.sha256(text).hexdigest()[:16]


def _tokens(tree: ast.AST) -> Iterator[str]:
    """The nodes of a syntax tree with their values, without docstrings, positions and empty fields.

    Python's own `ast.dump` differs from one version to the next.
    """
    waiting: list[Any] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, _Word):
            yield node
        elif isinstance(node, ast.AST):
            yield f"({type(node).__name__}"
            waiting.append(_Word(")"))
            for name, value in reversed(list(ast.iter_fields(node))):
                if name not in ("ctx", "kind", "type_comment") and value is not None and value != []:
                    waiting += (value, _Word(name))
        elif isinstance(node, list):
            waiting += (_Word("]"), *(child for child in reversed(node) if not _is_text(child)), _Word("["))
        else:
            yield f"{type(node).__name__} {node!r}"


class _Word(str):
    """A mark between the values of a tree."""

    __slots__ = ()


def _is_text(node: Any) -> bool:
    """Whether a statement is a string that nothing uses, such as a docstring."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


@functools.lru_cache(maxsize=1024)
def imports_of(data: bytes, module: str, file: Path) -> tuple[str, ...]:
    """The names of modules that a module's text imports, anywhere in it, and their packages; some may not be there."""
    try:
        tree = ast.parse(data)
    except (SyntaxError, ValueError):
        return ()
    package = module if file.stem == "__init__" else module.rpartition(".")[0]
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= set(_from(node, package))
        elif isinstance(node, ast.Call) and _called(node) in DYNAMIC:
            names |= set(_by_call(node, module, package, file))
    parents = {name.rsplit(".", depth)[0] for name in {*names, module} for depth in range(name.count(".") + 1)}
    return tuple(sorted(parents - {module, ""}))


def _from(node: ast.ImportFrom, package: str) -> Iterator[str]:
    """What `from x import y` may import: x, and y where that is a module."""
    base = node.module or ""
    if node.level:
        above = package.rsplit(".", node.level - 1)[0] if node.level > 1 else package
        base = f"{above}.{base}".strip(".")
    yield base
    for alias in node.names:
        yield from _submodules(base) if alias.name == "*" else (f"{base}.{alias.name}",)


def _submodules(package: str) -> Iterator[str]:
    """The modules of a package: its `__all__` may name any of them."""
    for place in getattr(_spec(package), "submodule_search_locations", None) or ():
        if set(SITE).isdisjoint(Path(place).parts):
            yield from (f"{package}.{path.stem}" for path in Path(place).glob("*.py") if path.stem != "__init__")


def _called(node: ast.Call) -> str:
    function = node.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _by_call(node: ast.Call, module: str, package: str, file: Path) -> Iterator[str]:
    """What a call imports by a name that stands in it; else every module that lies in the package or beside it."""
    name = node.args[0] if node.args else None
    if _called(node) in DYNAMIC[:2] and isinstance(name, ast.Constant) and isinstance(name.value, str):
        relative = name.value.startswith(".")
        level = len(name.value) - len(name.value.lstrip("."))
        above = package.rsplit(".", level - 1)[0] if level > 1 else package
        yield f"{above}.{name.value.lstrip('.')}" if relative else name.value
        return
    root = file.parents[module.count(".") - (file.stem != "__init__")] if package else file.parent
    start = f"{module.partition('.')[0]}." if package else ""
    for path in sorted(root.rglob("*.py") if package else root.glob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        yield start + ".".join(part for part in parts if part != "__init__")


def imported(path: str, what: str) -> Any:
    """The object called `path`, `package.module:name`; `what` it is meant to be is said when it is not there.

    Modules of the current folder are found too, after the installed ones.
    """
    module, _, attribute = path.partition(":")
    if not (attribute.isidentifier() and all(part.isidentifier() for part in module.split("."))):
        raise UsageError(f"{what} {path!r} is no import string", import_hint(path) or IMPORT_FORM)
    if module.endswith(".py"):
        raise UsageError(f"{what} {path!r} names a file, not a module", import_hint(path))
    found = _imported_module(module, path, what)
    if not hasattr(found, attribute):
        hint = nearest(attribute, [name for name in vars(found) if not name.startswith("_")])
        raise UsageError(f"{what} {path!r}: module {module} has no {attribute}", hint or IMPORT_FORM)
    return getattr(found, attribute)


def find_modules_here() -> None:
    """Let modules of the current folder be imported, after the installed ones."""
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)


def _imported_module(name: str, path: str, what: str) -> Any:
    find_modules_here()
    if name in sys.modules:
        return sys.modules[name]
    with contained(path):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            raise UsageError(
                f"{what} {path!r}: there is no module {error.name}", "install it, or run in the folder that holds it"
            ) from error
        except Exception as error:
            raise UsageError(
                f"{what} {path!r}: importing {name} raises {type(error).__name__} ({first_line(error)})"
                f"{place_of(error)}",
                "correct the module",
            ) from error
