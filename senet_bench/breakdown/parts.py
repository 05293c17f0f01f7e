"""A network in parts: its stages and attention blocks, and copies with parts left out or named.

An attention block is a module that carries `attention_place`. One with `squeeze(x)` and `excitation(z)` splits
into squeeze, excitation and scale; of any other only the whole is known. Copies made here share the network's
parameters, and the network itself is never changed.
"""

from __future__ import annotations

import contextlib
import copy
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from senet_bench.bench.count import cannot_take
from senet_bench.breakdown.rows import Part
from senet_bench.core.formulas import CountedCall, Formulas
from senet_bench.models.graph import tensors
from senet_bench.models.modes import evaluating

ATTENTION_PARTS: tuple[Part, ...] = ("squeeze", "excitation", "scale")
Around = Callable[[str], contextlib.AbstractContextManager[object]]


@dataclass(frozen=True, slots=True)
class Stage:
    """A run of modules of the network: dotted names, output (C, H, W) or (C,) and the names of its attention blocks."""

    name: str
    members: tuple[str, ...]
    output_size: tuple[int, ...]
    blocks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Work:
    """What operators do: their number, elements they read and write (`activations` of one image, `parameters` once).

    Every operator is taken to read its inputs and write its output once, as eager torch does; views move nothing.
    `operations` of one image are floating-point: two per multiply-add, those of a user's formulas too, one per element
    of any other operator.
    """

    operators: int = 0
    activations: int = 0
    parameters: int = 0
    operations: int = 0

    def bytes(self, batch_size: int, item: int = 4) -> int:
        """Bytes read and written for a batch, `item` bytes an element."""
        return item * (batch_size * self.activations + self.parameters)


@dataclass(frozen=True, slots=True)
class Traced:
    """One attention block in a forward pass: the (C, H, W) map it takes, the gate's shape, and its work by part."""

    name: str
    map_size: tuple[int, ...]
    gate_size: tuple[int, ...] | None
    work: Mapping[Part, Work]


def attention_names(network: nn.Module) -> tuple[str, ...]:
    """The dotted names of the attention blocks, in the order of the modules."""
    return tuple(name for name, module in network.named_modules() if hasattr(module, "attention_place"))


def splits(block: nn.Module) -> bool:
    """Whether the block says what its squeeze and its excitation are."""
    return callable(getattr(block, "squeeze", None)) and callable(getattr(block, "excitation", None))


def shared_copy(network: nn.Module) -> nn.Module:
    """A copy of the modules over the same parameters and buffers."""
    memo = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    return copy.deepcopy(network, memo)


def replaced(network: nn.Module, names: Iterable[str], make: Callable[[str, nn.Module], nn.Module]) -> nn.Module:
    """A copy with `make(name, module)` in the place of each named module."""
    changed = shared_copy(network)
    for name in names:
        changed.set_submodule(name, make(name, changed.get_submodule(name)))
    return changed


def annotated(network: nn.Module, stages: Iterable[Stage], around: Around) -> nn.Module:
    """A copy whose stages, attention blocks and their parts run inside `around(what)`.

    `what` is `stage:NAME`, `attention:NAME`, `squeeze:NAME` or `excitation:NAME`. The copy stays so when copied.
    """
    changed = shared_copy(network)
    for stage in stages:
        wrap(changed.get_submodule(stage.members[0]), changed.get_submodule(stage.members[-1]), stage.name, around)
    for name in attention_names(changed):
        block = changed.get_submodule(name)
        if splits(block):
            block.__class__ = _split_class(type(block), name, around)
        wrap(block, block, name, around, "attention")
    return changed


def wrap(first: nn.Module, last: nn.Module, name: str, around: Around, kind: str = "stage") -> None:
    """Enter `around` when `first` is called and leave it when `last` has returned; by functions, which copies share."""
    entered: list[contextlib.AbstractContextManager[object]] = []

    def enter(*_: Any) -> None:
        entered.append(around(f"{kind}:{name}"))
        entered[-1].__enter__()

    def leave(*_: Any) -> None:
        entered.pop().__exit__(None, None, None)

    first.register_forward_pre_hook(enter)
    last.register_forward_hook(leave)


def _split_class(kind: type[Any], name: str, around: Around) -> type[Any]:
    class Split(kind):  # type: ignore[misc]
        def squeeze(self, x: Tensor) -> Tensor:
            with around(f"squeeze:{name}"):
                return super().squeeze(x)  # type: ignore[no-any-return]

        def excitation(self, z: Tensor) -> Tensor:
            with around(f"excitation:{name}"):
                return super().excitation(z)  # type: ignore[no-any-return]

    return Split


