"""What measuring needs of a device, and the devices: a new one is a class and a row in `DEVICE_CLASSES`.

What the command line must know of a kind before torch is loaded stands in `core.devices`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import psutil
import torch
from torch.profiler import ProfilerActivity

from senet_bench.bench.clock import Call, Clock, PeakMemory, host_clock, traced_peak
from senet_bench.bench.cuda import Cuda
from senet_bench.bench.energy import Meter, package_meter
from senet_bench.core.devices import check_name, kind_of
from senet_bench.core.specs import Conditions
from senet_bench.errors import MeasurementError, UsageError

CACHES = Path("/sys/devices/system/cpu/cpu0/cache")


class Device(Protocol):
    """One device of a kind, made from its `torch.device`; being made asks nothing of it."""

    backend: ClassVar[str]
    """What processes that train on it talk by."""
    accumulation: ClassVar[torch.dtype]
    """The widest floating-point numbers that it adds."""
    captures: ClassVar[bool]
    """Whether calls can be captured as a graph, and work timed on the device itself."""
    warmup_s: ClassVar[float]
    """Seconds of calls before its clocks are up."""
    several: ClassVar[bool]
    """Whether a machine may have more than one, told apart by a number."""
    absent: ClassVar[str]
    """What is said where there is none."""
    in_host_memory: ClassVar[bool]
    """Whether its tensors lie where NumPy reads them."""
    pins: ClassVar[bool]
    """Whether copies to it go on beside its work from memory of the host that is pinned."""
    trains_in_half: ClassVar[bool]
    """Whether networks train on it in fp16."""
    product_side: ClassVar[int]
    """Side of the square matrices whose product shows how fast it calculates."""

    def __init__(self, place: torch.device) -> None: ...

    def count(self) -> int:
        """How many of this kind are there."""

    def name(self) -> str:
        """Its name for people."""

    def hardware(self) -> dict[str, Any]:
        """What the environment records of it, by the keys of `environment()["hard"]`."""

    def lacks(self, precision: str) -> bool:
        """Whether it does not calculate in this precision."""

    def doubled(self, x: torch.Tensor) -> torch.Tensor:
        """The tensor in double precision, on the CPU where the device has none."""

    def synchronise(self) -> None:
        """Wait until it has done all that it was given."""

    def clock(self, conditions: Conditions) -> Clock:
        """What times calls under these conditions."""

    def mark(self, now: Callable[[], float]) -> Any:
        """A mark in its work, here; `now` is the host's clock."""

    def between(self, start: Any, end: Any) -> float:
        """Seconds between two marks, after `synchronise`."""

    def peak(self, call: Call) -> PeakMemory:
        """The most that a call holds beyond what was there before."""

    def meter(self) -> Meter:
        """The counter of its energy; `MeasurementError` with the reason where there is none."""

    def capture(self, call: Call) -> Call:
        """The call as a graph that is replayed."""

    def others(self) -> tuple[int, ...]:
        """Ids of other processes that compute on it."""

    def empty_cache(self) -> None:
        """Hand back memory that is not in use."""

    def random_state(self) -> list[torch.Tensor]:
        """The state of its generators, empty where the CPU's is used."""

    def restore_random_state(self, state: list[torch.Tensor]) -> None:
        """Set the generators to a state from `random_state`."""

    def use(self, rank: int) -> None:
        """Make the device of that index the current one, for one process of several."""

    def cache_bytes(self) -> int | None:
        """Bytes of the last-level cache, None where the system does not tell."""

    def free_bytes(self) -> int:
        """Bytes of memory that are free."""

    def activities(self) -> list[ProfilerActivity]:
        """What torch's profiler watches."""


@dataclass(frozen=True)
class Cpu:
    """The processor, and what any device is that has no more to offer."""

    place: torch.device

    backend: ClassVar[str] = "gloo"
    accumulation: ClassVar[torch.dtype] = torch.float64
    captures: ClassVar[bool] = False
    warmup_s: ClassVar[float] = 0.0
    several: ClassVar[bool] = False
    absent: ClassVar[str] = ""
    in_host_memory: ClassVar[bool] = True
    pins: ClassVar[bool] = False
    trains_in_half: ClassVar[bool] = False
    product_side: ClassVar[int] = 512

    def count(self) -> int:
        """One, always there."""
        return 1

    def name(self) -> str:
        """What it can calculate."""
        return torch.backends.cpu.get_cpu_capability()

    def hardware(self) -> dict[str, Any]:
        """Nothing: the machine's own fields are the processor's."""
        return {}

    def lacks(self, precision: str) -> bool:
        """By what oneDNN says of this processor; never TF32."""
        queries = {"bf16": "_is_mkldnn_bf16_supported", "fp16": "_is_mkldnn_fp16_supported"}
        return precision != "fp32" and not (precision in queries and _mkldnn_has(queries[precision]))

    def doubled(self, x: torch.Tensor) -> torch.Tensor:
        """Where it is."""
        return x.double()

    def synchronise(self) -> None:
        """Nothing is pending."""

    def clock(self, conditions: Conditions) -> Clock:
        """The host's clock."""
        return host_clock()

    def mark(self, now: Callable[[], float]) -> Any:
        """The time when everything before is done."""
        self.synchronise()
        return now()

    def between(self, start: Any, end: Any) -> float:
        """The difference of two times."""
        return float(end - start)

    def peak(self, call: Call) -> PeakMemory:
        """By the trace of torch's allocator on the CPU."""
        return traced_peak(call)

    def meter(self) -> Meter:
        """That of the CPU's packages."""
        return package_meter()

    def capture(self, call: Call) -> Call:
        """Not to be had: `UsageError`."""
        raise UsageError(f"{self.place} has no graphs to capture", "use --runtime eager")

    def others(self) -> tuple[int, ...]:
        """Not asked."""
        return ()

    def empty_cache(self) -> None:
        """Nothing is kept."""

    def random_state(self) -> list[torch.Tensor]:
        """Empty."""
        return []

    def restore_random_state(self, state: list[torch.Tensor]) -> None:
        """Nothing to set."""

    def use(self, rank: int) -> None:
        """There is one."""

    def cache_bytes(self) -> int | None:
        """The largest cache that Linux tells of."""
        return largest_cache(CACHES)

    def free_bytes(self) -> int:
        """The memory of the machine that is available."""
        return int(psutil.virtual_memory().available)

    def activities(self) -> list[ProfilerActivity]:
        """The CPU's."""
        return [ProfilerActivity.CPU]


