"""`check` and `baseline` as typed: what is found, its name, the exit code, and no false pass on damaged files."""

import json
import os
import platform
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import senet_bench
from senet_bench.core import metrics
from senet_bench.core.progress import Progress, Steps
from senet_bench.errors import MeasurementError
from senet_bench.regression import baselines, measurement
from senet_bench.regression.baselines import StoredLatency, torch_here
from senet_bench.regression.worker import failure
from senet_bench.regression.workers import Orders, checked_out
from senet_bench.training.evaluation import Predictions
from tests.conftest import Ended, Run
from tests.support.checks import CONFIG, Folder, folder

__all__ = ["folder"]


@pytest.fixture
def recorded(folder: Folder, run: Run) -> Folder:
    ended = run("baseline", "record")
    assert ended.code == 0, ended.err
    return folder


def rows(run: Run, *arguments: str) -> tuple[Ended, dict[str, dict[str, Any]]]:
    ended = run("check", *arguments, "--format", "json")
    assert ended.out, ended.err
    return ended, {row["id"]: row for row in json.loads(ended.out)["rows"]}


def test_nothing_changed_passes(recorded: Folder, run: Run) -> None:
    ended, found = rows(run)
    assert (ended.code, ended.err) == (0, "")
    assert len(found) == 10
    assert {row["verdict"] for row in found.values()} == {"pass"}


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("nn.Linear(2, 8)", "nn.Linear(2, 8); self.extra = nn.Parameter(torch.zeros(1))", "params +1: extra"),
        ("nn.Linear(8, 2)", "nn.Linear(8, 2); self.se = nn.Linear(3, 2)", "params +8: se"),
        ("return self.head(", "x = nn.functional.max_pool2d(x, 3, 1, 1); return self.head(", "flops +2,048: max_pool"),
        ("x.mean((2, 3))).relu()", "x.mean((2, 3)).sin()).relu()", "operators +1: aten::sin"),
        ("nn.Linear(8, 10)", "nn.Linear(8, 11)", "outputs: output 0 float32[1, 10] -> float32[1, 11]"),
    ],
)
def test_an_injected_regression_is_found_and_named(recorded: Folder, run: Run, old: str, new: str, reason: str) -> None:
    recorded.change(old, new)
    ended, found = rows(run)
    assert ended.code == 1
    metric = reason.split()[0].rstrip(":")
    assert found[f"nets:Net/{metric}"]["reason"] == reason
    assert found[f"nets:Net/{metric}"]["verdict"] == "fail"
    assert ended.err.count("\n") == 1
    assert "FAIL" in ended.err


@pytest.mark.parametrize(
    ("old", "new", "failing"),
    [
        ("x = self.stem(x).relu()", "x = self.stem(x).relu() * 1.001", {"outputs", "operators"}),
        ("x.mean((2, 3))).relu()", "x.mean((2, 3))).sigmoid()", {"outputs", "operators"}),
        ("nn.Conv2d(3, 8, 3, padding=1)", "nn.Conv2d(3, 8, 3, padding=2, dilation=2)", {"outputs"}),
        ("None, None]).mean((2, 3))", "None, None]).flatten(2).mean(2)", set()),
        ("return self.head(", "# the same\n        return self.head(", set()),
    ],
)
def test_a_change_of_the_function_fails_whatever_its_counts(
    recorded: Folder, run: Run, old: str, new: str, failing: set[str]
) -> None:
    recorded.change(old, new)
    _, found = rows(run)
    failed = {row["metric"] for row in found.values() if row["network"] == "nets:Net" and row["verdict"] == "fail"}
    assert failed >= failing
    assert ("outputs" in failed) == bool(failing)


def test_an_older_baseline_is_judged_by_shapes_until_its_functions_are_recorded(recorded: Folder, run: Run) -> None:
    document = json.loads(recorded.baseline.read_text())
    for facts in document["networks"].values():
        facts["outputs"] = facts.pop("shapes")
    recorded.baseline.write_text(json.dumps(document))
    ended, found = rows(run)
    assert ended.code == 0
    assert "baseline record" in found["nets:Net/outputs"]["reason"]
    assert "nets:Net:outputs" in run("baseline", "record").err
    assert rows(run)[1]["nets:Net/outputs"]["reason"] == ""


def test_a_renamed_tensor_fails_although_the_counts_are_the_same(recorded: Folder, run: Run) -> None:
    recorded.change("self.stem", "self.first")
    ended, found = rows(run)
    assert ended.code == 1
    assert "stem.weight gone" in found["nets:Net/state_dict"]["reason"]
    assert found["nets:Net/params"]["verdict"] == "pass"


def test_a_smaller_network_passes_and_the_baseline_is_stale(recorded: Folder, run: Run) -> None:
    recorded.change("nn.Linear(8, 2)", "nn.Linear(8, 2, bias=False)")
    recorded.configure(CONFIG + 'gate.state_dict.max = "any"\ngate.operators.max = "any"\n')
    ended, found = rows(run)
    assert (ended.code, found["nets:Net/params"]["stale"]) == (0, True)


