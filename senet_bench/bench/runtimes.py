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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from senet_bench.bench.agreement import calibrated, distance, exactly, fault_of, judge_output, output_numbers
from senet_bench.bench.clock import Call, Fault, FreshCall
from senet_bench.bench.count import weight_bytes
from senet_bench.bench.device import device_of
from senet_bench.bench.machine import check_conditions
from senet_bench.bench.untouched import honest_exactly, honest_output, repeated_output
from senet_bench.core.foreign import blame, passes
from senet_bench.core.runtimes import RUNTIMES
from senet_bench.core.specs import Conditions
from senet_bench.deployment import deploy
from senet_bench.deployment.engines import running, torch_compiled
from senet_bench.deployment.quantised import quantised, seeded_images
from senet_bench.errors import MeasurementError, UsageError, out_of_memory

TOLERANCE = {"fp32": 1e-3, "tf32": 2e-2, "fp16": 3e-2, "bf16": 1e-1}
"""Largest |difference| from eager fp32, as a fraction of the largest |output|, that still counts as the same."""
TRAIN_TOLERANCE = 0.1
"""The same for the first loss of training."""
INT8_TOLERANCE = 2.0
"""The same for INT8, whose outputs on untrained weights tell little: what it loses is told by `evaluate --runtime`."""
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


def prepare(network: nn.Module, conditions: Conditions, images: Tensor) -> Prepared:
    """The network as a checked factory of calls; to be used inside `session(conditions)`. `network` is not changed.

    A call of mode infer returns the logits, one of mode train makes a step of SGD on cross entropy and returns
    the loss. BatchNorm statistics that nothing has trained are made those of random images. Raises `UsageError` for
    conditions that are not to be had, `MeasurementError` when building or capturing fails or the outputs are not those
    of eager fp32. Out of memory is passed on as torch raises it.
    """
    check_conditions(conditions)
    with failing_as("the network failed"):
        network = calibrated(network, images) if conditions.mode == "infer" else network
    plain = Conditions(conditions.device, batch_size=conditions.batch_size, mode=conditions.mode)
    allowed = TRAIN_TOLERANCE if conditions.mode == "train" else TOLERANCE[conditions.precision]
    allowed = INT8_TOLERANCE if RUNTIMES[conditions.runtime].int8 else allowed
    with failing_as(f"{conditions.runtime} failed"):
        start = time.perf_counter()
        output = output_numbers(_seeded(functools.partial(call_of, network, conditions, images)))
        first_s = time.perf_counter() - start
        same = (conditions.runtime, conditions.precision, conditions.channels_last) == ("eager", "fp32", False)
        reference = output if same else output_numbers(_seeded(functools.partial(call_of, network, plain, images)))
        difference = distance(output, reference)
        if not difference <= allowed and conditions.mode == "infer":
            exact = exactly(network, images[: conditions.batch_size])
            allowed, difference = judge_output(output, reference, exact, allowed)
    if not difference <= allowed:
        raise MeasurementError(
            f"{_named(conditions)} differs from eager fp32 by {difference:.2g} of the largest output, more than"
            f" {allowed:g}",
            "leave out what differs" if same else "use eager fp32",
        )
    factory = functools.partial(_fresh, network, conditions, images, allowed)
    reduced = REDUCED.get(conditions.precision) if conditions.mode == "infer" else None
    held = copy.deepcopy(network).to(reduced) if reduced else network
    return Prepared(factory, difference, allowed, first_s, weight_bytes(held))


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


def _fresh(network: nn.Module, conditions: Conditions, images: Tensor, allowed: float) -> FreshCall:
    """A fresh copy of the network under the conditions, as a call on images that are drawn anew before each."""
    x = images[: conditions.batch_size].to(conditions.device).clone()
    drawn, random = x.clone(), torch.Generator(x.device).manual_seed(1)
    held: list[Tensor] = []

    def renew() -> None:
        held[0].copy_(drawn.normal_(generator=random))

    def vary() -> None:
        drawn.normal_(generator=random)
        light = torch.randn((*x.shape[:2], *[1] * (x.dim() - 2)), generator=random, device=x.device)
        held[0].copy_(drawn.mul_(light.exp().clamp(0.25, 4)).add_(light))

    def fault(output: object) -> Fault | None:
        if conditions.mode == "train":
            return None
        honest, exact = functools.partial(honest_output, network), functools.partial(honest_exactly, network)
        return fault_of(output, drawn, honest, exact, functools.partial(repeated_output, network), allowed)

    return FreshCall(call_of(network, conditions, x, held), renew, fault, vary)


def call_of(network: nn.Module, conditions: Conditions, images: Tensor, held: list[Tensor] | None = None) -> Call:
    """A fresh copy of the network under the conditions, as a call that has been made once if it compiles.

    The call reads its images from a tensor of its own, which is added to `held`.
    """
    x = images[: conditions.batch_size].to(conditions.device).clone()
    fresh = copy.deepcopy(network).to(conditions.device).train(conditions.mode == "train")
    dtype, facts = REDUCED.get(conditions.precision), RUNTIMES[conditions.runtime]
    x = _laid_out(x.to(dtype) if conditions.mode == "infer" and dtype is not None else x, conditions)
    if held is not None:
        held.append(x)
    if facts.deployed:
        return _deployed(fresh, conditions, x)
    if facts.int8:
        return _inference(quantised(facts, fresh, seeded_images(x.shape)), x)
    if facts.extra:
        return _inference(running(facts.engine, fresh, x), x)
    if conditions.channels_last:
        fresh = fresh.to(memory_format=torch.channels_last)
    if conditions.mode == "infer" and dtype is not None:
        fresh = fresh.to(dtype)
    run: Callable[[Tensor], Any] = torch_compiled(fresh) if conditions.runtime == "compile" else fresh
    call = _training(fresh, run, x, dtype) if conditions.mode == "train" else _inference(run, x)
    if conditions.runtime == "compile":
        with _own_cache():
            call()
    return device_of(x.device).capture(call) if conditions.runtime == "cudagraph" else call


def _laid_out(images: Tensor, conditions: Conditions) -> Tensor:
    """The images in the layout that is asked for."""
    if not conditions.channels_last:
        return images
    if images.dim() != 4:
        raise UsageError("NHWC is a layout of images alone", "leave out --channels-last")
    return images.contiguous(memory_format=torch.channels_last)


def _deployed(network: nn.Module, conditions: Conditions, x: Tensor) -> Call:
    """The deploy form, folded in single precision before it is converted; on a CUDA device as a graph."""
    if conditions.mode == "train":
        raise UsageError(f"runtime {conditions.runtime} is for inference only", "use --mode infer or another runtime")
    engine = RUNTIMES[conditions.runtime].engine
    deployed = deploy(network, engine)
    call = _inference(deployed if RUNTIMES[conditions.runtime].extra else deployed.to(x.dtype), x)
    device = device_of(x.device)
    if engine in ("torch", "eager"):
        return device.capture(call) if device.captures else call
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
