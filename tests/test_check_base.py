"""`check --base`: who judges, what is accepted, what breaks; the processes themselves in a few slow tests."""

import json
import select
import sys
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from senet_bench.regression.against import largest_difference
from senet_bench.regression.baselines import Baselines
from senet_bench.regression.comparison import vanished
from senet_bench.regression.config import CheckedNetwork, Config
from senet_bench.regression.facts import Portable
from senet_bench.regression.launches import Launch
from senet_bench.regression.limits import Limit, usual_limits
from senet_bench.regression.outcome import failed, with_allowances
from senet_bench.regression.policy import Policy, policy_of, with_acceptances
from senet_bench.regression.timing import Deadline, Duel
from senet_bench.regression.worker import waits
from senet_bench.regression.workers import Checkout
from tests.conftest import Ended, Run
from tests.support.checks import CONFIG, Folder, folder
from tests.test_check_cli import commit, git

__all__ = ["folder"]

BASE = """
networks = ["resnet20_cifar", "seresnet20_cifar"]
metrics = ["params", "latency", "outputs"]
[gate.latency]
max = "+2 %"
[[ratio]]
network = "seresnet20_cifar"
metric = "flops"
max = "+1 %"
"""


def policy(tmp_path: Path, head: str, base: str = BASE, *, by_head: bool = False) -> Policy:
    from senet_bench.regression.configfile import load_config

    for name, text in (("base", base), ("head", head)):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "senet-bench.toml").write_text(text)
    checkout = Checkout(tmp_path / "base", "0123", "2026-11-29")
    return policy_of(load_config(None, tmp_path / "head"), checkout, by_head=by_head, only=None)


def test_a_change_is_judged_by_its_base_and_what_it_loosens_is_a_row_each(tmp_path: Path) -> None:
    head = BASE.replace('"+2 %"', '"any"').replace('"latency", ', "").replace('"+1 %"', '"+9 %"')
    head = head.replace('"resnet20_cifar", "seresnet20_cifar"', '"seresnet20_cifar", "resnet20_cifar", "resnet18"')
    head += '[gate]\ninconclusive = "pass"\nalpha = 0.001\n[[allow]]\nid = "*"\nuntil = 2999-01-01\nreason = "no"\n'
    found = policy(tmp_path, head)
    assert {row.id for row in found.rows} == {
        "configuration/metric-dropped/latency",
        "configuration/gate-loosened/seresnet20_cifar/flops-ratio",
        "configuration/gate-loosened/alpha",
        "configuration/gate-loosened/inconclusive",
        "configuration/allowed-by-this-change/*",
    }
    assert {row.verdict for row in found.rows} == {"fail"}
    config = found.config
    assert config.metrics == ("params", "latency", "outputs")
    assert (config.limit("resnet20_cifar", "latency").relative, config.alpha, config.allowed) == (0.02, 0.01, ())
    assert [one.name for one in config.networks] == ["resnet20_cifar", "seresnet20_cifar", "resnet18"]
    assert config.ratios[0].limit.relative == 0.01
    (loosened,) = policy(tmp_path, BASE.replace('"+2 %"', '"any"')).rows
    assert loosened.reason == "latency of all networks: +2 % and +20 us -> any"


def test_predictions_are_those_of_this_checkout_and_leaving_them_out_is_told(tmp_path: Path) -> None:
    pair = '[[predictions]]\nnetwork = "resnet20_cifar"\nbase = "a.npz"\nhead = "b.npz"\n'
    found = policy(tmp_path, BASE + pair, BASE + pair)
    assert (found.rows, found.config.predictions[0].base) == ((), tmp_path / "head" / "a.npz")
    assert [row.metric for row in policy(tmp_path, BASE, BASE + pair).rows] == ["gate dropped"]


def test_of_two_ratios_and_predictions_of_one_network_none_hides_the_other(tmp_path: Path) -> None:
    pairs = [f'[[predictions]]\nnetwork = "resnet20_cifar"\nbase = "{one}.npz"\nhead = "b.npz"\n' for one in "ac"]
    ratio = '[[ratio]]\nnetwork = "seresnet20_cifar"\nbaseline = "resnet18"\nmetric = "flops"\nmax = "+50 %"\n'
    networks = BASE.replace('"resnet20_cifar", ', '"resnet20_cifar", "resnet18", ')
    both = networks + ratio + "".join(pairs)
    same = policy(tmp_path, both, both)
    assert (same.rows, [one.limit.relative for one in same.config.ratios]) == ((), [0.01, 0.5])
    looser = policy(tmp_path, both.replace('"+1 %"', '"+9 %"'), both)
    assert [row.id for row in looser.rows] == [
        "configuration/gate-loosened/seresnet20_cifar/flops-ratio/resnet20_cifar"
    ]
    fewer = policy(tmp_path, networks + pairs[0], both)
    assert [row.id for row in fewer.rows] == [
        "configuration/gate-dropped/seresnet20_cifar/flops-ratio/resnet18",
        "configuration/gate-dropped/resnet20_cifar/accuracy",
    ]
    assert [one.baseline for one in fewer.config.ratios] == ["resnet20_cifar", "resnet18"]