def test_accepting_rewrites_only_the_rows_named_and_says_who_and_why(recorded: Folder, run: Run) -> None:
    recorded.change("nn.Linear(2, 8)", "nn.Linear(2, 8); self.extra = nn.Parameter(torch.zeros(1))")
    before = json.loads(recorded.baseline.read_text())["networks"]
    assert "differs" in run("baseline", "record").err
    assert run("baseline", "accept", "nets:Net:params").code == 2
    assert run("baseline", "accept", "nets:Net:params", "--reason", "a learnt scale").code == 0
    after = json.loads(recorded.baseline.read_text())["networks"]
    assert after["nets:Net"]["params"] == {"extra": 1, **before["nets:Net"]["params"]}
    assert after["nets:Net"]["state"] == before["nets:Net"]["state"]
    assert after["nets:Other"] == before["nets:Other"]
    (line,) = (recorded.baseline.parent / "HISTORY.jsonl").read_text().splitlines()
    entry = json.loads(line)
    assert (entry["id"], entry["reason"]) == ("nets:Net:params", "a learnt scale")
    assert {"who", "when", "commit", "old", "new"} <= entry.keys()
    _, found = rows(run)
    assert found["nets:Net/params"]["verdict"] == "pass"
    assert found["nets:Other/params"]["verdict"] == "fail"
    assert run("baseline", "accept", "--all", "--reason", "both").code == 0
    assert run("check").code == 0
    assert "a learnt scale" in run("baseline", "show").out


def test_a_network_that_vanished_is_an_error_until_it_is_accepted(recorded: Folder, run: Run) -> None:
    recorded.configure(CONFIG.replace('  { name = "nets:Other", input_size = [3, 16, 16] },\n', ""))
    ended, found = rows(run)
    assert (ended.code, found["nets:Other/network"]["verdict"]) == (1, "fail")
    assert "vanished" in found["nets:Other/network"]["reason"]
    assert rows(run, "--only", "nets:Net")[0].code == 0
    assert run("baseline", "accept", "nets:Other", "--reason", "removed").code == 0
    assert rows(run)[0].code == 0


def test_a_network_that_could_be_built_and_no_longer_can_fails(recorded: Folder, run: Run) -> None:
    recorded.change("class Other(Net)", "class Another(Net)")
    ended, found = rows(run)
    assert (ended.code, found["nets:Other/build"]["verdict"]) == (1, "fail")
    assert "nets:Other cannot be run" in found["nets:Other/build"]["reason"]
    assert found["nets:Net/params"]["verdict"] == "pass"


@pytest.mark.parametrize(
    ("error", "code", "verdict"),
    [
        ("RuntimeError('no memory cell')", 1, "fail"),
        ("MemoryError()", 5, "error"),
        ('RuntimeError("DefaultCPUAllocator: can\'t allocate memory")', 5, "error"),
    ],
)
def test_a_network_that_runs_out_of_memory_is_not_broken_and_one_that_names_memory_is(
    recorded: Folder, run: Run, error: str, code: int, verdict: str
) -> None:
    recorded.change("x = self.stem(x).relu()", f"raise {error}")
    ended, found = rows(run)
    assert (ended.code, found["nets:Net/build"]["verdict"]) == (code, verdict)


def test_a_worker_tells_errors_of_memory_from_errors_that_name_it() -> None:
    assert not failure(ImportError("no module shop.memory"))["machine"]
    assert failure(MemoryError())["machine"]
    wrapped = MeasurementError("shop.nets:Net cannot be run")
    wrapped.__cause__ = MemoryError()
    assert failure(wrapped)["machine"]


def test_a_new_network_is_told_and_another_image_size_is_not_comparable(recorded: Folder, run: Run) -> None:
    recorded.configure(CONFIG.replace("\n]", '\n  "resnet20_cifar",\n]', 1))
    ended, found = rows(run)
    assert (ended.code, found["resnet20_cifar/baseline"]["verdict"]) == (0, "new")
    recorded.configure(CONFIG.replace("[3, 16, 16]", "[3, 32, 32]"))
    ended, found = rows(run)
    assert ended.code == 4
    assert "3x16x16" in found["nets:Net/input_size"]["reason"]


def test_git_bisect_skips_what_could_not_be_decided(recorded: Folder, run: Run) -> None:
    recorded.configure(CONFIG.replace("[3, 16, 16]", "[3, 32, 32]"))
    assert run("check").code == 4
    assert run("check", "--bisect").code == 125
    assert run("check", "--bisect", "--only", "vgg*").code == 125
    recorded.configure(CONFIG)
    assert run("check", "--bisect").code == 0
    recorded.change("nn.Linear(8, 10)", "nn.Linear(8, 11)")
    assert run("check", "--bisect").code == 1


