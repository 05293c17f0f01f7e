"""Which networks a command is about: its arguments as cases, each resolved once with everything that was changed."""

from __future__ import annotations

import fnmatch
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal

from senet_bench.core.axes import AXES, setting_label, switches_at
from senet_bench.core.blocks import constant_of, constant_words, switched
from senet_bench.core.catalog import CATALOG, FAMILIES, normalise, pair, resolve, usual_attention
from senet_bench.core.reproduction import paper_cells
from senet_bench.core.specs import REPLACE, AttentionSpec, AxisValue, ModelSpec, Role, bare_name, by_sides, is_outside
from senet_bench.core.studies import Study, find_study
from senet_bench.errors import UsageError
from senet_bench.run.apart import answer

if TYPE_CHECKING:
    from torch import nn

Reference = Literal["partner", "first", "none"]


@dataclass(frozen=True, slots=True)
class Changes:
    """What a command line changes in every network it builds; None leaves the network's own.

    `against` says whom a network is compared with: its partner with or without attention, the first that is named, or
    no one. `only` is a pattern that a network's name, label or printed row must match to be compared at all. Blocks
    that the `pretrained` weights do not have start as the identity. `input_size` are channels and sides together, of
    networks from outside also (C, L) or (C, D, H, W).
    """

    img_size: int | None = None
    classes: int | None = None
    in_channels: int | None = None
    cardinality: int | None = None
    attention: Mapping[str, Any] = field(default_factory=dict)
    against: Reference = "partner"
    only: str | None = None
    pretrained: str | None = None
    input_size: tuple[int, ...] | None = None

    def apply(self, spec: ModelSpec) -> ModelSpec:
        """The network with the sizes and (where it has attention) the switches changed."""
        if self.input_size is not None and len(self.input_size) != 3 and not spec.outside:
            raise UsageError(
                f"{spec.name} takes images, not {by_sides(self.input_size)}", "give --input-size 3x224x224"
            )
        channels, *sides = self.input_size or spec.input_size
        return replace(
            spec.with_groups(self.cardinality),
            input_size=(self.in_channels or channels, *(self.img_size or side for side in sides)),
            guessed_size=spec.guessed_size and self.img_size is None,
            classes=self.classes or spec.classes,
            attention=switched(spec.attention, self.attention) if spec.attention else None,
        )


@dataclass(frozen=True, slots=True)
class Case:
    """A network to be measured, resolved: everything it is built from stands in `spec`.

    `baseline` is the network that it is compared with, built from the same changes. `studies` name the printed tables
    whose cells stand beside it (None: the network's own rows), `axes` is its setting in an ablation.
    """

    spec: ModelSpec
    role: Role
    baseline: ModelSpec | None = None
    studies: tuple[str | None, ...] = ()
    axes: Mapping[str, AxisValue] | None = None

    @property
    def name(self) -> str:
        """Its setting on an ablation's axes, else the network's name."""
        return setting_label(self.axes or {}) or self.spec.name

    def build(self, device: str = "cpu") -> nn.Module:
        """The network on a device; on `meta` it has shapes and no values."""
        from senet_bench.models import build_spec

        return build_spec(self.spec, device=device)


def select(what: Sequence[str], changes: Changes | None = None) -> tuple[Case, ...]:
    """The networks that `compare`'s arguments name, each once, with what is changed in them.

    Tables 2 and 3 when there are none.
    """
    if changes is not None and changes.only is not None:
        return matching_cases(select(what, replace(changes, only=None)), changes.only)
    if changes is not None and changes.pretrained is not None:
        return _fine_tuned(select(what, replace(changes, pretrained=None)), changes.pretrained)
    if changes is not None and changes.against != "partner":
        return _given(what, changes)
    cases: dict[tuple[str, AttentionSpec | None, int], Case] = {}
    for case in itertools.chain.from_iterable(_named(name, changes or Changes()) for name in what or TABLES_2_AND_3):
        key = (case.spec.name, case.spec.attention, case.spec.classes)
        known = cases.get(key, case)
        cases[key] = replace(known, studies=tuple(dict.fromkeys((*known.studies, *case.studies))))
    return tuple(cases.values())


