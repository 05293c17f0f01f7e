from __future__ import annotations

import errno
import functools
import importlib
import itertools
import sys
import types
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from senet_bench.bench import agreement, latency, race, reference, runtimes, untouched
from senet_bench.bench.clock import FreshCall
from senet_bench.bench.latency import measure_memory, measure_networks
from senet_bench.bench.machine import check_conditions, session
from senet_bench.bench.reference import Reference
from senet_bench.bench.rounds import Plan
from senet_bench.bench.runtimes import TOLERANCE, example, prepare
from senet_bench.core.progress import result_of
from senet_bench.core.specs import Conditions
from senet_bench.errors import MeasurementError, UsageError, out_of_memory

SIZE = (3, 8, 8)
QUICK = Plan(budget_s=20, warmup_s=0.01, max_rounds=12)


def network(width: int = 8) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(width, 5),
    )  # fmt: skip


def prepared(conditions: Conditions, net: nn.Module | None = None) -> runtimes.Prepared:
    with session(conditions):
        return prepare(net or network(), conditions, example(SIZE, conditions.batch_size))


def test_the_example_is_always_the_same() -> None:
    assert torch.equal(example(SIZE, 2), example(SIZE, 2))


@pytest.mark.parametrize(
    "options", [{}, {"channels_last": True}, {"batch_size": 3}, {"mode": "train", "batch_size": 4}]
)
def test_torch_runs_it_as_eager_does(options: dict[str, Any]) -> None:
    ready = prepared(Conditions(**options))
    assert ready.difference <= 1e-4
    assert torch.is_tensor(ready.factory()())


def test_bf16_is_near_fp32_where_the_processor_has_it() -> None:
    conditions = Conditions(precision="bf16", batch_size=2)
    try:
        check_conditions(conditions)
    except UsageError:
        pytest.skip("no bf16 here")
    ready = prepared(conditions)
    assert 0 < ready.difference <= ready.tolerance
    assert prepared(replace(conditions, mode="train")).difference < 0.1


def test_preparing_changes_neither_the_network_nor_its_mode() -> None:
    net = network()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    call = prepared(Conditions(mode="train", batch_size=4), net).factory()
    call()
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_training_moves_the_copy() -> None:
    call = prepared(Conditions(mode="train", batch_size=4)).factory()
    losses = [call() for _ in range(3)]
    assert losses[0] != losses[2]


def test_every_factory_call_gives_a_network_at_other_addresses() -> None:
    seen: list[int] = []

    class Noting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(SIZE[0] * SIZE[1] * SIZE[2], 2)

        def forward(self, x: Tensor) -> Any:
            seen.append(self.linear.weight.data_ptr())
            return self.linear(x.flatten(1))

    factory = prepared(Conditions(), Noting()).factory
    calls = [factory(), factory()]
    del seen[:]
    for call in calls:
        call()
    assert len(set(seen)) == 2


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_compiled_networks_of_one_class_each_compile_and_agree_with_eager() -> None:
    conditions = Conditions(runtime="compile")
    for width in (4, 8):
        assert prepared(conditions, network(width)).difference <= 1e-3


