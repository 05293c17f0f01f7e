"""What the tests of `check` share: a folder with small networks of a user's own, and how they are changed."""

import importlib
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

NETWORKS = '''
import torch
from torch import nn

class Net(nn.Module):
    """A small network with a squeeze-and-excitation block."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.squeeze = nn.Linear(8, 2)
        self.excite = nn.Linear(2, 8)
        self.head = nn.Linear(8, 10)

    def forward(self, x):
        x = self.stem(x).relu()
        gate = self.excite(self.squeeze(x.mean((2, 3))).relu()).sigmoid()
        return self.head((x * gate[:, :, None, None]).mean((2, 3)))

class Other(Net):
    """A second network."""
'''
CONFIG = """
networks = [
  { name = "nets:Net", input_size = [3, 16, 16] },
  { name = "nets:Other", input_size = [3, 16, 16] },
]
metrics = ["params", "flops", "outputs", "state_dict", "operators"]
"""


def activations(network: nn.Module, input_size: tuple[int, int, int]) -> int:
    """Elements of the outputs of all convolutions for one image."""
    counts: list[int] = []

    def count(module: nn.Module, inputs: object, output: torch.Tensor) -> None:
        counts.append(output.numel())

    hooks = [m.register_forward_hook(count) for m in network.modules() if isinstance(m, nn.Conv2d)]
    with torch.no_grad():
        network(torch.empty(1, *input_size, device=next(network.parameters()).device))
    for hook in hooks:
        hook.remove()
    return sum(counts)


class Folder:
    """A user's folder: `nets.py` and `senet-bench.toml`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.write(NETWORKS)
        self.configure(CONFIG)

    def write(self, source: str) -> None:
        """Make this the source of the networks."""
        (self.path / "nets.py").write_text(source)
        self.forget()

    def forget(self) -> None:
        """Let the next import see what was written."""
        sys.modules.pop("nets", None)
        importlib.invalidate_caches()

    def change(self, old: str, new: str) -> None:
        """Change the networks' source."""
        source = (self.path / "nets.py").read_text()
        assert old in source
        self.write(source.replace(old, new))

    def configure(self, text: str) -> None:
        """Make this the config."""
        (self.path / "senet-bench.toml").write_text(text)

    @property
    def baseline(self) -> Path:
        """The recorded portable facts."""
        return self.path / "results" / "baselines" / "portable.json"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    """A folder with two networks, which is the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    return Folder(tmp_path)
