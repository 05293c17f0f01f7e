"""What is exact about a network and the same on every machine: counted, never timed.

The worker processes load this file by its path beside another checkout's `senet_bench`, so that base and head are
looked at by the same code; it therefore imports from the package only what every version has, and late.
"""

from __future__ import annotations

import copy
import importlib
import importlib.util
import inspect
import itertools
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

CountedMetrics = Sequence[tuple[str, str]]
"""Metrics that a function of (network, input size) counts: key and import string."""
How = Mapping[str, Any] | None
"""How a network is made, called and counted: `arguments`, `inputs` and `flops_of`."""
OWN = "senet_bench."
FINGERPRINT = "senet_bench.models.fingerprint"


@dataclass(frozen=True, slots=True, kw_only=True)
class Portable:
    """Facts of a network for an image of `input_size` (C, H, W).

    `params` are trainable elements by tensor name, `flops` operations by kind, `state` the state dict's keys with
    dtype and shape, `shapes` those of what it returns for one image, `operators` how often each ATen operator
    is called in evaluation, `function` what it computes, as the fields of a `core.fingerprint.Function`, None where
    that is not known, `counts` what the functions of other metrics count, `failures` why one of them, or the
    function (`outputs`), could not. `uncounted` names the operators whose work is in no count, None where that was not
    recorded.
    """

    input_size: tuple[int, int, int]
    params: dict[str, int] = field(default_factory=dict)
    flops: dict[str, int] = field(default_factory=dict)
    state: dict[str, str] = field(default_factory=dict)
    shapes: list[str] = field(default_factory=list)
    function: dict[str, object] | None = None
    operators: dict[str, int] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    uncounted: list[str] | None = None

    @property
    def total(self) -> int:
        """Trainable parameters."""
        return sum(self.params.values())

    @property
    def operations(self) -> int:
        """Operations of all kinds, the sum that the paper's tables print (bn-inclusive)."""
        return sum(self.flops.values())


def built(name: str, device: str = "cpu", how: How = None) -> Any:
    """The network called `name` in evaluation, its weights the same for the same code.

    `how` has the `arguments` that it is made with and the `inputs` that it is called with instead of images; what
    `package.module:function` returns may be a network with its inputs.
    """
    import torch

    how = how or {}
    torch.manual_seed(0)
    with torch.device(device):
        made = _made(name, device, how.get("arguments") or {})
    network, inputs = made if isinstance(made, tuple) and len(made) == 2 else (made, how.get("inputs"))
    if not isinstance(network, torch.nn.Module):
        raise TypeError(f"{name} makes a {type(network).__name__}, not an nn.Module")
    network = network.to(device).eval()
    if inputs is not None:
        network.register_forward_pre_hook(Feed(inputs), with_kwargs=True)
    return network


def _made(name: str, device: str, arguments: Mapping[str, Any]) -> Any:
    module, _, attribute = name.partition(":")
    if not attribute:
        return importlib.import_module("senet_bench.models").build(name, device=device, **arguments)
    if module in ("timm", "torchvision"):
        if arguments:
            raise TypeError(f"{name} takes no arguments here: write a function that makes it")
        return importlib.import_module("senet_bench.models.outside").load(name)
    made = getattr(importlib.import_module(module), attribute)
    if callable(made) and not hasattr(made, "state_dict"):
        return made(**arguments)
    return made(**arguments) if isinstance(made, type) else copy.deepcopy(made)


