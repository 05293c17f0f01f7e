"""A network in parts: its stages and attention blocks, and copies with parts left out or named.

An attention block is a module that carries `attention_place`. One whose class has methods `squeeze(x)` and
`excitation(z)`, and which calls each once, splits into squeeze, excitation and scale; of any other only the whole is
known. Copies made here share the network's parameters, and the network itself is never changed.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
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
    `operations` of one image are floating-point: two per multiply-add, those of a user's formulas for operators too,
    one per element of any other operator.
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
    """One attention block in a forward pass: the (C, H, W) map it takes, the gate's shape, and its work by part.

    All of the work is `attention` where its parts were not told apart. `by_formula` are the operations of one image by
    the user's formula for the block's class, None without one.
    """

    name: str
    map_size: tuple[int, ...]
    gate_size: tuple[int, ...] | None
    work: Mapping[Part, Work]
    by_formula: int | None = None

    @property
    def apart(self) -> bool:
        """Whether squeeze, excitation and scale were told apart."""
        return "scale" in self.work

    def operations(self, part: Part) -> int:
        """The operations of one image in a part; the whole is counted by the user's formula, where there is one."""
        if part == "attention" and self.by_formula is not None:
            return self.by_formula
        return sum(work.operations for kind, work in self.work.items() if part in ("attention", kind))


def attention_names(network: nn.Module) -> tuple[str, ...]:
    """The dotted names of the attention blocks, in the order of the modules."""
    return tuple(name for name, module in network.named_modules() if hasattr(module, "attention_place"))


def splits(block: nn.Module) -> bool:
    """Whether the block's class says what its squeeze and its excitation are: methods of one argument each."""
    return all(_takes_one_argument(block, name) for name in ("squeeze", "excitation"))


def _takes_one_argument(block: nn.Module, name: str) -> bool:
    """Whether a method of that name is the class's, no layer of the block, and takes one argument alone."""
    if not callable(getattr(type(block), name, None)):
        return False
    try:
        parameters = list(inspect.signature(getattr(block, name)).parameters.values())
    except (TypeError, ValueError):
        return False
    return len(parameters) == 1 and parameters[0].kind <= inspect.Parameter.POSITIONAL_OR_KEYWORD


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
        def squeeze(self, *given: Any, **named: Any) -> Any:
            with around(f"squeeze:{name}"):
                return super().squeeze(*given, **named)

        def excitation(self, *given: Any, **named: Any) -> Any:
            with around(f"excitation:{name}"):
                return super().excitation(*given, **named)

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
        self.calls: Counter[str] = Counter()
        self.gates: dict[str, tuple[int, ...]] = {}
        self.by_formula: dict[str, int] = {}

    @contextlib.contextmanager
    def around(self, what: str) -> Iterator[None]:
        """Count for `what` while entered."""
        self.calls[what] += 1
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

    def apart(self, name: str) -> bool:
        """Whether an attention block called its squeeze and its excitation once each, and that gave a gate."""
        calls = {self.calls[f"{kind}:{name}"] for kind in ("attention", "squeeze", "excitation")}
        return len(calls) == 1 and name in self.gates

    def count_whole(self, block: nn.Module, name: str, kind: type) -> None:
        """Let an attention block be counted by the formula of its class, `kind`, where that has one."""
        formula = self.formulas.name_of(kind)
        if formula is not None:

            def counted(module: nn.Module, args: Any, kwargs: Any, out: Any) -> None:
                amount = self.twice(formula, CountedCall(args, kwargs, out)) or 0
                self.by_formula[name] = self.by_formula.get(name, 0) + amount

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
        work.count_whole(watched.get_submodule(name), name, type(network.get_submodule(name)))
    own = next((p for p in network.parameters()), torch.empty(0))
    image = torch.zeros((1, *input_size), device=own.device, dtype=own.dtype)
    with evaluating(watched), torch.no_grad(), work:
        try:
            watched(image)
        except (RuntimeError, ValueError) as error:
            raise cannot_take(input_size, error) from error
    called = [name for name in attention_names(network) if name in shapes]
    blocks = {name: _traced(name, shapes[name], work) for name in called}
    return tuple(_stages(network, shapes, tuple(called))), blocks


def _noting(shapes: dict[str, tuple[int, ...]], name: str) -> Callable[..., None]:
    def note(module: nn.Module, inputs: Any, output: Any) -> None:
        first = output[0] if isinstance(output, tuple | list) else output
        shapes[name] = tuple(first.shape[1:]) if isinstance(first, Tensor) else ()

    return note


def _traced(name: str, size: tuple[int, ...], work: _Counting) -> Traced:
    squeeze, excitation, rest = (
        work.counts.get(f"{kind}:{name}", Counter[str]()) for kind in ("squeeze", "excitation", "attention")
    )
    counts: dict[Part, Counter[str]] = {"attention": squeeze + excitation + rest}
    if work.apart(name):
        counts = {"squeeze": squeeze, "excitation": excitation, "scale": rest}
    works = {part: Work(**counted) for part, counted in counts.items()}
    return Traced(name, size, work.gates.get(name), works, work.by_formula.get(name))


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
