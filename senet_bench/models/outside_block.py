"""Attention blocks from outside: the protocol they follow, and what is said of one that does not."""

from __future__ import annotations

import contextlib
import copy
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from senet_bench.core.foreign import contained, place_of
from senet_bench.core.source import imported
from senet_bench.core.specs import USUAL_REDUCTION, AttentionSpec, is_outside
from senet_bench.errors import BenchError, MeasurementError, UsageError, first_line
from senet_bench.models.blocks import FromIdentity
from senet_bench.models.graph import check_copyable, tensors

BLOCK_SIDE = 16
FEW_CHANNELS = 32


class OutsideBlock(Protocol):
    """What `--attention package.module:Class` names: `Class(channels, **options)` is a module that keeps shapes.

    It maps (N, channels, H, W) to the same shape, for any H and W. The options are those typed or given in
    `AttentionSpec.options`. A class with a parameter `reduction` is given the r of its stage if one was given, or
    16 if the parameter has no default; the options go before both. A function that returns such a module will do.
    """

    def __call__(self, channels: int, **options: Any) -> nn.Module:
        """Return the block for a map of that many channels."""


def outside_block(path: str) -> OutsideBlock:
    """The class at an import string, each block it makes tried on a small map; every failure is a `UsageError`."""
    make = imported(path, "attention block")
    if not callable(make):
        raise UsageError(f"attention block {path!r} is a {type(make).__name__}, not a class", "name an nn.Module class")
    tried: set[int] = set()

    def block(channels: int, **options: Any) -> nn.Module:
        made = make(channels, **options)
        if not isinstance(made, nn.Module):
            raise UsageError(
                f"attention block {path!r} makes a {type(made).__name__}, not an nn.Module", "derive it from nn.Module"
            )
        if channels not in tried:
            _try(path, made, channels)
            check_copyable(f"attention block {path!r}", made)
            tried.add(channels)
        return made

    block.__signature__ = _signature(make)  # type: ignore[attr-defined]
    return block


def made_outside(
    make: Callable[..., nn.Module], channels: int, spec: AttentionSpec, reduction: int | None
) -> nn.Module:
    """The block of a spec; where it is to start as the identity and its class cannot, within one that can."""
    options = dict(spec.options)
    within = not _has_parameter(make, "identity") and options.pop("identity", False)
    made = called(spec.block, make, channels, options, reduction)
    return FromIdentity(made, copies=_overwrites(spec.block, made, channels)) if within else made


def called(
    name: str, make: Callable[..., nn.Module], channels: int, options: Mapping[str, Any], reduction: int | None
) -> nn.Module:
    """`make(channels, **options)`, with r as its `reduction`: the given one, else its own, else the paper's.

    Raises `UsageError` when the block cannot be made so, and for an r that it does not take.
    """
    signature = _signature(make)
    if signature is not None:
        options = {**_reduction(name, signature, reduction), **options}
        _check_arguments(name, signature, channels, options)
    with contained(f"attention block {name!r}", draws=True):
        try:
            return make(channels, **options)
        except BenchError:
            raise
        except Exception as error:
            raise MeasurementError(
                f"attention block {name!r} with {channels} channels raises {type(error).__name__} "
                f"({first_line(error)}){place_of(error)}",
                "it is made as Class(channels, **options)",
            ) from error


def _reduction(name: str, signature: inspect.Signature, reduction: int | None) -> dict[str, int]:
    """The argument `reduction` of a block from outside, empty where its own default stands."""
    known = signature.parameters.get("reduction")
    if known is None and reduction is not None:
        keywords = _keywords(signature)
        raise UsageError(
            f"attention block {name!r} takes no reduction: its constructor has no parameter of that name",
            f"leave out -r or --reduction; its options are {', '.join(keywords)}"
            if keywords
            else "leave out -r or --reduction",
        )
    if known is None or (reduction is None and known.default is not inspect.Parameter.empty):
        return {}
    return {"reduction": USUAL_REDUCTION if reduction is None else reduction}


def _keywords(signature: inspect.Signature) -> list[str]:
    return [p.name for p in list(signature.parameters.values())[1:] if p.kind is not p.VAR_KEYWORD]


def _has_parameter(make: Callable[..., Any], name: str) -> bool:
    """Whether what makes a block has a parameter of that name."""
    signature = _signature(make)
    return signature is not None and name in signature.parameters


