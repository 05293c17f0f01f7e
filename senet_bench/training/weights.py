"""Weights in and out: our safetensors checkpoints, and those of timm and torchvision renamed into our networks."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from senet_bench.core import catalog
from senet_bench.core.datasets import EMBEDDED
from senet_bench.core.files import kind_of_path, written_whole
from senet_bench.core.results import of_type
from senet_bench.core.specs import AttentionSpec, ModelSpec, bare_name
from senet_bench.errors import BenchError, MeasurementError, UsageError, one_line
from senet_bench.models import attention_blocks, build_spec
from senet_bench.models.folding import without
from senet_bench.training import downloads
from senet_bench.training.heads import IMAGENET_CLASSES, HeadState, fitted_head
from senet_bench.training.origin import TWINS, check_function, is_of, named, origin_of
from senet_bench.training.renaming import (
    REFUSED,
    RENAMES,
    SOURCES,
    TRUNK_OF_DETECTOR,
    Style,
    fitted,
    in_detector,
    style_of,
    without_bias,
)
from senet_bench.training.statedict import Contents, Taken, contents, unwrapped

if TYPE_CHECKING:
    from senet_bench.data.sets import DataSet

WEIGHTS_FORMAT = "senet-bench.weights/1"


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """A network with weights: the row it was built from, where they came from, and what a reader must know.

    `fresh` names the attention blocks that the checkpoint does not have and that keep their initial values.
    `metadata` is what our own checkpoints say about their training. `normalisation` is the mean and the standard
    deviation that images were normalised with there, None where nothing says so; `origin` is the `timm:NAME` or
    `torchvision:NAME` that weights were named by; `taken` which of two states of a file they
    are, None where there is one. `head` names the module of a head of another number of classes, which is new.
    """

    network: nn.Module
    spec: ModelSpec
    source: str
    fresh: tuple[str, ...]
    notes: tuple[str, ...]
    metadata: Mapping[str, Any]
    normalisation: downloads.Normalisation | None = None
    origin: str | None = None
    taken: Taken | None = None
    head: str | None = None

    def on(self, images: DataSet) -> tuple[Loaded, DataSet]:
        """The same, and a data set with the mean and deviation that the weights were trained with.

        Where these are not the set's own, a note says so; they are the set's own where nobody says.
        """
        if self.normalisation is None or self.normalisation == images.normalisation:
            return self, images
        mean, std = self.normalisation
        note = f"images are normalised by mean {mean} and deviation {std}, as in its training"
        return replace(self, notes=(*self.notes, note)), replace(images, mean=mean, std=std)

    def check_whole(self) -> None:
        """Raise `UsageError` where attention blocks would keep random values: what is measured would be theirs."""
        if self.fresh:
            raise UsageError(
                f"{self.source} has no attention: {len(self.fresh)} blocks would keep random values",
                f"give weights of {self.spec.name}",
            )


def save(network: nn.Module, path: Path, spec: ModelSpec, **metadata: Any) -> None:
    """Write the network's weights as safetensors with what they are, whole or not at all."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in network.state_dict().items()}
    about = {"format": WEIGHTS_FORMAT, "model": spec.name, "attention": _attention(spec), **metadata}
    if spec.cardinality is not None:
        about["cardinality"] = spec.cardinality
    with written_whole(path) as partial:
        try:
            save_file(tensors, partial, metadata={key: json.dumps(value) for key, value in about.items()})
        except SafetensorError as error:
            number = re.search(r"\(os error (\d+)\)", str(error))
            raise OSError(os.strerror(int(number[1])) if number else one_line(error)) from error


def check_key(path: Path, key: str) -> None:
    """Raise `UsageError` for a file with the weights of another run than that of the key."""
    if path.is_file() and key_in(path) not in (None, key):
        raise UsageError(f"{path} holds the weights of another run", "move it away, or name another file with --out")


