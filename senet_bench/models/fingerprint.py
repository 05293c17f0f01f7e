"""What a network computes, as a few numbers that another machine and another version of torch can judge.

The weights are filled from the tensors' names and shapes, the images from their size, both by a generator of raw bits
that is the same everywhere; the network runs in evaluation, in double precision where it can. What it returns is kept
as random projections, in the form of `core.fingerprint.Function`. It imports nothing of the package: a worker loads
this file beside another checkout's code.
"""

from __future__ import annotations

import contextlib
import copy
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

COUNT = 16
"""Projections of an output."""
DIGITS = 12
"""Significant digits that are kept."""
SCALE_BOUNDS, BIASES = (0.6, 0.8), 0.1
"""Bounds of the scales of normalisations and of other vectors; the largest bias."""
MEANS, VARIANCES = 0.2, (0.5, 1.5)
"""The largest running mean, the bounds of running variances: never 0 and 1."""
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
IMAGES, LARGE = 2, 100_000_000
"""Two images tell whether they are looked at together; one of a network with so many parameters is slow enough."""
PERIOD = 1_000_003
"""After so many values a tensor's begin again: a prime, so that no two rows are the same."""
MODULE_COUNT = 4
"""Projections of a module's output."""


def function_of(
    network: nn.Module,
    input_size: Sequence[int],
    *,
    modules: bool = False,
    own: bool = False,
    keep: str | None = None,
) -> dict[str, object]:
    """The function of a network for some images of `input_size` (C, H, W), as the fields of a `Function`.

    The network is not changed, unless it is the caller's `own` to lose. With `modules` the outputs of its leaves come
    along; `keep` is a file that the outputs are written to whole (npz). Raises what its forward pass raises.
    """
    wanted = _Asked(tuple(input_size), modules, keep)
    try:
        return _function(fingerprintable(network, own=own), wanted, torch.float64)
    except (_LowPrecisionError, RuntimeError, TypeError):  # it makes tensors of its own precision
        return _function(fingerprintable(network, torch.float32, own=own), wanted, torch.float32)


@dataclass(frozen=True, slots=True)
class _Asked:
    """For which images a function is asked, with its leaves or not, and the file that outputs are kept in."""

    input_size: tuple[int, ...]
    modules: bool
    keep: str | None


def materialised(meta: nn.Module) -> nn.Module | None:
    """A network on the CPU whose tensors hold nothing yet, from one on `meta`; None where some are constants."""
    constants = (
        name
        for name, tensor in (*meta.named_parameters(), *meta.named_buffers())
        if not (
            name.rpartition(".")[2] in STATISTICS or (tensor.is_floating_point() and isinstance(tensor, nn.Parameter))
        )
    )
    if next(constants, None) is not None:
        return None
    empty = copy.deepcopy(meta).to(torch.float64).to_empty(device="cpu")
    for name, buffer in empty.named_buffers():
        if name.endswith("num_batches_tracked"):
            buffer.zero_()
    return empty


def fingerprintable(network: nn.Module, dtype: torch.dtype = torch.float64, *, own: bool = False) -> nn.Module:
    """A copy in evaluation whose parameters and BatchNorm statistics are functions of their names and shapes.

    Other buffers, which are constants of the function, stay as they are. A network of one's `own` is not copied.
    """
    network = (network if own else copy.deepcopy(network)).eval().to(dtype)
    with torch.no_grad():
        for name, tensor in (*network.named_parameters(), *network.named_buffers()):
            values = _values(name, tuple(tensor.shape), buffer=not isinstance(tensor, nn.Parameter))
            if values is not None and tensor.is_floating_point():
                _fill(tensor, torch.from_numpy(values))
    return network