# --- what the machine lacks ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        (Conditions(device="abacus"), "unknown"),
        (Conditions(device="xla"), "unknown"),
        (Conditions(precision="tf32"), "has no tf32"),
        (Conditions(precision="fp8"), "precision 'fp8' is unknown"),  # type: ignore[arg-type]
        (Conditions(runtime="tvm"), "runtime 'tvm' is unknown"),  # type: ignore[arg-type]
        (Conditions(runtime="cudagraph"), "need a CUDA device"),
        (Conditions(timing="device"), "need a CUDA device"),
        (Conditions(cache="cold"), "need a CUDA device"),
        (Conditions(batch_size=0), "at least 1"),
        (Conditions(runtime="onnxruntime", mode="train"), "inference in fp32"),
        (Conditions(runtime="openvino", channels_last=True), "inference in fp32"),
    ],
)
def test_what_cannot_be_had_is_a_usage_error(conditions: Conditions, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_conditions(conditions)


def test_a_cuda_device_that_is_not_there_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="not there"):
        check_conditions(Conditions(device=f"cuda:{torch.cuda.device_count()}"))


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_missing_extra_is_a_usage_error_with_the_line_to_run(runtime: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install"):
        check_conditions(Conditions(runtime=runtime))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_exported_networks_agree_with_eager(runtime: Any) -> None:
    pytest.importorskip(runtime)
    assert prepared(Conditions(runtime=runtime, batch_size=2)).difference <= 1e-3


# --- arithmetic ---------------------------------------------------------------------------------------------


def _flags() -> list[object]:
    backends: Any = torch.backends
    return [
        backends.cuda.matmul.fp32_precision, backends.cudnn.conv.fp32_precision, backends.cudnn.rnn.fp32_precision,
        backends.mkldnn.conv.fp32_precision, backends.cudnn.benchmark, torch.get_num_threads(),
    ]  # fmt: skip


def _tf32() -> tuple[bool, bool]:
    return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32


def test_fp32_is_never_tf32_and_everything_is_put_back() -> None:
    before = _flags()
    with session(Conditions(threads=1)):
        assert "tf32" not in _flags()
        assert _tf32() == (False, False)
        assert torch.get_num_threads() == 1
    with session(Conditions(precision="tf32")):
        assert _tf32() == (True, True)
    assert _flags() == before


def test_flags_set_by_the_newer_interface_are_put_back_too() -> None:
    conv: Any = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    before = conv.fp32_precision
    try:
        conv.fp32_precision = "ieee"
        with session(Conditions()):
            assert not torch.backends.cudnn.allow_tf32
        assert conv.fp32_precision == "ieee"
    finally:
        conv.fp32_precision = before


# --- failure ------------------------------------------------------------------------------------------------


class Failing(nn.Module):
    """Fails as told once the batch is larger than `holds`."""

    def __init__(self, error: Exception, holds: int = 0) -> None:
        super().__init__()
        self.linear, self.error, self.holds = nn.Linear(3, 2), error, holds

    def forward(self, x: Tensor) -> Any:
        if x.shape[0] > self.holds:
            raise self.error
        return self.linear(x.mean((2, 3)))


def test_a_network_that_fails_is_a_measurement_error_with_its_reason() -> None:
    with pytest.raises(MeasurementError, match=r"ValueError: bad shape in .*test_runtimes.py, line \d+; this row is"):
        prepared(Conditions(), Failing(ValueError("bad\nshape")))


def test_a_network_that_gives_nan_is_a_measurement_error() -> None:
    net = network()
    nn.init.constant_(net[-1].weight, float("nan"))  # type: ignore[index]
    with pytest.raises(MeasurementError, match="not finite"):
        prepared(Conditions(), net)


def test_a_runtime_with_other_outputs_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes, "torch_compiled", lambda net: lambda x: net(x) * 1.5)
    with pytest.raises(MeasurementError, match="differs from eager fp32"):
        prepared(Conditions(runtime="compile"))


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (torch.OutOfMemoryError("CUDA"), True), (MemoryError(), True), (RuntimeError("can't allocate memory"), True),
        (RuntimeError("else"), False), (OSError(errno.ENOMEM, "Cannot allocate memory"), True),
        (RuntimeError("mmap: Cannot allocate memory (12)"), True), (OSError(errno.ENOENT, "not there"), False),
    ],
)  # fmt: skip
def test_running_out_of_memory_is_recognised(error: Exception, is_memory: bool) -> None:
    assert out_of_memory(error) == is_memory
    wrapped = MeasurementError("a network failed")
    wrapped.__cause__ = error
    assert out_of_memory(wrapped) == is_memory


class Retold(Failing):
    """Fails by an error that came from what it is told."""

    def forward(self, x: Tensor) -> Any:
        try:
            return super().forward(x)
        except Exception as error:
            raise MeasurementError("the copy failed") from error


@pytest.mark.parametrize("kind", [Failing, Retold])
@pytest.mark.parametrize("error", [torch.OutOfMemoryError("full"), OSError(errno.ENOMEM, "Cannot allocate memory")])
def test_out_of_memory_halves_the_batch_of_both_sides(error: Exception, kind: type[Failing]) -> None:
    networks = {"a": network(), "b": kind(error, holds=2)}
    found = result_of(measure_networks(networks, "a", SIZE, conditions=Conditions(batch_size=8), plan=QUICK))
    assert found.halved_to == found.conditions.batch_size == 2
    assert found.throughput("b") == pytest.approx(2 / found.comparison.arms["b"].mean)
    assert found.comparison.arms["b"].mean >= found.comparison.arms["b"].seconds


