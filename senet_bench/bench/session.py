"""What this machine offers to a measurement, and the state of torch while it lasts."""

from __future__ import annotations

import contextlib
import importlib.util
import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, get_args

import torch

from senet_bench.bench import allocator, export
from senet_bench.bench.device import Device, present
from senet_bench.core import specs
from senet_bench.core.specs import Conditions
from senet_bench.errors import UsageError


def check_conditions(conditions: Conditions) -> None:
    """Raise `UsageError`, with a remedy, on conditions that this machine cannot offer."""
    for name, choices in (("precision", specs.Precision), ("runtime", specs.Runtime), ("mode", specs.Mode)):
        if getattr(conditions, name) not in get_args(choices):
            raise UsageError(
                f"{name} {getattr(conditions, name)!r} is unknown", f"choose from {', '.join(get_args(choices))}"
            )
    if min(conditions.batch_size, conditions.threads) < 1:
        raise UsageError("batch size and threads must be at least 1")
    allocator.check(conditions.allocator)
    device = present(conditions.device)
    if device.lacks(conditions.precision):
        raise UsageError(f"device {conditions.device} has no {conditions.precision}", "use --precision fp32")
    _check_runtime(conditions, device)


def settled(conditions: Conditions) -> Conditions:
    """The checked conditions with the allocator that this process has from now on, tuned where they ask for it."""
    check_conditions(conditions)
    return replace(conditions, allocator=allocator.applied(conditions.allocator))


def _check_runtime(conditions: Conditions, device: Device) -> None:
    runtime = conditions.runtime
    cuda_only = runtime == "cudagraph" or conditions.timing == "device" or conditions.cache == "cold"
    if cuda_only and not device.captures:
        raise UsageError("CUDA graphs, device timing and a cold cache need a CUDA device", "use --device cuda")
    if conditions.cache == "cold" and conditions.timing != "device":
        raise UsageError("a cold cache is timed by device events only", "use device timing")
    if runtime in export.EXTRAS:
        export.check(conditions)
        extra = export.EXTRAS[runtime]
        missing = [module for module in extra.modules if importlib.util.find_spec(module) is None]
        if missing:
            raise UsageError(
                f"{runtime} needs {', '.join(missing)}", f'run: python -m pip install "senet-bench[{extra.name}]"'
            )


@contextlib.contextmanager
def session(conditions: Conditions) -> Iterator[None]:
    """Threads and arithmetic of the conditions for as long as this lasts: fp32 is IEEE, TF32 only when asked."""
    threads, benchmark = torch.get_num_threads(), torch.backends.cudnn.benchmark
    with arithmetic(tf32=conditions.precision == "tf32"):
        try:
            torch.set_num_threads(conditions.threads)
            torch.backends.cudnn.benchmark = True
            yield
        finally:
            torch.set_num_threads(threads)
            torch.backends.cudnn.benchmark = benchmark


@contextlib.contextmanager
def arithmetic(tf32: bool) -> Iterator[None]:
    """TF32 on or off for products and convolutions, by both of torch's interfaces.

    The older flags are set because torch's compiler and exporter read them, and raise where they and the newer
    `fp32_precision` disagree; the newer ones are put back as they were.
    """
    backends: Any = torch.backends
    newer = (
        backends.cuda.matmul,
        backends.cudnn.conv,
        backends.cudnn.rnn,
        backends.mkldnn.matmul,
        backends.mkldnn.conv,
    )
    older = (backends.cuda.matmul, backends.cudnn)
    precisions, allowed = [flag.fp32_precision for flag in newer], [_allows_tf32(flag) for flag in older]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for flag in older:
            flag.allow_tf32 = tf32
        for flag in newer[3:]:
            flag.fp32_precision = "ieee"
    try:
        yield
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for flag, value in zip(older, allowed):
                if value is not None:
                    flag.allow_tf32 = value
            for flag, precision in zip(newer, precisions):
                flag.fp32_precision = precision


def _allows_tf32(flag: Any) -> bool | None:
    try:
        return bool(flag.allow_tf32)
    except RuntimeError:  # the newer interface was used: there is no older value to restore
        return None
