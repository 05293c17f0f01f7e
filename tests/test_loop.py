"""The training loop: it learns, reports, accumulates, averages, and goes on after kill -9 with the same bits."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from senet_bench.core.learning import EpochRow
from senet_bench.core.progress import result_of
from senet_bench.core.recipes import Augmentation, Recipe, Schedule, recipe
from senet_bench.data import sets
from senet_bench.errors import MeasurementError, UsageError
from senet_bench.training import checkpoint
from senet_bench.training.loop import train
from senet_bench.training.objective import Settings
from senet_bench.training.optimisation import Average, Sgd

pytestmark = pytest.mark.usefixtures("one_thread")


def small(seed: int = 0, norm: str = "batch", dropout: float = 0.1) -> nn.Sequential:
    torch.manual_seed(seed)
    normal: nn.Module = nn.BatchNorm2d(8) if norm == "batch" else nn.GroupNorm(2, 8)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        normal,
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(128, 10),
    )


def short(epochs: int = 3, **changes: Any) -> Recipe:
    row = Recipe(
        name="short",
        source="a test",
        epochs=epochs,
        batch_size=20,
        lr=0.05,
        schedule=Schedule("cosine"),
        augmentation=Augmentation(pad=1, flip=True),
    )
    return replace(row, **changes)


def weights(network: nn.Module) -> torch.Tensor:
    return torch.cat([value.detach().flatten().double() for value in network.state_dict().values()])


def run(network: nn.Module, row: Recipe, **settings: Any) -> list[EpochRow]:
    return result_of(train(network, sets.load_images("digits"), row, Settings(**settings)))


def test_training_learns_the_digits_and_reports_every_epoch() -> None:
    ends = run(small(), short(20, augmentation=Augmentation(), lr=0.1))
    assert [end.epoch for end in ends] == list(range(1, 21))
    assert ends[-1].train_loss < 0.5 * ends[0].train_loss
    assert (ends[-1].top1_err or 1) < 0.2
    assert ends[-1].images_per_second > 0
    assert ends[-1].seconds_left == 0
    assert ends[-1].top5_err is not None


def test_the_same_seed_gives_the_same_bits_and_another_seed_others() -> None:
    first, again, other = small(), small(), small()
    run(first, short(), seed=1)
    run(again, short(), seed=1)
    run(other, short(), seed=2)
    assert torch.equal(weights(first), weights(again))
    assert not torch.equal(weights(first), weights(other))


def test_progress_is_reported_within_an_epoch() -> None:
    events = list(train(small(), sets.load_images("digits"), short(1), Settings(progress_every=0.0)))
    assert [event.done for event in events] == [0.2, 0.4, 0.6, 0.8, 1, 1]
    assert {event.total for event in events} == {1}
    assert all("nan" not in event.what and "images/s" in event.what for event in events[:-1])


def test_accumulated_gradients_are_those_of_the_whole_batch() -> None:
    whole, parts = small(norm="group", dropout=0), small(norm="group", dropout=0)
    run(whole, short())
    run(parts, short(), accumulate=4)
    assert torch.allclose(weights(whole), weights(parts), atol=1e-6)
    with pytest.raises(UsageError, match="equal parts"):
        run(small(), short(), accumulate=3)


def test_bf16_trains_and_fp16_is_refused_on_a_cpu() -> None:
    network = small()
    assert math.isfinite(run(network, short(), precision="bf16")[-1].train_loss)
    assert all(value.dtype == torch.float32 for value in network.parameters())
    with pytest.raises(UsageError, match="bf16"):
        run(small(), short(), precision="fp16")


def test_the_average_of_weights_is_evaluated_and_kept() -> None:
    network = small()
    average = Average(network, 0.9)
    before = average.values["0.weight"].clone()
    with torch.no_grad():
        network[0].weight.add_(1.0)  # type: ignore[operator]
    average.update(network)
    assert torch.allclose(average.values["0.weight"], before + 0.1, atol=1e-6)
    plain, averaged = small(), small()
    run(plain, short())
    run(averaged, short(), ema=0.9)
    assert not torch.equal(weights(plain), weights(averaged))


@pytest.mark.parametrize("nesterov", [False, True])
def test_our_optimizer_takes_the_steps_of_torchs(nesterov: bool) -> None:
    ours, torchs = small(), small()
    first = Sgd(ours.parameters(), 0.1, 0.9, 1e-2, nesterov)
    second = torch.optim.SGD(torchs.parameters(), 0.1, 0.9, weight_decay=1e-2, nesterov=nesterov)
    for step in range(4):
        for network, optimizer in ((ours, first), (torchs, second)):
            torch.manual_seed(step)
            network(torch.randn(4, 1, 8, 8)).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
    assert torch.allclose(weights(ours), weights(torchs), atol=1e-6)


def test_label_smoothing_raises_the_loss_and_frozen_statistics_stay() -> None:
    sharp = run(small(dropout=0), short(1, lr=1e-9))[0].train_loss
    smooth = run(small(dropout=0), short(1, lr=1e-9, label_smoothing=0.3))[0].train_loss
    assert sharp != smooth
    network = small()
    run(network, short(1, frozen_bn=1))
    assert torch.equal(network[1].running_mean, torch.zeros(8))  # type: ignore[arg-type]


def test_a_plateau_ends_training_early() -> None:
    ends = run(small(), short(30, lr=0.0, schedule=Schedule("plateau", patience=1, drops=1)))
    assert len(ends) == 3


def test_a_loss_that_is_no_number_is_an_error() -> None:
    with pytest.raises(MeasurementError, match="smaller learning rate"):
        run(small(), short(2, lr=1e30))


def test_an_interrupted_run_goes_on_with_the_same_bits(tmp_path: Path) -> None:
    whole, file = small(), tmp_path / "run.ckpt"
    ends = run(whole, short(), ema=0.9)
    stopped = small()
    row, digits = short(), sets.load_images("digits")
    settings = Settings(checkpoint=file, checkpoint_every=2, ema=0.9, progress_every=0.0)
    for event in train(stopped, digits, row, settings):
        if event.done == 2:  # the last step of the second epoch, which is not over yet
            break
    assert checkpoint.read_checkpoint(file, torch.load(file, weights_only=True)["identity"])["position"]["step"] == 4
    resumed = small(seed=5)
    rest = result_of(train(resumed, digits, row, replace(settings, resume=True, progress_every=9)))
    assert torch.equal(weights(resumed), weights(whole))
    assert [row.train_loss for row in rest] == [e.train_loss for e in ends[1:]]


def test_a_checkpoint_of_another_run_or_a_broken_one_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "run.ckpt"
    run(small(), short(1), checkpoint=file)
    with pytest.raises(UsageError, match="another run"):
        run(small(), short(1, lr=0.2), checkpoint=file, resume=True)
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(UsageError, match="start anew"):
        run(small(), short(1), checkpoint=file, resume=True)


def test_a_failed_write_leaves_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "run.ckpt"
    checkpoint.write_checkpoint(file, {"identity": {}, "n": 1})

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(MeasurementError, match="No space left"):
        checkpoint.write_checkpoint(file, {"identity": {}, "n": 2})
    assert checkpoint.read_checkpoint(file, {})["n"] == 1
    for content in (b"a\0b", b"", b"\x80\x02]e.", b"hello", b"PK\x03\x04"):
        file.write_bytes(content)
        with pytest.raises(checkpoint.UnfitCheckpointError, match="not a checkpoint to resume from"):
            checkpoint.read_checkpoint(file, {})
    torch.save({"format": checkpoint.CHECKPOINT_FORMAT}, file)
    with pytest.raises(checkpoint.UnfitCheckpointError, match="not a checkpoint to resume from"):
        checkpoint.read_checkpoint(file, {})
    assert list(tmp_path.iterdir()) == [file]


CHILD = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from senet_bench.data import sets
from senet_bench.training.objective import Settings
from senet_bench.training.loop import train
from tests.test_loop import short, small
network, file = small(), Path(sys.argv[1])
settings = Settings(checkpoint=file, checkpoint_every=1, resume=True, progress_every=0.0)
for event in train(network, sets.load_images("digits"), short(int(sys.argv[2])), settings):
    print(event.done, flush=True)
torch.save(network.state_dict(), sys.argv[3])
"""