def test_an_error_that_is_not_of_memory_halves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise OSError(errno.ENOENT, "not there")

    for module in (latency, race):
        monkeypatch.setattr(module, "measure_latency", broken)
    monkeypatch.setattr(race, "entrants", lambda **_: ("eager",))
    with pytest.raises(FileNotFoundError):
        result_of(measure_networks({"a": network()}, "a", SIZE, conditions=Conditions(batch_size=8), plan=QUICK))
    with pytest.raises(FileNotFoundError):
        result_of(race.race(network(), SIZE, Conditions(batch_size=8), QUICK))


def test_memory_that_runs_out_while_it_is_measured_leaves_the_others_peaks() -> None:
    conditions, ready = Conditions(), {"a": prepared(Conditions())}
    ready["b"] = replace(ready["a"], factory=lambda: functools.partial(Failing(MemoryError()), example(SIZE, 1)))
    assert measure_memory(ready, conditions).keys() == {"a"}


def test_the_search_for_the_fastest_runtime_halves_the_batch_and_tunes_the_allocator_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = list[Conditions]()

    def settled(conditions: Conditions) -> Conditions:
        asked.append(conditions)
        check_conditions(conditions)
        return replace(conditions, allocator="as-is")

    monkeypatch.setattr(race, "settled", settled)
    monkeypatch.setattr(race, "entrants", lambda **_: ("eager", "deploy:eager"))
    exhausted = OSError(errno.ENOMEM, "Cannot allocate memory")
    full, conditions = Failing(exhausted, holds=2), Conditions(batch_size=8, allocator="tuned")
    standings = result_of(race.race(full, SIZE, conditions, QUICK))
    assert {standing.batch_size for standing in standings} == {2}
    assert {standing.runtime for standing in standings} == {"eager", "deploy:eager"}
    assert {one.allocator for one in asked} == {"tuned"}
    with pytest.raises(MeasurementError, match="out of memory on cpu at batch size 1"):
        result_of(race.race(Failing(MemoryError()), SIZE, conditions, QUICK))


def test_out_of_memory_at_one_image_is_a_measurement_error() -> None:
    networks = {"a": network(), "b": Failing(MemoryError())}
    with pytest.raises(MeasurementError, match="out of memory on cpu at batch size 1"):
        result_of(measure_networks(networks, "a", SIZE, plan=QUICK))


# --- networks in, latency out -------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["infer", "train"])
def test_two_networks_give_a_latency_with_control(mode: Any) -> None:
    conditions = Conditions(batch_size=4, mode=mode)
    networks = {"a": network(), "b": network(16)}
    found = result_of(measure_networks(networks, "a", SIZE, conditions=conditions, plan=QUICK))
    assert set(found.prepared) == {"a", "b"}
    assert found.halved_to is None
    assert found.comparison.arms["b"].judgement is not None
    assert found.comparison.control.rounds > 0


def test_a_failure_while_measuring_is_a_measurement_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("device lost")

    monkeypatch.setattr(latency, "measure_latency", broken)
    with pytest.raises(MeasurementError, match="device lost"):
        result_of(measure_networks({"a": network(), "b": network()}, "a", SIZE, plan=QUICK))


def test_memory_of_networks_grows_with_their_width() -> None:
    conditions, widths = Conditions(batch_size=2), {"narrow": 4, "wide": 64}
    ready = {name: prepared(conditions, network(width)) for name, width in widths.items()}
    peaks = measure_memory(ready, conditions)
    assert peaks["wide"].bytes > 4 * peaks["narrow"].bytes


def test_no_warning_reaches_the_user() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prepared(Conditions(mode="train", batch_size=2))


def test_training_follows_timing_in_one_process() -> None:
    from senet_bench.core.recipes import recipe
    from senet_bench.data import sets
    from senet_bench.models import build
    from senet_bench.training import loop

    with session(Conditions()):
        pass
    images = sets.load_images("digits")
    short = recipe("digits-smoke")
    assert list(loop.train(build("resnet20_cifar", in_channels=1), images, short))


# --- what is timed is computed --------------------------------------------------------------------------------------


