"""What an error advises can be typed, and what the package imports is declared."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from senet_bench.cli import app
from senet_bench.cli.showing import FORMAT_NAMES
from senet_bench.show.writers import FORMATS

ROOT = Path(__file__).parents[1]
PYTEST_OPTIONS = {"--senet-bench-record", "--benchmark-save-data"}
DISTRIBUTIONS = {
    "PIL": "pillow",
    "cpuinfo": "py-cpuinfo",
    "pynvml": "nvidia-ml-py",
    "sklearn": "scikit-learn",
}
"""The distribution of a module, where the names differ."""


def commands(group: Any) -> Iterator[Any]:
    for command in group.commands.values():
        yield command
        yield from commands(command) if hasattr(command, "commands") else ()


def sources() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted((ROOT / "senet_bench").rglob("*.py")):
        yield str(path.relative_to(ROOT)), ast.parse(path.read_text(encoding="utf-8"))


def prose(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Every literal of more than one word that is no docstring, f-strings' constant parts too."""
    described = (ast.Module, ast.ClassDef, ast.FunctionDef)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, described) and node.body and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield from [(node.lineno, node.value)] if " " in node.value else []


def test_every_option_and_command_that_a_message_names_exists() -> None:
    group: Any = typer.main.get_command(app)
    parameters = [parameter for command in [group, *commands(group)] for parameter in command.params]
    options = {name for parameter in parameters for name in (*parameter.opts, *parameter.secondary_opts)}
    known = options | PYTEST_OPTIONS | {"--help"}
    wrong = [
        f"{path}:{line}: {name}"
        for path, tree in sources()
        for line, text in prose(tree)
        for name in (
            *(set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*[a-z0-9]", text)) - known),
            *(set(re.findall(r"`senet-bench ([a-z]+)", text)) - set(group.commands)),
        )
    ]
    assert len(options) > 50
    assert not wrong


def imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def test_every_module_that_is_imported_belongs_to_a_declared_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    required = [
        *project["dependencies"],
        *(name for extra in project["optional-dependencies"].values() for name in extra),
    ]
    declared = {re.split(r"[^\w.-]", text)[0].lower().replace("_", "-") for text in required}
    modules = {name for _, tree in sources() for name in imported(tree)}
    modules -= {*sys.stdlib_module_names, "senet_bench"}
    modules -= {"pytest", "triton"}  # pytest itself loads the plugin, torch brings Triton where it has it
    assert {DISTRIBUTIONS.get(name, name).lower().replace("_", "-") for name in modules} <= declared
    assert "pillow" in declared


def test_every_writer_is_a_choice_of_format() -> None:
    assert ("table", *FORMATS) == FORMAT_NAMES
