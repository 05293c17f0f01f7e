"""The house rules: imports point down, starting up loads nothing heavy, only the terminal prints."""

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "senet_bench"
FLOORS = [
    {"errors", "start"},
    {"core"},
    {"show", "models", "deployment", "bench", "data"},
    {"training"},
    {"run"},
    {"breakdown", "detection", "gates", "overhead", "probing", "regression"},
    {"gallery", "pytest_plugin"},
    {"api"},
    {"cli"},
]
"""The rooms from the ground up; a room imports what lies below it."""
NEIGHBOURS = {("bench", "deployment"), ("bench", "models"), ("deployment", "models"), ("data", "bench")}
"""Pairs on one floor of which the first may import the second; features never import each other."""
FLOOR = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}
FILES = sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    """A module's name below the package; a room's own file has the room's."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in FILES}


def room(module: str) -> str:
    return module.partition(".")[0]


@functools.cache
def nodes(module: str) -> list[ast.AST]:
    return list(ast.walk(ast.parse(MODULES[module].read_text())))


def imported(module: str) -> set[str]:
    """Modules of the package that a module imports anywhere in it, inside functions and for types too."""
    names: set[str] = set()
    for node in nodes(module):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] == "senet_bench":
            below = node.module.partition(".")[2]
            for alias in node.names:
                whole = f"{below}.{alias.name}".lstrip(".")
                names.add(whole if whole in MODULES else below)
        elif isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[2] for alias in node.names if alias.name.startswith("senet_bench.")}
    return names - {module, ""}


@functools.cache
def imports() -> dict[str, set[str]]:
    return {module: imported(module) for module in MODULES}


def test_every_room_has_a_floor() -> None:
    assert {room(module) for module in MODULES} - {"", "__main__"} == set(FLOOR)


def test_imports_point_down() -> None:
    upward = {
        (module, other)
        for module, others in imports().items()
        for other in others
        if room(module) in FLOOR and room(module) != room(other)
        if FLOOR[room(other)] >= FLOOR[room(module)] and (room(module), room(other)) not in NEIGHBOURS
    }
    assert not upward


def test_no_files_import_each_other_in_a_circle() -> None:
    below = {module: set(others) for module, others in imports().items()}
    for middle in below:  # Warshall's closure
        for module in below:
            if middle in below[module]:
                below[module] |= below[middle]
    circles = {frozenset(other for other in below if other in below[m] and m in below[other]) for m in below}
    assert not circles - {frozenset()}


@pytest.mark.parametrize("quiet", ["errors", "core", "show"])
def test_facts_and_tables_never_import_torch(quiet: str) -> None:
    for module in MODULES:
        if room(module) == quiet:
            named = {node.module or "" for node in nodes(module) if isinstance(node, ast.ImportFrom)}
            named |= {a.name for node in nodes(module) if isinstance(node, ast.Import) for a in node.names}
            assert not {name for name in named if name.partition(".")[0] in ("torch", "torchvision")}, module


def test_only_the_terminal_prints() -> None:
    printing = {
        module
        for module in MODULES
        for node in nodes(module)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    }
    assert printing <= {"show.terminal"}


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["compare", "--help"],
        ["models"],
        ["models", "--format", "json"],
        ["compare", "resnet51"],
        ["ablate"],
        ["excitations", "seresnet51"],
    ],
    ids=" ".join,
)
def test_names_load_neither_torch_nor_pandas(arguments: list[str], tmp_path: Path) -> None:
    heavy = ("torch", "torchvision", "pandas", "matplotlib", "scipy", "sklearn", "fvcore")
    assert loaded_of(heavy, arguments, tmp_path) == "set()"


@pytest.mark.parametrize("arguments", [["--help"], ["compare", "--help"]], ids=" ".join)
def test_help_does_not_load_what_draws_tables(arguments: list[str], tmp_path: Path) -> None:
    assert loaded_of(("senet_bench.show.terminal", "msgspec"), arguments, tmp_path) == "set()"


def test_a_table_does_not_load_what_draws_progress(tmp_path: Path) -> None:
    assert loaded_of(("rich.progress",), ["models"], tmp_path) == "set()"


def loaded_of(modules: tuple[str, ...], arguments: list[str], folder: Path) -> str:
    """Which of some modules a command line loads, as Python prints a set."""
    code = (
        "import sys\nfrom senet_bench.cli import main\n"
        f"try:\n    main({arguments!r})\nexcept SystemExit as end:\n    status = end.code\n"
        f"sys.stderr.write(str({set(modules)!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=folder, check=True)
    return done.stderr.splitlines()[-1]


def test_starting_reads_no_stored_document_and_calculates_nothing(tmp_path: Path) -> None:
    code = "import sys, senet_bench.cli\nassert not {'numpy', 'msgspec', 'filelock'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr


def test_a_job_of_a_trial_begins_without_torch(tmp_path: Path) -> None:
    code = (
        "import sys, senet_bench.core.trial, senet_bench.run.slurm_job\n"
        "assert not {'torch', 'numpy'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr


def test_types_of_stored_documents_are_read_without_torch(tmp_path: Path) -> None:
    code = (
        "import pkgutil, sys\nfrom senet_bench.core.schemas import DOCUMENT_KINDS\n"
        "for name in DOCUMENT_KINDS.values():\n    pkgutil.resolve_name(name)\n"
        "assert not {'torch', 'pandas', 'matplotlib'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
