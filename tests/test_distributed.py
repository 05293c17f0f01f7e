"""Two real processes over gloo: the same training as one, every image once, and a clear end when one dies."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from senet_bench.bench.device import DEVICE_CLASSES, Cpu
from senet_bench.core.progress import result_of
from senet_bench.core.specs import AttentionSpec
from senet_bench.data import sets
from senet_bench.errors import MeasurementError, UsageError
from senet_bench.models.attention import attend_with
from senet_bench.training.distributed import (
    GlobalBatchNorm2d,
    World,
    joined,
    own,
    share,
    watching,
    with_global_batchnorm,
)
from senet_bench.training.evaluation import predict
from senet_bench.training.loop import train
from senet_bench.training.objective import Settings
from tests.test_loop import short, small

pytestmark = pytest.mark.usefixtures("one_thread")


RANK = """
import os, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from senet_bench.errors import BenchError
from senet_bench.data import sets
from senet_bench.training.distributed import joined
from senet_bench.training.evaluation import predict
from senet_bench.training.objective import Settings
from senet_bench.training.loop import train
from tests.test_distributed import gated
from tests.test_loop import short, small
folder, die, epochs = Path(sys.argv[1]), sys.argv[2] == "die", int(sys.argv[3])
digits = sets.load_images("digits")
try:
    with joined(timeout_s=60) as world:
        blocks = sys.argv[2] == "blocks"
        network = gated() if blocks else small(dropout=0)
        settings = Settings(
            sync_batchnorm=True, blocks_first=int(blocks),
            checkpoint=folder / "run.ckpt", checkpoint_every=1, resume=True, progress_every=0.0,
            compile=sys.argv[2] == "compile",
        )
        losses = []
        ended = lambda row: losses.append((row.train_loss, row.test_loss))
        for event in train(network, digits, short(epochs), settings, world, ended=ended):
            if die and world.rank == 1 and event.done == 1 + 3 / 5:
                os.kill(os.getpid(), 9)
        seen = predict(network, digits, digits.test, world=world)
        rank = world.rank
        torch.save({"losses": losses, "rows": seen.rows.tolist(), "state": network.state_dict()}, folder / f"{rank}.pt")
except BenchError as error:
    print(f"Error: {error}", file=sys.stderr)
    sys.exit(error.exit_code)
