"""Gates that are constants become part of the layers around them: the same function without the blocks.

Every value of the graph has a factor for each channel, by which what the folded network computes must be multiplied to
get what the network computed. A frozen gate multiplies the factor and does nothing else. Convolutions, BatchNorms and
linear layers take the factor of their input into their weights; ReLUs and pools hand it on; at a sum, and before what
can do neither, the factor is brought to the layers that made the value. What is folded is exact up to rounding, and
looked at: a network that answers otherwise than with its blocks held at the gates is not taken.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn

from senet_bench.errors import UsageError
from senet_bench.models.attention import ConstantGate, SqueezeExcitation
from senet_bench.models.gates import acting, held_at
from senet_bench.models.graph import difference, shapes, trace
from senet_bench.models.modes import take_modes
from senet_bench.models.places import OVERWRITING_PRODUCTS, PRODUCT_OPERATORS, SUM_OPERATORS

POSITIVE_HOMOGENEOUS = frozenset(("relu", "leakyrelu", "maxpool2d", "adaptivemaxpool2d", "amax", "shortcutpool"))
"""What a factor that is not negative passes through."""
LINEAR = frozenset(
    ("identity", "dropout", "dropout2d", "droppath", "stochasticdepth", "avgpool2d", "adaptiveavgpool2d", "mean")
) | {"fastadaptiveavgpool", "contiguous", "flatten", "squeeze", "interpolate", "layerscale2d"}
"""What any factor passes through."""
SUMS = frozenset(("add", "iadd", "shake"))
FOLDED_APART = "keep that gate"
SAME = 0.01
"""What two networks may differ by, of the largest output: ten times what TF32 does to one."""
Side = Literal["in", "out"]


@dataclass(frozen=True, slots=True, eq=False)
class _Scaling:
    """A layer whose weights take a factor, of the channels it reads or of those it gives."""

    layer: str
    side: Side
    factor: Tensor


def folded(network: nn.Module, gates: Mapping[str, Tensor], input_size: tuple[int, ...]) -> nn.Module:
    """A copy of the network without the blocks that `gates` names, held at its gates (C,).

    It gives the same outputs in evaluation; an `nn.Identity` stands where a block was. `input_size` is (C, H, W).
    Raises `UsageError`, with the reason, where a gate cannot become part of the layers around it.
    """
    copied: nn.Module = copy.deepcopy(network).eval()
    without(copied, gates)
    for scaling in _Folding(copied, gates, input_size).scalings:
        with torch.no_grad():
            _scale(copied.get_submodule(scaling.layer), scaling)
    _check_same(network, copied, gates, input_size)
    take_modes(copied, network)
    return copied


def _check_same(network: nn.Module, plain: nn.Module, gates: Mapping[str, Tensor], input_size: tuple[int, ...]) -> None:
    """Raise `UsageError` unless a folded network gives what the network does with its blocks held at the gates."""
    held: nn.Module = copy.deepcopy(network).eval()
    like = next(network.parameters())
    image = torch.randn((1, *input_size), generator=torch.Generator().manual_seed(0)).to(like)
    with acting((held.get_submodule(name), held_at(gate)) for name, gate in gates.items()):
        apart = difference(held, plain, image)
    if apart > SAME:
        raise UsageError("without these gates the network computes something else", FOLDED_APART)


def without(network: nn.Module, blocks: Iterable[str]) -> None:
    """Put an `nn.Identity` in the place of each block that is named; `UsageError` where the network has none."""
    for name in blocks:
        parent, _, leaf = name.rpartition(".")
        try:
            network.get_submodule(name)
        except AttributeError as error:
            raise UsageError(f"the network has no block {name}", "give weights of this network") from error
        setattr(network.get_submodule(parent), leaf, nn.Identity())


class _Folding:
    """The scalings of layers that stand for some gates, found by one walk through the graph."""

    def __init__(self, network: nn.Module, gates: Mapping[str, Tensor], input_size: tuple[int, ...]) -> None:
        self.modules = dict(network.named_modules())
        graph = trace(network, input_size)
        self.shapes = shapes(network, graph, input_size)
        self.gates = {name: gate.detach().double().cpu() for name, gate in gates.items()}
        self.factors: dict[fx.Node, Tensor] = {}
        self.scalings: list[_Scaling] = []
        self.order = {node: place for place, node in enumerate(graph.nodes)}
        self.calls: dict[str, int] = {}
        for node in graph.nodes:
            if node.op == "call_module":
                self.calls[str(node.target)] = self.calls.get(str(node.target), 0) + 1
        for node in graph.nodes:
            self._pass(node)

    def _module(self, node: fx.Node) -> nn.Module | None:
        return self.modules[str(node.target)] if node.op == "call_module" else None

    def _kind(self, node: fx.Node) -> str:
        module = self._module(node)
        name = type(module).__name__ if module is not None else getattr(node.target, "__name__", str(node.target))
        return str(name).lower().replace("_", "")

    def _pass(self, node: fx.Node) -> None:
        """Give a node its factor, from those of what it reads."""
        if node.op == "call_module" and node.target in self.gates:
            if self.calls[str(node.target)] != 1:
                raise UsageError(
                    f"the gate of {node.target} is used {self.calls[str(node.target)]} times", FOLDED_APART
                )
            self._put(node, self._product(self.factors.get(node.all_input_nodes[0]), self.gates[str(node.target)]))
            return
        scaled = [source for source in node.all_input_nodes if source in self.factors]
        if not scaled:
            return
        if len(node.all_input_nodes) == 1 and self._absorbs(node, scaled[0]):
            return
        if self._is_sum(node):
            self._agree(node)
        elif node.target is operator.getitem and self._same(node):
            self._put(node, self.factors[scaled[0]])
        elif self._is_product(node):
            self._put(node, self._product(*(self.factors.get(source) for source in node.all_input_nodes)))
        elif node.target in (torch.cat, torch.concat) and self._along_channels(node):
            self._put(node, torch.cat([self._factor(part) for part in self._parts(node)]))
        else:
            for source in scaled:
                self._settle(source, None, node)

    def _absorbs(self, node: fx.Node, source: fx.Node) -> bool:
        """Whether a layer takes the factor of its one input, or hands it on; done, if so."""
        factor, module = self.factors[source], self._module(node)
        if self._is_layer(node):
            self.scalings.append(_Scaling(str(node.target), "in", factor))
        elif isinstance(module, SqueezeExcitation) and isinstance(module.fc1, nn.Linear):
            if module.squeeze_kind != "avg" and (factor < 0).any():
                return False
            self.scalings.append(_Scaling(f"{node.target}.fc1", "in", factor))
            self.factors[node] = factor
        elif isinstance(module, ConstantGate) or self._passes(node, factor) or self._is_product(node):
            self._put(node, self._spread(node, factor))
        else:
            return False
        return True

    def _passes(self, node: fx.Node, factor: Tensor) -> bool:
        """Whether an operation without weights gives as much more as it is given."""
        kind = self._kind(node)
        if kind == "pad":  # by zeros
            return len(node.args) < 4 and not node.kwargs.get("value") and not self._pads_channels(node)
        return kind in LINEAR or (kind in POSITIVE_HOMOGENEOUS and bool((factor >= 0).all()))

    def _pads_channels(self, node: fx.Node) -> bool:
        """Whether a padding is of more than the places of a map, or of what is not known before."""
        amounts = node.args[1] if len(node.args) > 1 else node.kwargs["pad"]
        return not isinstance(amounts, list | tuple) or len(amounts) > 2 * len(self.shapes[node][2:])

    def _spread(self, node: fx.Node, factor: Tensor) -> Tensor:
        """The factor of a map as that of the map laid flat."""
        shape = self.shapes.get(node)
        if shape is None or shape[1] % len(factor):
            raise UsageError(f"a gate meets {node.name}, whose channels are others", FOLDED_APART)
        return factor.repeat_interleave(shape[1] // len(factor))

    def _put(self, node: fx.Node, factor: Tensor | None) -> None:
        if factor is not None and not bool((factor == 1).all()):
            self.factors[node] = factor

    def _agree(self, node: fx.Node) -> None:
        """Let both terms of a sum have the factor of one; the layers that made the other take the rest."""
        a, b = (node.args[0], node.args[1]) if len(node.args) == 2 else (node.all_input_nodes * 2)[:2]
        if not (isinstance(a, fx.Node) and isinstance(b, fx.Node)):
            raise UsageError(f"a gate meets the sum {node.name}", FOLDED_APART)
        for kept, other in ((b, a), (a, b)):
            target = self.factors.get(kept)
            if self._can_settle(other, target, node):
                self._settle(other, target, node)
                self._put(node, target)
                return
        for term in (a, b):
            self._settle(term, None, node)

    def _can_settle(self, node: fx.Node, target: Tensor | None, reader: fx.Node) -> bool:
        change = self._change(node, target)
        return change is None or self._made_by(node, change, reader) is not None

    def _settle(self, node: fx.Node, target: Tensor | None, reader: fx.Node) -> None:
        """Let a value have the factor `target` (None: 1): the layers that made it take the rest; else `UsageError`."""
        change = self._change(node, target)
        if change is None:
            return
        scalings = self._made_by(node, change, reader)
        if scalings is None:
            raise UsageError(f"a gate cannot pass {self._kind(reader)} ({reader.name})", FOLDED_APART)
        self.scalings += scalings
        self.factors.pop(node, None)
        self._put(node, target)

    def _change(self, node: fx.Node, target: Tensor | None) -> Tensor | None:
        """What a value must be multiplied by to have another factor; None for nothing."""
        factor = self._factor(node)
        change = factor if target is None else factor / target
        return None if bool((change == 1).all()) else change

    def _made_by(self, node: fx.Node, change: Tensor, reader: fx.Node) -> list[_Scaling] | None:
        """The scalings of what made a value that multiply it; None where there are none or others read it before."""
        if not change.isfinite().all() or any(self.order[user] < self.order[reader] for user in node.users):
            return None
        return self._back(node, change)

    def _back(self, node: fx.Node, change: Tensor) -> list[_Scaling] | None:
        sources = node.all_input_nodes
        if node.op == "call_module" and node.target in self.gates:
            return self._back_alone(sources[0], change)
        if self._is_layer(node):
            activation = getattr(self._module(node), "act", None)
            name = type(activation).__name__.lower()
            if activation is None or name == "identity" or (name == "relu" and bool((change >= 0).all())):
                return [_Scaling(str(node.target), "out", change)]
            return None
        if self._is_sum(node) or (node.target in (torch.cat, torch.concat) and self._along_channels(node)):
            parts = self._parts(node)
            if len(set(parts)) < len(parts):  # its layers would be scaled twice
                return None
            widths = [self.shapes[part][1] for part in parts]
            changes = [change] * len(parts) if self._is_sum(node) else list(torch.split(change, widths))
            scalings = [self._back_alone(part, one) for part, one in zip(parts, changes)]
            return (
                None if any(one is None for one in scalings) else [scaling for one in scalings for scaling in one or ()]
            )
        if self._is_product(node):
            maps = [source for source in sources if self.shapes.get(source) == self.shapes.get(node)]
            inside = len(sources) == 1
            return self._back_alone(maps[0], change) if inside and maps else None
        if self._passes(node, change) and len(sources) == 1 and self.shapes[sources[0]][1] == len(change):
            return self._back_alone(sources[0], change)
        return None

    def _back_alone(self, node: fx.Node, change: Tensor) -> list[_Scaling] | None:
        """`_back` for a value that is read once."""
        return self._back(node, change) if len(node.users) == 1 else None

    def _is_layer(self, node: fx.Node) -> bool:
        """Whether a node is the one call of a layer whose weights may be scaled."""
        module = self._module(node)
        plain = isinstance(module, nn.modules.batchnorm._BatchNorm) and module.affine and module.track_running_stats
        plain = plain or type(module) in (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
        plain = plain or (type(module).__name__ == "Conv2dSame" and isinstance(module, nn.Conv2d))
        zeros = getattr(module, "padding_mode", "zeros") == "zeros"
        own = module is not None and "weight" in module._parameters
        return bool(plain and zeros and own and self.calls[str(node.target)] == 1)

    def _is_sum(self, node: fx.Node) -> bool:
        of_tensors = all(isinstance(term, fx.Node) for term in node.args[:2])
        return (node.target in SUM_OPERATORS or self._kind(node) in SUMS) and of_tensors

    def _is_product(self, node: fx.Node) -> bool:
        """Whether a node is a map times a number, a map over one, or maps of as many channels times each other."""
        if node.target is operator.truediv:
            return isinstance(node.args[1], int | float)
        if node.target not in PRODUCT_OPERATORS | OVERWRITING_PRODUCTS:
            return False
        number = any(isinstance(value, int | float) for value in node.args)
        return number or (len(node.all_input_nodes) > 1 and self._same(node))  # one alone is squared

    def _same(self, node: fx.Node) -> bool:
        """Whether all that a node reads has as many channels as what it gives."""
        depths = {self.shapes.get(source, (0, 0))[1:2] for source in node.all_input_nodes}
        return depths == {self.shapes.get(node, (0, 0))[1:2]}

    def _along_channels(self, node: fx.Node) -> bool:
        return node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else 0) in (1,)

    def _parts(self, node: fx.Node) -> list[fx.Node]:
        listed: Any = node.args[0] if node.target in (torch.cat, torch.concat) else node.args[:2]
        return list(listed)

    def _factor(self, node: fx.Node) -> Tensor:
        factor = self.factors.get(node)
        return torch.ones(self.shapes[node][1], dtype=torch.float64) if factor is None else factor

    @staticmethod
    def _product(*factors: Tensor | None) -> Tensor | None:
        known = [factor for factor in factors if factor is not None]
        product = known[0] if known else None
        for factor in known[1:]:
            product = factor if product is None else product * factor
        return product


def _scale(layer: nn.Module, scaling: _Scaling) -> None:
    """Multiply what a layer reads or gives by a factor for each channel, in its weights."""
    weight: Any = layer.weight
    bias: Any = layer.bias
    factor = scaling.factor.to(weight.device)
    if scaling.side == "out":
        weight.copy_((weight.double().transpose(0, -1) * factor).transpose(0, -1))
        if bias is not None:
            bias.copy_(bias.double() * factor)
    elif isinstance(layer, nn.modules.batchnorm._BatchNorm):
        assert layer.running_mean is not None
        assert layer.running_var is not None
        slope = weight.double() / (layer.running_var.double() + layer.eps).sqrt()
        bias.copy_(bias.double() + slope * layer.running_mean.double() * (factor - 1))
        weight.copy_(weight.double() * factor)
    else:
        groups = getattr(layer, "groups", 1)
        wide = factor.reshape(groups, -1).repeat_interleave(weight.shape[0] // groups, 0)
        weight.copy_(weight.double() * wide.reshape(*wide.shape, *(1 for _ in weight.shape[2:])))
