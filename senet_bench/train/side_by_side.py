"""Several networks of one shape trained side by side, as groups of channels of one network.

Small images leave a processor busy with the overhead of each operation. Side by side, G networks share it: their
channels lie beside each other, each has its own images, and every convolution becomes one of G times the groups. What
a network ends as is what it would have ended as in any other company of two or more, bit for bit: `separable` tries
that on the network at hand before it is relied on.
"""

from __future__ import annotations

import copy
import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from senet_bench.core.recipes import Recipe
from senet_bench.core.specs import ModelSpec, Precision
from senet_bench.data.batches import Batches
from senet_bench.data.sets import SideBySide
from senet_bench.models import build_spec
from senet_bench.models.attention import SqueezeExcitation
from senet_bench.models.recomputation import MapMean
from senet_bench.train.distributed import World
from senet_bench.train.events import Settings
from senet_bench.train.objective import Classifying
from senet_bench.train.precision import autocast, laid_out
from senet_bench.train.sgd import Sgd

LANES = 16
"""Floats of 64 bytes: matrices that begin at multiples of them are multiplied alike wherever they lie."""
COUNTS = {nn.Conv2d: ("in_channels", "out_channels", "groups"), nn.BatchNorm2d: ("num_features",)}
"""The layers whose tensors only need to be put one after another, and what is then G times as large."""
LARGEST = 5
"""Networks of a company: more gain 2 % and are ready later."""
TOLERANCE = 1e-3
"""Of the largest value; rounding alone leaves a sixth of it, or less."""


class Together:
    """The objective of networks side by side: the sum of their losses, so that each has its own gradient."""

    skipped = 0

    def __init__(self, data: SideBySide, recipe: Recipe, settings: Settings, world: World) -> None:
        self.data = data
        self.own = [
            Classifying(one, recipe, replace(settings, seed=seed), world) for one, seed in zip(data.sets, data.seeds)
        ]
        self.batches = _Batches([each.batches for each in self.own])

    def identity(self) -> list[Any]:
        """What a checkpoint's data must agree in."""
        return [each.identity() for each in self.own] + list(self.data.seeds)

    def parts(self, batch: Sequence[tuple[Tensor, Tensor]], count: int) -> list[Any]:
        """Each network's batch in `count` parts."""
        return list(zip(*(each.parts(one, count) for each, one in zip(self.own, batch))))

    def loss(self, forward: Any, part: Sequence[tuple[Tensor, Tensor]], batch: Sequence[Any]) -> Tensor:
        """What these images contribute to the sum over networks of the mean loss of the batch."""
        x = _beside([each.inputs(images) for each, (images, _) in zip(self.own, part)])
        with autocast(self.own[0].device, self.own[0].settings.precision):
            logits = forward(x)
        each_own = zip(self.own, logits.chunk(len(self.own), 1), part, batch)
        return torch.stack(
            [own.entropy(found, labels, len(all_)) for own, found, (_, labels), (_, all_) in each_own]
        ).sum()

    def tested(self, network: nn.Module) -> dict[str, Any]:
        """Nothing: networks are tested one by one, once they are apart."""
        return {}


@dataclass(frozen=True, slots=True)
class _Batches:
    """The batches of several sources, step by step."""

    own: Sequence[Batches]

    @property
    def batch(self) -> int:
        return self.own[0].batch

    @property
    def steps(self) -> int:
        return self.own[0].steps

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[tuple[Tensor, Tensor], ...]]:
        return zip(*(each.epoch(epoch, start) for each in self.own))


