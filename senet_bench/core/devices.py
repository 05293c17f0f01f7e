"""What is known of the kinds of devices before torch is loaded: a row each."""

from __future__ import annotations

import re
from dataclasses import dataclass

from senet_bench.core.specs import Runtime, TimingName
from senet_bench.errors import UsageError


@dataclass(frozen=True, slots=True)
class DeviceKind:
    """What a kind of device has.

    `runtimes` and `clocks` are what is measured unless told otherwise; a GPU's label says no threads. `graphs`: calls
    can be captured and replayed. `draws`: random numbers come from a generator of its own that torch can fork.
    `packs`: there are convolutions with weights in another order.
    """

    gpu: bool
    runtimes: tuple[Runtime, ...] = ("eager",)
    clocks: tuple[TimingName, ...] = ("end-to-end",)
    graphs: bool = False
    draws: bool = False
    packs: bool = False


DEVICE_KINDS: dict[str, DeviceKind] = {
    "cpu": DeviceKind(gpu=False, packs=True),
    "cuda": DeviceKind(
        gpu=True, runtimes=("eager", "cudagraph"), clocks=("end-to-end", "device"), graphs=True, draws=True
    ),
    "mps": DeviceKind(gpu=True),
}
"""By the name that torch gives them; ROCm's torch calls itself cuda."""


def check_name(device: str) -> None:
    """Raise `UsageError` for what names no device; whether it is there is another question."""
    kind, colon, index = device.partition(":")
    if kind not in DEVICE_KINDS or (colon and not re.fullmatch("[0-9]{1,3}", index, re.ASCII)):
        raise UsageError(f"device {device[:40]!r} is unknown", f"choose from {', '.join(DEVICE_KINDS)}, cuda:1")


def kind_of(device: str) -> DeviceKind:
    """The row of a device such as `cuda:1`; that of the CPU for one that is unknown."""
    return DEVICE_KINDS.get(device.partition(":")[0], DEVICE_KINDS["cpu"])
