"""`probe`: verdicts from paired seeds, the command with trials stored and taken up, blocks of users that fail."""

import csv
import json
import re
import sys
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from senet_bench.bench.machine import on_threads
from senet_bench.core import blocks as built_in
from senet_bench.core.learning import TrialResult
from senet_bench.core.results import from_json
from senet_bench.core.store import key_of
from senet_bench.errors import MeasurementError, UsageError
from senet_bench.probing import arms, measurement
from senet_bench.probing.comparison import judged, pairs
from senet_bench.probing.network import WIDTH, RandomGate, in_cells
from senet_bench.probing.rows import CONTROLS, ArmRole, ProbeRow
from senet_bench.probing.tables import verdict_sentence
from senet_bench.probing.tasks import TASKS
from senet_bench.probing.trials import LESSON, ProbeTrial, TaskLesson, probe_definition, run_probe_trial, trial_start
from tests.conftest import Run
from tests.support import stored

SEEDS = 8


def row(label: str, errors: Any, role: ArmRole = "block", task: str = "context", params: int = 11000) -> ProbeRow:
    seeds = {str(seed): float(np.clip(error, 0, 1)) for seed, error in enumerate(errors)}
    return ProbeRow(task=task, difficulty=0.5, label=label, role=role, width=WIDTH, params=params, per_seed=seeds)


def noisy(random: np.random.Generator, mean: float, sd: float = 0.01) -> Any:
    return random.normal(mean, sd, SEEDS)


def controls(random: np.random.Generator, mean: float = 0.3, task: str = "context") -> list[ProbeRow]:
    return [row(role, noisy(random, mean), role, task, 12000 if role == "wider" else 10000) for role in CONTROLS]


def verdicts(*rows: ProbeRow) -> dict[str, str | None]:
    return {row.label: row.verdict for row in judged(rows, SEEDS) if row.role == "block"}


def test_verdicts_are_of_a_block_against_every_control() -> None:
    random = np.random.default_rng(0)
    found = verdicts(
        *controls(random),
        row("solver", noisy(random, 0.01, 0.003)),
        row("helper", noisy(random, 0.2)),
        row("same", noisy(random, 0.3)),
        row("worse", noisy(random, 0.4)),
        row("torn", noisy(random, 0.25, 0.1)),
    )
    assert found == {
        "solver": "solves",
        "helper": "helps",
        "same": "as the control",
        "worse": "harms",
        "torn": "cannot tell",
    }


def test_what_one_control_reaches_is_no_credit_for_a_block() -> None:
    random = np.random.default_rng(1)
    none, constant, *others = controls(random)
    halved = replace(constant, per_seed=row("", noisy(random, 0.1)).per_seed)
    block = row("block", noisy(random, 0.1))
    assert verdicts(none, halved, *others, block) == {"block": "as the control"}


def test_a_wider_control_is_the_least_that_costs_what_the_block_does() -> None:
    random = np.random.default_rng(2)
    cheap = row("33 channels", noisy(random, 0.1), "wider", params=10500)
    dear = row("36 channels", noisy(random, 0.3), "wider", params=12000)
    blocks = (row("small", noisy(random, 0.2), params=10400), row("large", noisy(random, 0.2)))
    rows = judged([cheap, dear, *blocks], SEEDS)
    gaps = {row.label: row.gaps["wider"].difference for row in rows if row.role == "block"}
    assert gaps["small"] > 0 > gaps["large"]


UNEVEN = (0.015, 0.0, 0.011, 0.001, 0.093, 0.0, 0.214, 0.123)
"""Errors of SE on `cast` by seed, as measured: most seeds solve it, and some do not."""


def test_a_block_under_two_names_is_not_told_apart() -> None:
    random, apart = np.random.default_rng(3), {"even": 0, "uneven": 0}
    for mean in np.linspace(0.02, 0.5, 100):
        even, uneven = [], []
        for task in TASKS:
            difficulty = random.normal(mean, 0.03, SEEDS)  # of the seeds, which both have
            even += [row(name, difficulty + noisy(random, 0, 0.02), task=task) for name in ("mine", "yours")]
            uneven += [row(name, random.choice(UNEVEN, SEEDS), task=task) for name in ("mine", "yours")]
        for kind, rows in (("even", even), ("uneven", uneven)):
            apart[kind] += any(pair.verdict != "cannot tell" for pair in pairs(rows, SEEDS))
    assert max(apart.values()) <= 5


