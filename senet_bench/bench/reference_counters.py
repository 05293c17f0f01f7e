"""Independent counters of the same arithmetic: fvcore with our operator handles, and torch's FlopCounterMode."""

from __future__ import annotations

import copy
import math
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from senet_bench.bench.count import Counts, count, steady, tallied
from senet_bench.bench.operators import COUNTED_PRODUCTS
from senet_bench.bench.shapes import einsum_products
from senet_bench.errors import MeasurementError
from senet_bench.models.graph import QuickShapes
from senet_bench.models.modes import evaluating


def count_fvcore(network: nn.Module, input_size: tuple[int, ...]) -> Counts:
    """The same as `complexity.count`, traced by fvcore on real tensors on the CPU (it cannot trace meta tensors).

    fvcore's own handles count convolutions and matrix products; ours count BatchNorm and pools by the conventions
    of `complexity`. The recalibrated map is the output of the attention module, however it is written.
    """
    tally = tallied(network, input_size)  # of which the scale is taken, and what an operator does not tell
    network = steady(_on_cpu(network), dense=True)
    with warnings.catch_warnings(), evaluating(network):
        warnings.simplefilter("ignore")  # fvcore (last released in 2022) scripts and traces, which torch deprecates
        from fvcore.nn import FlopCountAnalysis

        analysis = FlopCountAnalysis(network, torch.zeros(1, *input_size))
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
        analysis.set_op_handle(**_HANDLES)
        modules = analysis.by_module_and_operator()
        unknown = {name.removeprefix("aten::").strip("_") for name in analysis.unsupported_ops()}
    inside: Counter[str] = Counter()
    for name, module in network.named_modules():
        if hasattr(module, "attention_place"):
            inside.update(modules[name])
    outside = Counter(modules[""])
    outside.subtract(inside)
    return Counts(
        conv=int(outside["conv"]),
        linear=_linear(outside),
        se_excitation=int(inside["conv"]) + _linear(inside),
        se_scale=tally.counts["se_scale"],
        bn=max(int(outside["batch_norm"]), tally.counts["bn"]),
        max_pool=int(outside["max_pool"]),
        global_pool=int(outside["global_pool"]) - tally.squeezes,
        uncounted=tuple(sorted({*tally.uncounted, *(unknown & UNKNOWN)})),
    )