def test_facts_that_an_older_plugin_left_among_the_networks_have_not_vanished(recorded: Folder, run: Run) -> None:
    document = json.loads(recorded.baseline.read_text())
    document["networks"]["test_plain"] = document["networks"]["nets:Net"]
    recorded.baseline.write_text(json.dumps(document))
    assert run("check").code == 0


def test_a_history_that_cannot_be_read_is_found_before_anything_is_replaced(recorded: Folder, run: Run) -> None:
    before = recorded.baseline.read_bytes()
    recorded.change("nn.Linear(8, 10)", "nn.Linear(8, 11)")
    history = recorded.baseline.parent / "HISTORY.jsonl"
    history.mkdir()
    ended = run("baseline", "accept", "--all", "--reason", "x")
    assert (ended.code, recorded.baseline.read_bytes()) == (2, before)
    history.rmdir()
    history.write_text("{\n")
    ended = run("baseline", "accept", "--all", "--reason", "x")
    assert (ended.code, recorded.baseline.read_bytes()) == (2, before)
    history.unlink()
    assert run("baseline", "accept", "--all", "--reason", "[/red] 5").code == 0
    assert "[/red] 5" in run("baseline", "show").out
    if hasattr(os, "mkfifo"):
        recorded.baseline.unlink()
        os.mkfifo(recorded.baseline)
        assert run("check").code == 2


def test_operators_of_another_torch_are_not_comparable_until_all_is_accepted(recorded: Folder, run: Run) -> None:
    def rename(old: str, new: str) -> None:
        document = json.loads(recorded.baseline.read_text())
        operators = document["networks"]["nets:Net"]["operators"]
        operators[new] = operators.pop(old)
        recorded.baseline.write_text(json.dumps(document | {"torch": "1.13"}))

    rename("aten::relu", "aten::clamp_min")
    ended, found = rows(run)
    assert (ended.code, found["nets:Net/operators"]["verdict"]) == (4, "not comparable")
    assert "recorded with torch 1.13, here is" in found["nets:Net/operators"]["reason"]
    rename("aten::clamp_min", "aten::relu")
    assert run("baseline", "accept", "--all", "--reason", "another torch").code == 0
    assert json.loads(recorded.baseline.read_text())["torch"] == torch_here(), "although no operator changed"