def test_a_tighter_or_equal_configuration_is_no_row_and_the_head_judges_where_it_is_asked_to(tmp_path: Path) -> None:
    assert not policy(tmp_path, BASE.replace('"+2 %"', '"+1 %"')).rows
    head = BASE.replace('"+2 %"', '"+3 %"')
    found = policy(tmp_path, head, by_head=True)
    assert [row.verdict for row in found.rows] == ["allowed"]
    assert found.config.limit("resnet20_cifar", "latency").relative == 0.03


def test_what_the_base_allows_may_be_loosened(tmp_path: Path) -> None:
    allow = '[[allow]]\nid = "configuration/*"\nuntil = 2999-01-01\nreason = "a new machine"\n'
    found = policy(tmp_path, BASE.replace('"+2 %"', '"+3 %"') + allow, BASE + allow)
    (row,) = with_allowances(found.rows, found.config, date(2026, 11, 29))
    assert (row.verdict, row.metric) == ("allowed", "gate loosened")


def test_a_base_without_a_configuration_is_told_and_a_network_taken_out_vanished(tmp_path: Path) -> None:
    (row,) = policy(tmp_path, BASE, base="").rows
    assert (row.verdict, "this checkout's judges" in row.reason) == ("info", True)
    assert policy(tmp_path, 'networks = ["resnet20_cifar"]\n').vanished == ("seresnet20_cifar",)
    assert vanished("seresnet20_cifar", "is in the base").verdict == "fail"


def baselines(folder: Path, facts: dict[str, Portable], history: list[dict[str, str]]) -> Baselines:
    from senet_bench.regression.baselines import PortableBaseline, facts_stored

    found = Baselines(folder)
    found.write(PortableBaseline(networks={name: facts_stored(one) for name, one in facts.items()}))
    found.history_path.write_text("".join(json.dumps(line) + "\n" for line in history))
    return found


def test_what_the_head_accepts_since_the_base_passes_and_nothing_else(tmp_path: Path) -> None:
    old, new = (Portable(input_size=(3, 8, 8), params={"a": n}, shapes=["x"]) for n in (1, 2))
    line = {"id": "n:params", "who": "ada", "reason": "wider"}
    base, head = baselines(tmp_path / "base", {"n": old}, []), baselines(tmp_path / "head", {"n": new}, [line])
    rows = [
        failed("n", "params", "+1", "fail"),
        failed("n", "flops", "+1", "fail"),
        failed("m", "params", "+1", "fail"),
    ]
    accepted, *others = with_acceptances(rows, head, base, {"n": new})
    assert (accepted.verdict, accepted.reason) == ("accepted", "+1; accepted by ada: wider")
    assert [row.verdict for row in others] == ["fail", "fail"]
    further = Portable(input_size=(3, 8, 8), params={"a": 3}, shapes=["x"])
    assert with_acceptances(rows[:1], head, base, {"n": further})[0].verdict == "fail", "it changed since"
    assert with_acceptances(rows[:1], head, head, {"n": new})[0].verdict == "fail", "the base accepted it already"
    gone = baselines(tmp_path / "gone", {}, [{"id": "n:all", "reason": "old"}])
    assert with_acceptances([vanished("n", "")], gone, base, {})[0].verdict == "accepted"


def test_the_largest_difference_is_relative_to_the_largest_output(tmp_path: Path) -> None:
    first, second = tmp_path / "a.npz", tmp_path / "b.npz"
    np.savez(first, one=np.array([1.0, -4.0, np.nan]), two=np.zeros(2))
    np.savez(second, one=np.array([1.0, -4.002, np.nan]), two=np.zeros(2))
    assert largest_difference(first, second) == pytest.approx(0.002 / 4.002)
    np.savez(second, one=np.array([1.0, np.nan, -4.0]), two=np.zeros(2))
    assert largest_difference(first, second) == float("inf")


def test_the_forecast_is_bounded(tmp_path: Path) -> None:
    config = Config(source="x", networks=(CheckedNetwork("n", (3, 8, 8)),), limits=usual_limits())
    text = Deadline(60).forecast(replace(config, launches=100), 2)
    assert text.startswith("latency of 2 networks: about 60 s, at most ")
    assert Limit(relative=0.02, min_abs=2e-5).text("latency") == "+2 % and +20 us"


