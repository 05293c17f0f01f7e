"""A number knows what it is a number of: source from outside by its meaning, keys by what decides a result."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from senet_bench.core import catalog
from senet_bench.core.identity import Data, Identity, NetworkIdentity, canonical, recipe_facts
from senet_bench.core.recipes import recipe
from senet_bench.core.source import source_of
from senet_bench.core.specs import AttentionSpec
from senet_bench.errors import UsageError

GATE = '''"""A gate."""
from torch import nn

import her_helper


class Gate(nn.Module):
    """Scales a map by what the helper says of it."""

    def __init__(self, channels):
        super().__init__()
        self.fc = nn.Linear(channels, channels)  # one weight a pair

    def forward(self, x):
        return x * her_helper.gate(self.fc(x.mean((2, 3))))[:, :, None, None]
'''
HELPER = "import torch\n\n\ndef gate(z):\n    return torch.sigmoid(z)\n"

Write = Callable[[str, str], Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Write a module of her own, in a folder that Python imports from."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)

    def written(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    yield written
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]


def test_a_module_of_the_current_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "only_here.py").write_text("Gate = None\n")
    assert list(source_of("only_here:Gate").modules) == ["only_here"]
    with pytest.raises(UsageError, match="there is no module nor_here"):
        source_of("nor_here:Gate")


def test_a_comment_a_docstring_and_the_formatting_are_no_change(write: Write) -> None:
    write("her_helper.py", HELPER)
    write("her_gate.py", GATE)
    before = source_of("her_gate:Gate")
    assert set(before.modules) == {"her_gate", "her_helper"}
    assert before.packages == {}
    write(
        "her_gate.py", GATE.replace("A gate.", "Another gate.").replace("# one weight a pair", "#").replace(", ", ",")
    )
    write("her_helper.py", "# a helper\n" + HELPER.replace("    return", '    """Squash."""\n\n    return'))
    assert source_of("her_gate:Gate").digest == before.digest


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [("her_gate.py", "mean((2", "amax((2"), ("her_gate.py", "(2, 3)", "(2, 2)"), ("her_helper.py", "sigmoid", "tanh")],
)
def test_an_edit_after_the_import_is_another_source(write: Write, module: str, old: str, new: str) -> None:
    texts = {"her_gate.py": GATE, "her_helper.py": HELPER}
    for name, text in texts.items():
        write(name, text)
    before = source_of("her_gate:Gate").digest
    write(module, texts[module].replace(old, new))
    assert source_of("her_gate:Gate").digest != before


def test_equal_names_in_two_folders_are_two_sources(write: Write, tmp_path: Path) -> None:
    write("her_helper.py", HELPER)
    write("her_gate.py", GATE)
    before = source_of("her_gate:Gate").digest
    del sys.modules["her_gate"]
    write("other/her_gate.py", GATE.replace("return x", "return 0 * x"))
    sys.path.insert(0, str(tmp_path / "other"))
    try:
        assert source_of("her_gate:Gate").digest != before
    finally:
        sys.path.remove(str(tmp_path / "other"))


PACKAGE = {
    "her_blocks/__init__.py": "from .gates import Gate\nfrom . import registry\n",
    "her_blocks/gates/__init__.py": "from ..parts import squeeze\nfrom .plain import Gate\n",
    "her_blocks/gates/plain.py": "def late():\n    from her_blocks import late_part\n\nclass Gate: pass\n",
    "her_blocks/parts.py": "import importlib\nsqueeze = importlib.import_module('.pool', __package__)\n",
    "her_blocks/pool.py": "size = 1\n",
    "her_blocks/late_part.py": "value = 2\n",
    "her_blocks/registry.py": "import json\nfrom typing import Any\nimport numpy, timm\n",
    "her_blocks/tests.py": "nobody imports this\n",
}


@pytest.mark.parametrize("edited", [name for name in PACKAGE if "tests" not in name])
def test_every_module_of_a_package_that_the_import_brings_in_counts(write: Write, edited: str) -> None:
    pytest.importorskip("timm")
    for name, text in PACKAGE.items():
        write(name, text)
    before = source_of("her_blocks.gates:Gate")
    assert set(before.packages) == {"timm"}
    assert "her_blocks.tests" not in before.modules
    write("her_blocks/tests.py", "import her_blocks")
    assert source_of("her_blocks.gates:Gate") == before
    write(edited, PACKAGE[edited] + "more = 1\n")
    assert source_of("her_blocks.gates:Gate").digest != before.digest


def test_where_an_import_cannot_be_read_off_every_module_beside_it_counts(write: Write) -> None:
    write("her_parts/__init__.py", "import importlib, pkgutil\nfor m in pkgutil.iter_modules(__path__):\n    pass\n")
    write("her_parts/deep/__init__.py", "")
    write("her_parts/deep/part.py", "value = 1\n")
    before = source_of("her_parts:Gate")
    assert set(before.modules) == {"her_parts", "her_parts.deep", "her_parts.deep.part"}
    write("her_parts/deep/part.py", "value = 2\n")
    assert source_of("her_parts:Gate").digest != before.digest


def test_code_that_is_installed_counts_by_its_version(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("timm")
    known = source_of("timm:resnet18")
    assert (set(known.modules), set(known.packages)) == (set(), {"timm"})
    assert source_of("timm.layers:SEModule") == known
    assert known != source_of("torchvision:resnet18")
    monkeypatch.setattr("senet_bench.core.source._version", lambda package: "0.0")
    assert source_of("timm:resnet18").digest != known.digest


def test_a_module_without_a_file_is_refused() -> None:
    with pytest.raises(UsageError, match="no source file"):
        source_of("itertools:chain")


DATA = Data(name="digits", size=8, channels=1, classes=10, train=100, test=1697, labels="a", images="b")


def identity(name: str = "seresnet20_cifar", attention: AttentionSpec | None = None) -> Identity:
    spec = catalog.resolve(name)
    spec = spec if attention is None else replace(spec, attention=attention)
    plan = recipe("digits")
    return Identity(
        network=NetworkIdentity.of(spec), data=DATA, recipe=recipe_facts(plan), batch=plan.batch_size, seed=0
    )


OTHERS = {
    "network": identity("resnet20_cifar"),
    "reduction": identity(attention=AttentionSpec(reduction=4)),
    "data": replace(identity(), data=replace(DATA, labels="c")),
    "lr": replace(identity(), recipe=recipe_facts(replace(recipe("digits"), lr=0.05))),
    "flip": replace(identity(), recipe=recipe_facts(recipe("cifar"))),
    "batch": replace(identity(), batch=25),
    "seed": replace(identity(), seed=1),
    "precision": replace(identity(), precision="bf16"),
    "start": replace(identity(), start="a file's digest"),
    "ema": replace(identity(), ema=0.999),
    "accumulate": replace(identity(), accumulate=2),
    "revision": replace(identity(), revision=2),
    "source": replace(identity(), network=replace(identity().network, source="another")),
}


def test_the_key_changes_with_all_that_decides_a_result() -> None:
    keys = [one.key for one in (identity(), *OTHERS.values())]
    assert len(set(keys)) == len(keys)


def test_the_key_stays_with_what_decides_nothing() -> None:
    renamed = replace(recipe("digits"), name="mine", source="somewhere", deviations=("none",))
    assert replace(identity(), recipe=recipe_facts(renamed)).key == identity().key
    assert identity("resnet20_cifar", AttentionSpec()).key == identity("seresnet20_cifar").key
    assert identity().key == "179861c3f26356c5"  # what is stored under it stays known


def test_equal_values_have_one_canonical_form() -> None:
    assert canonical({"a": (82.0, 0.5), "b": {"c": None}, "d": True}) == {"a": [82, 0.5], "b": {"c": None}, "d": True}
    assert canonical(AttentionSpec(bias=False)) == {"reduction": 16, "bias": False}
    assert canonical(AttentionSpec("my:Gate", options=(("k", 3.0),))) == {"block": "my:Gate", "options": [["k", 3]]}
