"""Errors in `ablate` and `compare`: each trial is a fact of its own that outlives whatever happens to the sweep."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from senet_bench.core import catalog
from senet_bench.core.learning import TrialResult
from senet_bench.core.recipes import recipe
from senet_bench.core.specs import AttentionSpec
from senet_bench.core.statistics import holm
from senet_bench.core.store import Store, TrialStore, key_of
from senet_bench.core.trial import Trial
from senet_bench.run import claims, error
from senet_bench.run.cases import select
from senet_bench.run.claims import Claimed
from senet_bench.run.engines import Failure
from senet_bench.run.error import Sweep, trial_definition
from senet_bench.run.local import Local
from senet_bench.training import trials
from tests.conftest import Run

TINY = ("ablate", "-m", "seresnet20_cifar", "--reduction", "4,8", "--dataset", "digits", "--epochs", "1")
HERE = (*TINY, "--seeds", "2", "--workers", "1", "--format", "json")
ROWS = 4  # baseline, r = 4, the constant gate, r = 8


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """A trial that runs in this process sets torch's threads."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def fake(trial: Trial) -> TrialResult:
    """A result that depends on the trial alone, at once."""
    spread = random.Random(key_of(trial_definition(trial))).random()
    return TrialResult(top1_err=0.1 + 0.01 * trial.seed + 0.02 * spread, seconds=2)


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[Trial]:
    """Trials are faked, and listed as they run."""
    log: list[Trial] = []

    def run(trial: Trial) -> TrialResult:
        log.append(trial)
        return fake(trial)

    monkeypatch.setattr(trials, "run_trial", run)
    return log


def rows(run: Run, *arguments: str, code: int = 0) -> list[dict[str, Any]]:
    ended = run(*arguments)
    assert ended.code == code, ended.err
    found: list[dict[str, Any]] = json.loads(ended.out)["rows"]
    return found


def trial_files(folder: Path) -> list[Path]:
    return sorted((folder / "results" / "runs").glob("*/trials/*.json"))


A_TRIAL = Trial(arm="0", spec=catalog.resolve("seresnet20_cifar"), recipe=recipe("digits"), seed=0)
OTHERS = {
    "network": replace(A_TRIAL, spec=catalog.resolve("seresnet110_cifar")),
    "attention": replace(A_TRIAL, spec=replace(A_TRIAL.spec, attention=AttentionSpec(reduction=4))),
    "no attention": replace(A_TRIAL, spec=replace(A_TRIAL.spec, attention=None)),
    "options": replace(A_TRIAL, spec=replace(A_TRIAL.spec, options={**A_TRIAL.spec.options, "units": 4})),
    "epochs": replace(A_TRIAL, recipe=recipe("digits").lasting(3)),
    "lr": replace(A_TRIAL, recipe=replace(recipe("digits"), lr=0.05)),
    "data": replace(A_TRIAL, dataset="digits-full"),
    "seed": replace(A_TRIAL, seed=1),
    "precision": replace(A_TRIAL, precision="bf16"),
}


def test_the_key_changes_with_all_that_defines_a_trial() -> None:
    keys = [key_of(trial_definition(trial)) for trial in (A_TRIAL, *OTHERS.values())]
    assert len(set(keys)) == len(keys)


def test_the_key_changes_with_nothing_else() -> None:
    key = key_of(trial_definition(A_TRIAL))
    assert key == key_of(trial_definition(replace(A_TRIAL, arm="7", threads=2)))
    assert re.fullmatch("[0-9a-f]{16}", key)