def key_in(path: Path) -> str | None:
    """The key of the run that weights of ours are of; None where a file says none."""
    try:
        key = contents(path).metadata.get("key")
    except BenchError:  # not weights of ours
        return None
    return str(key) if key is not None else None


def load_weights(
    spec: ModelSpec,
    weights: str,
    *,
    classes: int | None = None,
    in_channels: int = 3,
    as_trained: bool = False,
    average: bool | None = None,
    head: HeadState = "same",
) -> Loaded:
    """The network of a catalog row with weights from a file, or by a name of timm or torchvision.

    A name may start with `timm:` or `torchvision:` and end with a tag (`seresnet50.a1_in1k`); what it names is
    taken from the cache when it is there. One that is not in `SOURCES` must compute what the network of that name
    computes, and so must a file that says whose it is. With `as_trained` the network has the attention that a
    checkpoint of ours says it was trained with; `average` chooses between the raw weights and their average (EMA).
    A `new` head takes no weights where these are of another number of classes. Raises `UsageError` for weights of
    another network or layout.
    """
    path, origin = _located(weights, spec)
    held = contents(path, average=average)
    as_named = held.metadata.get("format") == WEIGHTS_FORMAT or spec.outside  # ours, or of a network that is not ours
    held = unwrapped(held, _known_to(spec, held), average=bool(average))
    tensors = held.tensors
    source = None if spec.outside else SOURCES.get(origin or "")
    style = source.style if source else "ours" if as_named else _style(tensors, path)
    notes = list(held.notes)
    if style == "ours":
        spec = _as_trained(spec, held.metadata, path) if as_trained else spec
        _check_same_network(spec, held.metadata, path)
    elif source is None:
        notes += _proven(spec, style, tensors, path)
    frozen = tuple(held.metadata.get("frozen", ()))
    built = _built(spec, style, tensors, path, _Target(classes, in_channels, head, frozen))
    notes += built.notes
    if source is None and style == "mobilenet" and spec.options.get("version") not in (None, "v2"):
        notes.append("taken for weights of timm's own network: those of its tf_ network have the same names")
    if built.fresh:
        notes.append(f"{len(built.fresh)} attention blocks keep their initial values: the weights have none")
    normalisation = _normalisation(weights, origin) or normalisation_in(held.metadata, str(path))
    about = replace(built, metadata=held.metadata, normalisation=normalisation, origin=origin, taken=held.taken)
    return replace(about, notes=tuple(notes))


def _known_to(spec: ModelSpec, held: Contents) -> Callable[[Collection[str]], bool]:
    """What tells the names of a file from those with something before them."""
    if held.metadata.get("format") == WEIGHTS_FORMAT:
        return lambda names: True
    if not spec.outside:
        return lambda names: style_of(names) is not None
    own = build_spec(spec, device="meta").state_dict()
    return lambda names: any(name in own for name in names)


@dataclass(frozen=True, slots=True)
class _Target:
    """The sizes of the network that weights are for, what becomes of a head of other classes, blocks folded away."""

    classes: int | None = IMAGENET_CLASSES
    in_channels: int = 3
    head: HeadState = "same"
    frozen: tuple[str, ...] = ()


def _built(
    spec: ModelSpec,
    style: Style,
    tensors: Mapping[str, Tensor],
    path: Path,
    target: _Target,
) -> Loaded:
    """The network of a row, in the layout of a naming, with tensors of that naming."""
    spec, note = fitted(spec, style)
    notes = [note] if note else []
    renamed = {RENAMES[style](name, spec): value for name, value in tensors.items()}
    if style.startswith("pycls") and "stem.0.weight" in renamed:
        renamed["stem.0.weight"] = renamed["stem.0.weight"].flip(1)
    if style != "ours" and spec.attention is not None and spec.attention.bias and without_bias(renamed):
        spec = replace(spec, attention=replace(spec.attention, bias=False))
        notes.append("the FCs of SE are built without biases, as these weights have them")
    network = build_spec(spec, target.classes, in_channels=target.in_channels)
    without(network, target.frozen)
    notes += [f"{len(target.frozen)} gates are constants, folded into other layers"] if target.frozen else []
    _check_has_places(spec, renamed, path)
    renamed, new, note = fitted_head(renamed, network, target.head)
    notes += [note] if note else []
    wanted = {name: value for name, value in network.state_dict().items() if name not in new}
    head = new[0].rpartition(".")[0] if new else None
    return Loaded(network, spec, str(path), _fill(network, renamed, path, wanted), tuple(notes), {}, head=head)


