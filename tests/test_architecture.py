"""The house rules: imports point down, starting up loads nothing heavy, only the terminal prints."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "senet_bench"
LAYERS = [
    {"errors"},
    {"specs", "metrics"},
    {"catalog", "detectors", "studies", "paper", "results", "sizing"},
    {"models", "measure", "deployment", "checking", "training", "store", "verdict", "budget", "report", "engines"},
    {"workflows", "console"},
    {"cli", "pytest_plugin"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
FILES = sorted(PACKAGE.rglob("*.py"))


def part(path: Path) -> str:
    """The top-level module or folder of the package a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Parts of the package that a file imports anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    parts = {name.split(".")[1] for name in names if name.startswith("senet_bench.") and "." in name}
    return {name for name in parts if name in LEVEL}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    if part(path) in LEVEL:
        above = {name for name in imported(path) if LEVEL[name] > LEVEL[part(path)]}
        assert not above


def test_every_module_has_a_layer() -> None:
    assert {part(path) for path in FILES} - {"__init__", "__main__"} <= set(LEVEL)


@pytest.mark.parametrize(("folder", "banned"), [("measure", "models"), ("report", "models"), ("report", "measure")])
def test_measuring_and_reporting_know_no_networks(folder: str, banned: str) -> None:
    assert not [path for path in FILES if part(path) == folder and banned in imported(path)]


def test_only_the_terminal_prints() -> None:
    printing = {
        part(path)
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    }
    assert printing <= {"cli", "console"}


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
    code = (
        "import sys\nfrom senet_bench.cli import main\n"
        f"try:\n    main({arguments!r})\nexcept SystemExit as end:\n    status = end.code\n"
        "heavy = {'torch', 'torchvision', 'pandas', 'matplotlib', 'scipy', 'sklearn', 'fvcore'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