def _fine_tuned(cases: Sequence[Case], weights: str) -> tuple[Case, ...]:
    """The cases with blocks that start as the identity where the weights have none."""
    return tuple(
        replace(case, spec=answer(_starting_as_identity, case.spec, weights)) if case.role == "variant" else case
        for case in cases
    )


def _starting_as_identity(spec: ModelSpec, weights: str) -> ModelSpec:
    from senet_bench.training.start import as_identity, own_weights

    return as_identity(spec, own_weights(spec, weights))


def _given(names: Sequence[str], changes: Changes) -> tuple[Case, ...]:
    """The networks as they are named, without partners: the first as the baseline of the others, or each alone."""
    option, fewest = ("--pair", 2) if changes.against == "first" else ("--alone", 1)
    specs = list(dict.fromkeys(spec_of(name, changes) for name in names))
    if len(specs) < fewest:
        wanted, example = ("two networks", "A B --pair") if fewest > 1 else ("a network", "A --alone")
        raise UsageError(f"{option} wants {wanted} by name or more", f"name them: senet-bench compare {example}")
    first = specs[0]
    if option == "--alone":
        return tuple(Case(spec, "baseline", None, (None,)) for spec in specs)
    other = next((spec for spec in specs if spec.input_size != first.input_size), None)
    if other is not None:
        shown = " and ".join(by_sides(spec.input_size) for spec in (first, other))
        raise UsageError(f"{first.name} and {other.name} take other images ({shown})", "name one size: --img-size")
    others = (Case(spec, "plain", first, (None,)) for spec in specs[1:])
    return (Case(first, "baseline", None, (None,)), *others)


TABLES_2_AND_3 = ("table2", "table3")


def selected_studies(what: Sequence[str]) -> tuple[Study, ...]:
    """The studies among `compare`'s arguments."""
    return tuple(find_study(name) for name in what or TABLES_2_AND_3 if is_table(name))


def check_names(names: Iterable[str]) -> None:
    """Raise `UsageError` on a name that is none; those from outside are looked up where torch is at hand."""
    for name in names:
        if is_table(name):
            find_study(name)
        elif not is_outside(name) and normalise(name) not in {"all", *map(normalise, FAMILIES)}:
            resolve(name)


def is_table(name: str) -> bool:
    """Whether a name is that of a table of the paper."""
    key = normalise(name)
    return key.isdigit() or (key.startswith("table") and key[5:].isdigit())


def _named(name: str, changes: Changes) -> Iterator[Case]:
    """The cases of one argument: a table, a family, all, or a network with its partner."""
    if is_table(name):
        study = find_study(name)
        for subject in study.subjects:
            spec = resolve(subject.model)
            classes = study.classes or spec.classes
            yield _case(replace(spec, attention=subject.attention, classes=classes), changes, study.id)
        return
    families = {normalise(family): family for family in FAMILIES}
    if normalise(name) in (*families, "all"):
        family = families.get(normalise(name))
        yield from (_case(spec, changes) for spec in CATALOG.values() if family in (None, spec.family))
        return
    spec = spec_of(name, changes)
    alone = spec.outside and spec.attention is None
    for member in (spec,) if alone else pair_of(spec):
        yield _case(member, Changes() if spec.outside else changes)


def _case(spec: ModelSpec, changes: Changes, study: str | None = None) -> Case:
    """The case of a row: a variant is compared with its baseline, at the row's own number of classes."""
    if spec.attention is None or spec.baseline is None:
        return Case(changes.apply(spec), "baseline", None, (study,))
    base = spec_of(spec.baseline, Changes(input_size=spec.input_size) if spec.outside else None)
    base = replace(base, attention=None, classes=spec.classes)
    if spec.outside:  # resolved with its changes
        base = replace(base, guessed_size=spec.guessed_size)
    return Case(changes.apply(spec), "variant", changes.apply(base), (study,))