def _proven(spec: ModelSpec, style: Style, tensors: Mapping[str, Tensor], path: Path) -> list[str]:
    """What must be said of a file whose names are another library's; raises where it is of another function."""
    fitted(spec, style)  # raises for another family or layout, before anything is built
    origin = origin_of(path)
    if origin is not None and is_of(origin, tensors):
        check_function(origin, spec, lambda theirs: _built(spec, style, theirs, path, _Target()).network)
        return []
    twins = TWINS.get(spec.name, ()) if style == "plain" else ()
    return [f"taken for torchvision's weights: those of timm's {' and '.join(twins)} have the same names"] * bool(twins)


def _style(tensors: Mapping[str, Tensor], path: Path | str) -> Style:
    style = style_of(tensors)
    if style is None:
        raise UsageError(f"the names in {path} belong to no known library", "give a checkpoint of timm or torchvision")
    return style


def _normalisation(weights: str, origin: str | None) -> downloads.Normalisation | None:
    """What images were normalised with in the training of weights that were given by name."""
    return None if origin is None else downloads.normalisation(origin.partition(":")[0], weights.rpartition(":")[2])


def normalisation_in(metadata: Mapping[str, Any], source: str) -> downloads.Normalisation | None:
    """What images were normalised with in the training of weights of ours; None where their file does not say."""
    said: downloads.Normalisation | None
    said = of_type(metadata.get("normalisation"), downloads.Normalisation | None, source)
    return said


def load_trunk(network: nn.Module, spec: ModelSpec, weights: str) -> tuple[str, ...]:
    """Put a classifier's weights into the trunk of a detector; what must be said about them.

    They come from a file or by a name, as in `load_weights`, and are of the trunk (`spec.trunk`, or its baseline).
    """
    trunk = replace(catalog.resolve(spec.trunk or ""), attention=spec.attention)
    path, origin = _located(weights, trunk)
    held = contents(path)
    tensors = unwrapped(held, _known_to(trunk, held)).tensors
    source = SOURCES.get(origin or "")
    style = source.style if source else _style(tensors, path)
    if style == "ours":
        _check_same_network(trunk, held.metadata, path)
    try:
        fitted(trunk, style)
    except UsageError as error:
        raise UsageError(error.problem, f"{error.remedy} as the trunk") from error
    named = {RENAMES[style](name, trunk): value for name, value in tensors.items()}
    place = in_detector(spec)
    placed = {place(name): value for name, value in named.items() if not name.startswith("classifier.")}
    parts = {name: value for name, value in network.state_dict().items() if name.startswith(TRUNK_OF_DETECTOR)}
    fresh = _fill(network, placed, path, parts)
    return (f"{len(fresh)} attention blocks start untrained: the trunk's weights have none",) if fresh else ()


def _located(weights: str, spec: ModelSpec) -> tuple[Path, str | None]:
    """The file of a path or name, and the `timm:NAME` or `torchvision:NAME` that a name stands for.

    What no test has proven to compute what `spec` does is compared with it, before anything is downloaded.
    """
    path = Path(weights).expanduser()
    if kind_of_path(path) == "file":
        return path, None
    tagged = weights.rpartition(":")[2]
    name = tagged.split(".")[0]
    if name in REFUSED and not spec.outside:
        raise UsageError(f"{weights} is not loaded: {name} {REFUSED[name]}", f"use {name.removeprefix('tf_')}")
    origin = named(weights)
    if spec.outside and origin is not None:
        own = bare_name(spec.name)
        if origin.split(".")[0] != own.split(".")[0]:
            raise UsageError(f"{weights} are weights of {origin}, not of {own}", f"use {own}, or give a file")
        return downloads.fetch(origin.partition(":")[0], tagged), origin
    if origin is not None:
        if origin not in SOURCES:
            _check_named(origin, spec)
        return downloads.fetch(origin.partition(":")[0], tagged), origin
    if path.suffix.lower() in (".safetensors", ".pth", ".pt", ".bin", ".ckpt") or os.sep in weights:
        raise MeasurementError(f"there is no weights file {weights}", "give an existing file or a name")
    raise UsageError(f"unknown weights {weights!r}", f"give a file, or one of {', '.join(SOURCES)}")


