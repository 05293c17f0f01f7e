"""Parameters and FLOPs of a network, under the two conventions that reproduce the paper's cells.

`macs`: multiply-adds of convolutions and linear layers; an attention block adds those of its layers and one operation
per element of the map it recalibrates. So does any gate (N, C, 1, 1) that multiplies a map (N, C, H, W), whoever
wrote it; the pool of such a map that the gate is made of is a squeeze, and counts nothing. `bn-inclusive`: `macs`
plus one operation per BatchNorm output element, per input element of max-pools and of the final global pool; it was
fitted to the paper's tables and is not documented by its authors.

A module that carries `attention_place` is an attention block. `shapes.py` counts; `reference_counters.py` holds the
two independent counters it is checked against. Of a detector, whose work depends on what it finds, the dense part
with 1,000 proposals an image is counted: trunk, pyramid, proposal head, box head. Anchors, NMS and RoIAlign count
nothing.
"""

from __future__ import annotations

import contextlib
import copy
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from senet_bench.bench.operators import counted_operators, largest
from senet_bench.bench.shapes import ShapeMode
from senet_bench.core.foreign import blame, place_of
from senet_bench.core.formulas import CountedCall, Formulas
from senet_bench.errors import BenchError, MeasurementError, UsageError, first_line
from senet_bench.models.modes import evaluating

ACTIVATION_LAYERS = frozenset(
    ("relu", "sigmoid", "tanh", "silu", "hardsigmoid", "hardswish", "hardtanh", "gelu", "elu")
)
"""Elementwise functions that count nothing anywhere."""
WORK: tuple[str, ...] = (
    "fft",
    "linalg",
    "cdist",
    "pdist",
    "grid_sampler",
    "histc",
    "cumsum",
    "cumprod",
    "cummax",
    "sort",
    "topk",
)
WORK += ("cholesky", "svd", "qr", "triangular_solve", "conv_tbc", "bilinear", "trilinear", "ctc_loss", "renorm")
WORK += ("thnn_fused", "mkldnn_rnn", "native_multi_head", "transformer_encoder", "embedding_bag", "unique", "median")
"""How the names of torch's operators begin that work and have no formula here; the others move, pool or normalise."""
KNOWN = ("linalg_vector_norm", "torchvision.nms", "torchvision.roi_align", "prim", "profiler", "c10d")
"""How those begin that count nothing by convention."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Operations for one image, by kind. `conv` and `linear` are those outside attention blocks.

    `bn`, `max_pool` and `global_pool` are in elements, and enter `bn_inclusive` alone. `formulas` are those that a
    user's formulas count outside attention blocks, `by_formula` what each of them counts anywhere. `uncounted` names
    the operators whose work is in no count: those no formula is known for, and in an attention block arithmetic over
    the map that is neither an activation nor the one multiplication.
    """

    conv: int = 0
    linear: int = 0
    se_excitation: int = 0
    se_scale: int = 0
    bn: int = 0
    max_pool: int = 0
    global_pool: int = 0
    formulas: int = 0
    by_formula: tuple[tuple[str, int], ...] = field(default=(), compare=False)
    uncounted: tuple[str, ...] = field(default=(), compare=False)

    @property
    def macs(self) -> int:
        """Multiply-adds under the convention `macs`."""
        return self.conv + self.linear + self.se_excitation + self.se_scale + self.formulas

    @property
    def bn_inclusive(self) -> int:
        """Operations under the convention `bn-inclusive`."""
        return self.macs + self.bn + self.max_pool + self.global_pool

    def by_kind(self) -> dict[str, int]:
        """The counts as a dictionary; that of formulas where there are any."""
        return {kind: getattr(self, kind) for kind in KINDS} | ({"formulas": self.formulas} if self.by_formula else {})


KINDS = ("conv", "linear", "se_excitation", "se_scale", "bn", "max_pool", "global_pool")
"""The kinds of operations that are counted of every network."""


LARGER = (2, 4, 7)
"""By how much larger images are tried, to tell whether an image was too small."""