def _child(file: Path, epochs: int, out: Path) -> subprocess.Popen[bytes]:
    arguments = [sys.executable, "-c", CHILD, str(file), str(epochs), str(out)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, cwd=Path(__file__).parents[1])


@pytest.mark.slow
def test_kill_9_at_any_moment_and_resume_give_the_uninterrupted_weights(tmp_path: Path) -> None:
    epochs, file, out = 12, tmp_path / "run.ckpt", tmp_path / "end.pt"
    for lines in (7, 19):
        child = _child(file, epochs, out)
        assert child.stdout is not None
        for _ in range(lines):
            child.stdout.readline()
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        child.stdout.close()
    assert not out.exists()
    last = _child(file, epochs, out)
    last.communicate(timeout=120)
    whole = small()
    run(whole, short(epochs))
    resumed = torch.load(out, weights_only=True)
    assert all(torch.equal(value, resumed[name]) for name, value in whole.state_dict().items())


@pytest.mark.slow
def test_a_compiled_run_agrees_with_an_eager_one() -> None:
    eager, fast = small(dropout=0), small(dropout=0)
    run(eager, short())
    started = time.perf_counter()
    run(fast, short(), compile=True)
    assert time.perf_counter() > started
    assert torch.allclose(weights(eager), weights(fast), atol=1e-4)


def test_every_smoke_recipe_runs(tmp_path: Path) -> None:
    from tests.test_data import tree

    folder = replace(sets.load_images("folder", tree(tmp_path, per_class=8)), size=32)
    for name in ("imagenet", "ablation", "senet154", "mobile"):
        network = nn.Sequential(nn.Conv2d(3, 4, 3, 4), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(256, 2))
        row = replace(recipe(f"{name}-smoke"), batch_size=4)
        ends = result_of(train(network, folder, row))
        assert len(ends) == 2
        assert ends[-1].top1_err is not None
