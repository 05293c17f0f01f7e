"""Ways to run a network: each turns an `nn.Module` into a call, checked against eager before it is timed."""

from __future__ import annotations

import atexit
import contextlib
import copy
import functools
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from senet_bench.bench.agreement import distance, exactly, judge_output, output_numbers
from senet_bench.bench.clock import Call, Fault, FreshCall
from senet_bench.bench.count import weight_bytes
from senet_bench.bench.device import Device, device_of
from senet_bench.bench.machine import arithmetic, check_conditions
from senet_bench.bench.reference import Reference
from senet_bench.bench.turns import TORCH_THREADS, one_thread, worked
from senet_bench.core.foreign import blame, passes
from senet_bench.core.runtimes import RUNTIMES
from senet_bench.core.specs import Conditions, Precision
from senet_bench.core.statistics import Floats
from senet_bench.deployment import Deployed, deploy
from senet_bench.deployment.engines import EngineCall, running, torch_compiled
from senet_bench.deployment.quantised import quantised, seeded_images
from senet_bench.errors import MeasurementError, UsageError, out_of_memory

TOLERANCE = {"fp32": 1e-3, "tf32": 2e-2, "fp16": 3e-2, "bf16": 1e-1}
"""Largest |difference| from eager fp32, as a fraction of the largest |output|, that still counts as the same."""
TRAIN_TOLERANCE = 0.1
"""The same for the first loss of training."""
INT8_TOLERANCE = 2.0
"""The same for INT8, whose outputs on untrained weights tell little: what it loses is told by `evaluate --runtime`.

It is judged once. Images that are drawn later may be far from those that it was calibrated by.
"""
REDUCED = {"bf16": torch.bfloat16, "fp16": torch.float16}
FAILURES = (RuntimeError, ValueError, TypeError, AssertionError, OSError, ImportError, AttributeError, IndexError)
"""What networks, compilers and exporters raise when they fail."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A network ready to be timed.

    `factory` builds a fresh copy each time. `difference` is its distance from eager fp32 as a fraction of the
    largest output (training: of the first loss), `first_s` the seconds of building and the first call, `weight_bytes`
    what parameters and buffers take in this precision.
    """

    factory: Callable[[], Call]
    difference: float
    tolerance: float
    first_s: float
    weight_bytes: int = 0


def example(input_size: tuple[int, ...], batch_size: int, seed: int = 0) -> Tensor:
    """Standard normal images (N, C, H, W) on the CPU, always the same for a seed."""
    return torch.randn(batch_size, *input_size, generator=torch.Generator().manual_seed(seed))


def prepare(network: nn.Module | Reference, conditions: Conditions, images: Tensor) -> Prepared:
    """The network as a checked factory of calls; to be used inside `session(conditions)`. `network` is not changed.

    Whoever prepares one network for several runtimes gives each the same `Reference`.

    A call of mode infer returns the logits, one of mode train makes a step of SGD on cross entropy and returns
    the loss. BatchNorm statistics that nothing has trained are made those of random images. Raises `UsageError` for
    conditions that are not to be had, `MeasurementError` when building or capturing fails or the outputs are not those
    of eager fp32. Out of memory is passed on as torch raises it.
    """
    check_conditions(conditions)
    reference = Reference.of(network)
    with failing_as("the network failed"):
        network = reference.calibrated(images) if conditions.mode == "infer" else reference.network
    plain = Conditions(conditions.device, batch_size=conditions.batch_size, mode=conditions.mode)
    allowed = TRAIN_TOLERANCE if conditions.mode == "train" else TOLERANCE[conditions.precision]
    allowed = INT8_TOLERANCE if RUNTIMES[conditions.runtime].int8 else allowed

    def in_torch(precision: Precision) -> Floats:
        alike = Calls(network, replace(plain, precision=precision), images)

        def give(_: Tensor) -> Floats:
            with arithmetic(tf32=precision == "tf32"):
                return output_numbers(_seeded(alike.make))

        return reference.kept(alike.conditions, images, give)

    with failing_as(f"{conditions.runtime} failed"):
        start = time.perf_counter()
        calls = Calls(network, conditions, images)
        output = output_numbers(_seeded(calls.make))
        first_s = time.perf_counter() - start
        same = (conditions.runtime, conditions.precision, conditions.channels_last) == ("eager", "fp32", False)
        eager = output if same else in_torch("fp32")
        difference = distance(output, eager)
        if not difference <= allowed and conditions.mode == "infer":
            batch = conditions.batch_size
            exact = reference.kept(("double", batch), images, lambda x: exactly(network, x[:batch]))
            if conditions.precision != "fp32":  # it may be as far as torch is in this precision
                exact, eager = eager if exact is None else exact, in_torch(conditions.precision)
            allowed, difference = judge_output(output, eager, exact, allowed)
    if not difference <= allowed:
        raise MeasurementError(
            f"{_named(conditions)} differs from eager fp32 by {difference:.2g} of the largest output, more than"
            f" {allowed:g}",
            "leave out what differs" if same else "use eager fp32",
        )
    factory = functools.partial(_fresh, calls, reference, allowed)
    return Prepared(factory, difference, allowed, first_s, weight_bytes(network, weight_type(conditions)))