@functools.cache
def separable(spec: ModelSpec, classes: int, channels: int, size: int, batch: int, precision: Precision) -> bool:
    """Whether networks of a spec can be trained side by side: what one becomes is its own, and not its company's.

    One step is tried on maps of `size` pixels. It must do to each network what it does to that network alone, up to
    rounding and without drawing random numbers, and the same bits in a pair as among `LARGEST`.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(0)
            networks = [build_spec(spec, classes, in_channels=channels) for _ in range(3)]
            for parameter in itertools.chain(*(network.parameters() for network in networks)):
                parameter.data.add_(torch.randn_like(parameter), alpha=0.1)  # blocks may start as the identity
            images = [torch.randn(batch, channels, size, size) for _ in networks]
            step = functools.partial(_stepped, networks, images)
            drawn = torch.get_rng_state()
            pair, many = step((0, 1), precision), step((2,) * (LARGEST - 2) + (1, 0), precision)
            exact, alone = pair if precision == "fp32" else step((0, 1), "fp32"), step((0,), "fp32")
            calm = torch.equal(drawn, torch.get_rng_state())
        same = all(torch.equal(a, b) for place in pair for a, b in zip(pair[place], many[place]))
        return calm and same and all(_near(a, b) for a, b in zip(exact[0], alone[0]))
    except Exception:  # noqa: BLE001 - a block that takes its own channels only; alone, a broken one says so itself
        return False
    finally:
        torch.set_num_threads(threads)


def _stepped(
    networks: Sequence[nn.Module], images: Sequence[Tensor], company: Sequence[int], precision: Precision
) -> dict[int, list[Tensor]]:
    """By the place of each in the company, what a step makes of its network and what that says before it."""
    own = [copy.deepcopy(networks[place]) for place in company]
    whole = joined(own) if len(own) > 1 else own[0]
    whole = whole.to(memory_format=torch.channels_last).train()
    x = _beside([images[place] for place in company])
    with autocast(x.device, precision):
        logits = whole(x).float().chunk(len(company), 1)
    torch.stack([F.log_softmax(found, 1)[:, 0].mean() for found in logits]).sum().backward()  # type: ignore[no-untyped-call]
    Sgd(whole.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True).step()
    separate(whole, own)
    return {
        place: [said.detach(), *network.state_dict().values()] for place, said, network in zip(company, logits, own)
    }


def _beside(images: Sequence[Tensor]) -> Tensor:
    """G times (N, C, H, W) as (N, G C, H, W)."""
    return laid_out(torch.cat([*images], 1), images[0].device, channels_last=True)


def _near(a: Tensor, b: Tensor) -> bool:
    return bool((a - b).abs().max() <= TOLERANCE * b.abs().max())


def joined(networks: Sequence[nn.Module]) -> nn.Module:
    """One network of G of the same shape: (N, G C, H, W) to (N, G K), group i as the i-th would have it.

    Raises `NotImplementedError` for a layer with weights that it does not know. It knows no operation outside of
    layers that mixes channels; `separable` finds that out.
    """
    first = networks[0]
    if type(first) in COUNTS:
        return _wide(networks)
    if type(first) is nn.Linear:
        return _Linears(networks)  # type: ignore[arg-type]
    if type(first) is SqueezeExcitation:
        return _Excitations(networks)  # type: ignore[arg-type]
    if any(True for _ in (*first.parameters(recurse=False), *first.buffers(recurse=False))):
        raise NotImplementedError(f"{type(first).__name__} side by side")
    whole = copy.copy(first)
    whole._modules = {
        name: joined([each.get_submodule(name) for each in networks]) for name in dict(first.named_children())
    }
    return whole


@torch.no_grad()
def separate(whole: nn.Module, networks: Sequence[nn.Module]) -> None:
    """Put the weights and statistics of what `joined` made back into the networks."""
    first = networks[0]
    if type(first) in COUNTS:
        for name, tensor in whole.state_dict().items():
            shares = tensor.chunk(len(networks)) if tensor.dim() else [tensor] * len(networks)
            for network, share in zip(networks, shares):
                network.state_dict()[name].copy_(share)
    elif isinstance(whole, _Linears):
        whole.give(networks)  # type: ignore[arg-type]
    else:
        for name, _ in first.named_children():
            separate(whole.get_submodule(name), [each.get_submodule(name) for each in networks])


def _wide(layers: Sequence[nn.Module]) -> nn.Module:
    """A layer with the tensors of all, one after another."""
    wide = copy.deepcopy(layers[0])
    for count in COUNTS[type(wide)]:
        setattr(wide, count, getattr(wide, count) * len(layers))
    for name, tensor in wide.state_dict(keep_vars=True).items():
        if tensor.dim():
            tensor.data = torch.cat([layer.state_dict()[name] for layer in layers])
    return wide


class _Linears(nn.Module):
    """Linear layers as one batched product: (N, G inputs) to (N, G outputs).

    Weights (G, inputs, outputs) are filled up with zeros to whole `LANES`; a bias is the row of one more input of 1.
    """

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        super().__init__()
        first = layers[0]
        self.inputs, self.outputs, self.biased = first.in_features, first.out_features, first.bias is not None
        rows = _filled(self.inputs + self.biased)
        weight = torch.zeros(len(layers), rows, _filled(self.outputs))
        for own, layer in zip(weight, layers):
            own[: self.inputs, : self.outputs] = layer.weight.detach().t()
            if self.biased:
                own[self.inputs, : self.outputs] = layer.bias.detach()
        self.weight = nn.Parameter(weight)
        more = torch.zeros(rows - self.inputs)
        more[: self.biased] = 1
        self.register_buffer("more", more)

    def forward(self, x: Tensor) -> Tensor:
        count, groups = len(x), len(self.weight)
        more = self.more.to(x.dtype).expand(count, groups, -1)  # type: ignore[operator]
        rows = torch.cat([x.view(count, groups, self.inputs), more], 2)
        found = torch.bmm(rows.transpose(0, 1).contiguous(), self.weight)
        return found[:, :, : self.outputs].transpose(0, 1).reshape(count, -1)

    def give(self, layers: Sequence[nn.Linear]) -> None:
        """Put each its share into the layers."""
        for own, layer in zip(self.weight, layers):
            layer.weight.copy_(own[: self.inputs, : self.outputs].t())
            if self.biased:
                layer.bias.copy_(own[self.inputs, : self.outputs])


def _filled(count: int) -> int:
    return -(-count // LANES) * LANES


class _Excitations(SqueezeExcitation):
    """SE blocks side by side; sums over a map go through pooling, which adds each channel's up alike in any company."""

    def __init__(self, blocks: Sequence[SqueezeExcitation]) -> None:
        nn.Module.__init__(self)
        first = blocks[0]
        self.squeeze_kind, self.gate_kind = first.squeeze_kind, first.gate_kind
        self.activation_kind = first.activation_kind
        self.fc1, self.fc2 = (joined([block.get_submodule(name) for block in blocks]) for name in ("fc1", "fc2"))

    def squeeze(self, x: Tensor) -> Tensor:
        """Equation 2, as `SqueezeExcitation` has it."""
        return _PooledMean.apply(x) if self.squeeze_kind == "avg" else super().squeeze(x)

    def forward(self, x: Tensor) -> Tensor:
        """Equation 4, as `SqueezeExcitation` has it."""
        gate = self.excitation(self.squeeze(x))
        return x * gate if self.squeeze_kind == "none" else _Product.apply(x, gate)


def _means(x: Tensor) -> Tensor:
    """(N, C, H, W) to (N, C)."""
    return F.avg_pool2d(x, x.shape[2:]).flatten(1)


class _PooledMean(MapMean):
    """The mean of each map, by pooling."""

    @staticmethod
    def forward(ctx: Any, u: Tensor) -> Tensor:
        ctx.shape, ctx.layout = u.shape, torch.channels_last
        return _means(u)


class _Product(torch.autograd.Function):
    """Each map times its gate."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gate: Tensor) -> Tensor:
        ctx.save_for_backward(x, gate)
        return x * gate[:, :, None, None]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, gate = ctx.saved_tensors
        return grad * gate[:, :, None, None], _means(grad * x) * (x.shape[2] * x.shape[3])