def grid_cases(
    name: str, axes: Mapping[str, str | None], changes: Changes | None = None
) -> tuple[tuple[Case, ...], dict[str, str]]:
    """The baseline of a network and the settings of its attention on the axes (None: the paper's values).

    Beside them those that make no sense, by their names, with the reasons. Raises as `refuse_typed` does.
    """
    if not axes:
        raise UsageError("no axis given", f"choose from {', '.join(f'--{name}' for name in AXES)}")
    base, variant, usual = _grid_pair(name, changes or Changes())
    studies = tuple(AXES[axis].table for axis in axes)
    cases, problems = [Case(base, "baseline", None, studies, {})], dict[str, str]()
    for setting in _grid(axes):
        try:
            attention = switched(usual, switches_at(setting))
        except UsageError as error:
            problems[setting_label(setting)] = str(error)
            continue
        cases.append(Case(replace(variant, attention=attention), "variant", base, studies, setting))
    refuse_typed(axes, cases, problems)
    weights = (changes or Changes()).pretrained
    return tuple(cases) if weights is None else _fine_tuned(cases, weights), problems


def _grid(axes: Mapping[str, str | None]) -> Iterator[dict[str, AxisValue]]:
    """Every combination of the axes' values."""
    for values in itertools.product(*(AXES[axis].parse(text) for axis, text in axes.items())):
        yield dict(zip(axes, values))


def _grid_pair(name: str, changes: Changes) -> tuple[ModelSpec, ModelSpec, AttentionSpec]:
    """A network's baseline and its variant, and the attention that the settings of an ablation change.

    The variant of one from outside has blocks here that fit any channels: what fits is a matter of each setting.
    """
    if not is_outside(name):
        base, variant = pair_of(spec_of(name, changes))
        return base, variant, variant.attention or AttentionSpec()
    from senet_bench.models import outside

    base, fixed = spec_of(bare_name(name), changes), AttentionSpec(block="constant")
    variant = outside.attached(base, fixed, replaces=name.endswith(REPLACE))
    return base, variant, switched(AttentionSpec(), changes.attention)


def listed_name(name: str) -> str:
    """The name that a network's rows carry."""
    return name if is_outside(name) else resolve(name).name


def spec_of(name: str, changes: Changes | None = None) -> ModelSpec:
    """The row of a network by its name, with what is changed in it.

    A name with a colon is one of timm, torchvision or the user's own code; `+attach` behind it puts attention in,
    `+replace` in the place of its own.
    """
    if not is_outside(name):
        return (changes or Changes()).apply(resolve(name))
    from senet_bench.models import outside

    changes = changes or Changes()
    plain = changes.apply(outside.resolve_outside(bare_name(name), changes.input_size))
    if bare_name(name) == name:
        return plain
    attention = switched(AttentionSpec(), changes.attention)
    return outside.attached(plain, attention, replaces=name.endswith(REPLACE))


def check_switched(spec: ModelSpec, switches: Mapping[str, Any]) -> None:
    """Raise `UsageError` for switches of attention that a network does not have."""
    if switches and spec.attention is None:
        usual = f"name a network with attention, or leave out {', '.join(switches)}"
        raise UsageError(f"{spec.name} has no attention to switch", "add --attach" if spec.outside else usual)


def pair_of(spec: ModelSpec) -> tuple[ModelSpec, ModelSpec]:
    """The baseline and the variant with attention that a row belongs to, of the same sizes."""
    if not spec.outside:
        base, variant = (
            replace(row.with_groups(spec.cardinality), input_size=spec.input_size, classes=spec.classes)
            for row in pair(spec)
        )
        return base, variant
    from senet_bench.models import outside

    if spec.attention is None:
        return spec, outside.attached(spec)
    base = outside.resolve_outside(bare_name(spec.name), spec.input_size)
    return replace(base, classes=spec.classes, guessed_size=spec.guessed_size), spec


def matching_cases(cases: Sequence[Case], pattern: str) -> tuple[Case, ...]:
    """The cases of which a name, a label or a printed row matches a pattern such as `ResNet-110*`, in any case.

    The baseline of a case that stays does too. `UsageError` where nothing matches.
    """
    named = [(case, case_names(case)) for case in cases]
    kept = [case for case, names in named if any(fnmatch.fnmatch(name.lower(), pattern.lower()) for name in names)]
    if not kept:
        known = ", ".join(dict.fromkeys(names[0] for _, names in named))
        raise UsageError(f"--only {pattern!r} matches none of what is to be compared", f"choose from {known}")
    bases = {case.baseline for case in kept}
    return tuple(case for case in cases if case in kept or case.spec in bases)