"""


def gated() -> nn.Sequential:
    """The small network with an SE block behind its ReLU."""
    layers = small(dropout=0)
    return nn.Sequential(
        *layers[:3], attend_with(AttentionSpec(reduction=2), (2,))("standard", 8, stage=2), *layers[3:]
    )


def _ranks(folder: Path, mode: str, epochs: int = 3) -> list[subprocess.Popen[str]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    job = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    command = [sys.executable, "-c", RANK, str(folder), mode, str(epochs)]
    root = Path(__file__).parents[1]
    return [
        subprocess.Popen(command, env={**job, "RANK": str(rank)}, cwd=root, stderr=subprocess.PIPE, text=True)
        for rank in (0, 1)
    ]


def _finish(processes: list[subprocess.Popen[str]]) -> list[tuple[int, str]]:
    ends = []
    for process in processes:
        _, text = process.communicate(timeout=400)
        ends.append((process.returncode, text))
    return ends


def _alone(epochs: int = 3) -> tuple[nn.Module, list[tuple[float, float | None]]]:
    network, digits = small(dropout=0), sets.load_images("digits")
    rows = result_of(train(network, digits, short(epochs), Settings()))
    return network, [(row.train_loss, row.test_loss) for row in rows]


@pytest.mark.slow
def test_a_killed_rank_ends_the_job_clearly_and_resuming_gives_what_one_process_gives(tmp_path: Path) -> None:
    (survivor, text), (killed, _) = _finish(_ranks(tmp_path, "die"))
    assert killed == -signal.SIGKILL
    assert survivor == 5, text
    assert "another process of the job died (seen by rank 0 of 2" in text
    assert "run.ckpt with --resume" in text
    ends = _finish(_ranks(tmp_path, "live"))
    assert [code for code, _ in ends] == [0, 0], ends
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    network, losses = _alone()
    assert found[0]["losses"][-1] == pytest.approx(losses[-1], abs=1e-5)
    assert found[0]["losses"] == found[1]["losses"]
    assert found[0]["rows"] == found[1]["rows"] == list(range(1697))
    for name, value in network.state_dict().items():
        assert torch.allclose(found[0]["state"][name].double(), value.double(), atol=1e-5), name
        assert torch.equal(found[0]["state"][name], found[1]["state"][name]), name


@pytest.mark.slow
def test_torchrun_starts_the_same_job(tmp_path: Path) -> None:
    script = tmp_path / "job.py"
    script.write_text(RANK)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    root = Path(__file__).parents[1]
    done = subprocess.run(  # noqa: PLW1510
        [*command, str(script), str(tmp_path), "live", "2"],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    found = torch.load(tmp_path / "1.pt", weights_only=True)
    assert found["losses"][-1] == pytest.approx(_alone(2)[1][-1], abs=1e-5)


@pytest.mark.slow
def test_compiled_processes_train_as_one_that_is_not_compiled(tmp_path: Path) -> None:
    ends = _finish(_ranks(tmp_path, "compile", 2))
    assert [code for code, _ in ends] == [0, 0], ends
    parts = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    assert parts[0]["losses"][-1] == pytest.approx(_alone(2)[1][-1], abs=1e-4)
    assert all(torch.equal(value, parts[1]["state"][name]) for name, value in parts[0]["state"].items())


@pytest.mark.slow
def test_blocks_are_trained_alone_first_by_two_processes_as_by_one(tmp_path: Path) -> None:
    ends = _finish(_ranks(tmp_path, "blocks", 2))
    assert [code for code, _ in ends] == [0, 0], ends
    parts = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    alone = gated()
    result_of(train(alone, sets.load_images("digits"), short(2), Settings(blocks_first=1)))
    for name, value in alone.state_dict().items():
        assert torch.allclose(parts[0]["state"][name].double(), value.double(), atol=1e-5), name
        assert torch.equal(parts[0]["state"][name], parts[1]["state"][name]), name


def test_the_rows_of_all_ranks_are_every_image_once() -> None:
    rows = [list(range(10))[share(10, World(rank, 3))] for rank in range(3)]
    assert sorted(row for part in rows for row in part) == list(range(10))


def test_only_the_loss_of_another_process_is_turned_into_its_error() -> None:
    with pytest.raises(MeasurementError, match=r"the job died .* start it again"), watching(World(0, 2), None):
        raise RuntimeError("[gloo] Connection closed by peer")
    with pytest.raises(RuntimeError, match="shape"), watching(World(0, 2), None):
        raise RuntimeError("shape mismatch")


def test_each_rank_has_the_gpu_of_its_place_or_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    used = []

    class Pretended(Cpu):
        several = True

        def count(self) -> int:
            return 2

        def use(self, rank: int) -> None:
            used.append((str(self.place), rank))

    monkeypatch.setitem(DEVICE_CLASSES, "cuda", Pretended)
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda *_, **__: None)
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: None)
    for rank, local in ((0, 0), (1, 1), (2, 0)):
        for name, value in (("RANK", rank), ("WORLD_SIZE", 3), ("LOCAL_RANK", local)):
            monkeypatch.setenv(name, str(value))
        with joined("cuda") as world:
            assert own("cuda", world) == f"cuda:{local}"
    assert used == [("cuda:0", 0), ("cuda:1", 1), ("cuda:0", 0)]
    assert own("cpu", World(1, 2, 1)) == "cpu"
    assert own("cuda:1", World()) == "cuda:1"
    with pytest.raises(UsageError, match="cuda:1 cannot be shared by 2 processes; use --device cuda"):
        own("cuda:1", World(1, 2, 1))
    with pytest.raises(UsageError, match="cuda:2 is not there; this machine has 2"):
        own("cuda", World(2, 3, 2))


def test_batchnorm_over_all_processes_is_torchs_on_cuda_and_ours_elsewhere() -> None:
    on_gpu = with_global_batchnorm(nn.Sequential(nn.BatchNorm2d(3)), World(0, 2), torch.device("cuda:0"))
    on_cpu = with_global_batchnorm(nn.Sequential(nn.BatchNorm2d(3)), World(0, 2), torch.device("cpu"))
    kinds = [type(network[0]) for network in (on_gpu, on_cpu)]  # type: ignore[index]
    assert kinds == [nn.SyncBatchNorm, GlobalBatchNorm2d]


def test_one_process_changes_nothing_and_unaffine_batchnorm_is_refused() -> None:
    network = nn.Sequential(nn.BatchNorm2d(3, affine=False))
    assert type(with_global_batchnorm(network, World())[0]) is nn.BatchNorm2d  # type: ignore[index]
    with pytest.raises(UsageError, match="train in one process, or set affine=True"):
        with_global_batchnorm(network, World(0, 2))


def test_prediction_alone_is_the_whole_set() -> None:
    digits = sets.load_images("digits")
    assert len(predict(small(), digits, digits.test, world=World())) == 1697