def parameters(network: nn.Module) -> int:
    """Trainable parameters."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def count(network: nn.Module, input_size: tuple[int, ...], formulas: Formulas | None = None) -> Counts:
    """Operations of one forward pass in evaluation of an image of `input_size` (C, H, W).

    The network is not changed; give it on device `meta` to save a copy. `formulas` count what is not counted here.
    Raises `UsageError` where the network cannot take images of that size.
    """
    tally = tallied(network, input_size, formulas)
    by_formula = tuple(sorted(tally.by_formula.items()))
    return Counts(**tally.counts, by_formula=by_formula, uncounted=tuple(sorted(tally.uncounted)))


def tallied(network: nn.Module, input_size: tuple[int, ...], formulas: Formulas | None = None) -> Tally:
    """What `count` is made from; a network with a scripted module, which cannot be without memory, is run."""
    _refuse_known(formulas)
    scripted = False
    if not _is_meta(network):
        scripted = any(isinstance(module, torch.jit.ScriptModule) for module in network.modules())
        network = copy.deepcopy(network).to("cpu" if scripted else "meta")
    network = steady(network, dense=True)
    tally = Tally(formulas)
    tally.rank = 1 + len(input_size)
    image = torch.zeros((1, *input_size), device="cpu" if scripted else "meta")
    with evaluating(network) as modules, tally.watching(modules), torch.no_grad():
        try:
            with ShapeMode(tally, image, everything=not _are_plain(modules), computes=scripted):
                network(image)
        except (RuntimeError, ValueError) as error:
            failure: Exception = error
        else:
            return tally
    raise _failure(network, input_size, failure, image.device) from failure


def _failure(network: nn.Module, input_size: tuple[int, ...], error: Exception, device: torch.device) -> BenchError:
    """What a forward pass that fails means: images that are too small where it takes larger ones, else the code."""
    channels, *sides = input_size
    if not place_of(error):
        return cannot_take(input_size, error)
    for factor in LARGER:
        with contextlib.suppress(Exception), evaluating(network), torch.no_grad():
            network(torch.zeros((1, channels, *(factor * side for side in sides)), device=device))
            return cannot_take(input_size, error)
    return MeasurementError(
        f"it fails on images without values, which are counted: {blame(error)}",
        "let its forward read no values, or mend it there",
    )


def _refuse_known(formulas: Formulas | None) -> None:
    """Raise `UsageError` for a formula of an operator that is counted here."""
    known = next((name for name in formulas.functions if name in counted_operators()), None) if formulas else None
    if formulas and known is not None:
        raise UsageError(f"{formulas.source} has a formula for {known!r}, which is counted already", "leave it out")


def _are_plain(modules: Iterable[nn.Module]) -> bool:
    """Whether all modules are of torch or ours, so that whatever they do is a function of torch."""
    return all(
        kind.__module__.partition(".")[0] in ("torch", "senet_bench") and not issubclass(kind, torch.jit.ScriptModule)
        for kind in set(map(type, modules))
    )


def steady(network: nn.Module, *, dense: bool = False) -> nn.Module:
    """The network if its work depends on the image's size alone; a detector with its proposals fixed.

    With `dense`, only the detector's convolutions and linear layers and what lies between them.
    """
    fixed = getattr(network, "with_fixed_proposals", None)
    return network if fixed is None else fixed(dense=dense)


def cannot_take(input_size: tuple[int, ...], error: Exception) -> UsageError:
    """What to say when a forward pass fails on images of `input_size`."""
    shape = "x".join(map(str, input_size))
    return UsageError(f"the network cannot take {shape} images ({first_line(error)})", "use a larger --img-size")


class Tally:
    """Counts by kind; what is counted inside an attention block goes to `se_excitation`, its pools nowhere.

    `squeezes` are the elements of pools whose result became a gate outside of such a block. A module with a formula of
    its own is counted by that alone.
    """

    def __init__(self, formulas: Formulas | None = None) -> None:
        self.formulas = formulas or Formulas("", {})
        self.counts: Counter[str] = Counter()
        self.by_formula: Counter[str] = Counter()
        self.uncounted: set[str] = set()
        self.squeezes = 0
        self.rank = 4  # dimensions of the image and of every map
        self.depth = 0
        self._whole = 0  # modules around that are counted by their formulas
        self._pools: Counter[int] = Counter()
        self._map = 0  # elements of the map that the attention block around acts on
        self._products = 0  # multiplications of that map so far

    def add(self, kind: str, amount: int) -> None:
        """Add operations of a kind (a field of `Counts`)."""
        if self._whole:
            return
        if self.depth == 0:
            self.counts[kind] += amount
            if kind == "global_pool":
                self._pools[amount] += 1
        elif kind in ("conv", "linear", "formulas"):
            self.counts["se_excitation"] += amount

    def scale(self, elements: int, call: CountedCall) -> None:
        """Add the multiplication of a map by a gate: inside an attention block its one; outside, a squeeze before."""
        if self.depth:
            self.leave_out("mul", call)
            return
        if self._whole:
            return
        self.counts["se_scale"] += elements
        if self._pools[elements]:
            self._pools[elements] -= 1
            self.squeezes += elements
            self.counts["global_pool"] -= elements

    def leave_out(self, operator: str, call: CountedCall) -> None:
        """Count an operator by its formula or note it: an elementwise one in an attention block, else others (`*`)."""
        name = operator.removeprefix("*").lstrip("_").rstrip("_")
        if not self._whole and self._is_work(name, call, elementwise=not operator.startswith("*")):
            amount = self.formulas.operations(name, call)
            if amount is None:
                self.uncounted.add(name)
            else:
                self._by_formula(name, amount)

    def _is_work(self, name: str, call: CountedCall, *, elementwise: bool) -> bool:
        """Whether an operator that has no count here does what should have one."""
        if not elementwise:
            foreign = "." in name  # of another library than torch
            return name in self.formulas.functions or (
                (foreign or name.startswith(WORK)) and not name.startswith(KNOWN)
            )
        if not self.depth or not self._map or largest(call) < self._map or name in ACTIVATION_LAYERS:
            return False
        self._products += name == "mul"
        return name != "mul" or self._products > 1

    def _by_formula(self, name: str, amount: int) -> None:
        self.by_formula[name] += amount
        self.add("formulas", amount)

    @contextlib.contextmanager
    def watching(self, modules: Iterable[nn.Module]) -> Iterator[None]:
        """While entered, forward passes know when they are in attention blocks and in modules with formulas."""
        with contextlib.ExitStack() as stack:
            for module in modules:
                name = self.formulas.name_of(type(module))
                if name is not None:
                    self._watch_whole(module, name, stack)
                if hasattr(module, "attention_place"):
                    self._watch_attention(module, stack)
                elif type(module).__name__ == "FrozenBatchNorm2d":  # a product and a sum, by no operator of its own
                    hook = module.register_forward_hook(lambda _, inputs, output: self.add("bn", output.numel()))
                    stack.callback(hook.remove)
            yield

    def _watch_attention(self, module: nn.Module, stack: contextlib.ExitStack) -> None:
        def enter(module: nn.Module, inputs: Any) -> None:
            self.depth += 1
            if self.depth == 1:
                self._map, self._products = inputs[0].numel() if inputs else 0, 0

        def leave(module: nn.Module, inputs: Any, output: Tensor) -> None:
            self.depth -= 1
            if self.depth == 0 and not self._whole:
                self.counts["se_scale"] += output.numel()

        stack.callback(module.register_forward_pre_hook(enter).remove)
        stack.callback(module.register_forward_hook(leave).remove)

    def _watch_whole(self, module: nn.Module, name: str, stack: contextlib.ExitStack) -> None:
        """Count the calls of a module by the formula of that name."""

        def enter(module: nn.Module, inputs: Any) -> None:
            self._whole += 1

        def leave(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            self._whole -= 1
            amount = None if self._whole else self.formulas.operations(name, CountedCall(args, kwargs, output))
            if amount is not None:
                self._by_formula(name, amount)

        stack.callback(module.register_forward_pre_hook(enter).remove)
        stack.callback(module.register_forward_hook(leave, with_kwargs=True).remove)


def _is_meta(network: nn.Module) -> bool:
    return all(
        tensor is None or tensor.is_meta
        for module in network.modules()
        for tensor in (*module._parameters.values(), *module._buffers.values())
    )


def weight_bytes(network: nn.Module, dtype: torch.dtype | None = None) -> int:
    """Bytes of the parameters and buffers; with a `dtype`, as they are once the network was made that."""
    return sum(
        t.numel() * (dtype.itemsize if dtype is not None and t.is_floating_point() else t.element_size())
        for t in (*network.parameters(), *network.buffers())
    )