class _Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds what each ATen operator does to where the forward pass is."""

    _should_skip_dynamo = classmethod(lambda cls: False)  # else its first call imports the compiler

    def __init__(self, network: nn.Module, formulas: Formulas | None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.formulas = formulas or Formulas("", {})
        self.own = {t.untyped_storage().data_ptr() for t in (*network.parameters(), *network.buffers())}
        self.inside: list[str] = []
        self.counts: dict[str, Counter[str]] = {}
        self.gates: dict[str, tuple[int, ...]] = {}

    @contextlib.contextmanager
    def around(self, what: str) -> Iterator[None]:
        """Count for `what` while entered."""
        self.inside.append(what)
        self.counts.setdefault(what, Counter())
        try:
            yield
        finally:
            self.inside.pop()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if self.inside and not self.inside[-1].startswith("stage:") and not func.is_view:
            self._add(self.counts[self.inside[-1]], func, args, kwargs or {}, out)
        return out

    def _add(self, counts: Counter[str], func: Any, args: Any, kwargs: Any, out: Any) -> None:
        touched = list(tensors((args, kwargs, out)))
        mine = [t.untyped_storage().data_ptr() in self.own for t in touched]
        counts["operators"] += 1
        counts["parameters"] += sum(t.numel() for t, own in zip(touched, mine) if own)
        counts["activations"] += sum(t.numel() for t, own in zip(touched, mine) if not own)
        formula = flop_registry.get(func.overloadpacket)
        name = str(func.overloadpacket).removeprefix("aten.").strip("_")
        known = (
            int(formula(*args, **kwargs, out_val=out)) if formula else self.twice(name, CountedCall(args, kwargs, out))
        )
        counts["operations"] += max((t.numel() for t in touched), default=0) if known is None else known
        if self.inside[-1].startswith("excitation:") and isinstance(out, Tensor):
            self.gates[self.inside[-1].partition(":")[2]] = tuple(out.shape[1:])

    def twice(self, name: str, call: CountedCall) -> int | None:
        """Twice the multiply-adds of a call by a user's formula, None without one."""
        amount = self.formulas.operations(name, call)
        return None if amount is None else 2 * amount

    def count_whole(self, block: nn.Module, name: str) -> None:
        """Let an attention block whose class has a formula be counted by it."""
        formula = self.formulas.name_of(type(block))
        if formula is not None:

            def counted(module: nn.Module, args: Any, kwargs: Any, out: Any) -> None:
                amount = self.twice(formula, CountedCall(args, kwargs, out))
                self.counts[f"attention:{name}"]["operations"] = amount or 0

            block.register_forward_hook(counted, with_kwargs=True)


def trace_parts(
    network: nn.Module, input_size: tuple[int, ...], formulas: Formulas | None = None
) -> tuple[tuple[Stage, ...], dict[str, Traced]]:
    """The stages of a network and its attention blocks by name, seen in one forward pass of one image.

    Blocks that are never called are left out. Raises `UsageError` where it cannot take images of that size.
    """
    work, shapes = _Counting(network, formulas), dict[str, tuple[int, ...]]()
    names = [name for group in _groups(network) for name in group.names] + list(attention_names(network))
    watched = annotated(network, (), work.around)
    for name in names:
        watched.get_submodule(name).register_forward_hook(_noting(shapes, name))
    for name in attention_names(network):
        work.count_whole(watched.get_submodule(name), name)
    own = next((p for p in network.parameters()), torch.empty(0))
    image = torch.zeros((1, *input_size), device=own.device, dtype=own.dtype)
    with evaluating(watched), torch.no_grad(), work:
        try:
            watched(image)
        except (RuntimeError, ValueError) as error:
            raise cannot_take(input_size, error) from error
    called = [name for name in attention_names(network) if name in shapes]
    blocks = {name: _traced(name, network.get_submodule(name), shapes[name], work) for name in called}
    return tuple(_stages(network, shapes, tuple(called))), blocks


def _noting(shapes: dict[str, tuple[int, ...]], name: str) -> Callable[..., None]:
    def note(module: nn.Module, inputs: Any, output: Any) -> None:
        first = output[0] if isinstance(output, tuple | list) else output
        shapes[name] = tuple(first.shape[1:]) if isinstance(first, Tensor) else ()

    return note


def _traced(name: str, block: nn.Module, size: tuple[int, ...], work: _Counting) -> Traced:
    kinds: tuple[Part, ...] = ("squeeze", "excitation") if splits(block) else ()
    works: dict[Part, Work] = {kind: Work(**work.counts.get(f"{kind}:{name}", Counter())) for kind in kinds}
    works["scale" if kinds else "attention"] = Work(**work.counts.get(f"attention:{name}", Counter()))
    return Traced(name, size, work.gates.get(name), works)


@dataclass(frozen=True, slots=True)
class _Group:
    """Candidates for stages; those of one `merges` group join their neighbours of equal output height and width."""

    name: str
    names: tuple[str, ...]
    merges: bool


def _groups(network: nn.Module, prefix: str = "") -> Iterator[_Group]:
    """The top-level modules; a `ModuleList` and a `Sequential` of containers are opened, a lone wrapper seen through.

    A subclass of either (parallel branches) is one module.
    """
    children = list(network.named_children())
    if len(children) == 1 and any(True for _ in children[0][1].children()):
        name, child = children[0]
        if type(child) is not nn.ModuleList:
            yield from _groups(child, f"{prefix}{name}.")
            return
    for name, child in children:
        inner = tuple(f"{prefix}{name}.{key}" for key, _ in child.named_children())
        is_list = type(child) is nn.ModuleList
        opened = is_list or (type(child) is nn.Sequential and all(any(c.children()) for c in child))
        if opened and inner:
            yield _Group(prefix + name, inner, merges=not is_list)
        else:
            yield _Group(prefix + name, (prefix + name,), merges=False)


def _stages(network: nn.Module, shapes: Mapping[str, tuple[int, ...]], blocks: tuple[str, ...]) -> Iterator[Stage]:
    for group in _groups(network):
        runs: list[list[str]] = []
        for name in (name for name in group.names if name in shapes):
            if group.merges and runs and shapes[runs[-1][-1]][-2:] == shapes[name][-2:]:
                runs[-1].append(name)
            else:
                runs.append([name])
        for run in runs:
            inside = tuple(b for b in blocks if any(b == name or b.startswith(f"{name}.") for name in run))
            yield Stage(_run_name(group, run), tuple(run), shapes[run[-1]], inside)


def _run_name(group: _Group, run: list[str]) -> str:
    if not group.merges:
        return run[0]
    if len(run) == len(group.names):
        return group.name
    first, last = (name.rpartition(".")[2] for name in (run[0], run[-1]))
    return f"{group.name}.{first}" if first == last else f"{group.name}.{first}-{last}"
