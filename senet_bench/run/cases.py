"""Which networks a command is about: its arguments as catalog rows with the attention they are built with."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from senet_bench.core.blocks import switched
from senet_bench.core.catalog import CATALOG, FAMILIES, normalise, pair, resolve
from senet_bench.core.specs import AttentionSpec, ModelSpec, Role, is_outside
from senet_bench.core.studies import AXES, Axis, AxisValue, Study, find_study, setting_label
from senet_bench.errors import UsageError

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, slots=True)
class Changes:
    """What a command changes in every network it builds; None leaves the network's own."""

    img_size: int | None = None
    classes: int | None = None
    in_channels: int | None = None
    cardinality: int | None = None
    attention: Mapping[str, Any] = field(default_factory=dict)

    def apply(self, spec: ModelSpec) -> ModelSpec:
        """The network with the image size, the channels and (where it has attention) the switches changed."""
        channels, height, width = spec.input_size
        for name in ("img_size", "classes", "in_channels", "cardinality"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"--{name.replace('_', '-')} must be a positive integer, not {value}")
        size = (self.in_channels or channels, self.img_size or height, self.img_size or width)
        attention = switched(spec.attention, self.attention) if spec.attention else None
        return replace(spec, input_size=size, classes=self.classes or spec.classes, attention=attention)

    def unlike_paper(self, spec: ModelSpec) -> bool:
        """Whether the network is another one than the paper's, so that no printed cell is for it."""
        changed = self.apply(spec)
        return (changed.input_size, changed.classes, self.cardinality) != (spec.input_size, spec.classes, None)


@dataclass(frozen=True, slots=True)
class Subject:
    """A network to be measured, the studies whose cells stand beside it, and its setting on an ablation's axes."""

    spec: ModelSpec
    baseline: str | None
    studies: tuple[str | None, ...]
    axes: Mapping[str, AxisValue] | None = None

    @property
    def role(self) -> Role:
        """What it is compared as."""
        if self.spec.attention is None:
            return "baseline" if self.baseline is None else "plain"
        fixed = self.spec.attention.block == "constant" and "attention" not in (self.axes or {})
        return "control" if fixed else "variant"

    @property
    def key(self) -> tuple[str, AttentionSpec | None, int]:
        """What makes two subjects one network."""
        return self.spec.name, self.spec.attention, self.spec.classes


def select(what: Sequence[str]) -> tuple[Subject, ...]:
    """The networks that `compare`'s arguments name, each once; Tables 2 and 3 when there are none."""
    found: dict[tuple[str, AttentionSpec | None, int], Subject] = {}
    for subject in itertools.chain.from_iterable(map(_named, what or ("table2", "table3"))):
        known = found.get(subject.key, subject)
        found[subject.key] = replace(known, studies=tuple(dict.fromkeys((*known.studies, *subject.studies))))
    return tuple(found.values())


def selected_studies(what: Sequence[str]) -> tuple[Study, ...]:
    """The studies among `compare`'s arguments."""
    return tuple(find_study(name) for name in what or ("table2", "table3") if _is_table(name))


def _is_table(name: str) -> bool:
    key = normalise(name)
    return key.isdigit() or (key.startswith("table") and key[5:].isdigit())


def _named(name: str) -> Iterable[Subject]:
    if _is_table(name):
        study = find_study(name)
        for one in study.subjects:
            spec = resolve(one.model)
            yield _subject(replace(spec, attention=one.attention, classes=study.classes or spec.classes), study.id)
    elif normalise(name) in {normalise(family) for family in FAMILIES}:
        for spec in CATALOG.values():
            if normalise(spec.family) == normalise(name):
                yield _subject(spec, None)
    elif normalise(name) == "all":
        yield from (_subject(spec, None) for spec in CATALOG.values())
    else:
        spec = row_of(name)
        alone = is_outside(name) and spec.attention is None
        yield from (_subject(one, None) for one in ((spec,) if alone else pair_of(spec)))


def _subject(spec: ModelSpec, study: str | None) -> Subject:
    return Subject(spec, spec.baseline if spec.attention is not None else None, (study,))


