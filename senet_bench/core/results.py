"""What a command measured: typed rows in a run, and the JSON document both are stored and printed as."""

from __future__ import annotations

import json
import pkgutil
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Annotated, Any, Generic, Literal, TypeVar

import msgspec

from senet_bench.core.environment import Environment
from senet_bench.core.history import as_of_today
from senet_bench.core.paper import CellStatus
from senet_bench.core.schemas import DOCUMENT_KINDS, RUN_KIND
from senet_bench.core.specs import (
    LARGEST_NUMBER,
    AttentionSpec,
    AxisValue,
    Conditions,
    Precision,
    Role,
    is_outside,
)
from senet_bench.errors import BenchError, NotComparableError, UsageError

RESTORE = "move it away or restore it"
Fraction = Annotated[float, msgspec.Meta(ge=0, le=1)]
Change = Annotated[float, msgspec.Meta(ge=-1, le=1)]
"""A difference of two fractions."""
StoredCount = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
InputSize = Annotated[tuple[StoredCount, ...], msgspec.Meta(min_length=2, max_length=4)]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=1e9)]
SeedText = Annotated[str, msgspec.Meta(pattern="^[0-9]{1,10}$")]
"""A seed as a key of JSON."""
Magnitude = Annotated[float, msgspec.Meta(ge=0)]


@dataclass(frozen=True, slots=True, kw_only=True)
class TimingSettings:
    """What was switched while timing, beside its conditions; None where an older file does not say."""

    cudnn_benchmark: bool | None = None
    tf32: bool | None = None
    gc: str | None = None
    images: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingProtocol:
    """What networks were trained and tested on; two errors may be compared where all but `seeds` agree.

    `revision` is that of the training arithmetic, None where an older file does not say. `data` is a digest of what the
    data set's files hold, None where it has none of its own or an older file does not say.
    """

    dataset: str | None = None
    folder: str | None = None
    recipe: str | None = None
    epochs: int | None = None
    lr: float | None = None
    batch_size: int | None = None
    seeds: int | None = None
    precision: Precision | None = None
    revision: int | None = None
    data: str | None = field(default=None, repr=False)

    @property
    def words(self) -> str:
        """Recipe, epochs and learning rate."""
        return f"{self.recipe}, {self.epochs} epochs, lr {self.lr}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TimingPlan:
    """What was to be timed: seconds for each baseline with its variants, under each of the conditions."""

    budget_s: float
    seed: int
    conditions: list[Conditions]