def test_nothing_is_said_of_the_seeds_that_did_not_fail() -> None:
    random = np.random.default_rng(6)
    good, bad = noisy(random, 0.01, 0.003), noisy(random, 0.3)
    some = replace(row("some", good[:3]), reason="loss is no number")
    assert verdicts(*controls(random), some, row("all", good)) == {"some": "cannot tell", "all": "solves"}
    none, *others = controls(random)
    for left in (5, 0):  # a control that failed at some seeds, or at all
        failed = replace(none, per_seed=row("", bad[:left]).per_seed)
        assert verdicts(failed, *others, row("all", good)) == {"all": "cannot tell"}
    (pair,) = pairs([some, row("bad", bad)], SEEDS)
    assert pair.verdict == "cannot tell"
    (told,) = [one for one in judged([*controls(random), some], SEEDS) if one.label == "some"]
    assert verdict_sentence([told], SEEDS) == "cannot be told from a control on context (3 of 8 seeds)"


def test_equal_errors_are_a_tie() -> None:
    (pair,) = pairs([row("a", [0.0] * SEEDS), row("b", [0.0] * SEEDS)], SEEDS)
    assert pair.verdict == "cannot tell"
    (pair,) = pairs([row("a", noisy(np.random.default_rng(4), 0.3)), row("b", [0.0] * SEEDS)], SEEDS)
    assert pair.verdict == "errs more"


def test_the_sentence_of_a_block_is_made_of_its_verdicts() -> None:
    rows = [
        replace(row("se", [0]), verdict="solves"),
        replace(row("se", [0], task="cast"), verdict="solves"),
        replace(row("se", [0], task="scale"), verdict="as the control"),
        replace(row("se", [], task="place"), reason="out of memory"),
    ]
    assert verdict_sentence(rows, 1) == "solves context, cast; is as a control on scale; failed on place"


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[ProbeTrial]:
    """Trials that are not trained: blocks err 1 %, all else 30 %, and a bit by seed and name."""
    trials: list[ProbeTrial] = []

    def fake(trial: ProbeTrial, device: str | None = None) -> TrialResult:
        trials.append(trial)
        good = trial.spec.attention is not None and not trial.spec.attention.is_constant
        wide = trial.spec.options["width"] / 1e5
        error = (0.01 if good else 0.3) + wide + 0.001 * (zlib.crc32(f"{trial.spec.label}{trial.seed}".encode()) % 5)
        return TrialResult(model="probe", dataset=f"probe:{trial.task}", top1_err=error, seconds=1.0, cpu_seconds=1.0)

    monkeypatch.setattr(measurement, "run_probe_trial", fake)
    return trials


HERE = ("probe", "--workers", "1", "--no-progress")


def test_trials_are_stored_and_taken_up(run: Run, ran: list[ProbeTrial]) -> None:
    first = run(*HERE, "se", "eca", "--task", "context", "--task", "place", "--format", "json")
    assert first.code == 0
    document = json.loads(first.out)
    assert document["schema"] == "senet-bench.probe/1"
    count = len(ran)
    assert count == 2 * SEEDS * len({row["label"] for row in document["rows"]})
    read = from_json(first.out.encode(), "it")
    assert [row.verdict for row in read.rows if row.role == "block"] == ["solves"] * 4  # type: ignore[union-attr]
    assert document["summary"]["ran"] == count
    more = json.loads(run(*HERE, "se", "eca", "cbam", "--task", "context", "--format", "json").out)
    fresh = ran[count:]
    assert {trial.spec.label for trial in fresh} == {"cbam"}
    assert more["summary"]["trials"] > more["summary"]["ran"] == len(fresh)
    forecast = json.loads(run(*HERE, "se", "--task", "cast", "--task", "context", "--dry-run", "--format", "json").out)
    assert [row["stored"] for row in forecast["rows"]] == [0, 5 * SEEDS]
    assert len(ran) == count + len(fresh)
    anew = json.loads(run(*HERE, "se", "--task", "context", "--fresh", "--format", "json").out)
    assert anew["summary"]["ran"] == 5 * SEEDS