@dataclass(frozen=True)
class Mps(Cpu):
    """Apple's GPU: timed end to end, without double precision."""

    accumulation: ClassVar[torch.dtype] = torch.float32
    absent: ClassVar[str] = "only on Apple silicon"
    in_host_memory: ClassVar[bool] = False
    pins: ClassVar[bool] = False
    trains_in_half: ClassVar[bool] = True
    product_side: ClassVar[int] = 4096

    def count(self) -> int:
        """One on Apple silicon."""
        return int(torch.backends.mps.is_available())

    def name(self) -> str:
        """Apple's, by torch's name."""
        return "Apple GPU (Metal)"

    def lacks(self, precision: str) -> bool:
        """TF32 alone."""
        return precision == "tf32"

    def doubled(self, x: torch.Tensor) -> torch.Tensor:
        """On the CPU."""
        return x.cpu().double()

    def synchronise(self) -> None:
        """Wait for the queue."""
        torch.mps.synchronize()

    def clock(self, conditions: Conditions) -> Clock:
        """The host's clock around call and synchronisation."""
        return host_clock(torch.mps.synchronize)

    def meter(self) -> Meter:
        """None."""
        raise MeasurementError("energy: Metal shows no counter")

    def peak(self, call: Call) -> PeakMemory:
        """What is held when the call ends: Metal tells of no maximum, so this is the least that the peak can be."""
        torch.mps.synchronize()
        before = torch.mps.current_allocated_memory()
        output = call()
        torch.mps.synchronize()
        held = torch.mps.current_allocated_memory() - before
        del output
        return PeakMemory(max(0, held), "MPS allocator at the end of a call")

    def empty_cache(self) -> None:
        """Hand back what Metal keeps."""
        torch.mps.empty_cache()

    def random_state(self) -> list[torch.Tensor]:
        """The state of its one generator."""
        return [torch.mps.get_rng_state()] if self.count() else []

    def restore_random_state(self, state: list[torch.Tensor]) -> None:
        """Set its one generator."""
        if state and self.count():
            torch.mps.set_rng_state(state[0])

    def cache_bytes(self) -> int | None:
        """Not told."""
        return None


DEVICE_CLASSES: dict[str, type[Device]] = {"cpu": Cpu, "cuda": Cuda, "mps": Mps}
"""By torch's name of the kind; ROCm's torch calls itself cuda."""


def device_of(name: str | torch.device) -> Device:
    """The device of a name such as `cuda:1`; `UsageError` for a name or a kind that is unknown."""
    check_name(str(name))
    place = torch.device(name)
    return DEVICE_CLASSES[place.type](place)


def card_of(name: str) -> str:
    """The model of the GPU that a name stands for, empty for a processor."""
    return device_of(name).name() if kind_of(name).gpu else ""


def present(name: str) -> Device:
    """The device of that name; `UsageError` where it is unknown or not there."""
    device, index = device_of(name), torch.device(name).index or 0
    if not device.count():
        raise UsageError(f"device {name} is not there", "use --device cpu, or see `senet-bench doctor`")
    if index >= device.count():
        raise UsageError(f"device {name} is not there", f"this machine has {device.count()} of that kind")
    return device


def every(name: str) -> list[str]:
    """The devices that a name stands for: all of a kind that a machine may have several of, else the one it names."""
    device = present(name)
    if device.several and torch.device(name).index is None:
        return [f"{name}:{index}" for index in range(device.count())]
    return [name]


def installed() -> list[tuple[str, Device]]:
    """The kinds that are there, by name, the CPU left out."""
    devices = [(kind, make(torch.device(kind))) for kind, make in DEVICE_CLASSES.items() if kind != "cpu"]
    return [(kind, device) for kind, device in devices if device.count()]


def peak_memory(call: Call, device: str = "cpu") -> PeakMemory:
    """The peak of one call, after one that is not counted."""
    if torch.device(device).type not in DEVICE_CLASSES:
        raise MeasurementError(
            f"peak memory cannot be measured on {device}", f"choose from {', '.join(DEVICE_CLASSES)}"
        )
    call()
    return device_of(device).peak(call)


def largest_cache(folder: Path) -> int | None:
    """Bytes of the largest cache in a folder as Linux lists them, None where it lists none."""
    sizes = []
    for path in folder.glob("index*/size"):
        text = path.read_text(encoding="ascii").strip()
        number, unit = text.rstrip("KMG"), text[-1:]
        if number.isdigit():
            sizes.append(int(number) << {"K": 10, "M": 20, "G": 30}.get(unit, 0))
    return max(sizes, default=None)


def _mkldnn_has(query: str) -> bool:
    try:
        return bool(getattr(torch.ops.mkldnn, query)())
    except (AttributeError, RuntimeError):
        return False
