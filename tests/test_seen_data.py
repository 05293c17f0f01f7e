"""Data that changed between two runs are refused with what changed; --fresh is fresh of other machines' trials too."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import pytest

from senet_bench.core.learning import TrialResult
from senet_bench.core.trial import Trial
from senet_bench.training import trials
from tests.conftest import Run
from tests.test_table_recipes import cifar

ASKED = (
    "compare",
    "resnet20_cifar",
    "--no-latency",
    "--dataset",
    "cifar10",
    "--seeds",
    "1",
    "--workers",
    "1",
    "--data",
)


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[Trial]:
    """Trials are faked, and listed as they run."""
    log = list[Trial]()

    def fake(trial: Trial) -> TrialResult:
        log.append(trial)
        return TrialResult(model=trial.spec.name, top1_err=0.2, images=20)

    monkeypatch.setattr(trials, "run_trial", fake)
    return log


def test_data_that_changed_within_a_session_are_refused(run: Run, tmp_path: Path, ran: list[Trial]) -> None:
    data = cifar(tmp_path / "data")
    assert run(*ASKED, str(data)).code == 0
    done, batch = len(ran), data / "cifar-10-batches-py" / "test_batch"
    content = pickle.loads(batch.read_bytes())
    batch.write_bytes(pickle.dumps({"data": content["data"][:15], "labels": content["labels"][:15]}))
    refused = run(*ASKED, str(data))
    assert (refused.code, len(ran)) == (2, done)
    assert "has changed since it was trained on: 15 test images, not 20, other labels, other images" in refused.err
    assert "--fresh" in refused.err
    trained = run("train", "resnet20_cifar", "--dataset", "cifar10", "--recipe", "cifar-smoke", "--data", str(data))
    assert (trained.code, "has changed" in trained.err) == (2, True)
    moved = shutil.copytree(data, tmp_path / "elsewhere")
    assert run(*ASKED, str(moved)).code == 0
    assert run(*ASKED, str(data), "--fresh").code == 0
    assert run(*ASKED, str(data)).code == 0


def test_errors_on_other_images_of_one_name_are_not_joined_and_a_copy_is_no_other(
    run: Run, tmp_path: Path, ran: list[Trial]
) -> None:
    def seeds(data: Path, count: int, *more: str) -> set[int]:
        asked = ("compare", "resnet20_cifar", "--no-latency", "--dataset", "cifar10", "--seeds", str(count))
        ended = run(*asked, "--workers", "1", "--data", str(data), "--format", "json", *more)
        assert ended.code == 0, ended.err
        return {row["accuracy"]["seeds"] for row in json.loads(ended.out)["rows"]}

    tiny, full = cifar(tmp_path / "tiny"), cifar(tmp_path / "full", images=30)
    assert seeds(tiny, 3) == {3}
    assert seeds(full, 1) == {1}
    assert seeds(shutil.copytree(tiny, tmp_path / "copy"), 1) == {3}
    shutil.rmtree(tiny)
    assert seeds(cifar(tiny, images=40), 2, "--fresh") == {2}
    told = run("report").out
    assert len({line for line in told.splitlines() if line.startswith("cifar10 [")}) == 3, told
    titles = [
        path.read_text().splitlines()[0] for path in (tmp_path / "results" / "tables").glob("errors-cifar10-*.md")
    ]
    assert len(set(titles)) == len(titles) == 3


def test_fresh_trains_again_what_another_machine_has(run: Run, tmp_path: Path, ran: list[Trial]) -> None:
    data = str(cifar(tmp_path / "data"))
    assert run(*ASKED, data).code == 0
    done, runs = len(ran), tmp_path / "results" / "runs"
    (here,) = {path.parent for path in runs.glob("*/trials/*.json")}
    (runs / "another").mkdir()
    here.rename(runs / "another" / "trials")
    assert run(*ASKED, data).code == 0
    assert len(ran) == done
    rows = json.loads(run(*ASKED, data, "--fresh", "--format", "json").out)["rows"]
    assert len(ran) == 2 * done == 2 * len(rows)
