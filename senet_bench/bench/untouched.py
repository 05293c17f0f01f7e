"""An untouched copy of a network: without what its code has kept in its classes, its modules, or by shape and address.

`copy.deepcopy` copies instances. What a whole class shares (an attribute of the class, a dictionary of its module or of
another, a function's cache) every copy shares too, and answers from it. So all modules of the user's are made anew from
their files, and it is shown one image more, for which nothing can have been kept by the shape or the address of any map
inside.
"""

from __future__ import annotations

import ast
import contextlib
import copy
import functools
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn

from senet_bench.bench.agreement import array
from senet_bench.core.foreign import lies_outside
from senet_bench.core.statistics import Floats

MAIN_MODULE = "__main__"
KEEP_NOTHING = ("senet_bench.models.", "torch.nn.")
outside = functools.cache(lies_outside)


def honest_output(network: nn.Module, images: Tensor) -> Floats:
    """What an untouched copy of the network in evaluation gives for these images (N, C, H, W), in their precision."""
    images = images.detach().clone(memory_format=torch.contiguous_format)
    if _cannot_keep(network) and _is_as(network, images):
        with torch.inference_mode():
            return array(network(images))
    fresh = untouched(network).to(images.device, images.dtype).eval()
    with _own_modules_away(), torch.inference_mode():
        with contextlib.suppress(Exception):  # a network for one batch size alone, or memory for no image more
            wider = array(fresh(torch.cat([images, -images[:1]])))
            if len(wider) == len(images) + 1:
                return wider[: len(images)]
        return array(fresh(images))


def honest_exactly(network: nn.Module, images: Tensor) -> Floats | None:
    """The same in double precision on the CPU; None where it cannot be run so."""
    with contextlib.suppress(Exception):
        return honest_output(network, images.cpu().double())
    return None


def repeated_output(network: nn.Module, images: Tensor) -> Floats | None:
    """What a copy that keeps what its code has kept gives for these images, after others in the same tensor.

    To the bit what `honest_output` gives, unless it answers from what it kept; None where it cannot keep anything, or
    cannot take one image more.
    """
    if _cannot_keep(network):
        return None
    wider = torch.cat([images, -images[:1]])
    held = torch.randn(wider.shape, generator=torch.Generator().manual_seed(3)).to(wider)
    copied = copy.deepcopy(network).to(images.device, images.dtype).eval()
    with contextlib.suppress(Exception), torch.inference_mode():
        copied(held)
        again = array(copied(held.copy_(wider)))
        return again[: len(images)] if len(again) == len(wider) else None
    return None


def _cannot_keep(network: nn.Module) -> bool:
    """Whether all of a network is ours or torch's, which keeps nothing: without hooks or a `forward` of an instance."""
    return all(
        f"{type(module).__module__}.".startswith(KEEP_NOTHING)
        and not (module._forward_hooks or module._forward_pre_hooks or "forward" in module.__dict__)
        for module in network.modules()
    )


def _is_as(network: nn.Module, images: Tensor) -> bool:
    """Whether a network in evaluation takes images of this type on this device."""
    return not any(module.training for module in network.modules()) and all(
        (tensor.device, tensor.dtype) == (images.device, images.dtype) for tensor in network.parameters()
    )


def untouched(network: nn.Module) -> nn.Module:
    """A copy of the network whose classes are new where they come from a file that is not installed.

    A class that cannot be made again (one of a function, or of a file that is gone) stays as it is.
    """
    copied, modules = copy.deepcopy(network), dict[str, ModuleType | None]()
    kinds = {type(module) for module in copied.modules()}
    of_program = {kind.__qualname__.partition(".")[0] for kind in kinds if kind.__module__ == MAIN_MODULE}
    with _own_modules_away() as own:
        for name in {kind.__module__ for kind in kinds}:
            modules[name] = _program_again(of_program) if name == MAIN_MODULE else _made_again(own.get(name))
    for module in copied.modules():
        again = getattr(modules[type(module).__module__], type(module).__qualname__, None)
        if isinstance(again, type):
            with contextlib.suppress(TypeError):
                module.__class__ = again
    return copied


@contextlib.contextmanager
def _own_modules_away() -> Iterator[dict[str, ModuleType]]:
    """While entered, imports of the user's modules run their files anew; gives those that are imported, by name."""
    own = _own_modules()
    for name in own:
        del sys.modules[name]
    left = len(sys.modules)
    try:
        yield own
    finally:
        if len(sys.modules) != left:  # some were imported anew
            for name in _own_modules():
                del sys.modules[name]
        sys.modules.update(own)


def _own_modules() -> dict[str, ModuleType]:
    """The modules that are neither ours nor installed, but for the program."""
    files = ((name, module, module.__dict__.get("__file__")) for name, module in [*sys.modules.items()] if module)
    own = {name: module for name, module, file in files if isinstance(file, str) and outside(file)}
    own.pop(MAIN_MODULE, None)
    return own


def _made_again(module: ModuleType | None) -> ModuleType | None:
    """A second copy of a module of the user's, run anew; None for another, or one that cannot be run twice."""
    if module is None:
        return None
    with contextlib.suppress(Exception):
        again = importlib.import_module(module.__name__)
        if again.__file__ == module.__file__:
            return again
    spec = importlib.util.spec_from_file_location(module.__name__, Path(str(module.__file__)))
    if spec is None or spec.loader is None:
        return None
    again = importlib.util.module_from_spec(spec)
    with contextlib.suppress(Exception):
        spec.loader.exec_module(again)
        return again
    return None


def _program_again(wanted: set[str]) -> ModuleType | None:
    """The classes of that name of the program, and what they use of it, run anew; nothing else of it is run."""
    program = sys.modules[MAIN_MODULE]
    file = getattr(program, "__file__", None)
    again = ModuleType(MAIN_MODULE)
    again.__file__ = file
    with contextlib.suppress(Exception):
        tree = ast.parse(Path(str(file)).read_bytes())
        exec(compile(ast.Module(_needed(tree, wanted), []), str(file), "exec"), again.__dict__)  # noqa: S102
        return again
    return None


def _needed(tree: ast.Module, wanted: set[str]) -> list[ast.stmt]:
    """The statements of a program that bind the names wanted or what those read, in order."""
    bound = [(statement, _bound(statement)) for statement in tree.body if not _is_started(statement)]
    names, before = set(wanted), set[str]()
    while names != before:
        before = set(names)
        for statement, binds in bound:
            if binds & names:
                names |= {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)}
    return [statement for statement, binds in bound if binds & names or _is_future(statement)]


def _is_started(statement: ast.stmt) -> bool:
    """Whether it is what a program does: a call alone, or what stands under `if __name__ == ...`."""
    tests = isinstance(statement, ast.If) and "__name__" in ast.dump(statement.test)
    return tests or isinstance(statement, ast.Expr)


def _is_future(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.ImportFrom) and statement.module == "__future__"


def _bound(statement: ast.stmt) -> set[str]:
    """The names that a statement of a program binds."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {statement.name}
    names: set[str] = set()
    for node in ast.walk(statement):
        if isinstance(node, ast.alias):
            names.add((node.asname or node.name).partition(".")[0])
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
    return names
