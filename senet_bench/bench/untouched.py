"""An untouched copy of a network: without what its code has kept in its classes, its modules, or by shape and address.

`copy.deepcopy` copies instances. What a whole class shares (an attribute of the class, a dictionary of its module, a
function's cache) every copy shares too, and answers from it. So the copy's classes are made anew from their files, and
it is shown one image more, for which nothing can have been kept by the shape or the address of any map inside.
"""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn

from senet_bench.bench.agreement import array
from senet_bench.core.foreign import lies_outside
from senet_bench.core.statistics import Floats


def honest_output(network: nn.Module, images: Tensor) -> Floats:
    """What an untouched copy of the network in evaluation gives for these images (N, C, H, W), in their precision."""
    fresh = untouched(network).to(images.device, images.dtype).eval()
    images = images.detach().clone(memory_format=torch.contiguous_format)
    with torch.inference_mode():
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


def untouched(network: nn.Module) -> nn.Module:
    """A copy of the network whose classes are new where they come from a file that is not installed.

    A class that cannot be made again (one of a function, or of a file that is gone) stays as it is.
    """
    copied, modules = copy.deepcopy(network), dict[str, ModuleType | None]()
    for module in copied.modules():
        kind = type(module)
        if kind.__module__ not in modules:
            modules[kind.__module__] = _made_again(kind.__module__)
        again = getattr(modules[kind.__module__], kind.__qualname__, None)
        if isinstance(again, type):
            with contextlib.suppress(TypeError):
                module.__class__ = again
    return copied


def _made_again(name: str) -> ModuleType | None:
    """A second copy of a module, run anew; None for what is installed, is the program, or cannot be run twice."""
    file = getattr(sys.modules.get(name), "__file__", None)
    if name == "__main__" or file is None or not lies_outside(file):
        return None
    spec = importlib.util.spec_from_file_location(name, Path(file))
    if spec is None or spec.loader is None:
        return None
    module = importlib.util.module_from_spec(spec)
    with contextlib.suppress(Exception):
        spec.loader.exec_module(module)
        return module
    return None