def test_a_busy_machine_that_has_no_more_time_or_launches_may_decide_a_wider_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = Config(source="x", networks=(CheckedNetwork("n", (3, 8, 8)),), limits=usual_limits())
    duel = Duel(tmp_path, tmp_path, config, 0, Deadline(60))
    row = replace(
        failed("n", "latency", "open", "inconclusive"),
        base=0.01,
        ratio=1.001,
        ci=(0.96, 1.05),
        confidence=0.98,
        control_ok=True,
    )
    same = np.ones(6)
    few = [Launch(base=same, head=same, base_again=same, head_again=same)] * 6
    monkeypatch.setattr("senet_bench.regression.timing.busy", lambda: True)
    passed = duel._ended(row, few)
    assert (passed.verdict, passed.wider) == ("pass", True)
    assert passed.reason.startswith("not slower by more than 5 %; whether by 2 % is not known: max_seconds = 300 ended")
    slower, wide = replace(row, ratio=1.05, ci=(1.01, 1.09)), replace(row, ci=(0.9, 1.12))
    odd = replace(row, control_ok=False)
    assert duel._ended(replace(row, confidence=0.875), few).verdict == "inconclusive"  # of four pairs
    assert duel._ended(replace(row, ratio=1.03), few).verdict == "pass"  # no slowdown is seen
    assert [duel._ended(one, few).verdict for one in (slower, wide, odd)] == ["inconclusive"] * 3
    assert "max_seconds = 300 ended it after 6 launches; raise it" in duel._ended(wide, few).reason
    whole = duel._ended(row, few * 2)
    assert (whole.verdict, whole.wider) == ("pass", True)
    assert "is not known: 12 launches did not tell on a busy machine" in whole.reason
    assert duel._ended(replace(row, verdict="fail"), few).verdict == "fail"
    monkeypatch.setattr("senet_bench.regression.timing.busy", lambda: False)
    assert duel._ended(row, few).verdict == "inconclusive"
    assert duel._ended(row, few * 2) == row


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says how often a thread has waited")
def test_calls_that_wait_are_told_from_those_that_work() -> None:
    assert waits(lambda: select.select([], [], [], 1e-4))
    assert not waits(lambda: sum(range(100)))


# --- the processes themselves ---------------------------------------------------------------------------------------


def rows(run: Run, *arguments: str) -> tuple[Ended, dict[str, dict[str, Any]]]:
    ended = run("check", *arguments, "--format", "json")
    assert ended.out, ended.err
    return ended, {row["id"]: row for row in json.loads(ended.out)["rows"]}


MANY = """
import os
from nets import Net

class Norm(Net):
    pass
class Leaves(Net):
    pass
class Gone(Net):
    pass
class Dies(Net):
    pass
class Same(Net):
    pass
"""
NAMES = ("Norm", "Leaves", "Gone", "Dies", "Same")


@pytest.mark.slow
def test_every_network_has_its_own_verdict_and_none_takes_others_with_it(folder: Folder, run: Run) -> None:
    entries = "".join(f'  {{ name = "many:{name}", input_size = [3, 16, 16] }},\n' for name in NAMES)
    config = CONFIG.replace('"operators"]', '"operators", "memory"]').replace("]\nmetrics", f"{entries}]\nmetrics")
    folder.configure(config)
    (folder.path / "many.py").write_text(MANY)
    commit(folder.path)
    ended, found = rows(run, "--base", "HEAD", "--only", "nets:*")
    assert (ended.code, {row["verdict"] for row in found.values()}) == (0, {"pass"})
    changed = MANY.replace("class Gone", "class Went")
    changed = changed.replace(
        "class Norm(Net):\n    pass",
        "class Norm(Net):\n    def forward(self, x):\n        return super().forward(x) * 1.001",
    )
    changed = changed.replace(
        "class Leaves(Net):\n    pass", "class Leaves(Net):\n    def forward(self, x):\n        os._exit(0)"
    )
    changed = changed.replace(
        "class Dies(Net):\n    pass", "class Dies(Net):\n    def forward(self, x):\n        os.kill(os.getpid(), 11)"
    )
    (folder.path / "many.py").write_text(changed)
    folder.configure(config.replace('"outputs", ', ""))
    ended, found = rows(run, "--base", "HEAD")
    assert ended.code == 1
    verdicts = {name: row["verdict"] for name, row in found.items()}
    assert verdicts["many:Leaves/build"] == verdicts["many:Gone/build"] == verdicts["many:Dies/build"] == "fail"
    assert verdicts["many:Norm/outputs"] == "fail"
    assert {verdict for name, verdict in verdicts.items() if "Same" in name or "nets:" in name} == {"pass"}
    assert verdicts["configuration/metric-dropped/outputs"] == "fail"
    assert "the base works and this change does not" in found["many:Gone/build"]["reason"]
    assert found["many:Norm/outputs"]["file"] == "many.py"
    assert found["many:Norm/outputs"]["line"] == 5


@pytest.mark.slow
def test_a_change_that_is_accepted_in_the_head_is_green_against_its_base(folder: Folder, run: Run) -> None:
    assert run("baseline", "record").code == 0
    commit(folder.path)
    folder.change("nn.Linear(8, 10)", "nn.Linear(8, 11)")
    ended, _ = rows(run, "--base", "HEAD")
    assert ended.code == 1
    accepted = run("baseline", "accept", "--all", "--reason", "one class more")
    assert "HISTORY.jsonl" in accepted.err
    git(folder.path, "add", "-A")
    git(folder.path, "commit", "-q", "-m", "two")
    ended, found = rows(run, "--base", "HEAD~1")
    assert ended.code == 0
    assert found["nets:Net/outputs"]["verdict"] == "accepted"
    assert "one class more" in found["nets:Net/outputs"]["reason"]
    ended, found = rows(run)
    assert ended.code == 0