class Feed:
    """A hook that gives a network its own inputs where an image is passed: as many and as precise as the image.

    `inputs` are tables of `shape`, `dtype`, `range` and `name` for an argument by name; or tensors, as they are.
    """

    def __init__(self, inputs: Any) -> None:
        self.inputs = inputs
        self.kept: dict[tuple[Any, ...], tuple[tuple[Any, ...], dict[str, Any]]] = {}

    def __call__(self, module: Any, arguments: tuple[Any, ...], named: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments that the network is called with."""
        image = arguments[0]
        key = (len(image), image.device, image.dtype)
        if key not in self.kept:
            self.kept[key] = self._made(image)
        return self.kept[key]

    def _made(self, image: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if isinstance(self.inputs, Mapping):
            return (), {name: _as_image(value, image) for name, value in self.inputs.items()}
        listed = self.inputs if isinstance(self.inputs, list | tuple) else [self.inputs]
        made = [
            (one.get("name"), _drawn(place, one, image)) if isinstance(one, Mapping) else (None, _as_image(one, image))
            for place, one in enumerate(listed)
        ]
        return tuple(one for name, one in made if name is None), {name: one for name, one in made if name is not None}


def _as_image(value: Any, image: Any) -> Any:
    """A tensor where an image is, and as precise where it is of floats."""
    if not hasattr(value, "is_floating_point"):
        return value
    return value.to(device=image.device, dtype=image.dtype if value.is_floating_point() else value.dtype)


def _drawn(place: int, table: Mapping[str, Any], image: Any) -> Any:
    """An input of a table's shape, drawn evenly from its range by a generator that is the same everywhere."""
    import numpy as np
    import torch

    kind = str(table.get("dtype", "float32"))
    low, high = table.get("range") or ((0, 2) if kind == "bool" or "int" in kind else (-1.7, 1.7))
    values = np.random.Generator(np.random.PCG64(place + 1)).random((len(image), *table["shape"])) * (high - low) + low
    if kind == "bool" or "int" in kind:
        return torch.from_numpy(np.floor(values)).to(device=image.device, dtype=getattr(torch, kind))
    return _as_image(torch.from_numpy(values), image)


def code_place(name: str) -> tuple[str, int]:
    """The file that a network's code is in, to see that a checkout's own code was used, and the line it begins at."""
    home, _, attribute = name.rpartition(":")
    module = importlib.import_module(home or "senet_bench.models")
    file = str(getattr(module, "__file__", "") or "")
    try:
        made = inspect.unwrap(getattr(module, attribute))
        return str(inspect.getsourcefile(made) or file), inspect.getsourcelines(made)[1]
    except (AttributeError, TypeError, OSError, ValueError):  # a catalog's name, an object, a module of C
        return file, 1


def peak_bytes(call: Callable[[], object]) -> int:
    """The highest running sum of the allocations and frees on the CPU that torch's profiler sees in a second call."""
    import torch

    call()
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True, acc_events=True
    ) as seen:
        output = call()
        del output
    profiler = seen.profiler
    results = profiler.kineto_results if profiler is not None else None
    if results is None:
        raise RuntimeError("torch's profiler gave no memory trace")
    changes = sorted((e.start_ns(), i, e.nbytes()) for i, e in enumerate(results.events()) if e.name() == "[memory]")
    return int(max(itertools.accumulate((change for _, _, change in changes), initial=0)))


def named_facts(
    name: str, input_size: tuple[int, int, int], counted: CountedMetrics = (), keep: str | None = None, how: How = None
) -> Portable:
    """The facts of the network called `name`; without memory for its weights where it can be built so.

    `keep` is a file that its outputs are written to.
    """
    network, portable = _named_counts(name, input_size, counted, how)
    return _with_function(portable, lambda: named_function(name, input_size, how, network=network, keep=keep))


def counted_facts(
    name: str, input_size: tuple[int, int, int], how: How = None, counted: CountedMetrics = ()
) -> Portable:
    """The facts of the network called `name` without its function, which takes time."""
    return _named_counts(name, input_size, counted, how)[1]


def _named_counts(
    name: str, input_size: tuple[int, int, int], counted: CountedMetrics, how: How
) -> tuple[Any, Portable]:
    try:
        network = built(name, "meta", how)
    except Exception:  # noqa: BLE001 - a network of the user's own may need real tensors
        network = built(name, how=how)
    return network, _counted_facts(network, input_size, counted, (how or {}).get("flops_of"))


def network_facts(network: Any, input_size: tuple[int, int, int], counted: CountedMetrics = ()) -> Portable:
    """The facts of a network, which is not changed. Raises what its forward pass raises."""
    portable = _counted_facts(network, input_size, counted)
    return _with_function(portable, lambda: _ours(FINGERPRINT).function_of(network, input_size))


def named_function(
    name: str,
    input_size: tuple[int, int, int],
    how: How = None,
    *,
    network: Any = None,
    modules: bool = False,
    keep: str | None = None,
) -> dict[str, object]:
    """What the network called `name` computes; `network` is the one on `meta`, where there is one."""
    fingerprint = _ours(FINGERPRINT)
    options = {"modules": modules, "own": True, "keep": keep}
    try:
        empty = fingerprint.materialised(built(name, "meta", how) if network is None else network)
        if empty is not None:
            return dict(fingerprint.function_of(empty, input_size, **options))
    except Exception:  # noqa: BLE001, S110 - it may need its own tensors
        pass
    return dict(fingerprint.function_of(built(name, how=how), input_size, **options))


