"""Whose weights a file holds, and the proof that a network of ours computes what they were trained for.

Equal names and shapes are no proof: timm's `resnetaa50` and `resnetblur50` have the tensors of ResNet-50 and compute
another function. The checkpoints in `SOURCES` were proven equal by the tests; any other is built and compared.
"""

from __future__ import annotations

import functools
import importlib.util
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from senet_bench.core.specs import ModelSpec
from senet_bench.errors import UsageError
from senet_bench.models.fingerprint import fingerprintable
from senet_bench.training.renaming import SOURCES, checkpoint_of

TWINS = {"resnet18_v1_5": ("resnetblur18",), "resnet50_v1_5": ("resnetaa50", "resnetblur50")}
"""timm's networks that have all the tensors of one of ours and compute another function."""
CLOSE = 1e-6
"""The difference, relative to the largest output, up to which two networks in double precision compute one function."""
TRACED_SIDE = 65


def origin_of(path: Path) -> str | None:
    """The `timm:NAME` or `torchvision:NAME` that a file is of; None where nothing says so.

    The model's configuration beside it may say so, or the start of its own name.
    """
    try:
        architecture = json.loads((path.parent / "config.json").read_text()).get("architecture")
    except (OSError, ValueError, AttributeError):
        architecture = None
    known = _known()
    if isinstance(architecture, str) and architecture in known:
        return known[architecture]
    stem = path.stem.lower()
    starts = (name for name in known if stem.startswith(name) and not stem[len(name) :][:1].isalnum())
    return known.get(max(starts, key=len, default=""))


def named(weights: str) -> str | None:
    """The `timm:NAME` or `torchvision:NAME` of weights by name, with or without library and tag; None for others.

    Raises `UsageError` for a name that both libraries have.
    """
    library, _, tagged = weights.rpartition(":")
    model = tagged.split(".")[0]
    if checkpoint_of(weights) is not None:
        return next(key for key in SOURCES if key in (f"{library}:{model}", f"timm:{model}", f"torchvision:{model}"))
    return f"timm:{model}" if library in ("", "timm") and model in _of_timm() else None


@functools.cache
def _known() -> Mapping[str, str]:
    """The networks of timm and torchvision by their bare names; those that are proven equal before the others."""
    return {name: f"timm:{name}" for name in _of_timm()} | {source.partition(":")[2]: source for source in SOURCES}


@functools.cache
def _of_timm() -> frozenset[str]:
    """The names of timm's networks, of those that are mistaken for ours alone where it is not installed."""
    twins = (name for names in TWINS.values() for name in names)
    if not importlib.util.find_spec("timm"):
        return frozenset(twins)
    import timm

    return frozenset((*twins, *timm.list_models()))


def is_of(origin: str, tensors: Mapping[str, Tensor]) -> bool:
    """Whether tensors are those of the network called so, whatever its number of classes."""
    theirs = _built(origin, "meta").state_dict()
    same = theirs.keys() - tensors.keys() == set() == tensors.keys() - theirs.keys()
    differing = [name for name in theirs if same and theirs[name].shape != tensors[name].shape]
    heads = {name.rpartition(".")[0] for name in differing}
    return same and len(heads) <= 1


def check_function(origin: str, spec: ModelSpec, loaded: Callable[[Mapping[str, Tensor]], nn.Module]) -> None:
    """Raise `UsageError` unless the network that `loaded` makes of another's tensors computes what that one computes.

    Both are filled with the same values and run in double precision.
    """
    if origin in SOURCES:
        return
    theirs = fingerprintable(_built(origin, "cpu"))
    ours = loaded({name: value.float() for name, value in theirs.state_dict().items()}).double().eval()
    theirs.load_state_dict({name: value.float() for name, value in theirs.state_dict().items()})
    images = torch.randn(
        2, 3, TRACED_SIDE, TRACED_SIDE, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    with torch.no_grad():
        expected, outputs = theirs(images), ours(images)
    off = float((outputs - expected).abs().max() / expected.abs().max())
    if not off <= CLOSE:
        raise UsageError(
            f"{origin} computes another function than {spec.name}, though its tensors fit: the outputs differ by "
            f"{off:.2g} of the largest",
            f"evaluate {origin} itself",
        )


def _built(origin: str, device: str) -> nn.Module:
    """The other library's network, its weights not trained."""
    from senet_bench.models import outside

    with torch.device(device):
        return outside.load(origin)