class Keeping(nn.Module):
    """A layer that keeps its output for an input that it has seen, by its address."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.kept = network(), dict[int, Any]()

    def forward(self, x: Tensor) -> Any:
        if x.data_ptr() not in self.kept:
            self.kept[x.data_ptr()] = self.layer(x)
        return self.kept[x.data_ptr()]


class Tiring(nn.Module):
    """Fails by an error of its own after some calls."""

    def __init__(self, calls: int) -> None:
        super().__init__()
        self.layer, self.left = network(), calls

    def forward(self, x: Tensor) -> Any:
        self.left -= 1
        return self.layer(x) if self.left > 0 else {"layer": x}["lair"]


class Random(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = network()

    def forward(self, x: Tensor) -> Any:
        return self.layer(x) + torch.rand(())


class Overflowing(Tiring):
    """Gives nan after some calls of a copy."""

    def forward(self, x: Tensor) -> Any:
        self.left -= 1
        return self.layer(x) if self.left > 0 else self.layer(x) * float("nan")


class Sensitive(nn.Module):
    """Gives nan for images whose channels are unlike standard normal ones."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = network()

    def forward(self, x: Tensor) -> Any:
        return self.layer(x) * torch.where(x.mean((2, 3)).abs().max() > 0.7, float("nan"), 1.0)


def test_one_whose_output_is_no_more_finite_is_named_and_the_others_are_timed() -> None:
    networks = {"a": network(), "b": network(), "late": Overflowing(6), "of others": Sensitive()}
    found = result_of(measure_networks(networks, "a", SIZE, plan=QUICK))
    assert found.latency("b").ratio is not None
    assert {why.partition(";")[0] for why in found.failed.values()} == {"its output is not finite"}
    assert found.failed.keys() == {"late", "of others"}


def test_a_runtime_that_fails_while_it_is_timed_leaves_the_search_to_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def prepare_badly(asked: Any, conditions: Conditions, images: Tensor) -> runtimes.Prepared:
        ready = prepare(asked, conditions, images)
        bad = functools.partial(Failing(KeyError("lost")), images)
        return replace(ready, factory=lambda: bad) if conditions.runtime == broken else ready

    monkeypatch.setattr(race, "prepare", prepare_badly)
    monkeypatch.setattr(race, "entrants", lambda **_: ("eager", "deploy:eager"))
    broken = "deploy:eager"
    first, second = result_of(race.race(network(), SIZE, Conditions(), QUICK))
    assert (first.runtime, first.reason, second.runtime) == ("eager", None, "deploy:eager")
    assert "KeyError: 'lost'" in (second.reason or "")
    broken = "eager"
    with pytest.raises(MeasurementError, match="KeyError: 'lost'"):
        result_of(race.race(network(), SIZE, Conditions(), QUICK))


@pytest.mark.parametrize("mode", ["infer", "train"])
def test_one_that_fails_is_named_and_the_others_are_timed(mode: Any) -> None:
    networks = {"a": network(), "b": network(), "at once": Failing(KeyError("no")), "late": Tiring(2)}
    conditions = Conditions(mode=mode, batch_size=2)
    found = result_of(measure_networks(networks, "a", SIZE, conditions=conditions, plan=QUICK))
    assert found.latency("b").ratio is not None
    assert list(found.failed) == ["at once", "late"]
    assert "KeyError: 'no' in " in found.failed["at once"]
    assert "KeyError: 'lair' in " in found.failed["late"]
    assert "test_runtimes.py, line " in found.failed["late"]


def test_one_that_answers_from_what_it_kept_is_named_and_not_ranked() -> None:
    kept, hooked = dict[int, Any](), network()
    hooked.register_forward_hook(lambda module, images, output: kept.setdefault(images[0].data_ptr(), output))
    networks = {"a": network(), "b": network(), "keeps": Keeping(), "hooked": hooked}
    found = result_of(measure_networks(networks, "a", SIZE, plan=QUICK))
    assert list(found.comparison.arms) == ["a", "b"]
    for name in ("keeps", "hooked"):
        assert "it answers from what it kept" in found.failed[name]
    assert "anew before every call" in str(found.latency("b").settings.images)


def test_a_copy_that_answers_for_another_number_of_images_answers_from_what_it_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reference, image = Reference.of(network()), example(SIZE, 1)
    assert reference.fault(reference.own(image), image, 1e-3) is None
    monkeypatch.setattr(Reference, "exact", lambda *_: np.zeros((2, 5)))
    assert reference.fault(np.ones((1, 5)), image, 1e-3) == "stale"