def test_a_task_that_is_named_twice_is_one_row(run: Run, ran: list[ProbeTrial]) -> None:
    asked = (*HERE, "se", "--task", "context", "--task", "Context", "--seeds", "1", "--format", "json")
    document = json.loads(run(*asked).out)
    assert len(document["rows"]) == len({row["label"] for row in document["rows"]}) == len(ran)


def test_a_reduction_is_of_the_blocks_that_take_one(run: Run, ran: list[ProbeTrial]) -> None:
    asked = ("-r", "8", "--task", "context", "--seeds", "1", "--format", "json")
    rows = json.loads(run(*HERE, *asked).out)["rows"]
    given = {row["label"]: row["attention"].get("reduction") for row in rows if row["role"] == "block"}
    assert given == {name: 8 if built_in.BLOCKS[name].reduces else 16 for name in arms.DEFAULT_BLOCKS}
    assert run(*HERE, "eca", "se", *asked).code == 0


def test_a_probe_that_was_interrupted_keeps_what_it_found_and_hides_no_other(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def whole(trial: ProbeTrial, device: str | None = None) -> TrialResult:
        return TrialResult(model="probe", dataset=f"probe:{trial.task}", top1_err=0.3 + 0.01 * trial.seed, seconds=1.0)

    def interrupted(trial: ProbeTrial, device: str | None = None) -> TrialResult:
        if trial.task == "place":
            raise KeyboardInterrupt
        return whole(trial)

    asked = (*HERE, "se", "--task", "context", "--task", "place", "--seeds", "3")
    monkeypatch.setattr(measurement, "run_probe_trial", interrupted)
    assert run(*asked).code == 130
    (document,) = [json.loads(path.read_text()) for path in Path("results/runs").glob("*/*-probe-*.json")]
    assert {row["task"]: row["error"] is not None for row in document["rows"]} == {"context": True, "place": False}
    monkeypatch.setattr(measurement, "run_probe_trial", whole)
    assert run(*asked).code == 0
    monkeypatch.setattr(measurement, "run_probe_trial", interrupted)
    assert run(*asked, "--fresh").code == 130
    assert run("report").code == 0
    lines = csv.DictReader(Path("results/tables/probe.csv").read_text().splitlines())
    assert all(re.match("[0-9]", line[task]) for line in lines for task in ("context", "place"))


def test_every_format_says_that_it_is_a_diagnosis(run: Run, ran: list[ProbeTrial]) -> None:
    asked = (*HERE, "se", "--task", "count", "--difficulty", "curve", "--seeds", "2")
    for format in ("table", "md", "latex", "html"):  # noqa: A001
        text = run(*asked, "--format", format).out
        assert "a diagnosis, not an accuracy" in " ".join(text.split())
    lines = run(*asked, "--format", "csv").out.splitlines()
    assert len(lines) == 1 + 5 * len(TASKS["count"].levels)
    assert lines[0].startswith("task,knob,difficulty,network,role")


def test_the_report_has_the_heat_map_and_the_tables(run: Run, ran: list[ProbeTrial]) -> None:
    assert run(*HERE, "se", "--task", "context", "--task", "place", "--seeds", "3").code == 0
    assert run("report").code == 0
    page = Path("results/index.html").read_text()
    for text in ("What blocks can do", "a diagnosis, not an accuracy", "probe.svg", "What this says"):
        assert text in page
    picture = Path("results/plots/probe.svg").read_text()
    assert all(text in picture for text in ("context", "place", "random gates", "cannot tell"))
    table = Path("results/tables/probe.csv")
    assert table.exists()
    (stored_run,) = Path("results/runs").glob("*/*-probe-*.json")
    stored_run.unlink()
    stored.store(Path("results"), stored.ablation(), "20261120T100000Z-ablate-1")
    assert run("report").code == 0
    assert not table.exists()


def test_the_report_draws_errors_against_difficulty(run: Run, ran: list[ProbeTrial]) -> None:
    asked = ("se", "eca", "--task", "context", "--task", "count", "--difficulty", "curve", "--seeds", "2")
    assert run(*HERE, *asked).code == 0
    ended = run("report")
    assert ended.code == 0, ended.err + ended.out
    picture = Path("results/plots/probe-curve.svg").read_text()
    assert all(text in picture for text in ("context, by tint", "count, by levels", "0.35", "random gates", "eca"))
    assert "Error in % against difficulty" in Path("results/index.html").read_text()


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (("--task", "contxt"), "did you mean context"),
        (("sse",), "did you mean se"),
        (("se", "--difficulty", "7"), "context has no tint 7; choose from 1, 0.5"),
        (("se", "--difficulty", "hard"), "is no number"),
        (("eca", "-r", "4"), "eca takes no reduction"),
        (("eca", "srm", "-r", "4"), "eca, srm take no reduction"),
        (("no.such.module:Block",), "no.such"),
    ],
)
def test_what_cannot_be_probed_is_one_line(run: Run, typed: tuple[str, ...], said: str) -> None:
    ended = run(*HERE, *typed)
    assert ended.code == 2
    assert said in ended.err