def _check_named(origin: str, spec: ModelSpec) -> None:
    """Raise `UsageError` unless the network called so computes what that of the row does."""

    def loaded(theirs: Mapping[str, Tensor]) -> nn.Module:
        return _built(spec, _style(theirs, origin), theirs, Path(origin), _Target()).network

    check_function(origin, spec, loaded)


def _attention(spec: ModelSpec) -> dict[str, Any] | None:
    """The attention of a row as JSON gives it back."""
    plain: dict[str, Any] | None = json.loads(json.dumps(asdict(spec.attention) if spec.attention else None))
    return plain


def has_blocks(spec: ModelSpec, weights: str) -> bool:
    """Whether weights hold tensors of the attention blocks of a network."""
    path, origin = _located(weights, spec)
    held = contents(path)
    held = unwrapped(held, _known_to(spec, held))
    source = None if spec.outside else SOURCES.get(origin or "")
    ours = spec.outside or held.metadata.get("format") == WEIGHTS_FORMAT
    style = source.style if source else "ours" if ours else _style(held.tensors, path)
    blocks = tuple(f"{name}." for name in attention_blocks(build_spec(spec, device="meta")))
    return any(RENAMES[style](name, spec).startswith(blocks) for name in held.tensors)


def attention_in(weights: str) -> AttentionSpec | None:
    """The attention that a file of our weights says its network was trained with; None for others."""
    stored = _metadata(weights).get("attention")
    return of_type(stored, AttentionSpec | None, weights) if stored else None


def draw_in(weights: str, dataset: str) -> int:
    """Which draw of a data set's training images a file of our weights was trained on; 0 for others.

    Another draw of `digits`, or the other of the two sets of digits, would be tested on images that the network was
    trained on: `UsageError` for the latter.
    """
    trained, seed = _digits_of(weights, dataset)
    if trained not in (None, dataset):
        raise UsageError(f"{weights} was trained on images of {trained} that {dataset} is tested on", f"use {trained}")
    return seed if trained == "digits" else 0


def check_draw(weights: str, dataset: str, seeds: Iterable[int]) -> None:
    """Raise `UsageError` where what starts from weights of ours would be tested on images that they were trained on.

    Each seed draws its own training images of `digits`, and is tested on all others.
    """
    trained, drawn = _digits_of(weights, dataset)
    if trained is None or trained == dataset == "digits-full":
        return
    seen = next((seed for seed in seeds if trained != dataset or seed != drawn), None)
    if seen is not None:
        raise UsageError(
            f"{weights} was trained on images of {trained} that {dataset} with seed {seen} is tested on",
            "train and fine-tune with --dataset digits-full, whose test images are the same for all seeds",
        )


def _digits_of(weights: str, dataset: str) -> tuple[str | None, int]:
    """Which of the two sets of digits a file of our weights was trained on, and its seed; None where either is none."""
    if dataset not in EMBEDDED:
        return None, 0
    metadata = _metadata(weights)
    trained = metadata.get("dataset")
    return (trained, int(metadata.get("seed", 0))) if trained in EMBEDDED else (None, 0)