def weight_type(conditions: Conditions) -> torch.dtype | None:
    """What weights are converted to under these conditions; None where they stay as they are, as those in training."""
    return REDUCED.get(conditions.precision) if conditions.mode == "infer" else None


def _named(conditions: Conditions) -> str:
    """The runtime and what about it may change an output."""
    return f"{conditions.runtime} {conditions.precision}{' channels last' * conditions.channels_last}"


@contextlib.contextmanager
def failing_as(what: str) -> Iterator[None]:
    """Turn the failure of a network, compiler or exporter into a `MeasurementError`; not running out of memory."""
    try:
        yield
    except BaseException as error:
        if out_of_memory(error) or passes(error):
            raise
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise MeasurementError(f"{what}: {blame(cause)}", "this row is left out") from error


def _seeded(factory: Callable[[], Call]) -> Call:
    def call() -> object:
        torch.manual_seed(0)
        return factory()()

    return call


def _fresh(calls: Calls, reference: Reference, allowed: float) -> FreshCall:
    """A fresh copy of the network under the conditions, as a call on images that are drawn anew before each."""
    x = calls.images.clone()
    drawn, random = x.clone(), torch.Generator(x.device).manual_seed(1)
    held: list[Tensor] = []

    def renew() -> None:
        with one_thread():
            held[0].copy_(drawn.normal_(generator=random))

    def vary() -> None:
        drawn.normal_(generator=random)
        light = torch.randn((*x.shape[:2], *[1] * (x.dim() - 2)), generator=random, device=x.device)
        held[0].copy_(drawn.mul_(light.exp().clamp(0.25, 4)).add_(light))

    def fault(output: object) -> Fault | None:
        if calls.conditions.mode == "train":
            return None
        worked(TORCH_THREADS)
        if RUNTIMES[calls.conditions.runtime].int8:
            return reference.fault_beside(output, calls.beside(drawn), drawn, TOLERANCE["fp32"])
        return reference.fault(output, drawn, allowed, REDUCED.get(calls.conditions.precision))

    run = calls.make(held)
    own = RUNTIMES[calls.conditions.runtime].extra and torch.get_num_threads() > 1
    return FreshCall(run, renew, fault, vary, run if own else TORCH_THREADS)


class Calls:
    """Makes calls of a network under some conditions, each of a copy of its own; it is exported once for all of them.

    `images` are those of the conditions' batch, on their device.
    """

    def __init__(self, network: nn.Module, conditions: Conditions, images: Tensor) -> None:
        self.network, self.conditions = network, conditions
        self.images = images[: conditions.batch_size].to(conditions.device)
        self.exported: EngineCall | None = None
        self.witness: EngineCall | None = None

    def make(self, held: list[Tensor] | None = None) -> Call:
        """A call, which has been made once if it compiles; it reads images of its own, which are added to `held`."""
        conditions, x = self.conditions, self.images.clone()
        dtype, facts = weight_type(conditions), RUNTIMES[conditions.runtime]
        x = _laid_out(x if dtype is None else x.to(dtype), conditions)
        if held is not None:
            held.append(x)
        if facts.extra:
            if self.exported is None:
                self.exported = _exported(copy.deepcopy(self.network).eval(), conditions, x)
            return _inference(_again(self.exported), x)
        fresh = copy.deepcopy(self.network).to(conditions.device).train(conditions.mode == "train")
        if facts.deployed:
            return _deployed(fresh, conditions, x)
        if conditions.channels_last:
            fresh = fresh.to(memory_format=torch.channels_last)
        if dtype is not None:
            fresh = fresh.to(dtype)
        run: Callable[[Tensor], Any] = torch_compiled(fresh) if conditions.runtime == "compile" else fresh
        if conditions.mode == "train":
            call = _training(fresh, run, x, REDUCED.get(conditions.precision))
        else:
            call = _inference(run, x)
        if conditions.runtime == "compile":
            with _own_cache():
                call()
        return device_of(x.device).capture(call) if conditions.runtime == "cudagraph" else call

    def beside(self, images: Tensor) -> object:
        """What a copy gives of what was exported that is not timed."""
        assert self.exported is not None  # a call has been made
        if self.witness is None:
            self.witness = _again(self.exported)
        return self.witness(images)


