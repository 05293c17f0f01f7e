"""Networks in, latency out: prepares every network, chooses the clock, halves the batch when memory runs out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from torch import nn

from senet_bench.bench.agreement import witness
from senet_bench.bench.clock import Clock, PeakMemory
from senet_bench.bench.device import card_of, device_of, peak_memory
from senet_bench.bench.energy import measure_energy
from senet_bench.bench.machine import session, settled
from senet_bench.bench.reference import Reference
from senet_bench.bench.rounds import Plan, measure_latency
from senet_bench.bench.runtimes import Prepared, example, failing_as, prepare
from senet_bench.bench.samples import ArmLatency, Comparison
from senet_bench.core.foreign import blame, guarded
from senet_bench.core.progress import Progress, Steps
from senet_bench.core.results import Energy, Latency, TimingSettings
from senet_bench.core.runtimes import RUNTIMES
from senet_bench.core.specs import Conditions
from senet_bench.deployment.quantised import CALIBRATION
from senet_bench.errors import ArmError, MeasurementError, out_of_memory

IMAGES = "standard normal, drawn anew before every call (device time: every block)"
"""The distribution of the images; outputs are checked on others too, before anything is timed (`FreshCall.vary`)."""

CALIBRATED = f"INT8 calibrated by {CALIBRATION} seeded images of the same kind: its time counts, not its outputs"


@dataclass(frozen=True, slots=True)
class NetworkLatency:
    """The comparison of networks under the conditions they really ran in; `halved_to` is the batch that memory held.

    `failed` says of those that are not in it why.
    """

    comparison: Comparison
    conditions: Conditions
    prepared: Mapping[str, Prepared]
    other_processes: tuple[int, ...] = ()
    halved_to: int | None = None
    failed: Mapping[str, str] = field(default_factory=dict)

    def arm(self, name: str) -> ArmLatency:
        """What the rounds say of a network; raises `MeasurementError` where it is not in them."""
        if name in self.failed:
            raise MeasurementError(self.failed[name])
        return self.comparison.arms[name]

    def throughput(self, name: str) -> float:
        """Images per second over all calls of the rounds that count, slow ones too."""
        return self.conditions.batch_size / self.arm(name).mean

    def latency(self, name: str) -> Latency:
        """What is stored of a network; raises `MeasurementError` where it is not in rounds, or none of it counts."""
        arm = self.arm(name)
        latency, prepared = self.comparison.latency(arm.name), self.prepared[name]
        int8 = RUNTIMES[self.conditions.runtime].int8
        images = f"{IMAGES}; {CALIBRATED}" if int8 else IMAGES
        return replace(
            latency,
            images_per_second=self.throughput(name),
            conditions=self.conditions,
            hardware=card_of(self.conditions.device),
            settings=TimingSettings(
                cudnn_benchmark=True, tf32=self.conditions.precision == "tf32", gc="off", images=images
            ),
            weight_bytes=None if int8 else prepared.weight_bytes,  # those of the network that was quantised
            difference_from_eager=prepared.difference,
            first_call_s=prepared.first_s,
            other_processes=list(self.other_processes),
        )


def measure_networks(
    networks: Mapping[str, nn.Module | Reference],
    baseline: str,
    input_size: tuple[int, ...],
    *,
    conditions: Conditions | None = None,
    plan: Plan | None = None,
    clock: Clock | None = None,
) -> Steps[NetworkLatency]:
    """The latency of networks in the same rounds; yields what is prepared and the part of the budget that is used.

    `input_size` is (C, H, W) of one image. The networks are not changed, and `Reference`s of them serve several
    measurements; what cannot be run, or does not compute its output anew, is left out and named. The batch of all is
    halved while memory runs out. Raises `UsageError` for conditions that are not to be had and `MeasurementError` when
    the baseline cannot be built, captured or held in memory.
    """
    conditions, plan, halved_to = settled(conditions or Conditions()), plan or Plan(), None
    failed: dict[str, str] = {}
    while True:
        left = {name: network for name, network in networks.items() if name not in failed}
        try:
            measured = yield from _measured(left, baseline, input_size, conditions, plan, clock)
        except ArmError as error:
            if error.arm == baseline:
                raise MeasurementError(f"the baseline {baseline}: {error.problem}", error.remedy) from error
            failed[error.arm] = str(error)
            yield Progress(f"without {error.arm}", 0.0, plan.budget_s)
        except Exception as error:  # noqa: BLE001 - `halved` raises what is not of memory
            conditions = halved(conditions, error)
            halved_to = conditions.batch_size
            yield Progress(f"batch {halved_to}: memory ran out", 0.0, plan.budget_s)
        else:
            return replace(measured, halved_to=halved_to, failed=failed)


def halved(conditions: Conditions, error: Exception) -> Conditions:
    """The conditions at half the batch, where an error says that memory ran out.

    Any other is raised: one of torch's as a `MeasurementError`, which that is too where a single image is too much.
    """
    if not out_of_memory(error):
        if isinstance(error, RuntimeError):
            raise MeasurementError(f"a network failed: {blame(error)}", "this row is left out") from error
        raise error
    if conditions.batch_size == 1:
        problem = f"out of memory on {conditions.device} at batch size 1"
        raise MeasurementError(problem, "use smaller images") from error
    device_of(conditions.device).empty_cache()
    return conditions.with_batch(conditions.batch_size // 2)


def _measured(
    networks: Mapping[str, nn.Module | Reference],
    baseline: str,
    input_size: tuple[int, ...],
    conditions: Conditions,
    plan: Plan,
    clock: Clock | None,
) -> Steps[NetworkLatency]:
    images = example(input_size, conditions.batch_size)
    with session(conditions):
        prepared: dict[str, Prepared] = {}
        for name, network in networks.items():
            try:
                with guarded(name, draws=True):
                    prepared[name] = prepare(network, conditions, images)
            except MeasurementError as error:
                if out_of_memory(error):
                    raise
                raise ArmError(name, error.problem, error.remedy) from error
            yield Progress(f"preparing {name}", 0.0, plan.budget_s)
        comparison = yield from measure_latency(
            {name: ready.factory for name, ready in prepared.items()},
            baseline,
            plan=fitting_plan(plan, conditions),
            clock=clock or device_of(conditions.device).clock(conditions),
            witness=witness,
        )
        return NetworkLatency(comparison, conditions, prepared, device_of(conditions.device).others())


def measure_memory(prepared: Mapping[str, Prepared], conditions: Conditions) -> dict[str, PeakMemory]:
    """Peak memory of a call of each network prepared, beyond weights and images; none of one that fails."""
    peaks: dict[str, PeakMemory] = {}
    with session(conditions):
        for name, ready in prepared.items():
            with (
                contextlib.suppress(MeasurementError),
                _without_memory("measuring memory"),
                guarded(name),
                failing_as("measuring memory failed"),
            ):
                call = ready.factory()
                peaks[name] = peak_memory(call, conditions.device)
                del call
    return peaks


@contextlib.contextmanager
def _without_memory(what: str) -> Iterator[None]:
    """Running out of memory is a `MeasurementError` where the batch was found already."""
    try:
        yield
    except Exception as error:
        if not out_of_memory(error):
            raise
        raise MeasurementError(f"{what}: memory ran out", "use a smaller batch") from error


def energy_of(
    networks: Mapping[str, nn.Module | Reference], baseline: str, input_size: tuple[int, ...], conditions: Conditions
) -> Steps[dict[str, Energy]]:
    """Joules an image of each network, in the same rounds; raises `MeasurementError` where nobody counts them."""
    device, images = device_of(conditions.device), example(input_size, conditions.batch_size)
    meter = device.meter()
    with session(conditions), _without_memory("energy"):
        calls = {name: prepare(network, conditions, images).factory() for name, network in networks.items()}
        return (yield from measure_energy(calls, baseline, meter, device.synchronise, conditions.batch_size))


def fitting_plan(plan: Plan, conditions: Conditions) -> Plan:
    """The plan with what follows from the conditions: training changes outputs, a GPU needs a longer warm-up."""
    steady = plan.steady and conditions.mode == "infer"
    least_s = max(plan.least_warmup_s, device_of(conditions.device).warmup_s)
    return replace(plan, steady=steady, least_warmup_s=least_s)