BLOCKS = """
import torch
from torch import nn

class Fine(nn.Module):
    def __init__(self, channels): super().__init__(); self.w = nn.Parameter(torch.zeros(channels, 1, 1))
    def forward(self, x): return x * torch.sigmoid(self.w)

class Shape(Fine):
    def forward(self, x): return x if x.shape[-1] == 16 else x[:, :, :1]

class Nothing(Fine):
    def forward(self, x): return x * float("nan")

class Breaks(Fine):
    def forward(self, x):
        if self.training: raise ValueError("no training today")
        return x
"""


def test_a_block_that_fails_is_a_row_with_its_reason(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "probed_blocks.py").write_text(BLOCKS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("senet_bench.probing.trials.LESSON", TaskLesson(steps=2, batch=8, tested=20))
    names = [f"probed_blocks:{name}" for name in ("Fine", "Shape", "Nothing", "Breaks")]
    ended = run(*HERE, *names, "--task", "scale", "--seeds", "1", "--format", "json")
    assert ended.code == 5
    assert "not measured: probed_blocks:Shape on scale" in ended.err
    reasons = {row["label"]: row["reason"] for row in json.loads(ended.out)["rows"] if row["role"] == "block"}
    assert reasons[names[0]] == ""
    assert "turns a map of 8x32x4x4 into 8x32x1x4" in reasons[names[1]]
    assert "no number at step 1" in reasons[names[2]]
    assert "no training today" in reasons[names[3]]
    assert "line 17" in reasons[names[3]]
    shown = " ".join(run(*HERE, *names, "--task", "scale", "--seeds", "1").out.split())
    assert all(f"{name} failed on scale: {reasons[name]}" in shown for name in names[1:])
    sys.modules.pop("probed_blocks", None)


def trial(label: str, seed: int = 0, task: str = "context", difficulty: float = 0.5) -> ProbeTrial:
    (arm,) = [arm for arm in arms.arms_of([arms.attention_of("se", None)]) if arm.label == label]
    return ProbeTrial(arm="0", spec=arm.spec, task=task, difficulty=difficulty, seed=seed)


def test_a_key_is_of_block_task_difficulty_and_seed() -> None:
    own = trial("se")
    others = [
        trial("no block"),
        trial("random gates"),
        trial("36 channels"),
        trial("se", seed=1),
        trial("se", task="cast"),
        trial("se", difficulty=0.25),
        replace(own, spec=replace(own.spec, attention=arms.attention_of("se", 8))),
    ]
    assert len({key_of(probe_definition(one)) for one in [own, *others]}) == len(others) + 1
    assert probe_definition(own) == probe_definition(replace(own, arm="7", device="cuda"))
    assert {"recipe", "revision", "network", "data"} <= probe_definition(own).keys()


def test_networks_of_a_seed_start_alike_and_random_gates_stay() -> None:
    networks = [trial_start(trial(label), 3).state_dict() for label in ("no block", "se", "random gates")]
    for name in ("stem.weight", "units.0.conv1.weight", "units.1.conv2.weight", "fc.weight"):
        assert torch.equal(networks[0][name], networks[1][name])
        assert torch.equal(networks[0][name], networks[2][name])
    gate = RandomGate(8)
    assert not list(gate.parameters())
    assert 10_000 <= sum(part.numel() for part in trial_start(trial("no block"), 3).parameters()) <= 60_000


def test_without_a_block_the_logits_are_a_mean_over_cells() -> None:
    network = trial_start(trial("no block"), 3).eval()
    images = torch.from_numpy(TASKS["context"].images(0, 1)[0])
    cells = images.unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 1, 4, 5).reshape(16, 3, 4, 4)
    with torch.no_grad():
        whole = network(in_cells(images))[0]
        parts = torch.stack([network(in_cells(cell.repeat(1, 1, 4, 4)))[0] for cell in cells[:, None]])
    assert torch.allclose(parts.mean(0), whole, atol=1e-5)