def _exported(network: nn.Module, conditions: Conditions, x: Tensor) -> EngineCall:
    """The network, which may be changed, as another package than torch runs it on such images."""
    facts = RUNTIMES[conditions.runtime]
    if facts.int8:
        return quantised(facts, network, seeded_images(x.shape))
    if not facts.deployed:
        return running(facts.engine, network, x)
    deployed = deploy(network, facts.engine)
    if isinstance(deployed, Deployed):
        deployed.run(x)
    return deployed


def _again(run: EngineCall) -> EngineCall:
    """A copy of what runs a network, elsewhere in memory."""
    copied = copy.deepcopy(run)
    if isinstance(run, Deployed) and isinstance(copied, Deployed):
        copied.runs = copy.deepcopy(run.runs)
    return copied


def _laid_out(images: Tensor, conditions: Conditions) -> Tensor:
    """The images in the layout that is asked for."""
    if not conditions.channels_last:
        return images
    if images.dim() != 4:
        raise UsageError("NHWC is a layout of images alone", "leave out --channels-last")
    return images.contiguous(memory_format=torch.channels_last)


def can_be_graph(network: nn.Module, device: Device) -> bool:
    """Whether a device can capture a network's calls as a CUDA graph: not where they wait for it."""
    return device.captures and not getattr(network, "waits_for_device", False)


def _deployed(network: nn.Module, conditions: Conditions, x: Tensor) -> Call:
    """The deploy form, folded in single precision before it is converted; on a CUDA device as a graph where it can."""
    if conditions.mode == "train":
        raise UsageError(f"runtime {conditions.runtime} is for inference only", "use --mode infer or another runtime")
    engine = RUNTIMES[conditions.runtime].engine
    call = _inference(deploy(network, engine).to(x.dtype), x)
    device = device_of(x.device)
    if engine in ("torch", "eager"):
        return device.capture(call) if can_be_graph(network, device) else call
    with _own_cache():
        call()
    return call


def _inference(run: Callable[[Tensor], Any], x: Tensor) -> Call:
    def call() -> object:
        with torch.inference_mode():
            return run(x)

    return call


def _training(network: nn.Module, run: Callable[[Tensor], Any], x: Tensor, dtype: torch.dtype | None) -> Call:
    """Forward, backward and a step of SGD with momentum; reduced precision by autocast, fp16 with a scaled loss."""
    optimiser = torch.optim.SGD(network.parameters(), lr=1e-4, momentum=0.9)
    scaler = torch.amp.GradScaler(x.device.type, enabled=dtype is torch.float16)
    labels = torch.arange(x.shape[0], device=x.device)

    def call() -> object:
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast(x.device.type, dtype=dtype, enabled=dtype is not None):
            output = run(x)
            logits = output[0] if isinstance(output, tuple) else output
            loss = F.cross_entropy(logits, labels % logits.shape[1])
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        scaler.step(optimiser)
        scaler.update()
        return loss.detach()

    return call


@functools.cache
def _cache_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="senet-bench-inductor-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@contextlib.contextmanager
def _own_cache() -> Iterator[None]:
    """Inductor's cache in a folder of this process: a broken file in the shared one would break every compile."""
    name = "TORCHINDUCTOR_CACHE_DIR"
    before = os.environ.get(name)
    os.environ[name] = str(_cache_folder())
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