def test_stored_trials_are_known_by_an_edited_toolkit_whose_front_end_loads_no_torch(
    run: Run, ran: list[Trial], tmp_path: Path
) -> None:
    stored = rows(run, *HERE)
    edited = tmp_path / "copy"
    shutil.copytree(Path(error.__file__).parent.parent, edited / "senet_bench")
    for path in (edited / "senet_bench").rglob("*.py"):
        path.write_text(path.read_text() + "\n# a comment\n")
    code = (
        "import sys\nfrom senet_bench.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit as end:\n    assert not end.code\n"
        "assert not {'torch', 'torchvision'} & set(sys.modules)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(edited)}
    asked = (sys.executable, "-c", code, *TINY, "--seeds", "2", "--workers", "2", "--format", "json")
    told = subprocess.run(asked, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    assert json.loads(told.stdout)["rows"] == stored


BLOCK = """
from torch import nn

class Gate(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.channels = channels

    def forward(self, x):
        return x * x.mean((2, 3), keepdim=True).sigmoid()
"""


def test_an_edited_block_is_another_trial_and_a_comment_is_none(
    run: Run, ran: list[Trial], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    block = tmp_path / "swept_gate.py"
    asked: tuple[str, ...] = (
        "ablate",
        "-m",
        "seresnet20_cifar",
        "--attention",
        "se,swept_gate:Gate",
        "--dataset",
        "digits",
    )
    asked += ("--epochs", "1", "--seeds", "1", "--workers", "1", "--format", "json")
    block.write_text(BLOCK)
    rows(run, *asked)
    first = len(ran)
    block.write_text(BLOCK.replace("class", "# hers\nclass"))
    rows(run, *asked)
    assert len(ran) == first
    block.write_text(BLOCK.replace("mean(", "amax("))
    rows(run, *asked)
    assert [trial.spec.attention.block for trial in ran[first:] if trial.spec.attention] == ["swept_gate:Gate"]


def test_trials_of_earlier_versions_are_taken_and_those_left_out_are_named(
    run: Run, ran: list[Trial], tmp_path: Path
) -> None:
    rows(run, *HERE)
    done = len(ran)
    for number, path in enumerate(trial_files(tmp_path)):
        document = json.loads(path.read_text())
        trial = ran[number]
        document["definition"] = {
            "model": trial.spec.name,
            "options": {name: repr(value) for name, value in trial.spec.options.items()},
            "attention": json.loads(json.dumps(asdict(trial.spec.attention) if trial.spec.attention else None)),
            "recipe": json.loads(json.dumps(trial.recipe.as_dict())),
            "dataset": trial.dataset,
            "folder": None,
            "seed": trial.seed,
            "precision": "fp32",
            "code": "0123456789ab",
        }
        document["result"] = msgspec.to_builtins(fake(trial))
        path.with_name(f"{number:016x}.json").write_text(json.dumps(document))
        path.unlink()
    rows(run, *HERE)
    assert len(ran) == done
    document["definition"]["model"] = "timm:resnet18"
    trial_files(tmp_path)[0].with_name("f" * 16 + ".json").write_text(json.dumps(document))
    ended = run(*HERE[:-2], "--seeds", "3")
    assert len(ran) == done + ROWS
    assert "left out: 1 trials that earlier versions stored" in ended.out


def test_trials_are_of_a_batch_that_the_images_fill_which_is_said(run: Run, ran: list[Trial]) -> None:
    asked = ("compare", "resnet20_cifar", "--no-latency", "--dataset", "digits", "--recipe", "cifar", "--epochs", "1")
    shown = run(*asked, "--seeds", "1", "--workers", "1")
    assert {(trial.recipe.batch_size, trial.recipe.lr) for trial in ran} == {(100, 0.078125)}
    told = "digits: batch 100 instead of 128 and lr 0.078125 instead of 0.1: there are no more training images"
    assert told in " ".join(shown.out.split())
    plan = json.loads(run(*asked, "--seeds", "1", "--workers", "1", "--format", "json").out)["conditions"]["accuracy"]
    assert (plan["batch_size"], plan["lr"]) == (100, 0.078125)


def test_a_row_has_mean_sd_interval_and_differences_and_the_constant_gate_is_one(run: Run, ran: list[Trial]) -> None:
    found = rows(run, *HERE)
    assert len(ran) == 2 * ROWS
    blocks = [row["attention"] and row["attention"]["block"] for row in found]
    assert blocks == [None, "se", "constant", "se"]
    for row in found[1:]:
        accuracy = row["accuracy"]
        low, high = accuracy["difference_ci"]
        assert low <= accuracy["difference"] <= high
        assert accuracy["seeds"] == 2
        assert accuracy["sd"] > 0
        is_control = row["attention"]["block"] == "constant"
        assert (accuracy["control_difference"] is None) == is_control
    base = found[0]["accuracy"]
    assert base["difference"] is None
    assert base["top1_err"] == pytest.approx(sum(base["per_seed"].values()) / 2)
    tested = [row["accuracy"] for row in found[1:] if row["role"] != "control"]  # that one is in no family
    assert [one["p_holm"] for one in tested] == pytest.approx(holm([one["p_value"] for one in tested]))


def test_stored_trials_are_not_run_again_and_give_the_same_rows(run: Run, ran: list[Trial]) -> None:
    first = rows(run, *HERE)
    assert len(ran) == 2 * ROWS
    assert rows(run, *HERE) == first
    assert len(ran) == 2 * ROWS
    rows(run, *TINY, "--seeds", "3", "--workers", "1", "--format", "json")
    assert [trial.seed for trial in ran[2 * ROWS :]] == [2] * ROWS


def test_two_shards_are_the_whole(run: Run, ran: list[Trial], tmp_path: Path) -> None:
    half = rows(run, *HERE, "--shard", "1/2", "--results", "a")
    assert len(ran) == ROWS
    assert any("another shard" in row["missing"].get("accuracy", "") for row in half)
    both = rows(run, *HERE, "--shard", "2/2", "--results", "a")
    assert len(ran) == 2 * ROWS
    assert both == rows(run, *HERE, "--results", "b")


def test_a_table_of_one_share_gives_no_verdict_and_that_of_all_shares_put_together_does(
    run: Run, ran: list[Trial], tmp_path: Path
) -> None:
    part, verdict = "a part of the trials, and so no verdict", "lowest error:"
    for share, folder in (("1/2", "a"), ("2/2", "b")):
        table = run(*HERE[:-2], "--shard", share, "--results", folder).out
        assert part in table
        assert verdict not in table
    shutil.copytree("a", "both")
    shutil.copytree("b", "both", dirs_exist_ok=True)
    for folder, said, unsaid in (("a", part, verdict), ("both", verdict, part)):
        run("report", "--results", folder)
        (file,) = Path(folder, "tables").glob("errors-*.md")
        assert said in file.read_text()
        assert unsaid not in file.read_text()
    assert len(ran) == 2 * ROWS
    again = run(*HERE[:-2], "--shard", "1/2", "--results", "both").out
    assert verdict in again
    assert "another shard" not in again


def test_a_failed_trial_is_a_row_with_its_reason_and_stops_no_other(
    run: Run, ran: list[Trial], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(trial: Trial) -> TrialResult:
        if trial.spec.attention and trial.spec.attention.reduction == 8:
            raise RuntimeError("out of memory")
        return fake(trial)

    monkeypatch.setattr(trials, "run_trial", fails)
    ended = run(*HERE[:-2])
    assert ended.code == 5
    assert "out of memory" in ended.out
    assert "not measured" in ended.err
    found = rows(run, *HERE, code=5)
    assert [row["accuracy"] is None for row in found] == [False, False, False, True]
    assert found[3]["missing"]["accuracy"] == "2 of 2 seeds: seed 1: RuntimeError: out of memory"
    monkeypatch.setattr(trials, "run_trial", fake)
    assert rows(run, *HERE)[3]["accuracy"]["seeds"] == 2


def test_equal_settings_share_their_trials(tmp_path: Path, ran: list[Trial]) -> None:
    again, key = replace(A_TRIAL, arm="1"), key_of(trial_definition(A_TRIAL))
    todo = [Claimed(key, A_TRIAL, trial_definition), Claimed(key, again, trial_definition)]
    found = dict(claims.carried_out(Local(1), TrialStore(tmp_path / "trials"), trials.run_trial, todo, {}))
    assert ran == [A_TRIAL]
    assert found == dict.fromkeys((A_TRIAL, again), fake(A_TRIAL))


def test_two_sweeps_on_one_folder_run_no_trial_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []

    def slow(trial: Trial) -> TrialResult:
        log.append(key_of(trial_definition(trial)))
        time.sleep(0.02)
        return fake(trial)

    monkeypatch.setattr(trials, "run_trial", slow)
    monkeypatch.setattr(claims, "ELSEWHERE_S", 0.01)
    kept = TrialStore(tmp_path / "trials")
    todo = [
        Claimed(key_of(trial_definition(trial)), trial, trial_definition)
        for seed in range(12)
        for trial in [replace(A_TRIAL, seed=seed)]
    ]
    outcomes: list[list[Any]] = [[], []]

    def sweep(place: int) -> None:
        outcomes[place] += claims.carried_out(Local(1), kept, trials.run_trial, todo, {})

    both = [threading.Thread(target=sweep, args=(place,)) for place in (0, 1)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert sorted(log) == sorted(planned.key for planned in todo)
    for found in outcomes:
        assert {trial.seed: outcome for trial, outcome in found} == {
            trial.seed: fake(trial) for trial in (planned.trial for planned in todo)
        }


def test_a_trial_whose_process_died_elsewhere_is_taken_over(
    tmp_path: Path, ran: list[Trial], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, key = TrialStore(tmp_path / "trials"), key_of(trial_definition(A_TRIAL))
    lock = kept.claim(key)
    assert lock is not None
    monkeypatch.setattr(time, "sleep", lambda _: lock.release())  # as the system does when a process ends
    todo = [Claimed(key, A_TRIAL, trial_definition)]
    assert [trial for trial, _ in claims.carried_out(Local(1), kept, trials.run_trial, todo, {})] == [A_TRIAL]
    assert ran == [A_TRIAL]


def test_a_failure_is_not_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "run_trial", lambda trial: 1 / 0)
    kept = TrialStore(tmp_path / "trials")
    todo = [Claimed("key", A_TRIAL, trial_definition)]
    ((_, outcome),) = claims.carried_out(Local(1), kept, trials.run_trial, todo, {})
    assert outcome == Failure("ZeroDivisionError: division by zero")
    assert kept.get("key") is None


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", 2),
        (b"{", 2),
        (b"[]", 2),
        (b"{}", 4),
        (b'{"schema": "senet-bench.trial/9", "result": {"top1_err": 0.1}}', 4),
        (b'{"schema": "senet-bench.trial/1", "result": []}', 4),
        (b'{"schema": "senet-bench.trial/1", "result": {}}', 2),
        (b'{"schema": "senet-bench.trial/1", "result": {"top1_err": "low"}}', 2),
        (b'{"schema": "senet-bench.trial/1", "result": {"top1_err": 7}}', 2),
    ],
)
def test_a_damaged_trial_is_named_in_one_line(
    run: Run, ran: list[Trial], tmp_path: Path, content: bytes, code: int
) -> None:
    rows(run, *HERE)
    broken = trial_files(tmp_path)[3]
    broken.write_bytes(content)
    ended = run(*HERE)
    assert (ended.code, ended.out) == (code, "")
    assert ended.err.count("\n") == 1
    assert broken.name in ended.err
    assert len(ran) == 2 * ROWS


DIGITS = ("--dataset", "digits", "--epochs", "1")
BAD: dict[tuple[str, ...], tuple[str, ...]] = {
    ("--reduction", "8,32,64", *DIGITS): ("2 impossible", "32", "64"),
    ("--reduction", "8,32", "--stages", "2,7", *DIGITS): ("3 impossible", "stage 7", "32"),
    ("--placement", *DIGITS): ("3x3",),
    ("--reduction", "8", *DIGITS, "--seeds", "0"): ("--seeds",),
    ("--reduction", "8", *DIGITS, "--seeds", "-1"): ("--seeds",),
    ("--reduction", "8", *DIGITS, "--shard", "0/2"): ("--shard",),
    ("--reduction", "8", *DIGITS, "--shard", "3/2"): ("--shard",),
    ("--reduction", "8", *DIGITS, "--shard", "half"): ("--shard",),
    ("--reduction", "8", *DIGITS, "--lr", "0"): ("--lr",),
    ("--reduction", "8", *DIGITS, "--lr", "nan"): ("--lr",),
    ("--reduction", "8", "--dataset", "digits", "--epochs", "0"): ("epochs",),
    ("--reduction", "8", *DIGITS, "--recipe", "cifr"): ("cifar",),
    ("--reduction", "8", "--dataset", "digit"): ("digits",),
    ("--reduction", "8", "--dataset", "cifar10"): ("--data",),
    ("--reduction", "8", *DIGITS, "--engine", "abacus"): ("abacus",),
    ("--reduction", "8", *DIGITS, "--engine", "ray", "--engine-option", "memory=3"): ("memory",),
    ("--reduction", "8", *DIGITS, "--engine-option", "cpus"): ("KEY=VALUE",),
    ("--reduction", "8", *DIGITS, "--workers", "0"): ("--workers",),
    ("--reduction", "8", *DIGITS, "--img-size", "16"): ("--img-size", "8 on digits"),
    ("--reduction", "8", *DIGITS, "--classes", "20"): ("--classes", "10 on digits"),
}


@pytest.mark.parametrize("dry", [(), ("--dry-run",)], ids=["run", "dry run"])
@pytest.mark.parametrize("options", BAD, ids=" ".join)
def test_bad_input_is_one_line_and_exit_2_before_anything_runs(
    run: Run, ran: list[Trial], tmp_path: Path, options: tuple[str, ...], dry: tuple[str, ...]
) -> None:
    ended = run("ablate", "-m", "seresnet20_cifar", *options, *dry)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.count("\n") == 1
    assert all(part in ended.err for part in BAD[options]), ended.err
    assert not ran
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_dry_run_says_what_is_stored_and_what_is_left_and_stores_nothing(
    run: Run, ran: list[Trial], tmp_path: Path
) -> None:
    rows(run, *TINY, "--seeds", "1", "--workers", "1", "--format", "json")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.json")}
    ended = run(*TINY, "--seeds", "3", "--workers", "4", "--dry-run", "--format", "json")
    assert ended.code == 0, ended.err
    document = json.loads(ended.out)
    assert [(row["stored"], row["to_run"], row["seconds"]) for row in document["rows"]] == [(1, 2, 2.0)] * ROWS
    assert {key: document["summary"][key] for key in ("trials", "stored", "to_run", "at_once", "seconds")} == {
        "trials": 12,
        "stored": 4,
        "to_run": 8,
        "at_once": 4,
        "seconds": 4.0,
    }
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.json")} == before
    assert len(ran) == ROWS


def test_a_dry_run_times_two_steps_where_nothing_like_it_is_stored(run: Run, tmp_path: Path) -> None:
    ended = run(*TINY, "--seeds", "2", "--shard", "1/2", "--dry-run", "--format", "json")
    found = json.loads(ended.out)
    assert {row["from"] for row in found["rows"] if row["to_run"]} == {"two steps"}
    assert found["summary"]["to_run"] == ROWS
    assert found["summary"]["seconds"] > 0
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert "of 8 trials to run" in run(*TINY, "--seeds", "2", "--dry-run").out


def test_a_dry_run_without_a_data_set_lists_the_settings(run: Run) -> None:
    document = json.loads(run("ablate", "--reduction", "--latency", "--dry-run", "--format", "json").out)
    assert len(document["rows"]) == 6
    assert (document["summary"]["to_run"], document["summary"]["seconds"]) == (0, 30.0)


FOLLOWED = """
import sys
from senet_bench.cli import main
if __name__ == "__main__":
    main(sys.argv[1:])
"""


def killed(folder: Path, arguments: tuple[str, ...], after: float) -> bool:
    """Whether the sweep was killed with SIGKILL that many seconds after its start, and not through before."""
    script = folder / "sweep.py"
    script.write_text(FOLLOWED)
    sweep = subprocess.Popen(
        [sys.executable, script, *arguments], cwd=folder, stdout=subprocess.DEVNULL, env=os.environ | {"COLUMNS": "80"}
    )
    try:
        sweep.wait(after)
    except subprocess.TimeoutExpired:
        sweep.kill()
        sweep.wait()
        return True
    return False


def survives(run: Run, folder: Path, kills: int, seeds: int) -> None:
    """Kill a sweep again and again; what was finished stays as it was, and the end is that of an undisturbed one."""
    arguments = (*TINY, "--seeds", str(seeds), "--workers", "2", "--format", "json")
    moments, before, count = random.Random(0), dict[Path, tuple[int, bytes]](), 0
    while count < kills:
        count += killed(folder, arguments, moments.uniform(3, 9))
        now = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in trial_files(folder)}
        assert before.items() <= now.items()  # none lost, none written twice
        before = now
        if len(now) == seeds * ROWS:  # through: a new sweep, so that every kill hits one
            assert rows(run, *arguments)
            for path in now:
                path.unlink()
            before = {}
    last = rows(run, *arguments)
    assert before.items() <= {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in trial_files(folder)}.items()
    assert last == rows(run, *arguments, "--results", "undisturbed")
    assert not list((folder / "results").rglob("*/trials/.*.json.*"))


@pytest.mark.slow
@pytest.mark.parametrize(("kills", "seeds"), [(3, 4), (20, 8)])
def test_killing_a_sweep_at_random_moments_loses_nothing(run: Run, tmp_path: Path, kills: int, seeds: int) -> None:
    survives(run, tmp_path, kills, seeds)


def test_the_document_says_how_the_errors_were_made(run: Run, ran: list[Trial], tmp_path: Path) -> None:
    document = json.loads(run(*HERE).out)
    assert document["conditions"]["accuracy"]["recipe"] == "digits"
    stored = json.loads(trial_files(tmp_path)[0].read_text())
    assert stored["schema"] == "senet-bench.trial/1"
    assert stored["key"] == trial_files(tmp_path)[0].stem == key_of(stored["definition"])
    assert {"environment", "created", "version"} <= stored.keys()


def test_trials_are_planned_seed_by_seed() -> None:
    planned = Sweep(engine=Local(1), seeds=2).plan(select(["resnet20_cifar"]))
    assert [(trial.arm, trial.seed) for trial in planned] == [("0", 0), ("1", 0), ("0", 1), ("1", 1)]
    assert Store(Path("here")).trials("m").folder == Path("here/runs/m/trials")
    assert planned[0].recipe == recipe("digits")


def test_a_bare_axis_leaves_out_what_the_network_cannot_take_and_says_so(run: Run) -> None:
    document = json.loads(run("ablate", "-m", "seresnet20_cifar", "--reduction", "--format", "json").out)
    assert [row["axes"].get("reduction") for row in document["rows"]] == [None, 2, 4, 8, 16]
    assert "larger than the 16 channels" in document["conditions"]["left_out"]["reduction=32"]
    assert "left out: reduction=32" in run("ablate", "-m", "seresnet20_cifar", "--reduction").out


def test_shares_of_a_sweep_add_up_over_machines(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.trials("machine-a").put("0123", {}, TrialResult(top1_err=0.5), {})
    assert store.trials("machine-b").get("0123") == TrialResult(top1_err=0.5)


def test_weights_of_a_sweep_are_kept_and_taken_by_key_and_fresh_trains_again(run: Run, tmp_path: Path) -> None:
    asked = ("compare", "resnet20_cifar", "--no-latency", "--dataset", "digits", "--recipe", "digits-smoke", "-q")
    options = ("--seeds", "1", "--workers", "1", "--format", "json")
    first = rows(run, *asked, *options, "--keep-weights")
    files = sorted((tmp_path / "results" / "weights").glob("*.safetensors"))
    assert len(files) == 3
    keys = {path.stem[:8] for path in trial_files(tmp_path)}
    assert {path.stem[-8:] for path in files} == keys
    base = next(path for path in files if path.name.startswith("resnet20"))
    told = rows(run, "evaluate", "resnet20_cifar", "--weights", base.stem[-8:], "--dataset", "digits", *options[-2:])
    assert told[0]["top1_err"] == pytest.approx(first[0]["accuracy"]["top1_err"], abs=1e-12)
    trained = run("train", "resnet20_cifar", "--recipe", "digits-smoke", "-q")
    assert "nothing was trained" in trained.out
    before = {path: path.stat().st_mtime_ns for path in trial_files(tmp_path)}
    again = rows(run, *asked, *options, "--fresh")
    assert [row["accuracy"]["per_seed"] for row in again] == [row["accuracy"]["per_seed"] for row in first]
    assert all(path.stat().st_mtime_ns != before[path] for path in trial_files(tmp_path))
    dry = run(*asked, *options, "--seeds", "2", "--dry-run")
    summary = json.loads(dry.out)["summary"]
    assert (summary["stored"], summary["to_run"]) == (3, 3)
    assert summary["device_seconds"] >= summary["seconds"] > 0
    summary = json.loads(run(*asked, *options, "--fresh", "--dry-run").out)["summary"]
    assert (summary["stored"], summary["to_run"]) == (3, 3)
    base.unlink()
    kept = run(*asked, *options, "--keep-weights")
    assert kept.code == 5
    assert "ResNet-20: no weights of seed 0, stored before without them; --fresh trains again" in kept.err
    assert kept.err.count("no weights of") == 1


def test_weights_that_another_machine_kept_for_itself_are_named(run: Run, ran: list[Trial]) -> None:
    ended = run(*TINY, "--seeds", "1", "--keep-weights", "--workers", "1", "-q")
    assert ended.code == 5
    assert "who trained seed 0 does not share this folder" in ended.err


def test_progress_tells_how_many_trials_run_and_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from senet_bench.run.cases import Changes
    from senet_bench.run.compare import compare

    monkeypatch.setattr(trials, "run_trial", lambda trial: 1 / 0 if trial.arm == "1" else fake(trial))
    sweep = Sweep(engine=Local(1), seeds=1, epochs=1)
    steps = compare(["resnet20_cifar"], Store(tmp_path), sweep.fitted(Changes()), measures={"accuracy": sweep})
    told = [step.what for step in steps if step.what.startswith("seed")]
    assert [what.partition("; ")[2] for what in told] == ["1 running", "1 running, 1 failed", "0 running, 1 failed"]