def _metadata(weights: str) -> Mapping[str, Any]:
    """What a file of our weights says of its network; nothing for others, and for what cannot be read."""
    path = Path(weights).expanduser()
    if kind_of_path(path) != "file":
        return {}
    try:
        metadata = contents(path).metadata
    except BenchError:  # said where the weights are loaded
        return {}
    return metadata if metadata.get("format") == WEIGHTS_FORMAT else {}


def _as_trained(spec: ModelSpec, metadata: Mapping[str, Any], path: Path) -> ModelSpec:
    """The row with the groups and the attention of a checkpoint of the same network."""
    if metadata.get("model") != spec.name or "attention" not in metadata:
        return spec
    attention = of_type(metadata["attention"], AttentionSpec | None, str(path))
    return replace(spec, attention=attention).with_groups(metadata.get("cardinality"))


def _check_same_network(spec: ModelSpec, metadata: Mapping[str, Any], path: Path) -> None:
    stored = metadata.get("model", spec.name)
    if stored not in (spec.name, spec.baseline):
        raise UsageError(f"{path} holds {stored}, not {spec.name}", f"evaluate {stored}")
    groups, own = metadata.get("cardinality", spec.options.get("cardinality")), spec.built.get("cardinality")
    if groups != own:
        raise UsageError(f"{path} was trained with {groups} groups, not {own}", f"give --cardinality {groups}")
    if stored == spec.name and "attention" in metadata and metadata["attention"] != _attention(spec):
        trained, wanted = metadata["attention"] or {"block": None}, _attention(spec) or {"block": None}
        names = (name for name in trained if trained[name] != wanted.get(name))
        differing = ", ".join(f"{name} {trained[name]} (not {wanted.get(name)})" for name in names)
        raise UsageError(f"{path} was trained with {differing}", "give the same attention options")


def _check_has_places(spec: ModelSpec, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raise `UsageError` for weights of attention blocks that the network of `spec` leaves out."""
    variant = next((row for row in catalog.CATALOG.values() if row.baseline == spec.name), None)
    if spec.attention is not None or variant is None:
        return
    places = attention_blocks(build_spec(variant, device="meta"))
    filled = {place for place in places for name in tensors if name.startswith(f"{place}.")}
    if filled:
        raise UsageError(
            f"{path} holds {len(filled)} attention blocks and {spec.name} has none: it would compute another function",
            f"use {variant.name}",
        )


def _fill(
    network: nn.Module, tensors: dict[str, Tensor], path: Path, wanted: Mapping[str, Tensor] | None = None
) -> tuple[str, ...]:
    """Put the tensors into the network; the attention blocks that stay as they are.

    Anything else of `wanted`, the whole network unless given, must fit.
    """
    wanted = network.state_dict() if wanted is None else wanted
    blocks = tuple(attention_blocks(network))
    tensors = {name: value for name, value in tensors.items() if name in wanted or not name.endswith("_tracked")}
    missing = [name for name in wanted if name not in tensors and not name.endswith("num_batches_tracked")]
    absent = [name for name in missing if not name.startswith(tuple(f"{block}." for block in blocks))]
    foreign = [name for name in tensors if name not in wanted]
    if absent or foreign:
        raise UsageError(
            f"{path} does not fit: {len(absent)} tensors are absent and {len(foreign)} unknown "
            f"({', '.join([*absent, *foreign][:3])})",
            "name the network these weights belong to",
        )
    shaped = {name: _shaped(name, value, wanted[name], path) for name, value in tensors.items()}
    network.load_state_dict(shaped, strict=False)
    return tuple(block for block in blocks if any(name.startswith(f"{block}.") for name in missing))


def _shaped(name: str, value: Tensor, target: Tensor, path: Path) -> Tensor:
    """A 1x1 convolution's weight as a linear layer's; other differences of shape raise."""
    if value.shape == target.shape:
        return value
    if value.dim() == 4 and target.dim() == 2 and value.shape[:2] == target.shape:
        return value.reshape(target.shape)
    raise UsageError(
        f"{path} does not fit: {name} is {tuple(value.shape)} there and {tuple(target.shape)} in the network",
        "give the same model, classes and reduction",
    )