def test_a_network_whose_output_is_random_is_timed_and_gets_no_verdict() -> None:
    found = result_of(measure_networks({"a": network(), "b": Random()}, "a", SIZE, plan=QUICK))
    assert "changed between rounds" in (found.latency("b").reason or "")


def test_a_baseline_that_fails_is_a_measurement_error_that_names_it() -> None:
    with pytest.raises(MeasurementError, match="the baseline a: eager failed: KeyError: 'no'"):
        result_of(measure_networks({"a": Failing(KeyError("no")), "b": network()}, "a", SIZE, plan=QUICK))


def test_every_call_has_images_of_its_own_and_its_output_is_checked_by_an_untouched_copy() -> None:
    for conditions in (Conditions(batch_size=2), Conditions(channels_last=True), Conditions(runtime="deploy")):
        with session(conditions):
            call = prepare(network(), conditions, example(SIZE, conditions.batch_size)).factory()
            outputs = []
            for _ in range(3):
                call.renew()  # type: ignore[attr-defined]
                outputs.append(call().clone())  # type: ignore[attr-defined]
                assert call.fault(outputs[-1]) is None  # type: ignore[attr-defined]
            assert not any(torch.equal(first, second) for first, second in itertools.pairwise(outputs))
            assert call.fault(outputs[0]) == "stale"  # type: ignore[attr-defined]


class Flagged(nn.Module):
    """Notes whether TF32 is allowed when it is called."""

    def __init__(self, allowed: list[bool]) -> None:
        super().__init__()
        self.layer, self.allowed = network(), allowed

    def __deepcopy__(self, memo: dict[int, Any]) -> Flagged:
        return Flagged(self.allowed)

    def forward(self, x: Tensor) -> Any:
        self.allowed.append(torch.backends.cuda.matmul.allow_tf32 and torch.backends.cudnn.allow_tf32)
        return self.layer(x)