def grid(spec: ModelSpec, axes: Mapping[str, str | None]) -> tuple[Subject, ...]:
    """The baseline and every combination of the axes' values."""
    if not axes:
        raise UsageError("no axis given", f"choose from {', '.join(f'--{name}' for name in AXES)}")
    base, variant = pair_of(spec)
    chosen: list[tuple[Axis, tuple[AxisValue, ...]]] = [
        (AXES[name], AXES[name].parse(text)) for name, text in axes.items()
    ]
    studies = tuple(axis.table for axis, _ in chosen)
    subjects, problems = [Subject(base, None, studies, {})], []
    for values in itertools.product(*(values for _, values in chosen)):
        setting = {axis.name: value for (axis, _), value in zip(chosen, values)}
        try:
            switches: dict[str, Any] = {}
            for (axis, _), value in zip(chosen, values):
                switches |= axis.switches(value)
            attention = switched(variant.attention or AttentionSpec(), switches)
            subjects.append(Subject(replace(variant, attention=attention), base.name, studies, setting))
        except UsageError as error:
            problems.append(f"{setting_label(setting)}: {error}")
    _raise_all(problems)
    return tuple(subjects)


def row_of(name: str) -> ModelSpec:
    """The row of a network by its name: the catalog's, or of timm, torchvision or the user's own code."""
    if not is_outside(name):
        return resolve(name)
    from senet_bench.models import outside

    return outside.resolve(name)


def pair_of(spec: ModelSpec) -> tuple[ModelSpec, ModelSpec]:
    """The baseline and the variant with attention that a row belongs to."""
    if not spec.outside:
        return pair(spec)
    from senet_bench.models import outside

    return outside.pair(spec)


def with_controls(subjects: Sequence[Subject]) -> tuple[Subject, ...]:
    """The subjects and, after the first variant of each baseline, the same network with its gates fixed at 0.5."""
    found: list[Subject] = []
    seen: set[str] = set()
    for subject in subjects:
        found.append(subject)
        if subject.baseline is not None and subject.spec.attention is not None and subject.baseline not in seen:
            seen.add(subject.baseline)
            variant = subject.spec
            gate = replace(subject.spec.attention, block="constant")
            axes = {"block": "constant"} if subject.axes is not None else None
            found.append(Subject(replace(variant, attention=gate), subject.baseline, (), axes))
    return tuple(found)


def check(subjects: Sequence[Subject], changes: Changes) -> None:
    """Raise one `UsageError` that lists every subject that cannot be built or cannot take the images."""
    _raise_all([f"{name}: {why}" for name, why in possible(subjects, changes)[1].items()])


def possible(subjects: Sequence[Subject], changes: Changes) -> tuple[tuple[Subject, ...], dict[str, str]]:
    """The subjects that can be built and take the images; and the others by their setting, with the reason."""
    from senet_bench.bench.count import count

    found, impossible = [], {}
    for subject in subjects:
        try:
            spec = changes.apply(subject.spec)
            count(network(spec, changes), spec.input_size)
            found.append(subject)
        except UsageError as error:
            impossible[setting_label(subject.axes or {}) or subject.spec.name] = str(error)
    return tuple(found), impossible


def _raise_all(problems: Sequence[str]) -> None:
    if problems:
        raise UsageError(f"{len(problems)} impossible: {' | '.join(problems)}" if problems[1:] else problems[0])


def label(spec: ModelSpec) -> str:
    """The network's name, with every switch that differs from its own attention (else from the paper's SE block)."""
    attention = spec.attention
    if attention is None:
        return spec.label
    if attention.block == "constant":
        return f"{spec.label}, gates fixed at 0.5"
    row = CATALOG.get(spec.name)
    usual = (row.attention if row else None) or AttentionSpec()
    name = spec.label if attention.block == usual.block else f"{spec.label.replace('SE-', '', 1)} + {attention.block}"
    own = {"block"} | ({"reduction"} if attention.reduction is None else set())
    names = (one.name for one in fields(usual) if one.name not in own)
    differing = [one for one in names if getattr(attention, one) != getattr(usual, one)]
    values = (f"{one}={_short(getattr(attention, one))}" for one in differing)
    return f"{name} ({', '.join(values)})" if differing else name


def _short(value: object) -> str:
    return "/".join(map(str, value)) if isinstance(value, tuple) else str(value)


def network(spec: ModelSpec, changes: Changes, device: str = "meta") -> nn.Module:
    """The network of a row, changed, on device `meta` or another."""
    from senet_bench.models import build_spec

    return build_spec(spec, in_channels=spec.input_size[0], cardinality=changes.cardinality, device=device)