def test_nothing_is_accepted_without_its_line_of_history_whoever_does(
    recorded: Folder, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise MeasurementError("the disk is full", "free some space")

    git(recorded.path, "init", "-q")
    with (recorded.path / ".git" / "config").open("ab") as settings:
        settings.write(b"[user]\n\tname = J\xf6rg\n")
    recorded.change("nn.Linear(8, 10)", "nn.Linear(8, 11)")
    before = recorded.baseline.read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(baselines, "append_line", full)
        assert run("baseline", "accept", "--all", "--reason", "x").code == 5
    assert recorded.baseline.read_bytes() == before
    ended = run("baseline", "accept", "--all", "--reason", "x")
    assert ended.code == 0, ended.err
    lines = [json.loads(line) for line in (recorded.baseline.parent / "HISTORY.jsonl").read_text().splitlines()]
    assert [(line["id"], line["who"]) for line in lines] == [("nets:Net:all", "J?rg"), ("nets:Other:all", "J?rg")]
    assert run("check").code == 0


def test_what_code_takes_of_torch_is_put_back_and_the_check_is_finished(
    recorded: Folder, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "randn", torch.randn)  # put back afterwards
    recorded.configure(CONFIG.replace('"operators"]', '"operators", "memory"]'))
    assert run("baseline", "record").code == 0
    recorded.change("class Other(Net)", "del torch.randn\nclass Other(Net)")
    ended = run("check")
    assert "internal" not in ended.err
    assert (ended.code, hasattr(torch, "randn")) == (0, True)
    assert "all 12 gates passed" in ended.out


def test_an_allowance_lets_a_failure_pass_until_its_day(recorded: Folder, run: Run) -> None:
    recorded.change("nn.Linear(8, 10)", "nn.Linear(8, 11)")
    allow = '[[allow]]\nid = "nets:*"\nuntil = {}\nreason = "a class more"\n'
    recorded.configure(CONFIG + allow.format("2999-01-01"))
    assert rows(run)[0].code == 0
    recorded.configure(CONFIG + allow.format("2020-01-01"))
    assert rows(run)[0].code == 1


def test_a_changed_machine_is_refused_by_field_and_portable_facts_are_still_checked(
    folder: Folder, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from senet_bench.bench import machine

    folder.configure(CONFIG.replace('"operators"]', '"operators", "memory"]'))
    assert run("baseline", "record").code == 0
    assert rows(run)[0].code == 0
    monkeypatch.setattr(machine, "cpu_model", lambda: "Another CPU")
    machine.environment.cache_clear()
    try:
        ended, found = rows(run)
        assert ended.code == 4
        assert "Another CPU" in found["machine/memory"]["reason"]
        assert "cpu:" in found["machine/memory"]["reason"]
        assert found["nets:Net/params"]["verdict"] == "pass"
        folder.change("nn.Linear(8, 10)", "nn.Linear(8, 11)")
        assert rows(run)[0].code == 1
    finally:
        monkeypatch.undo()
        machine.environment.cache_clear()


def test_facts_that_are_found_stay_recorded_where_a_later_one_fails(
    folder: Folder, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def disturbed(*_: object) -> object:
        raise MeasurementError("control failed: two processes differ", "measure again")

    monkeypatch.setattr(measurement, "latencies", disturbed)
    folder.configure(CONFIG.replace('"operators"]', '"operators", "memory", "latency"]'))
    ended = run("baseline", "record")
    assert (ended.code, "control failed" in ended.err) == (5, True)
    assert json.loads(folder.baseline.read_text())["networks"].keys() == {"nets:Net", "nets:Other"}
    networks = json.loads(machine_file(folder).read_text())["networks"]
    assert all(facts["peak_bytes"] > 0 for facts in networks.values())
    folder.configure(CONFIG)
    assert rows(run)[0].code == 0


def test_whole_networks_are_accepted_with_the_latency_that_is_recorded_here_which_is_timed_last(
    folder: Folder, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = [1.0, 2.0]

    def timed(work: Orders, *_: object) -> Steps[dict[str, StoredLatency]]:
        if not seconds:
            raise MeasurementError("control failed", "measure again")
        yield Progress("timed", 1, 1)
        now = seconds.pop(0)
        return {network.name: StoredLatency(seconds=now, floor=now) for network in work.networks}

    monkeypatch.setattr(measurement, "latencies", timed)
    folder.configure(CONFIG.replace('"operators"]', '"operators", "latency"]'))
    assert run("baseline", "record", "--only", "nets:Net").code == 0
    folder.change("nn.Linear(8, 10)", "nn.Linear(8, 11)")
    ended = run("baseline", "accept", "nets:Net", "--reason", "x")
    assert "accepted nets:Net:all, nets:Net:latency; commit" in ended.err
    networks = json.loads(machine_file(folder).read_text())["networks"]
    assert {name: facts["latency"]["floor"] for name, facts in networks.items()} == {"nets:Net": 2.0}
    folder.change("nn.Linear(8, 11)", "nn.Linear(8, 12)")
    assert run("baseline", "accept", "--all", "--reason", "x").code == 5
    folder.configure(CONFIG)
    assert run("check").code == 0, "the counts were accepted"


def test_networks_that_are_new_are_recorded_beside_one_that_has_changed(recorded: Folder, run: Run) -> None:
    folder = recorded
    folder.change("nn.Linear(8, 10)", "nn.Linear(8, 11)")
    folder.configure(CONFIG.replace("\n]", '\n  "resnet20_cifar",\n]', 1))
    ended = run("baseline", "record")
    assert (ended.code, "nets:Net, nets:Other differs" in ended.err) == (2, True)
    networks = json.loads(folder.baseline.read_text())["networks"]
    assert networks.keys() == {"nets:Net", "nets:Other", "resnet20_cifar"}
    assert networks["nets:Net"]["params"]["head.bias"] == 10


def machine_file(recorded: Folder) -> Path:
    (path,) = set(recorded.baseline.parent.glob("*.json")) - {recorded.baseline}
    return path


def test_memory_of_other_images_is_not_comparable_and_neither_fails_nor_passes(folder: Folder, run: Run) -> None:
    config = CONFIG.replace('"params", "flops", "outputs", "state_dict", "operators"', '"memory"')
    folder.configure(config)
    assert run("baseline", "record").code == 0
    for changed, said in (
        (f"batch_size = 8\n{config}", "recorded with batch size 1"),
        (config.replace("16, 16", "32, 32"), "recorded with input size 3x16x16"),
        (config.replace("16, 16", "8, 8"), "recorded with input size 3x16x16"),
    ):
        folder.configure(changed)
        ended, found = rows(run)
        row = found["nets:Net/memory"]
        assert (ended.code, row["verdict"]) == (4, "not comparable")
        assert row["reason"] == f"{said}; accept nets:Net:memory anew"
    folder.configure(f"batch_size = 8\n{config}")
    assert run("baseline", "accept", "nets:Net:memory", "nets:Other:memory", "--reason", "eight").code == 0
    ended, found = rows(run)
    assert (ended.code, found["nets:Net/memory"]["verdict"]) == (0, "pass")


def test_memory_of_an_older_file_is_compared_as_it_was_and_says_its_images_once_accepted(
    folder: Folder, run: Run
) -> None:
    folder.configure(CONFIG.replace('"operators"]', '"operators", "memory"]'))
    assert run("baseline", "record").code == 0
    path = machine_file(folder)
    document = json.loads(path.read_text())
    for facts in document["networks"].values():
        assert (facts.pop("batch_size"), facts.pop("input_size")) == (1, [3, 16, 16])
    path.write_text(json.dumps(document))
    assert rows(run)[0].code == 0
    assert "nets:Net:memory" in run("baseline", "accept", "nets:Net:memory", "--reason", "its images").err
    assert json.loads(path.read_text())["networks"]["nets:Net"]["input_size"] == [3, 16, 16]


def keep(path: Path, wrong: int) -> None:
    best = np.tile(np.arange(5), (2000, 1))
    best[:wrong, 0] = 7
    Predictions(np.arange(2000), np.zeros(2000, dtype=np.int64), best, np.ones(2000, dtype=np.float32)).save(path)


def test_a_point_of_accuracy_less_is_found(recorded: Folder, run: Run) -> None:
    keep(recorded.path / "base.npz", 200)
    keep(recorded.path / "head.npz", 220)
    table = '[[predictions]]\nnetwork = "nets:Net"\nbase = "base.npz"\nhead = "head.npz"\n'
    recorded.configure(CONFIG.replace('"operators"]', '"operators", "accuracy"]') + table)
    ended, found = rows(run)
    assert ended.code == 1
    assert "+1.00 pt on 2,000 images" in found["nets:Net/accuracy"]["reason"]
    keep(recorded.path / "places.npz", 200)
    recorded.configure(
        CONFIG.replace('"operators"]', '"operators", "accuracy"]') + table + table.replace("head.", "places.")
    )
    ended, found = rows(run)
    assert (found["nets:Net/accuracy"]["verdict"], found["nets:Net/accuracy/2"]["verdict"]) == ("fail", "pass")
    (recorded.path / "head.npz").write_bytes(b"PK\x03\x04")
    ended, found = rows(run)
    assert (ended.code, found["nets:Net/accuracy"]["verdict"]) == (5, "error")


def test_a_ratio_is_a_gate_of_its_own(run: Run, folder: Folder) -> None:
    ratio = '[[ratio]]\nnetwork = "seresnet20_cifar"\nmetric = "params"\nmax = "{}"\n'
    networks = 'networks = ["seresnet20_cifar", "resnet20_cifar"]\nmetrics = ["accuracy"]\n'
    folder.configure(networks + ratio.format("+1 %"))
    ended, found = rows(run)
    assert ended.code == 0
    assert found["seresnet20_cifar/params-ratio"]["ratio"] == pytest.approx(274_655 / 272_282)
    folder.configure(networks + ratio.format("+0.5 %"))
    assert rows(run)[0].code == 1


def test_only_a_network_is_still_judged_over_its_baseline_which_is_not_checked_itself(run: Run, folder: Folder) -> None:
    ratio = '[[ratio]]\nnetwork = "seresnet20_cifar"\nmetric = "params"\nmax = "+1 %"\n'
    folder.configure('networks = ["seresnet20_cifar", "resnet20_cifar"]\nmetrics = ["params"]\n' + ratio)
    assert run("baseline", "record").code == 0
    ended, found = rows(run, "--only", "seresnet*")
    assert (ended.code, sorted(found)) == (0, ["seresnet20_cifar/params", "seresnet20_cifar/params-ratio"])
    assert found["seresnet20_cifar/params-ratio"]["base"] == 272_282
    folder.configure(
        'networks = ["seresnet20_cifar", "resnet20_cifar", "resnet110_cifar"]\nmetrics = ["accuracy"]\n'
        + ratio
        + ratio.replace("max", 'baseline = "resnet110_cifar"\nmax')
    )
    _, found = rows(run)
    assert found["seresnet20_cifar/params-ratio/resnet20_cifar"]["base"] == 272_282
    assert found["seresnet20_cifar/params-ratio/resnet110_cifar"]["base"] > 1_700_000


def test_the_report_is_written_before_the_command_ends(
    recorded: Folder, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded.change("nn.Linear(8, 10)", "nn.Linear(8, 11)")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary.md")
    ended = run(
        "check",
        "--junit",
        "j.xml",
        "--markdown",
        "m.md",
        "--html",
        "p.html",
        "--annotations",
        "-o",
        "r.json",
        "--format",
        "json",
    )
    assert (ended.code, ended.out) == (1, "")
    assert "::error file=nets.py,line=5," in ended.err
    assert "\n### senet-bench: FAIL" in (recorded.path / "summary.md").read_text()
    assert "<failure" in (recorded.path / "j.xml").read_text()
    assert "<table>" in (recorded.path / "p.html").read_text()
    assert "\n### senet-bench: FAIL" in (recorded.path / "m.md").read_text()
    assert json.loads((recorded.path / "r.json").read_text())["exit_code"] == 1
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "no/such/folder")
    assert run("check").code == 1


def test_bad_input_in_a_ci_is_an_annotation_and_stands_in_every_report(
    recorded: Folder, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary.md")
    files = ("--junit", "j.xml", "--markdown", "m.md", "--html", "p.html", "--format", "json", "-o", "r.json")
    ended = run("check", "--only", "vgg*", *files)
    assert ended.code == 2
    assert "::error title=senet-bench check::--only 'vgg*' matches no network" in ended.err
    document = json.loads((recorded.path / "r.json").read_text())
    assert (document["schema"], document["exit_code"], document["rows"]) == ("senet-bench.check/1", 2, [])
    assert (document["version"], document["conditions"]) == (senet_bench.__version__, {})
    assert document["environment"]["senet_bench"] == senet_bench.__version__
    assert document["environment"]["python"] == platform.python_version()
    for name in ("summary.md", "j.xml", "m.md", "p.html", "r.json"):
        assert "matches no network" in (recorded.path / name).read_text()
    assert run("check", "--only", "vgg*", "-o", "r.md").code == 2
    assert (recorded.path / "r.md").read_text() == (recorded.path / "m.md").read_text()


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "--only", "vgg*"),
        ("check", "--config", "none.toml"),
        ("check", "--base", "HEAD", "--compare", "stored"),
        ("check", "--base", "no-such-commit"),
        ("check", "--inconclusive", "maybe"),
        ("check", "--launches", "0"),
        ("check", "--budget", "nan"),
        ("check", "--junit", "no/such/j.xml"),
        ("baseline", "accept", "vgg", "--reason", "x"),
        ("baseline", "accept", "nets:Net:speed", "--reason", "x"),
        ("baseline", "accept", "--reason", "x"),
        ("baseline", "accept", "--all", "nets:Net", "--reason", "x"),
    ],
    ids=" ".join,
)
def test_bad_input_is_one_line_and_exit_2(recorded: Folder, run: Run, arguments: tuple[str, ...]) -> None:
    ended = run(*arguments)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.count("\n") == 1, ended.err


def edited(change: Callable[[dict[str, Any]], object]) -> Callable[[bytes], bytes]:
    def apply(data: bytes) -> bytes:
        document = json.loads(data)
        change(document)
        return json.dumps(document).encode()

    return apply


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "cut in half": lambda data: data[: len(data) // 2],
    "cut by a byte": lambda data: data.rstrip()[:-1],
    "binary": lambda data: bytes(range(256)),
    "not UTF-8": lambda data: data.replace(b"stem", b"\xff\xfe\xfd\xfc", 1),
    "byte order mark": lambda data: b"\xef\xbb\xbf" + data,
    "deep": lambda data: b"[" * 100_000,
    "a list": lambda data: b"[1, 2]",
    "a number": lambda data: b"3",
    "null": lambda data: b"null",
    "NaN": lambda data: data.replace(b'"head.bias":', b'"head.bias": NaN, "x":', 1),
    "Infinity": lambda data: data.replace(b'"head.bias":', b'"head.bias": Infinity, "x":', 1),
    "other schema": edited(lambda one: one.update(schema="senet-bench.baseline/99")),
    "no schema": edited(lambda one: one.pop("schema")),
    "negative": edited(lambda one: one["networks"]["nets:Net"]["params"].update({"head.bias": -1})),
    "a fraction": edited(lambda one: one["networks"]["nets:Net"]["params"].update({"head.bias": 1.5})),
    "a text": edited(lambda one: one["networks"]["nets:Net"]["params"].update({"head.bias": "10"})),
    "a huge number": edited(lambda one: one["networks"]["nets:Net"]["params"].update({"head.bias": 10**400})),
    "a field is missing": edited(lambda one: one["networks"]["nets:Net"].pop("flops")),
    "networks is a list": edited(lambda one: one.update(networks=[])),
    "size of two": edited(lambda one: one["networks"]["nets:Net"].update(input_size=[3, 16])),
    "a network vanished": edited(lambda one: one["networks"].update({"nets:Gone": one["networks"]["nets:Net"]})),
    "too large": lambda data: data + b" " * (65 << 20),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_baseline_is_one_line_and_never_a_pass(recorded: Folder, run: Run, kind: str) -> None:
    recorded.baseline.write_bytes(DAMAGE[kind](recorded.baseline.read_bytes()))
    ended = run("check", "-q")
    assert ended.code in ((1,) if kind == "a network vanished" else (2, 4, 5))
    assert ended.err.count("\n") == 1, ended.err
    assert "internal" not in ended.err
    assert "Traceback" not in ended.err + ended.out
    if kind != "a network vanished":
        assert "portable.json" in ended.err
        assert ended.out == ""


def test_without_a_baseline_or_a_config_nothing_passes(folder: Folder, run: Run) -> None:
    assert run("check").code == 4
    assert run("baseline", "show").code == 4
    assert run("baseline", "accept", "--all", "--reason", "x").code == 4
    (folder.path / "senet-bench.toml").unlink()
    assert run("check").code == 2


def benchmarks(folder: Folder, name: str, seconds: float, **fields: Any) -> None:
    stats = {"min": seconds, "median": seconds, "rounds": 50, **fields}
    listed = [
        {"name": "test_call", "fullname": "a.py::test_call", "stats": stats},
        {"name": "test_call", "fullname": "b.py::test_call", "stats": stats | {"min": 1.0, "median": 1.0}},
    ]
    (folder.path / f"{name}.json").write_text(json.dumps({"benchmarks": listed}))


BOTH = ("--benchmark-base", "base.json", "--benchmark-head", "head.json")


@pytest.mark.parametrize(
    ("seconds", "spread", "verdict", "code"),
    [
        (2.0, {"stddev": 0.02}, "fail", 1),
        (1.03, {"stddev": 0.02}, "inconclusive", 3),
        (0.5, {"stddev": 0.02}, "pass", 0),
        (2.0, {}, "inconclusive", 3),
    ],
)
def test_files_of_pytest_benchmark_are_judged(
    recorded: Folder, run: Run, seconds: float, spread: dict[str, float], verdict: str, code: int
) -> None:
    recorded.configure(CONFIG + 'gate.latency.max = "+4 %"\n')
    benchmarks(recorded, "base", 1.0, **spread)
    benchmarks(recorded, "head", seconds, **spread)
    ended, found = rows(run, *BOTH)
    assert json.loads(ended.out)["accept"] == "", "what files hold is recorded nowhere"
    assert found["a.py::test_call/latency"]["verdict"] == verdict
    assert found["a.py::test_call/latency"]["ratio"] == pytest.approx(seconds)
    assert ended.code == code


def test_junit_and_the_exit_code_agree_on_what_an_undecided_row_means(recorded: Folder, run: Run) -> None:
    benchmarks(recorded, "base", 1.0, stddev=0.02)
    benchmarks(recorded, "head", 1.03, stddev=0.02)
    recorded.configure(CONFIG + 'gate.latency.max = "+4 %"\ngate.inconclusive = "fail"\n')
    assert run("check", *BOTH, "--junit", "j.xml").code == 1
    assert 'failures="1" errors="0" skipped="0"' in (recorded.path / "j.xml").read_text()
    assert run("check", *BOTH, "--junit", "j.xml", "--inconclusive", "pass").code == 0
    assert 'failures="0" errors="0" skipped="1"' in (recorded.path / "j.xml").read_text()


def test_files_of_pytest_benchmark_need_no_network_to_check(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    codes = {}
    for name, seconds in (("base", 0.01), ("slow", 0.02)):
        stats = {"min": seconds, "median": seconds, "rounds": 50, "stddev": seconds / 50}
        (tmp_path / f"{name}.json").write_text(json.dumps({"benchmarks": [{"name": "t", "stats": stats}]}))
        codes[name] = run("check", "--benchmark-base", "base.json", "--benchmark-head", f"{name}.json").code
    assert codes == {"base": 3, "slow": 1}  # a process each tells no 2 % apart: not decided
    assert run("check").code == 2


def test_a_file_of_pytest_benchmark_alone_or_without_benchmarks_is_bad_input(recorded: Folder, run: Run) -> None:
    benchmarks(recorded, "base", 1.0)
    assert run("check", *BOTH[:2]).code == 2
    (recorded.path / "head.json").write_text("{}")
    assert run("check", *BOTH).code == 2


@pytest.mark.parametrize("end", ["sys.exit(0)", "os._exit(0)", "raise BaseException('x')", "raise GeneratorExit"])
@pytest.mark.parametrize("place", ["class Other(Net):", "self.stem = nn", "x = self.stem(x)"])
def test_code_that_ends_the_process_never_passes(recorded: Folder, run: Run, end: str, place: str) -> None:
    indent = "" if place.startswith("class") else "        "
    recorded.change(f"{indent}{place}", f"{indent}import os, sys\n{indent}{end}\n{indent}{place}")
    ended, found = rows(run)
    assert ended.code == 1
    assert "cannot be run" in found["nets:Net/build"]["reason"]


def test_a_metric_that_a_function_counts_is_judged_by_its_row_alone(
    recorded: Folder, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = metrics.Metric(
        key="activations",
        title="activations, M",
        quantity="count",
        gate="+0",
        portable=True,
        counted="tests.support.checks:activations",
    )
    monkeypatch.setattr(metrics, "METRICS", {**metrics.METRICS, "activations": counted})
    recorded.configure(CONFIG.replace('"operators"]', '"operators", "activations"]'))
    ended, found = rows(run)
    assert (ended.code, found["nets:Net/activations"]["verdict"]) == (0, "new")
    assert "nets:Net:activations" in run("baseline", "record").err
    assert json.loads(recorded.baseline.read_text())["networks"]["nets:Net"]["counts"] == {"activations": 8 * 16 * 16}
    ended, found = rows(run)
    row = found["nets:Net/activations"]
    assert (ended.code, row["verdict"], row["base"], row["now"]) == (0, "pass", 2048, 2048)
    recorded.change("nn.Conv2d(3, 8, 3, padding=1)", "nn.Conv2d(3, 8, 3, padding=2)")
    ended, found = rows(run)
    assert (ended.code, found["nets:Net/activations"]["reason"]) == (1, "activations +544")
    assert "| nets:Net | activations | 2,048 | 2,592 |" in run("check", "--format", "md").out.replace("\\", "")
    assert run("baseline", "accept", "nets:Net:activations", "--reason", "wider").code == 0
    assert rows(run)[1]["nets:Net/activations"]["verdict"] == "pass"


@pytest.mark.slow
def test_a_counted_metric_is_judged_against_a_commit(folder: Folder, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = metrics.Metric(
        key="activations", title="", quantity="count", gate="+0", portable=True, counted="counting:activations"
    )
    monkeypatch.setattr(metrics, "METRICS", {**metrics.METRICS, "activations": counted})
    folder.configure(CONFIG.replace('"operators"]', '"operators", "activations"]'))
    commit(folder.path)
    (folder.path / "counting.py").write_text("def activations(network, size):\n    return size[1] * size[2]\n")
    ended, found = rows(run, "--base", "HEAD")
    row = found["nets:Net/activations"]
    assert (ended.code, row["verdict"], row["now"]) == (0, "new", 256)


def git(path: Path, *arguments: str) -> None:
    who = ("-c", "user.name=n", "-c", "user.email=n@example.org")
    subprocess.run(["git", *who, *arguments], cwd=path, check=True, capture_output=True)


def commit(path: Path) -> None:
    git(path, "init", "-q")
    git(path, "add", "-A")
    git(path, "commit", "-q", "-m", "one")


def worktrees(path: Path) -> int:
    listed = subprocess.run(["git", "worktree", "list"], cwd=path, capture_output=True, text=True, check=True)
    return listed.stdout.count("\n")


@pytest.mark.slow
def test_a_base_commit_is_measured_beside_this_checkout(folder: Folder, run: Run) -> None:
    commit(folder.path)
    ended, found = rows(run, "--base", "HEAD")
    assert (ended.code, {row["verdict"] for row in found.values()}) == (0, {"pass"})
    folder.change("nn.Linear(2, 8)", "nn.Linear(2, 8); self.extra = nn.Parameter(torch.zeros(1))")
    ended, found = rows(run, "--base", "HEAD")
    assert (ended.code, found["nets:Net/params"]["reason"]) == (1, "params +1: extra")
    assert worktrees(folder.path) == 1


def test_a_terminated_check_leaves_no_worktree(folder: Folder) -> None:
    commit(folder.path)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), checked_out("HEAD", folder.path) as base:
        signal.raise_signal(signal.SIGTERM)
    assert not base.folder.exists()
    assert (worktrees(folder.path), signal.getsignal(signal.SIGTERM)) == (1, before)


@pytest.mark.slow
def test_networks_that_are_not_in_the_checkout_cannot_be_compared_with_a_commit(folder: Folder, run: Run) -> None:
    folder.configure('networks = ["resnet20_cifar"]\nmetrics = ["params"]\n')
    commit(folder.path)
    ended, found = rows(run, "--base", "HEAD")
    assert ended.code == 4
    assert "not in the checkout" in found["resnet20_cifar/build"]["reason"]


@pytest.mark.slow
def test_latency_of_base_and_head_is_timed_in_worker_processes(folder: Folder, run: Run) -> None:
    folder.configure(CONFIG.replace('"operators"]', '"operators", "latency"]'))
    commit(folder.path)
    (folder.path / "README.md").write_text("nothing else changed")
    ended, found = rows(run, "--base", "HEAD", "--budget", "0.2", "--only", "nets:Net")
    assert (ended.code, found["nets:Net/latency"]["verdict"]) == (0, "pass")
    assert found["nets:Net/latency"]["reason"] == "not timed: the same code as the base's"
    folder.change("x = self.stem(x).relu()", "x = [self.stem(x).relu() for _ in range(30)][0]")
    ended, found = rows(run, "--base", "HEAD", "--budget", "0.2", "--only", "nets:Net")
    row = found["nets:Net/latency"]
    assert ended.code == 1
    assert row["ratio"] > 2
    assert len(row["launches"]) == 10
    assert row["control_ratio"] > 0


def test_a_worker_that_dies_says_why_and_leaves_nothing_behind(tmp_path: Path) -> None:
    from senet_bench.errors import MeasurementError
    from senet_bench.regression.workers import Nursery, Orders, Worker

    began = time.monotonic()
    with Nursery(Orders(networks=())) as nursery, Worker(tmp_path / "none", nursery) as worker:
        worker.ask("facts", networks=[], batch_size=1)
        for _ in range(2):
            with pytest.raises(MeasurementError, match="died"):
                worker.answer()
    assert worker.process.returncode is not None
    assert time.monotonic() - began < 60


def test_a_worker_that_died_between_two_questions_is_begun_anew() -> None:
    from senet_bench.regression.sameness import Read
    from senet_bench.regression.workers import Nursery, Orders, Worker, answers

    with Nursery(Orders(networks=())) as nursery, Worker(None, nursery) as worker:
        os.kill(worker.process.pid, signal.SIGKILL)
        assert worker.process.wait() != 0  # its pipes are broken by now
        (gone,) = answers([worker], Read, "read")
        assert "died" in gone.error
        (again,) = answers([worker], Read, "read")
        assert again.error == ""