class RunConditions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a run was asked: `what` by `compare`, `model` and `axes` (as typed) by `ablate`, and each measure's plan.

    `budget` is what a cost may be, as a multiple of the baseline's. `any_protocol` says that errors of other
    protocols stand beside the paper's. `left_out` says why a setting of a bare axis is not there, `trials_left_out` how
    many trials of earlier versions say too little to be taken. `smaller_batches` says which batches are smaller than
    their recipe's, of data sets with fewer training images. `flops_of` is the import string of the user's formulas.
    """

    what: list[str] | None = None
    budget: dict[str, float] | None = None
    model: str | None = None
    axes: dict[str, str] | None = None
    left_out: dict[str, str] | None = None
    counter: str | None = None
    verified: bool | None = None
    latency: TimingPlan | None = None
    accuracy: TrainingProtocol | None = None
    trials_left_out: int | None = None
    smaller_batches: list[str] | None = None
    flops_of: str | None = None
    any_protocol: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Energy:
    """Joules an image, what else the board or package does included; `method` is who counted, over `rounds` rounds.

    `ratio` is the Hodges-Lehmann estimate of variant / baseline with its 95 % interval `ci`, `control_ratio` that of
    other blocks of the baseline; `watts` the mean power while the network ran.
    """

    joules: Magnitude
    watts: Magnitude
    ratio: Magnitude | None = None
    ci: tuple[Magnitude, Magnitude] | None = None
    control_ratio: Magnitude | None = None
    rounds: StoredCount
    method: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Time of one call under `conditions`, measured in the same rounds as its baseline.

    `seconds` is the median over rounds of the fastest call of a block, `floor` the fastest of all, `mean_seconds` the
    mean of all calls, from which `images_per_second` comes; `ratio` the Hodges-Lehmann estimate of variant / baseline
    with its interval `ci` at `confidence`, `quartiles` those of the rounds' ratios; `mde` the relative slowdown, from
    the gate if there is one, that such rounds show with 80 % power; `control_ratio` the same estimate for a second copy
    of the baseline; `cpu_ratio` that of CPU times, its interval over epochs, in each of which every network is built
    anew. `p_worse` and `p_ok` are one-sided, `p_slower_holm` adjusted over the rows of the run. `weight_bytes` are
    those of parameters and buffers, `peak_bytes` is what a call holds at most beyond them and the images.
    `hardware` is the model of the GPU, empty for a processor, which the environment names.
    `read_bytes_per_s` is how fast the threads read memory, where several runtimes were timed on a CPU. `energy_missing`
    says why no energy is there though it was to be measured.
    """

    seconds: Seconds
    floor: Seconds | None = None
    mean_seconds: Seconds | None = None
    cpu_seconds: Magnitude | None = None
    ratio: Magnitude | None = None
    ci: tuple[Magnitude, Magnitude] | None = None
    confidence: Fraction | None = None
    quartiles: tuple[Magnitude, Magnitude] | None = None
    rounds: StoredCount = 0
    mde: Magnitude | None = None
    control_ratio: Magnitude | None = None
    control_ci: tuple[Magnitude, Magnitude] | None = None
    cpu_ratio: Magnitude | None = None
    cpu_ci: tuple[Magnitude, Magnitude] | None = None
    p_worse: Fraction | None = None
    p_ok: Fraction | None = None
    p_slower_holm: Fraction | None = None
    verdict: str | None = None
    reason: str | None = None
    settled: bool | None = None
    dropped: dict[str, StoredCount] = field(default_factory=dict)
    epochs: StoredCount | None = None
    elapsed_s: Magnitude | None = None
    images_per_second: Magnitude | None = None
    weight_bytes: StoredCount | None = None
    peak_bytes: StoredCount | None = None
    peak_method: str | None = None
    energy: Energy | None = None
    energy_missing: str | None = None
    difference_from_eager: Magnitude | None = None
    first_call_s: Seconds | None = None
    read_bytes_per_s: Magnitude | None = None
    other_processes: list[int] = field(default_factory=list)
    conditions: Conditions = field(default_factory=Conditions)
    hardware: str = ""
    settings: TimingSettings = field(default_factory=TimingSettings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A network's error minus another row's, as a fraction, over the seeds that both have (`pairs` of them).

    `ci` is the 95 % interval of this difference alone and `p_value` its test; `joint_ci` holds together with those of
    all `family` rows of the table (Bonferroni), and `p_holm` is adjusted over them.
    """

    row: str
    value: Change
    pairs: StoredCount
    ci: tuple[float, float] | None = None
    joint_ci: tuple[float, float] | None = None
    p_value: Fraction | None = None
    p_holm: Fraction | None = None
    family: StoredCount = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """Top-1 error on a dataset, as fractions: of one network, or the mean over seeds with its sd.

    `difference` is this network's error minus the baseline's over the same seeds and data order (`pairs` of them), with
    its interval; `control_difference` minus that of the constant gate, which is what attention itself brings.
    `difference_ci` and `p_value` are of this row alone; `difference_joint_ci` and `p_holm` hold over all `family` rows
    that are compared with a baseline in the table, the control not among them, `control_p_holm` over those compared
    with the control. `against` is the difference to another row that was asked for. `protocol` is what must agree
    before two errors are compared. `trained_on` names the devices that the seeds were trained on, `remarks` is what was
    said of how the trainings began.
    """

    dataset: str
    top1_err: Fraction
    ci: tuple[float, float] | None = None
    top5_err: Fraction | None = None
    sd: Fraction | None = None
    seeds: StoredCount = 1
    difference: Change | None = None
    difference_ci: tuple[float, float] | None = None
    difference_joint_ci: tuple[float, float] | None = None
    pairs: StoredCount | None = None
    p_value: Fraction | None = None
    p_holm: Fraction | None = None
    family: StoredCount | None = None
    control_difference: Change | None = None
    control_difference_ci: tuple[float, float] | None = None
    control_p_value: Fraction | None = None
    control_p_holm: Fraction | None = None
    against: Difference | None = None
    protocol: TrainingProtocol = field(default_factory=TrainingProtocol)
    per_seed: dict[SeedText, Fraction] = field(default_factory=dict)
    trained_on: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seeding:
    """What was known of a row's difference to its baseline when seeds were enough (`core.sequential`).

    It errs `lower` or `higher`, the `same` to `width` (a fraction), or it is `open`; then about `needed` seeds more
    would tell. `ci` is the interval of that look; those of all looks and rows hold together at `confidence`.
    """

    verdict: Literal["lower", "higher", "same", "open"]
    seeds: StoredCount
    width: Fraction
    ci: tuple[float, float] | None = None
    confidence: Fraction
    needed: StoredCount | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeStanding:
    """A runtime in the search for the fastest, all timed in the same rounds; without seconds where `reason` says why.

    `ratio` is its time as a fraction of eager's, with its interval `ci`; `behind` that of the next slower runtime as a
    fraction of its own, with `behind_ci`.
    """

    runtime: str
    seconds: Seconds | None = None
    ratio: Magnitude | None = None
    ci: tuple[Magnitude, Magnitude] | None = None
    behind: Magnitude | None = None
    behind_ci: tuple[Magnitude, Magnitude] | None = None
    batch_size: StoredCount = 1
    reason: str | None = None


UNTIMED = ("latency", "further latency")
"""What a row is said to lack where it was not timed, under the first of its conditions or under another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One network under one attention: what was counted and measured, beside what the paper prints.

    `role` is what it is compared as; `axes` is the setting of an ablation; `counts` are those of further metrics by
    their keys; `source` is a digest of the code from outside that it was made of, empty where none is or an older file
    does not say. `missing` says why a number is null, by what it is the number of: `accuracy`, `paper` or one of
    `UNTIMED`; `uncounted` names the operators whose work is not in `flops`, `formulas` what the user's formulas
    (`--flops-of`) count in it, by the name of each. `remarks` are what a reader must know of its block or its images.
    `standings` are those of the runtimes, fastest first, where the fastest was looked for. `seeds_elsewhere` are those
    that another run has to train or to take up: of another share, or with a job that is left.
    """

    model: str
    label: str
    family: str
    input_size: InputSize
    classes: StoredCount
    cardinality: int | None = None
    baseline: str | None = None
    role: Role = "baseline"
    attention: AttentionSpec | None = None
    source: str = ""
    axes: dict[str, AxisValue] | None = None
    params: StoredCount | None = None
    flops: dict[str, StoredCount] = field(default_factory=dict)
    flops_by_kind: dict[str, StoredCount] = field(default_factory=dict)
    counts: dict[str, StoredCount] = field(default_factory=dict)
    latency: Latency | None = None
    more_latency: list[Latency] = field(default_factory=list)
    accuracy: Accuracy | None = None
    seeding: Seeding | None = None
    paper: list[CellStatus] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    seeds_elsewhere: StoredCount = 0
    uncounted: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    formulas: dict[str, int] = field(default_factory=dict)
    standings: list[RuntimeStanding] = field(default_factory=list)

    @property
    def outside(self) -> bool:
        """Whether the network is from outside the catalog, and so in no table of the paper."""
        return is_outside(self.model)

    @property
    def latencies(self) -> list[Latency]:
        """Those under all conditions, the first first."""
        return self.more_latency if self.latency is None else [self.latency, *self.more_latency]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of a command: a document that is written once and never changed."""

    schema: str
    version: str
    created: str
    environment: Environment = field(default_factory=Environment)
    conditions: RunConditions = field(default_factory=RunConditions)
    rows: list[Row] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Finding:
    """A thing a machine or an installation has or lacks, and how to get it."""

    name: str
    found: str
    remedy: str = ""


Conditioned = TypeVar("Conditioned")
FactsRow = TypeVar("FactsRow")
Summarised = TypeVar("Summarised")
Detail = TypeVar("Detail")


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts(Generic[Conditioned, FactsRow, Summarised, Detail]):
    """The document of a command whose rows are not networks: its conditions, rows of one type, a summary, details."""

    schema: str
    version: str
    created: str
    environment: Environment
    conditions: Conditioned
    rows: list[FactsRow] = field(default_factory=list)
    summary: Summarised = field(default_factory=dict)  # type: ignore[assignment]
    details: list[Detail] = field(default_factory=list)


AnyFacts = Facts[Any, Any, Any, Any]
StoredDocument = Run | AnyFacts


def to_json(document: object) -> str:
    """A document as indented JSON, ended by a newline; a NaN or an infinity becomes null."""
    try:
        data = msgspec.json.encode(document)
    except UnicodeEncodeError:  # a path of bytes that are no UTF-8
        data = json.dumps(msgspec.to_builtins(document), ensure_ascii=False).encode(errors="replace")
    return msgspec.json.format(data, indent=1).decode() + "\n"


def from_json(data: bytes, source: str) -> StoredDocument:
    """The stored document in `data`, checked.

    Raises `UsageError` for what is not JSON or not of the right shape, `NotComparableError` for a foreign schema;
    both name `source`.
    """
    run = _run_at_once(data)
    if run is not None:
        return run
    document = json_object(data, source)
    name = DOCUMENT_KINDS.get(str(document.get("schema")))
    if name is None:
        raise NotComparableError(
            f"{source} has the schema {document.get('schema')!r}, which this version does not know",
            "move it away, or use the version of senet-bench that wrote it",
        )
    for part in ("environment", "rows"):
        if part not in document:
            raise UsageError(f"{source} is damaged (it has no {part})", RESTORE)
    read: StoredDocument = of_type(as_of_today(document), pkgutil.resolve_name(name), source)
    return read


_HEAD, _RUNS = re.compile(rb'\{\s*"schema": "([^"]*)"'), msgspec.json.Decoder(Run)


def _run_at_once(data: bytes) -> Run | None:
    """The run in `data`, read straight into its types: three times faster than by way of plain JSON.

    None for another document, and for one that is damaged or lacks what today's types want.
    """
    try:
        head = _HEAD.match(data)
        if head is None or DOCUMENT_KINDS.get(head[1].decode()) != RUN_KIND or may_be_too_large(data):
            return None
        run = _RUNS.decode(data)
        # a quotation mark within a text is led by \
        return run if b'"environment":' in data and data.count(b'"role":') == len(run.rows) else None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, BenchError):
        return None