def _with_function(portable: Portable, function: Callable[[], dict[str, object]]) -> Portable:
    """The facts with the function; a network that does not run for real has none, and why."""
    try:
        return replace(portable, function=function())
    except Exception as error:  # noqa: BLE001 - told in the row of the outputs
        return replace(portable, failures={**portable.failures, "outputs": _line(error)})


def _line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def _counted_facts(
    network: Any, input_size: tuple[int, int, int], counted: CountedMetrics, flops_of: str | None = None
) -> Portable:
    from senet_bench.bench.count import count

    own = [importlib.import_module("senet_bench.core.formulas").formulas_at(flops_of)] if flops_of else []
    operations = count(network, input_size, *own)
    state = {key: _shape(value) for key, value in network.state_dict().items()}
    shapes, operators = _called(network, input_size)
    counts, failures = _counts(network, input_size, counted)
    return Portable(
        input_size=input_size,
        params={name: p.numel() for name, p in network.named_parameters() if p.requires_grad},
        flops={kind: amount for kind, amount in operations.by_kind().items() if amount},
        state=state,
        shapes=shapes,
        operators=operators,
        counts=counts,
        failures=failures,
        uncounted=list(getattr(operations, "uncounted", ())),
    )


def _counts(
    network: Any, input_size: tuple[int, int, int], counted: CountedMetrics
) -> tuple[dict[str, int], dict[str, str]]:
    """What each function counts, by key, and why some could not: one that fails takes no other with it."""
    counts, failures = dict[str, int](), dict[str, str]()
    for key, name in counted:
        try:
            counts[key] = int(_function(name)(network, input_size))
        except Exception as error:  # noqa: BLE001 - told in the row of this metric
            failures[key] = _line(error)
    return counts, failures


def _function(name: str) -> Any:
    """The function `module:function`; one of ours is taken from beside this file, whatever the checkout has."""
    module, _, attribute = name.partition(":")
    return getattr(_ours(module) if module.startswith(OWN) else importlib.import_module(module), attribute)


def _ours(module: str) -> Any:
    """A module of ours from beside this file, whatever the checkout has."""
    loaded = f"senet_bench_counted_{module.replace('.', '_')}"
    if loaded not in sys.modules:
        path = Path(__file__).resolve().parents[1].joinpath(*module.removeprefix(OWN).split(".")).with_suffix(".py")
        spec = importlib.util.spec_from_file_location(loaded, path)
        assert spec is not None
        assert spec.loader is not None
        sys.modules[loaded] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[loaded])
    return sys.modules[loaded]


def _shape(value: Any) -> str:
    """Dtype and shape of a tensor: float32[64, 3, 7, 7]; the type of anything else."""
    import torch

    if not isinstance(value, torch.Tensor):
        return type(value).__name__
    return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"


def _called(network: Any, input_size: tuple[int, int, int]) -> tuple[list[str], dict[str, int]]:
    """Shapes of the outputs for one image, and the ATen operators called on the way there."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    seen: Counter[str] = Counter()

    class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
        _should_skip_dynamo = classmethod(lambda cls: False)  # else its first call imports the compiler

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen[str(func.overloadpacket).replace("aten.", "aten::", 1)] += 1
            return func(*args, **(kwargs or {}))

    tensors = (*network.parameters(), *network.buffers())
    on_meta = network if all(t.is_meta for t in tensors) else copy.deepcopy(network).to("meta")
    fixed = getattr(on_meta, "with_fixed_proposals", None)  # a detector's other shapes depend on what it finds
    on_meta = fixed(dense=True) if fixed else on_meta
    image = torch.empty((1, *input_size), device="meta")
    with torch.no_grad(), Watch():  # type: ignore[no-untyped-call]
        output = on_meta.eval()(image)
    return [f"{path}{_shape(value)}" for path, value in leaves(output)], dict(sorted(seen.items()))


def leaves(output: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The tensors in nested outputs, each with its place."""
    if isinstance(output, Mapping):
        for key, value in output.items():
            yield from leaves(value, f"{path}{key}: ")
    elif isinstance(output, list | tuple):
        for index, value in enumerate(output):
            yield from leaves(value, f"{path}{index}: ")
    else:
        yield path, output
