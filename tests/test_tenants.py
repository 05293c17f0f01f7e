"""Several checkouts in one process: each sees its own modules, and what one changes for all of them is told."""

import importlib
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from senet_bench.regression.hosts import CallBlock
from senet_bench.regression.launches import ARMS, Pace, _order, _rounds
from senet_bench.regression.tenants import ProcessState, Tenant

LAZY = "def answer():\n    import shop_lazy\n    return shop_lazy.VALUE\n"


def checkout(root: Path, value: str, more: str = "") -> str:
    root.mkdir()
    (root / "shop_of_two.py").write_text(LAZY + more)
    (root / "shop_lazy.py").write_text(f"VALUE = {value!r}\n")
    return str(root)


def test_two_checkouts_of_one_package_live_in_one_process_and_a_change_for_both_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.nn.functional, "relu", torch.nn.functional.relu)  # what a checkout changes is undone
    patch = "import torch\ntorch.nn.functional.relu = lambda x: x\n"
    roots = [checkout(tmp_path / name, name, more) for name, more in (("base", ""), ("head", ""), ("rude", patch))]
    before = sys.path[:], set(sys.modules)
    base, head, rude = map(Tenant, roots)
    answers = []
    for tenant in (base, head):
        with tenant:
            answers.append(importlib.import_module("shop_of_two").answer)
    for tenant, answer, name in ((base, answers[0], "base"), (head, answers[1], "head"), (base, answers[0], "base")):
        with tenant:
            assert (answer(), os.getcwd()) == (name, str(tmp_path / name))
    assert (sys.path, [name for name in set(sys.modules) - before[1] if name.startswith("shop_")]) == (before[0], [])
    world = ProcessState()
    assert world.changed() == []
    with rude:
        importlib.import_module("shop_of_two")
        made = type(sys)("shop_made")
        sys.modules["shop_made"] = made
    assert "torch.nn.functional.relu" in world.changed()
    assert (base.strange, rude.strange) == (set(), {"shop_made"})
    rude.expect(__file__)
    assert __file__ in rude.strange
    del sys.modules["shop_made"]


class Noisy:
    """A host whose calls take 2 ms, and a share more or less by chance."""

    arms: Sequence[str] = ARMS
    blocks: Sequence[CallBlock] = (CallBlock(),)
    seconds: Sequence[float] = (2e-3,)

    def __init__(self, noise: float) -> None:
        self.noise, self.rng, self.clock = noise, np.random.default_rng(0), 0.0

    def rounds(self, place: int, orders: Sequence[Sequence[str]]) -> dict[str, list[float]]:
        taken = {arm: [2e-3 * math.exp(self.rng.normal(0, self.noise)) for _ in orders] for arm in self.arms}
        self.clock += sum(map(sum, taken.values()))
        return taken

    def leave(self) -> None:
        pass


def test_rounds_are_as_many_as_the_noise_wants_within_the_time() -> None:
    def rounds(noise: float, pace: Pace) -> int:
        host = Noisy(noise)
        return _rounds(host, 0, pace, np.random.default_rng(1), now=lambda: host.clock).seconds["base"].size

    assert rounds(0.001, Pace(1.5, 20)) < 30
    assert 150 <= rounds(0.1, Pace(1.5, 20)) <= 250  # its 1.5 s are used, the error is tolerable
    assert 300 <= rounds(0.2, Pace(1.5, 20)) <= 400  # and here it is, later
    assert 490 <= rounds(0.5, Pace(1.5, 20)) <= 590  # three times its seconds
    assert rounds(0.5, Pace(1.5, 0.5)) < 100  # the time of the launch


def test_base_and_head_take_each_other_s_places_from_launch_to_launch() -> None:
    assert _order(ARMS, 0) == ["base", "head", "head_again", "base_again"]
    assert _order(ARMS, 1) == ["head", "base", "base_again", "head_again"]
    assert _order(["base", "base_again"], 1) == ["base_again", "base"]