def case_names(case: Case) -> list[str]:
    """What a case is called: its printed rows, its label, the network's name."""
    rows = (cell.row for study in case.studies if study for cell in paper_cells(case.spec, study))
    return list(dict.fromkeys((*rows, label(case.spec), case.spec.name)))


def with_controls(cases: Sequence[Case]) -> tuple[Case, ...]:
    """The cases, and behind the first variant of each baseline a network of it with its gates fixed at 0.5."""
    controlled: list[Case] = []
    seen: set[tuple[str, int]] = set()
    for case in cases:
        controlled.append(case)
        base = case.baseline
        if case.role == "variant" and base is not None and (base.name, base.classes) not in seen:
            seen.add((base.name, base.classes))
            controlled.append(
                _control([other for other in cases if other.role == "variant" and other.baseline == base])
            )
    return tuple(controlled)


def _control(variants: Sequence[Case]) -> Case:
    """The control of the variants of one baseline: the first with blocks in all stages, if there is one.

    Of those with equal stages, the first that has them at the usual place.
    """

    def unusual(case: Case) -> tuple[bool, bool]:
        attention, usual = case.spec.attention or AttentionSpec(), usual_attention(case.spec.name)
        return attention.stages != usual.stages, attention.place != usual.place

    case = min(variants, key=unusual)
    assert case.spec.attention is not None
    axes = {"block": "constant"} if case.axes is not None else None
    return Case(replace(case.spec, attention=constant_of(case.spec.attention)), "control", case.baseline, (), axes)


def refuse(problems: Mapping[str, str]) -> None:
    """Raise one `UsageError` that lists every impossible case, by its name with its reason."""
    lines = [f"{name}: {why}" for name, why in problems.items()]
    if lines:
        raise UsageError(f"{len(lines)} impossible: {' | '.join(lines)}" if lines[1:] else lines[0])


def refuse_typed(axes: Mapping[str, str | None], possible: Sequence[Case], impossible: Mapping[str, str]) -> None:
    """Raise one `UsageError` on the impossible cases, but for settings that an axis without a value may leave out.

    Those are the ones whose typed values go with another value of that axis; where fewer than two settings are
    possible nothing would be varied, and none may be left out.
    """
    typed = [axis for axis, text in axes.items() if text is not None]
    settings = [case.axes for case in possible if case.axes and case.axes.keys() == axes.keys()]
    held = [[setting[axis] for axis in typed] for setting in settings] if settings[1:] else []
    spared = {setting_label(setting) for setting in _grid(axes) if [setting[axis] for axis in typed] in held}
    refuse({name: why for name, why in impossible.items() if name not in spared})


def label(spec: ModelSpec) -> str:
    """The network's name, with every switch that differs from its own attention (else from the paper's SE block)."""
    attention = spec.attention
    if attention is None:
        return spec.label
    usual = usual_attention(spec.name)
    if attention.is_constant:
        return f"{spec.label}, {constant_words(attention, usual)}"
    name = spec.label if attention.block == usual.block else f"{spec.label.replace('SE-', '', 1)} + {attention.block}"
    own = {"block", "options"} | ({"reduction"} if attention.reduction is None else set())
    names = (field.name for field in fields(usual) if field.name not in own)
    differing = [name for name in names if getattr(attention, name) != getattr(usual, name)]
    values = [f"{name}={_short(getattr(attention, name))}" for name in differing]
    values += [f"{name}={_short(value)}" for name, value in attention.options]
    return f"{name} ({', '.join(values)})" if values else name


def _short(value: object) -> str:
    return "/".join(map(str, value)) if isinstance(value, tuple) else str(value)


def baselines(cases: Iterable[Case]) -> list[ModelSpec]:
    """The networks without attention that the cases are compared with, each once."""
    return list({spec.name: spec for case in cases for spec in (case.baseline or case.spec,)}.values())