def test_a_trial_is_the_same_again_and_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    assert LESSON.steps * LESSON.batch < 10_000
    results = [run_probe_trial(trial("se")), run_probe_trial(trial("se"))]
    assert results[0].top1_err == results[1].top1_err < 0.1
    assert run_probe_trial(trial("no block")).top1_err > 0.25


def test_a_block_that_cannot_be_built_is_named() -> None:
    wide = replace(trial("se"), spec=replace(trial("se").spec, attention=arms.attention_of("se", 64)))
    with on_threads(3):
        with pytest.raises((MeasurementError, UsageError), match="reduction 64 is larger"):
            run_probe_trial(wide)
        assert torch.get_num_threads() == 3, "as before the trial"


NEEDED = {name: "se" for name in TASKS if name != "scale"} | {"place": "cbam", "texture": "srm", "digits": "cbam"}
"""For each task a built-in block that has what it needs."""


@pytest.mark.slow
@pytest.mark.parametrize(("task", "block"), NEEDED.items())
def test_a_network_solves_a_task_with_the_block_it_needs_and_not_without(task: str, block: str) -> None:
    spec = arms.Arm(label=block, role="block", attention=arms.attention_of(block, None)).spec
    gaps = []
    for seed in (100, 101):
        plain = trial("no block", seed, task, TASKS[task].usual)
        without, with_it = run_probe_trial(plain).top1_err, run_probe_trial(replace(plain, spec=spec)).top1_err
        assert with_it < TASKS[task].solved + 0.1
        gaps.append(without - with_it)
    assert sum(gaps) / len(gaps) > 0.1  # the least error without a block is a task's own: 15 % in `selection`


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_shuffled_labels_are_not_learnt(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from senet_bench.probing import trials

    shown, random = trials._images, np.random.default_rng(0)

    def shuffled(*about: Any) -> Any:
        images, labels = shown(*about)
        return images, labels[torch.from_numpy(random.permutation(len(labels)))]

    monkeypatch.setattr(trials, "_images", shuffled)
    error = run_probe_trial(trial("se", 0, task, TASKS[task].usual)).top1_err
    assert abs(error - (1 / 3 if task == "count" else 0.5)) < 0.06


def test_in_selection_the_order_of_channels_cannot_be_learnt() -> None:
    """What lies before a block keeps its weights, in this task alone; block, norms and last layer learn."""
    kept = {
        name for name, one in trial_start(trial("se", task="selection"), 3).named_parameters() if not one.requires_grad
    }
    assert kept == {"stem.weight", *(f"units.{unit}.conv{layer}.weight" for unit in (0, 1) for layer in (1, 2))}
    assert all(one.requires_grad for one in trial_start(trial("se"), 3).parameters())
    definitions = [probe_definition(trial("se", task=task))["recipe"] for task in ("selection", "context")]
    assert [definition.get("drawn") for definition in definitions] == [True, None]
