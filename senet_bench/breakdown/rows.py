"""What a profile says, as rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from senet_bench.core.results import Facts, InputSize
from senet_bench.core.specs import Conditions

Bound = Literal["bandwidth", "launch", "compute"]
Part = Literal["squeeze", "excitation", "scale", "attention"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DevicePart:
    """A part of attention in a GPU's own time: its kernels one behind the other, without the host's launches.

    `share` is what goes of the network's device time when the part is left out, `seconds` the same in seconds,
    `kernels` how many the profiler saw in a call. `limits` holds the bounds against the share of the fastest call; the
    bound of launches is there what the device takes for the same kernels on one pixel.
    """

    seconds: float | None = None
    share: Estimate | None = None
    kernels: int | None = None
    limits: Limits | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceCall:
    """The network's call in a GPU's own time: its median, the control as in `ProfileSummary`, kernels of a call."""

    seconds: float
    control: Estimate | None = None
    rounds: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)
    kernels: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PartRow:
    """A part of attention over all blocks, or `attention`, all of it. Times and shares are those of one call.

    `share` is of the whole network's time, `cpu_share` the same of CPU time; `seconds` is `share` of the network's.
    `alone` is the share of the part by itself (scale: with a fixed gate). `marked_share` is the time between marks
    around the part in place: more precise, blind to what the part costs others. `profiler_*` is the second witness: its
    operators' own time and its share of all operators' time. `bytes`, `operators`, `operations` are computed. `limits`
    holds the bounds against the share of the fastest call (by leaving out or by marks, whichever is sharper).
    `on_device` is None where the device has no time of its own.
    """

    part: Part
    seconds: float | None = None
    share: Estimate | None = None
    cpu_share: Estimate | None = None
    alone: Estimate | None = None
    marked_share: Estimate | None = None
    profiler_seconds: float | None = None
    profiler_share: float | None = None
    bytes: int | None = None
    operators: int | None = None
    operations: int | None = None
    limits: Limits | None = None
    on_device: DevicePart | None = None
    missing: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class StageRow:
    """A stage of the network: its share of a call by marks, and its attention's by leaving that out.

    `attention_share` and `attention_seconds` are of the whole network's time too, `attention_device_share` of a GPU's
    own. The stage `(between)` is what
    happens outside all stages.
    """

    stage: str
    output_size: tuple[int, ...] = ()
    blocks: int = 0
    seconds: float | None = None
    share: Estimate | None = None
    profiler_seconds: float | None = None
    profiler_share: float | None = None
    attention_seconds: float | None = None
    attention_share: Estimate | None = None
    attention_cpu_share: Estimate | None = None
    attention_device_share: Estimate | None = None
    marked_attention_share: Estimate | None = None
    profiler_attention_share: float | None = None
    missing: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Unread:
    """Shares of multiply-adds at pixels that nobody reads: of the network, with its gates early, and without attention.

    The last two are None where the network has no attention.
    """

    network: float
    early: float | None = None
    without: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileSummary:
    """A network's call as a whole, under these conditions.

    `seconds` is the median of a call, `control` a second copy's time as a fraction of it, less 1. `interaction` is
    what attention costs beyond its gate alone and its scale alone, `unattributed` beyond the sum over the stages.
    `samples` are the seconds of every kept round by arm, in order; `on_device` is the call in a GPU's own time: what
    `seconds` has beyond it is the host's, launches above all. `unread` is None where everything is read.
    `reason` says why to distrust the rows, `hardware` is the model of the GPU.
    """

    input_size: InputSize
    conditions: Conditions
    seconds: float | None = None
    cpu_seconds: float | None = None
    blocks: int = 0
    control: Estimate | None = None
    interaction: Estimate | None = None
    unattributed: Estimate | None = None
    rounds: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)
    settled: bool | None = None
    reason: str = ""
    device: Ceilings | None = None
    on_device: DeviceCall | None = None
    unread: Unread | None = None
    profiler_slowdown: float | None = None
    samples: Mapping[str, list[float]] = field(default_factory=dict)
    hardware: str = ""
    missing: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Where the time of one call went: the `parts` of attention, ending with all of it, the stages, and the whole."""

    parts: tuple[PartRow, ...]
    stages: tuple[StageRow, ...]
    summary: ProfileSummary


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileConditions(Conditions):
    """The conditions that were asked for, and which network, with the seconds of paired rounds.

    Those of the calls are in the summary: their batch is smaller where memory ran out.

    `flops_of` is the import string of the user's formulas, `guessed_side` that of the images where nothing says which
    the network is made for.
    """

    model: str
    label: str
    budget_s: float
    flops_of: str | None = None
    guessed_side: int | None = None


@dataclass(frozen=True, slots=True)
class Estimate:
    """A share (a fraction of the network's time); `ci` holds the truth with probability `confidence`.

    `ci` is None with too few rounds for that confidence.
    """

    value: float
    ci: tuple[float, float] | None
    confidence: float
    rounds: int


@dataclass(frozen=True, slots=True)
class Ceilings:
    """Measured limits: bytes per second beyond and within the last-level cache, seconds of a tiny operator, FLOP/s.

    A copy counts 2 bytes for each byte of its buffer and a triad (a = b + s c) 3; the faster of the two, at its best
    of a few rounds. `cache_bytes` is the last-level cache (`cache_known`: as the system tells), `buffer_bytes` one
    buffer of the memory test. `missing` says why a figure is None.
    """

    memory_bytes_per_s: float | None
    cache_bytes_per_s: float | None
    operator_s: float | None
    flops_per_s: float | None
    cache_bytes: int
    cache_known: bool
    buffer_bytes: int
    missing: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Limits:
    """The least seconds by bound, which one binds (None: see `reason`), and the arithmetic in words.

    `explained` is their sum as a fraction of the measured time.
    """

    seconds: Mapping[Bound, float]
    verdict: str | None
    arithmetic: str
    reason: str = ""
    explained: float | None = None


ProfileFacts = Facts[ProfileConditions, PartRow, ProfileSummary, StageRow]
"""The document of `profile`."""
