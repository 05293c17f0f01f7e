"""Whether base and head run the same code: what a worker read is compared, and what nobody sees read is not trusted."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from senet_bench.core.checkout import changed_files, git
from senet_bench.regression.sameness import Read, Sides

FILES = {
    "shop/__init__.py": "",
    "shop/wide.py": "from shop.parts import Block\n\nclass Wide(Block):\n    '''Wide.'''\n    size = 2\n",
    "shop/deep.py": "from .parts import Block\n\nclass Deep(Block):\n    size = 1\n",
    "shop/parts.py": "class Block:\n    size = 0  # none\n",
    "shop/lazy.py": "import importlib\nimportlib.import_module('shop.' + 'parts')\n",
    "shop/sizes.json": "[1]",
    "shop/fast.so": "binary",
    "tests/test_shop.py": "assert True\n",
    "README.md": "shop",
}
MODULES = {
    name: f"shop/{name.removeprefix('shop.')}.py" for name in ("shop.wide", "shop.deep", "shop.parts", "shop.lazy")
}
READ = Read({"shop": "shop/__init__.py", **MODULES}, ["shop/sizes.json"], [], False)
NETWORKS = ("shop.wide:Wide", "shop.deep:Deep", "shop.lazy:Net")


def written(folder: Path) -> Path:
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def sides(tmp_path: Path) -> Sides:
    base, head = written(tmp_path / "base"), written(tmp_path / "head" / "library")
    for arguments in (("init", "-q"), ("add", "-A"), ("commit", "-q", "-m", "one")):
        subprocess.run(("git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments), cwd=head.parent, check=True)
    return Sides((base, head), (READ, READ))


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names of files are text")
def test_a_changed_file_may_have_any_name(sides: Sides) -> None:
    name = os.fsdecode(b"gr\xfcn.md")
    (sides.folders[1] / name).write_text("new")
    assert changed_files(sides.folders[1], "HEAD") == [f"library/{name}"]
    assert same(sides) == list(NETWORKS)


def same(sides: Sides) -> list[str]:
    """The networks that are not to be timed."""
    commit = git(sides.folders[1], "rev-parse", "HEAD")
    return [name for name in NETWORKS if sides.same_data(commit) and sides.same_code(name)]


def test_what_takes_no_time_leaves_every_network_the_same(sides: Sides) -> None:
    head = sides.folders[1]
    assert same(sides) == list(NETWORKS)
    (head / "shop/wide.py").write_text("# wider\n" + FILES["shop/wide.py"].replace("Wide.", "Very wide."))
    (head / "README.md").write_text("the shop")
    (head / "tests/test_shop.py").unlink()
    (head / "shop/__pycache__").mkdir()
    (head / "shop/__pycache__/wide.pyc").write_text("")
    (head / "shop/more.py").write_text("1")
    assert changed_files(head, "HEAD") != []
    assert same(sides) == list(NETWORKS)


def test_a_changed_module_is_timed_in_the_networks_that_import_it(sides: Sides) -> None:
    head = sides.folders[1]
    (head / "shop/wide.py").write_text(FILES["shop/wide.py"].replace("size = 2", "size = 3"))
    assert same(sides) == ["shop.deep:Deep"]  # what lazy imports cannot be read off it
    (head / "shop/wide.py").write_text(FILES["shop/wide.py"])
    (head / "shop/parts.py").write_text(FILES["shop/parts.py"] + "import time\n")
    assert same(sides) == []


def with_another_file(sides: Sides) -> Sides:
    (sides.folders[1] / "shop/sizes.json").write_text("[2]")
    return sides


def with_another_library(sides: Sides) -> Sides:
    (sides.folders[1] / "shop/fast.so").write_text("slower")
    return sides


def with_a_new_flag(sides: Sides) -> Sides:
    (sides.folders[1] / "SLOW").write_text("")
    return sides


def with_reads(**fields: object) -> Callable[[Sides], Sides]:
    return lambda sides: replace(sides, reads=(READ, msgspec.structs.replace(READ, **fields)))


def with_the_heads_module_in_the_base(sides: Sides) -> Sides:
    read = msgspec.structs.replace(READ, elsewhere=[str((sides.folders[1] / "shop/wide.py").resolve())])
    return replace(sides, reads=(read, read))


@pytest.mark.parametrize(
    "change",
    [
        with_another_file,
        with_another_library,
        with_a_new_flag,
        with_reads(unseen=True),
        with_reads(files=[]),
        with_reads(modules={}),
        with_reads(elsewhere=["/elsewhere.py"]),
        with_the_heads_module_in_the_base,
    ],
)
def test_what_may_take_time_unseen_is_timed(sides: Sides, change: Callable[[Sides], Sides]) -> None:
    assert same(change(sides)) == []


def test_a_network_whose_module_was_not_loaded_is_timed(sides: Sides) -> None:
    assert not sides.same_code("shop.gone:Net")
    assert sides.same_code("resnet18")
