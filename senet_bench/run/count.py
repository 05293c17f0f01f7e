"""The count of a run's cases: parameters and operations, each network built and counted once."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from msgspec import structs

from senet_bench.core.catalog import resolve
from senet_bench.core.foreign import contained
from senet_bench.core.formulas import Formulas
from senet_bench.core.identity import source_digest
from senet_bench.core.metrics import METRICS
from senet_bench.core.progress import Steps
from senet_bench.core.reproduction import cells_of
from senet_bench.core.results import Row, Run, RunConditions
from senet_bench.core.specs import CounterName, ModelSpec
from senet_bench.core.studies import find_study
from senet_bench.errors import MeasurementError, UsageError
from senet_bench.run.apart import answer
from senet_bench.run.cases import Case, label, refuse
from senet_bench.run.record import Record

if TYPE_CHECKING:
    from torch import nn

NOT_ASKED = {"latency": "not asked for", "accuracy": "not asked for"}
UNLIKE_PAPER = "its cells are for the network's own image size, channels, classes and cardinality"


@dataclass(frozen=True, slots=True)
class Counted:
    """What was counted of one network: trainable parameters, operations, and what further metrics name.

    `flops` are by convention, `remarks` what a reader must know of the network.
    """

    params: int
    flops: dict[str, int]
    by_kind: dict[str, int]
    by_formula: dict[str, int]
    uncounted: list[str]
    further: dict[str, int]
    remarks: list[str]


@dataclass(frozen=True, slots=True)
class Count:
    """Who counts, and whether the count is checked against the two reference counters; what was counted so far.

    `formulas` are the user's for what no counter knows; what is checked is the count without them. With `any_protocol`
    the paper's errors stand beside stored ones that were measured by another protocol, too.
    """

    counter: CounterName = "shapes"
    verify: bool = False
    formulas: Formulas | None = None
    counted: dict[ModelSpec, Counted | MeasurementError] = field(default_factory=dict, compare=False)
    any_protocol: bool = False

    def check(self, cases: Sequence[Case]) -> None:
        """Raise one `UsageError` that lists every case that cannot be built or cannot take the images."""
        refuse(self.impossible(cases))

    def impossible(self, cases: Sequence[Case]) -> dict[str, str]:
        """The cases that cannot be built or cannot take the images, by their names, with the reasons."""
        reasons: dict[str, str] = {}
        for case in cases:
            try:
                self.of(case)
            except UsageError as error:
                reasons[case.name] = str(error)
            except MeasurementError:
                continue  # its row says so, and the others go on
        return reasons

    def described(self, conditions: RunConditions, cases: Sequence[Case]) -> RunConditions:
        """What the run was asked, with how it counts."""
        return structs.replace(
            conditions,
            counter=self.counter,
            verified=self.verify,
            flops_of=self.formulas.source if self.formulas else None,
            any_protocol=self.any_protocol or None,
        )

    def steps(self, cases: Sequence[Case]) -> int:
        """One a case."""
        return len(cases)

    def run(self, cases: Sequence[Case], record: Record[Run]) -> Steps[None]:
        """Add a row for every case."""
        for number, case in enumerate(cases, 1):
            try:
                row = self.row(case)
            except MeasurementError as error:
                row = _row(case, missing={**NOT_ASKED, "count": str(error)})
                record.failures.append(f"{row.label}: {error}")
            record.add(row)
            yield record.progress(row.label, number, len(cases))

    def of(self, case: Case) -> Counted:
        """What is counted of a case, at the first call."""
        if case.spec not in self.counted:
            name = case.spec.foreign or (self.formulas and self.formulas.source)
            try:
                with contained(name) if name else contextlib.nullcontext():
                    self.counted[case.spec] = self._count(case)
            except MeasurementError as error:
                self.counted[case.spec] = error
        counted = self.counted[case.spec]
        if isinstance(counted, MeasurementError):
            raise counted
        return counted

    def _count(self, case: Case) -> Counted:
        if self.formulas is not None:
            return counted_network(case.spec, self.counter, self.verify, self.formulas)
        return answer(counted_network, case.spec, self.counter, self.verify)

    def row(self, case: Case) -> Row:
        """The row of a case: what was counted, beside the paper's cells."""
        counted = self.of(case)
        row = _row(
            case,
            params=counted.params,
            flops=counted.flops,
            flops_by_kind=counted.by_kind,
            uncounted=counted.uncounted,
            remarks=counted.remarks,
            formulas=counted.by_formula,
            counts=counted.further,
            missing=NOT_ASKED,
            source=_source(case.spec),
        )
        missing = NOT_ASKED if case.spec.outside or _as_printed(case) else {**NOT_ASKED, "paper": UNLIKE_PAPER}
        return replace(row, paper=cells_of(row, case.studies), missing=missing)