def _signature(make: Callable[..., Any]) -> inspect.Signature | None:
    try:
        return inspect.signature(make)
    except (TypeError, ValueError):
        return None


def _check_arguments(name: str, signature: inspect.Signature, channels: int, options: Mapping[str, Any]) -> None:
    try:
        signature.bind(channels, **options)
    except TypeError as error:
        keywords = _keywords(signature)
        raise UsageError(
            f"attention block {name!r} does not take channels and {', '.join(options) or 'no options'}: {error}",
            f"its options are {', '.join(keywords)}" if keywords else "it has no options",
        ) from error


def _try(path: str, block: nn.Module, channels: int) -> None:
    """Raise `UsageError` unless the block keeps the shape of a small map, of one or three dimensions where no image's.

    `MeasurementError` where it raises what it likes for all of them.
    """
    maps = _maps(block, channels)
    training = [(module, module.training) for module in block.modules()]
    errors: list[Exception] = []
    try:
        with torch.no_grad():
            for x in maps:
                try:
                    out = block.eval()(x)
                    break
                except Exception as error:  # noqa: BLE001 - of whatever code the block has
                    errors.append(error)
            else:
                raise MeasurementError(
                    f"attention block {path!r} fails on a map of {_shape(maps[0])}: {type(errors[0]).__name__} "
                    f"({first_line(errors[0])}){place_of(errors[0])}",
                    "a block maps (N, C, H, W) to the same shape",
                ) from errors[0]
    finally:
        for module, mode in training:
            module.training = mode
    if not isinstance(out, Tensor) or out.shape != x.shape:
        given = _shape(out) if isinstance(out, Tensor) else f"a {type(out).__name__}"
        raise UsageError(
            f"attention block {path!r} turns a map of {_shape(x)} into {given}",
            "a block maps (N, C, H, W) to the same shape",
        )


def _maps(block: nn.Module, channels: int) -> list[Tensor]:
    """A small map of each number of dimensions that a block may be for, where the block is; images' first."""
    tensor = next(iter([*block.parameters(), *block.buffers()]), None)
    device = None if tensor is None else tensor.device
    return [torch.zeros(2, channels, *[BLOCK_SIDE] * space, device=device) for space in (2, 1, 3)]


def _overwrites(name: str, block: nn.Module, channels: int) -> bool:
    """Whether a block writes over the map that it is given, in training or in evaluation."""
    with contained(f"attention block {name!r}"), torch.inference_mode(False), torch.no_grad():
        copied = copy.deepcopy(block)
        for mode in (True, False):
            for x in _maps(copied, channels):
                before, taken = x._version, False
                with contextlib.suppress(Exception):  # of maps of other dimensions
                    copied.train(mode)(x)
                    taken = True
                if x._version != before:
                    return True
                if taken:
                    break
    return False


def block_remarks(spec: AttentionSpec) -> list[str]:
    """What a block from outside does to values that a reader must know of, empty for a block of ours.

    It is made once more, for a few channels, and given a small random map.
    """
    if not is_outside(spec.block):
        return []
    try:
        with contained(spec.block), torch.device("cpu"), torch.no_grad(), _Types() as types:
            block = made_outside(imported(spec.block, "attention block"), FEW_CHANNELS, spec, None)
            x = torch.randn(2, FEW_CHANNELS, BLOCK_SIDE, BLOCK_SIDE, generator=torch.Generator().manual_seed(0))
            before = x.clone()
            out = block.eval()(x)
            finite, kept = bool(torch.isfinite(out).all()), torch.equal(x, before)
    except BenchError:
        return []  # one that takes no few channels
    return [
        *([] if finite else [f"{spec.block} gives values that are not finite for a map of finite ones"]),
        *([] if kept else [f"{spec.block} changes its input in place"]),
        *([f"{spec.block} computes in float64"] if torch.float64 in types.seen else []),
    ]


class _Types(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The dtypes of all that operators return."""

    _should_skip_dynamo = classmethod(lambda cls: False)  # else its first call imports the compiler

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: set[torch.dtype] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """The operator's own result."""
        result = func(*args, **(kwargs or {}))
        self.seen |= {one.dtype for one in tensors(result)}
        return result


def _shape(x: Tensor) -> str:
    return "x".join(map(str, x.shape))