def may_be_too_large(data: bytes) -> bool:
    """Whether JSON may hold a number beyond `LARGEST_NUMBER`: one of a hundred digits, or with an exponent of three."""
    shape = data.translate(_SHAPE)
    ends = (match.end() for match in _EXPONENT.finditer(shape))
    return b"0" * 100 in shape or any(_NUMBER.search(data, max(0, end - 100), end) for end in ends)


_SHAPE = bytes(
    48 if 48 <= code < 58 else 101 if code in b"eE" else code if code in b"+." else 32 for code in range(256)
)
"""Every digit as 0, e for both of its cases, a blank for what is in no number."""
_EXPONENT, _NUMBER = re.compile(rb"0e\+?000"), re.compile(rb"(?<![\w.\"])[\d.]+[eE]\+?\d{3}$")


def of_type(document: object, kind: Any, source: str, remedy: str = RESTORE) -> Any:
    """Plain JSON as a `kind`; `UsageError`, naming `source`, where a value has another type or is out of its range."""
    try:
        return msgspec.convert(document, kind)
    except (msgspec.ValidationError, UsageError, RecursionError) as error:
        raise UsageError(f"{source} is damaged ({error})", remedy) from error


def json_object(data: bytes, source: str) -> dict[str, Any]:
    """The JSON object in `data`; `UsageError`, naming `source`, where there is none or a number is too large."""
    try:
        document: dict[str, Any] = msgspec.json.decode(data, type=dict[str, Any])
        large = _too_large(document) if _has_too_large(document) else None
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{source} is not a results file ({error})", RESTORE) from error
    if large is not None:
        raise UsageError(f"{source} is damaged ({large} holds a number beyond {LARGEST_NUMBER:g})", RESTORE)
    return document


def _has_too_large(tree: dict[str, Any] | list[Any]) -> bool:
    """Whether a number stands in plain JSON that nothing measured can be; every stored number passes here."""
    parts: Iterable[Any] = tree.values() if isinstance(tree, dict) else tree
    for part in parts:
        kind = type(part)
        if kind is float or kind is int:
            if not -LARGEST_NUMBER <= part <= LARGEST_NUMBER:
                return True
        elif (kind is dict or kind is list) and _has_too_large(part):
            return True
    return False


def _too_large(tree: object, place: str = "$") -> str | None:
    """Where in plain JSON a number stands that nothing measured can be, None where there is none."""
    parts = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, part in parts:
        kind = type(part)
        if kind is dict or kind is list:
            where = _too_large(part, place)
        elif kind is int or kind is float:
            where = None if -LARGEST_NUMBER <= part <= LARGEST_NUMBER else ""
        else:
            continue
        if where is not None:
            return f"{place}[{str(key)[:40]!r}]{where.removeprefix(place)}"
    return None