def counted_network(spec: ModelSpec, counter: CounterName, verify: bool, formulas: Formulas | None = None) -> Counted:
    """What one counter counts of a network, checked against the reference counters where it is to `verify`."""
    from senet_bench.bench import count
    from senet_bench.models import build_spec

    network, size = build_spec(spec, device="meta"), spec.input_size
    if counter == "fvcore":
        from senet_bench.bench.reference_counters import count_fvcore

        counts = count_fvcore(network, size)
    else:
        counts = count.count(network, size, formulas)
    if verify:
        from senet_bench.bench import reference_counters

        reference_counters.verify(network, size, count.count(network, size) if formulas else counts)
    return Counted(
        params=count.parameters(network),
        flops={"macs": counts.macs, "bn-inclusive": counts.bn_inclusive},
        by_kind=counts.by_kind(),
        by_formula=dict(counts.by_formula),
        uncounted=list(counts.uncounted),
        further={key: counter(network, size) for key, counter in counters().items()},
        remarks=_remarks(spec),
    )


def _remarks(spec: ModelSpec) -> list[str]:
    """What a reader must know of a row: of its block, and of the size of its images where that was a guess."""
    from senet_bench.models.outside_block import block_remarks

    side = f"{spec.input_size[-1]} px images: nothing says which it is made for; choose with --img-size"
    return [side] * spec.guessed_size + (block_remarks(spec.attention) if spec.attention else [])


def _source(spec: ModelSpec) -> str:
    """The digest of its code from outside, empty where that has no file."""
    try:
        return source_digest(spec)
    except UsageError:
        return ""


def uncounted(cases: Sequence[Case]) -> list[Row]:
    """The rows of cases that nothing is known of but what they are."""
    return [_row(case) for case in cases]


def _row(case: Case, **counted: Any) -> Row:
    """The row of a case with what was counted of it."""
    spec = case.spec
    return Row(
        model=spec.name,
        label=label(spec),
        family=spec.family,
        input_size=spec.input_size,
        classes=spec.classes,
        cardinality=spec.cardinality,
        baseline=None if case.baseline is None else case.baseline.name,
        role=case.role,
        attention=spec.attention,
        axes=dict(case.axes) if case.axes is not None else None,
        **counted,
    )


def counters() -> dict[str, Callable[[nn.Module, tuple[int, ...]], int]]:
    """The functions that count further metrics, by the metric's key; the row of a metric names its own."""
    named = ((metric.key, metric.counted.partition(":")) for metric in METRICS.values() if metric.counted)
    return {key: getattr(importlib.import_module(module), name) for key, (module, _, name) in named}


def _as_printed(case: Case) -> bool:
    """Whether a network of the catalog has the sizes that the paper's cells are for."""
    spec, own = case.spec, resolve(case.spec.name)
    classes = {own.classes, *(find_study(name).classes for name in case.studies if name)}
    return spec.input_size == own.input_size and spec.cardinality is None and spec.classes in classes