def _fill(tensor: Tensor, values: Tensor) -> None:
    """Write values into a tensor, again and again until it is full."""
    if not tensor.is_contiguous():
        tensor.copy_(values.repeat(-(-tensor.numel() // len(values)))[: tensor.numel()].view(tensor.shape))
        return
    flat = tensor.view(-1)
    for start in range(0, tensor.numel(), len(values)):
        part = flat[start : start + len(values)]
        part.copy_(values[: len(part)])


def _values(name: str, shape: tuple[int, ...], *, buffer: bool) -> Any:
    """What a tensor of that name is filled with, the first `PERIOD` of it; None for a buffer that is a constant."""
    leaf = name.rpartition(".")[2]
    if buffer and leaf not in ("running_mean", "running_var"):
        return None
    unit = _uniform(f"{name} {list(shape)}", math.prod(shape))
    if buffer:
        low, high = VARIANCES
        return MEANS * unit if leaf == "running_mean" else low + (high - low) * (unit + 1) / 2
    if leaf.endswith("bias"):
        return BIASES * unit
    if len(shape) < 2:
        return SCALE_BOUNDS[0] + (SCALE_BOUNDS[1] - SCALE_BOUNDS[0]) * (unit + 1) / 2
    return unit * math.sqrt(3 * 2 / max(1, math.prod(shape[1:])))


def _uniform(seed: str, count: int) -> Any:
    """Values in -1..1, at most `PERIOD` of them, from the raw bits of a generator seeded by a text."""
    generator = np.random.Generator(np.random.PCG64(zlib.crc32(seed.encode())))
    return generator.random(max(1, min(count, PERIOD))) * 2 - 1


def _repeated(seed: str, count: int) -> Any:
    """Such values, repeated until there are `count`."""
    return np.resize(_uniform(seed, count), count)


class _LowPrecisionError(Exception):
    """Part of a network ran in another precision than it was given."""


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Raises where an operator returns floats of less precision than the network was given."""

    _should_skip_dynamo = classmethod(lambda cls: False)  # else its first call imports the compiler

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for _, tensor in _leaves(out):
            if isinstance(tensor, Tensor) and tensor.is_floating_point() and tensor.dtype != torch.float64:
                raise _LowPrecisionError
        return out


def _function(network: nn.Module, wanted: _Asked, dtype: torch.dtype) -> dict[str, object]:
    count = IMAGES if sum(p.numel() for p in network.parameters()) < LARGE else 1
    shape = (count, *wanted.input_size)
    images = torch.from_numpy(math.sqrt(3) * _repeated("images", math.prod(shape))).view(shape).to(dtype)
    fixed = getattr(network, "with_fixed_proposals", None)  # which boxes a detector returns is a matter of rounding
    network = fixed(dense=True) if fixed else network
    seen: dict[str, list[dict[str, object]]] = {}
    hooks = _watched(network, seen) if wanted.modules else []
    watch = _Watch() if dtype == torch.float64 else contextlib.nullcontext()  # type: ignore[no-untyped-call]
    with torch.no_grad(), torch.random.fork_rng(devices=[]), watch:
        torch.manual_seed(0)
        out = network(images)
    for hook in hooks:
        hook.remove()
    tensors = {place: tensor for place, tensor in _leaves(out) if isinstance(tensor, Tensor)}
    if not tensors:
        raise ValueError(f"it returns no tensor but {type(out).__name__}")
    if wanted.keep is not None:
        arrays: dict[str, Any] = {f"at {place}": tensor.detach().double().numpy() for place, tensor in tensors.items()}
        np.savez(wanted.keep, **arrays)
    return {
        "precision": str(dtype).removeprefix("torch."),
        "input_size": list(wanted.input_size),
        "outputs": [_kept(place, tensor, COUNT) for place, tensor in tensors.items()],
        "modules": seen,
    }


def _watched(network: nn.Module, seen: dict[str, list[dict[str, object]]]) -> list[Any]:
    """Hooks that keep what the leaves of a network return."""

    def keep(name: str, output: object) -> None:
        kept = [_kept(place, tensor, MODULE_COUNT) for place, tensor in _leaves(output) if isinstance(tensor, Tensor)]
        seen.setdefault(name, []).extend(kept)

    leaves = ((name, module) for name, module in network.named_modules() if not any(module.children()))
    return [module.register_forward_hook(lambda *call, name=name: keep(name, call[2])) for name, module in leaves]


def _kept(place: str, tensor: Tensor, count: int) -> dict[str, object]:
    """A tensor as its projections; what is not finite is counted and left out of them."""
    values = tensor.detach().double().flatten().numpy()
    finite = np.isfinite(values)
    odd = int(values.size - finite.sum())
    values = np.where(finite, values, 0.0) if odd else values
    return {
        "place": place,
        "shape": list(tensor.shape),
        "norm": _short(float(np.linalg.norm(values))),
        "projections": [_short(float(values @ _repeated(f"{index}", values.size))) for index in range(count)],
        "odd": odd,
    }


def _short(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def _leaves(outputs: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """What lies in nested outputs, each with its place."""
    if isinstance(outputs, Mapping):
        for name, value in outputs.items():
            yield from _leaves(value, f"{place}{name}: ")
    elif is_dataclass(outputs) and not isinstance(outputs, type):
        yield from _leaves({field.name: getattr(outputs, field.name) for field in fields(outputs)}, place)
    elif isinstance(outputs, list | tuple):
        for index, value in enumerate(outputs):
            yield from _leaves(value, f"{place}{index}: ")
    else:
        yield place, outputs
