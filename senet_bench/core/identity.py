"""What a number is a number of: the network, the data, the recipe and the settings that decide it, as one key.

What does not decide it is recorded beside it: torch, device, threads, processes, version, commit, where the data lie.
"""

from __future__ import annotations

import functools
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, Self

from senet_bench.core.source import source_of
from senet_bench.core.specs import AttentionSpec, ModelSpec, Precision, is_outside
from senet_bench.core.store import key_of

if TYPE_CHECKING:
    from senet_bench.core.recipes import Recipe

REVISION = 1
"""Of the training arithmetic: raised by a change after which trials end in other numbers by more than the rounding that
another machine or version of torch brings too, and by no other."""
TEXTS = ("name", "source", "deviations")
"""What a recipe says about itself and does not train by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkIdentity:
    """A network by what builds it: its name without attention, its options, its attention, the source from outside.

    `source` is a digest of what is not this toolkit's own code; empty where nothing is.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    attention: AttentionSpec | None = None
    source: str = ""

    @classmethod
    def of(cls, spec: ModelSpec) -> Self:
        """The network of a row; imports what it names from outside."""
        return cls(
            name=spec.baseline or spec.name,
            options=spec.built,
            attention=spec.attention,
            source=source_digest(spec),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """A data set by its name and what is in it, never by where it lies: counts and digests of both splits.

    `size` is the side of the images in pixels. `labels` and `images` are digests, of the labels and of the pixels or
    the files' names and sizes.
    """

    name: str
    size: int
    channels: int
    classes: int
    train: int
    test: int
    labels: str
    images: str

    @property
    def digest(self) -> str:
        """What tells it from other data of its name, at whatever side its files are shown."""
        return key_of(canonical(replace(self, size=0)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What decides the result of a training run.

    `batch` is the global batch size, `start` what the weights started from, empty where the seed drew each layer's by
    its name. `ema` is the decay of an average of the weights, `accumulate` the parts that a batch was cut into,
    `blocks_first` the epochs in which attention blocks alone were trained.
    """

    network: NetworkIdentity
    data: Data
    recipe: Mapping[str, Any]
    batch: int
    seed: int
    precision: Precision = "fp32"
    start: str = ""
    ema: float | None = None
    accumulate: int = 1
    blocks_first: int = 0
    revision: int = field(default=REVISION, metadata={"always": True})

    @property
    def key(self) -> str:
        """Sixteen hexadecimal digits of its canonical JSON."""
        return key_of(self.as_dict())

    def as_dict(self) -> dict[str, Any]:
        """Its plain values, those left out that are a default: a switch added later changes no key."""
        plain: dict[str, Any] = canonical(self)
        return plain

    def parts(self) -> dict[str, object]:
        """The same in one level, `data.size` for the size in its data."""
        parts: dict[str, object] = {}
        for name, value in self.as_dict().items():
            inner = {f"{name}.{part}": content for part, content in value.items()} if isinstance(value, dict) else {}
            parts |= inner or {name: value}
        return parts


def source_digest(spec: ModelSpec) -> str:
    """A digest of the code from outside that a network and its attention are made of, empty where none is."""
    outside = [spec.options["source"]] if spec.outside else []
    if spec.attention is not None and is_outside(spec.attention.block):
        outside.append(spec.attention.block)
    return "-".join(source_of(name).digest for name in outside)


@functools.lru_cache(maxsize=256)
def recipe_facts(recipe: Recipe) -> Mapping[str, Any]:
    """What a recipe trains by, apart from its batch size; `Identity.batch` has that."""
    plain: dict[str, Any] = canonical(recipe)
    return {name: value for name, value in plain.items() if name not in (*TEXTS, "batch_size")}


def canonical(value: Any) -> Any:
    """A value in plain JSON types, one form for equal values: whole floats are integers, defaults are left out."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return int(value) if value.is_integer() else value
    if isinstance(value, Mapping):
        return {str(name): canonical(content) for name, content in value.items()}
    if isinstance(value, list | tuple):
        return [canonical(content) for content in value]
    if is_dataclass(value):
        kept = ((name, getattr(value, name)) for name in _kept(value))
        return {name: canonical(content) for name, content in kept}
    return repr(value)


def _kept(value: Any) -> Iterator[str]:
    """The fields of a dataclass whose values are others than their defaults."""
    for name, always, default in _fields(value.__class__):
        if always or getattr(value, name) != default:
            yield name


@functools.cache
def _fields(kind: Hashable) -> tuple[tuple[str, bool, Any], ...]:
    """The fields of a dataclass: their names, whether they are always kept, and their defaults."""
    return tuple(
        (entry.name, "always" in entry.metadata or _default(entry) is MISSING, _default(entry))
        for entry in fields(kind)  # type: ignore[arg-type]
    )


def _default(entry: Field[Any]) -> Any:
    return entry.default if entry.default_factory is MISSING else entry.default_factory()