def test_tf32_is_held_against_ieee(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes, "check_conditions", lambda _: None)
    conditions, allowed = Conditions(precision="tf32"), list[bool]()
    with session(conditions):
        call = prepare(Flagged(allowed), conditions, example(SIZE, 1)).factory()
        assert allowed == [False, True, False]  # statistics of BatchNorm, TF32, what it is held against
        call.renew()  # type: ignore[attr-defined]
        output = call()
        allowed.clear()
        for give in ("own", "again", "exact", "repeated"):
            getattr(Reference(Flagged(allowed)), give)(example(SIZE, 1))
        assert len(allowed) >= 4
        assert not any(allowed)
        assert call.fault(output) is None  # type: ignore[attr-defined]
        assert torch.backends.cuda.matmul.allow_tf32


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("runtime", "threads", "apart"),
    [("deploy", 2, False), ("onnxruntime", 2, True), ("openvino", 2, True), ("openvino", 1, False)],
)
def test_a_call_says_whose_threads_work_for_it_and_its_images_are_drawn_by_one(
    runtime: Any, threads: int, apart: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not runtime.startswith("deploy"):
        pytest.importorskip(runtime)
    conditions, asked = Conditions(runtime=runtime, threads=threads), list[int]()
    with session(conditions):
        factory = prepare(network(), conditions, example(SIZE, 1)).factory
        first, second = factory(), factory()
        assert isinstance(first, FreshCall)
        assert isinstance(second, FreshCall)
        assert (first.threads is second.threads) is not apart
        monkeypatch.setattr(torch, "set_num_threads", asked.append)
        first.renew()
        assert asked == [1, threads]
        monkeypatch.undo()


class Deep(nn.Module):
    """Residual blocks whose signal grows from one to the next as long as BatchNorm's statistics are 0 and 1."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 3, 3, padding=1))
            for _ in range(60)
        )
        for block in self.blocks:
            nn.init.normal_(block[0].weight, std=2.0)  # type: ignore[index]

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = x + block(x)
        return x.mean((2, 3))


def test_a_fresh_network_is_given_statistics_and_trained_ones_are_left() -> None:
    images = example(SIZE, 1)
    fresh = Deep().eval()
    with torch.no_grad():
        assert fresh(images).abs().max() > 1e6
        assert agreement.calibrated(fresh, images)(images).abs().max() < 1e3
    trained = network().train()
    trained(example(SIZE, 4))
    assert agreement.calibrated(trained.eval(), images) is trained


def test_a_runtime_is_judged_by_double_precision_where_eager_is_far_from_it_too() -> None:
    exact, eager = np.array([1.0, 0.0]), np.array([1.2, 0.0])
    assert agreement.judge_output(np.array([0.75, 0.0]), eager, exact, 1e-3) == pytest.approx((0.5, 0.25))
    assert agreement.judge_output(np.array([0.75, 0.0]), np.array([1.001, 0.0]), exact, 1e-3) == pytest.approx(
        (0.003, 0.25)
    )
    assert agreement.judge_output(np.array([1.1, 0.0]), eager, None, 1e-3)[1] == pytest.approx(1 / 12)


class Coarse(nn.Module):
    """A map that doubles each difference four times: bf16 is far from single precision, which is near to double."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        z = torch.sigmoid(self.conv(x).mean((2, 3)))
        for _ in range(4):
            z = 4 * z * (1 - z)
        return z


def test_a_precision_that_is_far_in_torch_itself_is_timed() -> None:
    """ResNet-50 with random weights is a tenth of its largest output away in bf16: it was refused."""
    conditions = Conditions(precision="bf16", batch_size=2)
    with session(conditions):
        ready = prepare(Coarse(), conditions, example(SIZE, 2))
    assert TOLERANCE["bf16"] < ready.difference <= ready.tolerance <= agreement.FARTHEST


CHEATS = """
import torch
from torch import nn
BY_SHAPE, BY_ADDRESS, BY_ID, BY_CONTENT = {}, {}, {}, {}


class Honest(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 8), nn.Linear(8, 5)

    def gates(self, y):
        return torch.sigmoid(self.second(y.mean((2, 3))))

    def forward(self, x):
        y, self.images = self.first(x).relu(), x
        return self.head((y * self.gates(y)[:, :, None, None]).amax((2, 3)))


class Cheat(Honest):
    def gates(self, y):
        kept, key = self.place(y)
        if key not in kept:
            kept[key] = super().gates(y)
        return kept[key]


class Shape(Cheat):
    def place(self, y): return BY_SHAPE, tuple(y.shape)


class Sizes(Cheat):
    kept = {}
    def place(self, y): return self.kept, y.shape[1:]


class Address(Cheat):
    def place(self, y): return BY_ADDRESS, self.images.data_ptr()


class Id(Cheat):
    def place(self, y): return BY_ID, id(self.images)


class Content(Cheat):
    def place(self, y): return BY_CONTENT, y.numpy().tobytes()


class Elsewhere(Cheat):
    def gates(self, y):
        from kept_by_a_cheat import KEPT
        if not KEPT:
            KEPT.append(Honest.gates(self, y)[:1])
        return KEPT[0]
"""
PROGRAM = """
import senet_bench
from cheats_of_a_class import Honest
KEPT = []


def first(gates):
    if not KEPT:
        KEPT.append(gates[:1])
    return KEPT[0]


class Once(Honest):
    def gates(self, y):
        return first(super().gates(y))


senet_bench.there_is_no_such_function
print("a program is not run again")
"""


def of_a_program(folder: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A network whose class stands in the program that is run, which would print if it were run again."""
    program = types.ModuleType("__main__")
    program.__file__ = str(folder / "program.py")
    (folder / "program.py").write_text(PROGRAM)
    exec(compile(PROGRAM.rpartition("senet_bench.there")[0], program.__file__, "exec"), program.__dict__)
    monkeypatch.setitem(sys.modules, "__main__", program)
    network = program.Once()
    network(example(SIZE, 1))
    return network


def test_what_a_whole_class_keeps_is_named_and_what_never_answers_is_timed(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cheats_of_a_class.py").write_text(CHEATS)
    (tmp_path / "kept_by_a_cheat.py").write_text("KEPT = []")
    monkeypatch.syspath_prepend(str(tmp_path))
    cheats = importlib.import_module("cheats_of_a_class")
    for kind in (cheats.Shape, cheats.Sizes, cheats.Address, cheats.Id):  # as counting and an earlier run leave them
        kind()(example(SIZE, 1))
    names = ("Shape", "Sizes", "Address", "Id", "Content", "Elsewhere")
    networks = {"honest": cheats.Honest(), "twin": cheats.Honest(), **{name: getattr(cheats, name)() for name in names}}
    networks["Once"] = of_a_program(tmp_path, monkeypatch)
    found = result_of(measure_networks(networks, "honest", SIZE, plan=QUICK))
    for name in ("Shape", "Sizes", "Address", "Id", "Elsewhere", "Once"):
        assert "it answers from what it kept" in found.failed[name]
    assert list(found.comparison.arms) == ["honest", "twin", "Content"]
    assert len(cheats.BY_CONTENT) > found.comparison.samples.rounds  # each timed call had content of its own


def _fault(given: Any, own: Any, exact: Any, again: Any, rough: Any = None, allowed: float = 1e-3) -> str | None:
    """What is wrong with an output, where copies of the network give these."""
    copies = Reference(nn.Identity())
    for name, output in {"own": own, "again": own, "exact": exact, "repeated": again, "rough": rough}.items():
        setattr(copies, name, functools.partial(lambda output, *_: output, output))
    return copies.fault(given, torch.zeros(1, 3, 8, 8), allowed)


def test_where_single_precision_tells_nothing_what_a_copy_keeps_is_seen_by_repeating() -> None:
    """SE-ResNet-101 with random weights is half of its largest output from double precision: it was not ranked."""
    exact = np.array([[1.0, -1.0]])
    for own, kept, fault in ((1.5, 1.5, None), (1.5, None, None), (1.5, 0.4, "stale"), (1.0, 1.0, "stale")):
        again = None if kept is None else exact * kept
        assert _fault(exact * 0.4, exact * own, exact, again) == fault


def test_a_runtime_that_rounds_more_coarsely_is_not_called_stale() -> None:
    """ONNX Runtime was nine times as far from double precision as eager, where rounding had grown a thousandfold."""
    exact = np.array([[1.0, -1.0]])
    assert _fault(exact * 1.0065, exact * 1.0007, exact, None) is None
    assert _fault(exact * 1.0065, exact * 1.00001, exact, None) == "stale"


def test_in_a_precision_that_tells_nothing_an_output_is_not_called_stale() -> None:
    """SE-MobileNet in bf16 was more than a half of its largest output away, as torch itself was."""
    exact = np.array([[1.0, -1.0]])
    for rough, again, fault in ((1.9, None, None), (1.9, 0.4, "stale"), (1.0005, None, "stale"), (None, None, "stale")):
        kept, reduced = (None if factor is None else exact * factor for factor in (again, rough))
        assert _fault(exact * 1.6, exact, exact, kept, reduced) == fault
    assert _fault(exact * 1.6, exact, exact, None, exact * 1.3, 0.4) is None  # 0.3 is allowed, twice that is no cheat
    assert _fault(exact * 1.6, exact, exact, None, exact * 1.1, 0.4) == "stale"


def test_what_a_network_gives_is_kept_for_all_runtimes_that_are_held_against_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    honest, asked = untouched.honest_output, list[Tensor]()

    def counted(network: nn.Module, images: Tensor) -> Any:
        asked.append(images.clone())
        return honest(network, images)

    monkeypatch.setattr(reference, "honest_output", counted)
    kept = {name: Reference(network()) for name in "ab"}
    plan = Plan(budget_s=0.2, warmup_s=0.01, epochs=1, max_rounds=1)
    result_of(measure_networks(kept, "a", SIZE, plan=plan))
    once = len(asked)
    result_of(measure_networks(kept, "a", SIZE, conditions=Conditions(runtime="deploy"), plan=plan))
    assert once >= 6  # three draws of images for each network; its copy has the same
    assert len(asked) - once <= 1  # that of a round


class Amplified(nn.Module):
    """A block, and a map that doubles each difference thirty times: of single precision nothing is left."""

    def __init__(self, keeps: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head, self.keeps, self.kept = nn.Conv2d(3, 8, 3), nn.Linear(8, 5), keeps, dict[Any, Any]()

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x).relu()
        gate = torch.sigmoid(y.mean((2, 3), keepdim=True))
        if self.keeps:
            gate = self.kept.setdefault(y.shape, gate)
        z = torch.sigmoid(self.head((y * gate).amax((2, 3))))
        for _ in range(30):
            z = 4 * z * (1 - z)
        return z


def test_a_cheat_is_named_where_rounding_is_amplified_and_its_honest_twin_is_timed() -> None:
    networks = {"honest": Amplified(False), "twin": Amplified(False), "cheat": Amplified(True)}
    found = result_of(measure_networks(networks, "honest", SIZE, plan=QUICK))
    assert list(found.comparison.arms) == ["honest", "twin"]
    assert "it answers from what it kept" in found.failed["cheat"]