def conv_and_linear(network: nn.Module, input_size: tuple[int, ...]) -> int:
    """Multiply-adds of all convolutions and matrix products by torch's FlopCounterMode, attention included."""
    network = steady(copy.deepcopy(network).to("meta"), dense=True).requires_grad_(False)
    counter = FlopCounterMode(display=False, custom_mapping=_formulas())
    with evaluating(network), torch.no_grad(), counter, QuickShapes(), _Einsums(counter) as einsums:
        network(torch.empty((1, *input_size), device="meta"))
    return int(counter.get_total_flops() // 2 + einsums.lost)


class _Einsums(TorchFunctionMode):
    """Counts in `lost` the products of einsums that torch computes as multiplications, as a side of theirs is 1."""

    def __init__(self, counter: FlopCounterMode) -> None:
        super().__init__()
        self.counter = counter
        self.lost = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = self.counter.get_total_flops() if func is torch.einsum else 0
        answer = func(*args, **(kwargs or {}))
        if func is torch.einsum and self.counter.get_total_flops() == before:
            operands = args[1] if len(args) == 2 and isinstance(args[1], tuple | list) else args[1:]
            self.lost += einsum_products(args[0], operands)
        return answer


def _formulas() -> dict[Any, Callable[..., int]]:
    """Our formulas for what torch's registry lacks, as FlopCounterMode takes them: operations of tensors."""
    formulas: dict[Any, Callable[..., int]] = {}
    for name, formula in COUNTED_PRODUCTS.items():
        library, _, operator = name.partition(".")
        if library == "aten" or library in sys.modules:
            formulas[getattr(getattr(torch.ops, library), operator)] = _of_tensors(formula)
    return formulas


def _of_tensors(formula: Callable[..., int]) -> Callable[..., int]:
    def operations(*args: Any, out_val: Any = None, **named: Any) -> int:
        return 2 * formula(*args, out_val=out_val)

    operations._get_raw = True  # type: ignore[attr-defined]
    return operations


def verify(network: nn.Module, input_size: tuple[int, ...], counts: Counts) -> None:
    """Raise `MeasurementError` unless `count`, fvcore and FlopCounterMode all give `counts`."""
    if (shapes := count(network, input_size)) != counts:
        raise MeasurementError(f"the shape counter gives {shapes}, not {counts}", "please report this network")
    if (fvcore := count_fvcore(network, input_size)) != counts:
        raise MeasurementError(f"fvcore counts {fvcore}, not {counts}", "please report this network")
    products = counts.conv + counts.linear + counts.se_excitation
    if (witness := conv_and_linear(network, input_size)) != products:
        raise MeasurementError(
            f"FlopCounterMode counts {witness:,} multiply-adds, not {products:,}", "please report this network"
        )


Handle = Callable[[list[Any], list[Any]], Counter[str]]


def _on_cpu(network: nn.Module) -> nn.Module:
    network = copy.deepcopy(network)
    return network.to_empty(device="cpu") if any(p.is_meta for p in network.parameters()) else network.cpu()


def _linear(counts: Counter[str]) -> int:
    return sum(int(counts[kind]) for kind in ("linear", "addmm", "matmul", "einsum", "bmm", "mm"))


def _elements(kind: str, of_output: bool) -> Handle:
    def handle(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
        return Counter({kind: _size((outputs if of_output else inputs)[0]).numel()})

    return handle


def _size(value: Any) -> torch.Size:
    """The shape of a value of the traced graph."""
    return torch.Size(value.type().sizes())


def _einsum(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    """Multiply-adds of a contraction; an einsum that sums over no letter of all operands is none and counts none."""
    from fvcore.nn.jit_handles import einsum_flop_jit

    operands, _, result = inputs[0].toIValue().replace(" ", "").partition("->")
    contracts = set[str].intersection(*map(set, operands.split(","))) - set(result)
    return Counter({"einsum": int(einsum_flop_jit(inputs, outputs)) if contracts else 0})


def _convolution_mode(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    """A convolution whose padding is `same` or `valid`."""
    weight, out = _size(inputs[1]), _size(outputs[0])
    return Counter({"conv": out.numel() * math.prod(weight[1:])})


def _recurrent(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    """The matrix products of a recurrent layer: each of its matrices for each step of each sequence."""
    steps = math.prod(_size(outputs[0])[:-1])
    lists = [value.node().inputs() for value in inputs if value.node().kind() == "prim::ListConstruct"]
    matrices = [_size(weight) for weights in lists for weight in weights if weight.type().kind() == "TensorType"]
    return Counter({"linear": steps * sum(shape.numel() for shape in matrices if len(shape) == 2)})


def _attention(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    """Scores of all pairs, and their products with the values."""
    query, key, value = (_size(given) for given in inputs[:3])
    return Counter({"matmul": math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])})


def _global_pool(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    into, out = _size(inputs[0]), _size(outputs[0])
    is_global = len(into) == 4 and out.numel() == into[0] * into[1]
    return Counter({"global_pool": into.numel() if is_global else 0})


_HANDLES: dict[str, Handle] = {
    "aten::batch_norm": _elements("batch_norm", of_output=True),
    "aten::max_pool2d": _elements("max_pool", of_output=False),
    "aten::adaptive_avg_pool2d": _global_pool,
    "aten::mean": _global_pool,
    "aten::einsum": _einsum,
    "aten::_convolution_mode": _convolution_mode,
    "torchvision::deform_conv2d": _convolution_mode,
    "aten::lstm": _recurrent,
    "aten::gru": _recurrent,
    "aten::rnn_tanh": _recurrent,
    "aten::rnn_relu": _recurrent,
    "aten::scaled_dot_product_attention": _attention,
}
UNKNOWN = frozenset(("fft_fft2", "fft_rfft2", "fft_irfft2", "fft_ifft2", "cdist", "grid_sampler"))
"""Operators that fvcore meets, does not count and that are work."""
