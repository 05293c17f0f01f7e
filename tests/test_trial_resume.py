"""A trial that was interrupted goes on from its checkpoint and ends in the bits of one that was not."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from msgspec import structs

from senet_bench.core import catalog
from senet_bench.core.learning import TrialResult
from senet_bench.core.recipes import recipe
from senet_bench.core.store import TrialStore
from senet_bench.core.trial import Trial
from senet_bench.errors import MeasurementError
from senet_bench.training import checkpoint, trials
from senet_bench.training.trials import run_trial, trained

pytestmark = pytest.mark.usefixtures("one_thread")

SPEC = replace(catalog.resolve("seresnet20_cifar"), attention=None)
A_TRIAL = Trial(arm="0", spec=SPEC, recipe=recipe("digits").lasting(2), seed=0)
UNTOLD = {"seconds": None, "cpu_seconds": None, "note": ""}


def plain(result: TrialResult) -> TrialResult:
    return structs.replace(result, **UNTOLD)


def test_an_interrupted_trial_ends_in_the_bits_of_an_undisturbed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trials, "CHECKPOINT_S", 0.0)
    whole, result = trained(A_TRIAL)
    file, write, written = tmp_path / "k.checkpoint", checkpoint.write_checkpoint, []

    def cut(path: Path, content: dict[str, Any]) -> None:
        write(path, content)
        written.append(content["position"]["step"] or content["position"]["epoch"])
        if len(written) in (1, 3):
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "write_checkpoint", cut)
    kept = replace(A_TRIAL, checkpoint=file)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run_trial(kept)
    network, resumed = trained(kept)
    assert plain(resumed) == plain(result)
    assert resumed.note == ""
    assert result.seconds is not None
    assert (resumed.seconds, resumed.cpu_seconds) == (None, None), "they would be those of the rest"
    state = network.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in whole.state_dict().items())
    TrialStore(tmp_path).put("k", {}, resumed, {})
    assert file.is_file()  # it is of another folder
    store = TrialStore(tmp_path / "trials")
    store.checkpoint("k").parent.mkdir(parents=True)
    file.rename(store.checkpoint("k"))
    store.put("k", {}, resumed, {})
    assert not store.checkpoint("k").exists()


def test_a_checkpoint_that_is_damaged_or_of_another_trial_begins_the_trial_anew_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = replace(A_TRIAL, recipe=replace(A_TRIAL.recipe.lasting(1), max_steps=2))
    result, file, other = run_trial(short), tmp_path / "k.checkpoint", tmp_path / "other.checkpoint"
    monkeypatch.setattr(trials, "CHECKPOINT_S", 0.0)
    run_trial(replace(short, checkpoint=other))
    for content, said in ((b"no checkpoint", "is not a checkpoint"), (other.read_bytes(), "is of another run")):
        file.write_bytes(content)
        anew = run_trial(replace(short, checkpoint=file))
        assert plain(anew) == plain(result)
        assert said in anew.note
        assert anew.seconds is not None


def test_a_full_disk_is_one_line_and_the_last_checkpoint_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "CHECKPOINT_S", 0.0)
    kept, save, calls = replace(A_TRIAL, checkpoint=tmp_path / "k.checkpoint"), torch.save, list[int]()

    def full(content: object, file: Path) -> None:
        calls.append(1)
        if len(calls) > 2:
            raise OSError(28, "No space left on device")
        save(content, file)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(MeasurementError, match="No space left on device"):
        run_trial(kept)
    monkeypatch.setattr(torch, "save", save)
    assert [path.name for path in tmp_path.iterdir()] == ["k.checkpoint"]
    assert run_trial(kept).note == ""


SWEEP = """
import os, sys
from senet_bench.training import loop, trials

trials.CHECKPOINT_S = 0.0  # after every step
step = loop._Run._one_step

def noted(self, batch):
    with open(os.environ["STEPS"], "a") as steps:
        print(self.settings.checkpoint.stem, self.epoch, self.step, file=steps)
    step(self, batch)

loop._Run._one_step = noted
if __name__ == "__main__":
    from senet_bench.cli import main
    main(sys.argv[1:])
"""
KILLS = 20


@pytest.mark.slow
def test_a_sweep_killed_twenty_times_trains_no_step_but_the_last_twice_and_ends_in_the_same_table(
    tmp_path: Path,
) -> None:
    script = tmp_path / "sweep.py"
    script.write_text(SWEEP)
    options = ("compare", "resnet20_cifar", "--no-latency", "--dataset", "digits", "--epochs", "12", "--seeds", "2")
    command = [sys.executable, str(script), *options, "--workers", "2", "--format", "json", "--results"]

    def begun(folder: str) -> subprocess.Popen[str]:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "STEPS": str(tmp_path / f"{folder}.steps")}
        return subprocess.Popen(
            [*command, folder],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )

    def errors(folder: str) -> list[Any]:
        output, _ = begun(folder).communicate()
        return [row["accuracy"]["per_seed"] for row in json.loads(output)["rows"]]

    def steps(folder: str) -> list[str]:
        file = tmp_path / f"{folder}.steps"
        return file.read_text().splitlines() if file.exists() else []

    undisturbed = errors("whole")
    rng = random.Random(0)
    for _ in range(KILLS):
        before, victim = len(steps("cut")), begun("cut")
        while len(steps("cut")) == before and victim.poll() is None:
            time.sleep(0.02)
        time.sleep(rng.uniform(0, 1.5))  # at any moment of it
        with contextlib.suppress(ProcessLookupError):
            (os.kill if rng.random() < 0.5 else os.killpg)(victim.pid, signal.SIGKILL)
        victim.communicate()  # until its workers are gone too, which hold its output
    assert errors("cut") == undisturbed
    assert not list(tmp_path.glob("cut/runs/*/trials/.claims/*.checkpoint"))
    assert set(steps("cut")) == set(steps("whole"))
    assert len(steps("cut")) - len(steps("whole")) <= 2 * KILLS
