"""What `doctor` finds: the machine, the packages, and on request every branch of measuring on a device."""

from __future__ import annotations

import functools
import platform
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import psutil
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from senet_bench import __version__
from senet_bench.bench.clock import Clock
from senet_bench.bench.cuda import EventClock, nvml_gauge
from senet_bench.bench.device import DEVICE_CLASSES, device_of, peak_memory
from senet_bench.bench.machine import check_conditions, cpu_model, environment, session, version_of
from senet_bench.bench.process import allocator_setting, allocator_variables, cores, tuning_obstacle
from senet_bench.bench.rounds import Plan, measure_latency
from senet_bench.bench.runtimes import example, prepare
from senet_bench.core.progress import result_of
from senet_bench.core.results import Finding
from senet_bench.core.runtimes import RUNTIMES
from senet_bench.core.specs import AttentionSpec, Conditions
from senet_bench.deployment import deploy
from senet_bench.deployment.gate import SAME_GATE, Gate, gate_kernel, gate_times
from senet_bench.errors import one_line, out_of_memory
from senet_bench.models.attention import SqueezeExcitation

SMALL_BATCH = 4
MOST_FP32_ERROR = 3e-5
"""Of a sum of 500 to 2,300 products, of the largest; TF32's is about ten times that."""
BUSY_SHARE = 0.5
"""Of the cores; where more are wanted, timing has company."""
EXTRAS: dict[str, str | None] = {
    "torch": None,
    "torchvision": None,
    "fvcore": None,
    "pandas": None,
    "timm": "timm",
    "onnxruntime": "onnx",
    "openvino": "openvino",
    "nncf": "int8",
    "nvidia-ml-py": "nvidia",
    "huggingface_hub": "hub",
    "tensorboard": "track",
    "ray": "ray",
    "submitit": "slurm",
}
"""Packages the toolkit uses, and the extra that brings each; None for what every installation has."""


class LackingError(Exception):
    """A device of this kind or model does not have what a branch needs, which is no failure."""


def diagnose(device: str | None = None) -> tuple[list[Finding], int]:
    """All checks, and how many branches of measuring failed on `device` (None: not tried)."""
    findings = checks()
    if device is None:
        return findings, 0
    check_conditions(Conditions(device=device))
    branches = list(self_check(device))
    findings += [Finding(f"{device}: {one.name}", TOLD[one.outcome] + one.detail) for one in branches]
    return findings, sum(one.outcome == "failed" for one in branches)


def _small_network() -> nn.Module:
    torch.manual_seed(0)
    body: Iterable[nn.Module] = (
        m for _ in range(4) for m in (nn.Conv2d(32, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU())
    )
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))
    return nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), *body, *head)


def _images() -> Tensor:
    return example((3, 32, 32), SMALL_BATCH)


def _present(device: str) -> str:
    check_conditions(Conditions(device))
    hardware = device_of(device).hardware()
    figures = [f"{name} {value}" for name, value in hardware.items() if name != "gpu" and value is not None]
    return ", ".join(filter(None, (hardware.get("gpu"), *figures, f"torch {torch.__version__}")))


def _runs(device: str, **options: str | bool) -> str:
    """The small network under these conditions, checked against eager fp32."""
    conditions = replace(Conditions(device, batch_size=SMALL_BATCH), **options)  # type: ignore[arg-type]
    if device_of(device).lacks(conditions.precision):
        raise LackingError(f"it has no {conditions.precision}")
    if RUNTIMES[conditions.runtime].graphs:
        _need_cuda(device)
    with session(conditions):
        prepared = prepare(_small_network(), conditions, _images())
    return f"differs from eager fp32 by {prepared.difference:.1e} (at most {prepared.tolerance:g})"


def _arithmetic(device: str) -> str:
    """That fp32 is not TF32: the errors of a product and a convolution, which have switches of their own."""
    random = torch.Generator().manual_seed(0)
    a, x = torch.randn(512, 512, generator=random), torch.randn(2, 256, 14, 14, generator=random)
    weight = torch.randn(64, 256, 3, 3, generator=random)
    errors: dict[str, float] = {}
    calls: dict[str, tuple[Callable[..., Tensor], Tensor, Tensor]] = {
        "product": (torch.matmul, a, a),
        "convolution": (F.conv2d, x, weight),
    }
    for what, (run, *terms) in calls.items():
        exact = run(*(term.double() for term in terms))
        with session(Conditions(device)):
            found = run(*(term.to(device) for term in terms)).cpu().double()
        errors[what] = float((found - exact).abs().max() / exact.abs().max())
        if errors[what] > MOST_FP32_ERROR:
            raise RuntimeError(f"a {what} in fp32 is off by {errors[what]:.1e}: TF32 is on")
    return ", ".join(f"a {what} in fp32 is off by {error:.1e}" for what, error in errors.items())


def _pair(device: str, clock: Clock) -> str:
    """An A/A comparison with that clock."""
    conditions = Conditions(device, batch_size=SMALL_BATCH)
    with session(conditions):
        factory = prepare(_small_network(), conditions, _images()).factory
        arms = {"a": factory, "b": factory}
        comparison = result_of(measure_latency(arms, "a", plan=Plan(budget_s=1.0), clock=clock))
    judged = comparison.arms["b"].judgement
    assert judged is not None
    early = f", {clock.early_blocks} blocks started early" if isinstance(clock, EventClock) else ""
    return (
        f"{comparison.arms['a'].seconds * 1e6:.1f} us a call, A/A ratio {judged.ratio:.4f} "
        f"({judged.ci[0]:.4f} .. {judged.ci[1]:.4f}), {judged.rounds} rounds, dropped {dict(comparison.dropped)}{early}"
    )


def _events(device: str, cold: bool) -> str:
    _need_cuda(device)
    return _pair(device, EventClock(torch.device(device), cold, nvml_gauge(torch.device(device))))


def _end_to_end(device: str) -> str:
    return _pair(device, device_of(device).clock(Conditions(device)))


def _gauge(device: str) -> str:
    _need_cuda(device)
    if torch.version.hip:
        return "NVIDIA's alone: here no clock is watched, no energy counted, no other process seen"
    gauge = nvml_gauge(torch.device(device))
    if gauge is None:
        raise RuntimeError("NVML does not answer: pip install nvidia-ml-py")
    _loaded(device)
    reading, others = gauge.read(), gauge.others()
    return (
        f"SM clock {reading.mhz} MHz under load, reasons {reading.reasons:#x}, other processes: {others or 'none'}; "
        f"to lock it: sudo nvidia-smi -i {gauge.index()} -lgc {reading.mhz} (and -rgc to let it go)"
    )


def _loaded(device: str, seconds: float = 1.0) -> None:
    """Let a device calculate for a while, as its clock depends on it."""
    a, began = (
        torch.rand(device_of(device).product_side, device_of(device).product_side, device=device),
        time.monotonic(),
    )
    while time.monotonic() - began < seconds:
        a = torch.tanh(a @ a)
        device_of(device).synchronise()


def _memory(device: str) -> str:
    conditions = Conditions(device, batch_size=SMALL_BATCH)
    with session(conditions):
        peak = peak_memory(prepare(_small_network(), conditions, _images()).factory(), device)
    return f"{peak.bytes} bytes by the {peak.method}"


def _exhausted(device: str) -> str:
    """That running out of memory is recognised, by asking for 4 TiB."""
    try:
        torch.empty(2**42, dtype=torch.int8, device=device)
    except RuntimeError as error:
        if out_of_memory(error):
            return "recognised"
        raise
    return "4 TiB were granted"


def _gate(device: str) -> str:
    """The kernel for gates beside torch's operators, on the maps of SE-ResNet-50's third stage."""
    _need_cuda(device)
    if gate_kernel() is None:
        return "Triton is not installed: deploy's gates are torch's operators"
    gate = next(m for m in deploy(SqueezeExcitation(1024, AttentionSpec(), 16)).modules() if isinstance(m, Gate))
    x = example((1024, 14, 14), SMALL_BATCH).to(device, memory_format=torch.channels_last)
    with session(Conditions(device)), torch.inference_mode():
        times = gate_times(gate.to(device), x)
    kernel_us, plain_us = 1e6 * times.kernel_s, 1e6 * times.plain_s
    figures = f"off by {times.difference:.1e}, {kernel_us:.1f} us, by torch's operators {plain_us:.1f} us"
    if times.difference > SAME_GATE[torch.float32]:
        raise RuntimeError(f"the gate by Triton {version_of('triton')} is {figures}: torch's operators are used")
    return f"the gate by Triton {version_of('triton')} is {figures}; deploy takes the faster for each shape"


def _need_cuda(device: str) -> None:
    if not device_of(device).captures:
        raise LackingError("only a CUDA device has it")


BRANCHES: dict[str, Callable[[str], str]] = {
    "present": _present,
    "NVML": _gauge,
    "fp32 is IEEE": _arithmetic,
    "eager": _runs,
    "channels_last": lambda d: _runs(d, channels_last=True),
    "tf32": lambda d: _runs(d, precision="tf32"),
    "bf16": lambda d: _runs(d, precision="bf16"),
    "fp16": lambda d: _runs(d, precision="fp16"),
    "train": lambda d: _runs(d, mode="train"),
    "train bf16": lambda d: _runs(d, mode="train", precision="bf16"),
    "compile": lambda d: _runs(d, runtime="compile"),
    "CUDA graph": lambda d: _runs(d, runtime="cudagraph"),
    "deploy": lambda d: _runs(d, runtime="deploy"),
    "deploy bf16": lambda d: _runs(d, runtime="deploy", precision="bf16"),
    "gate kernel": _gate,
    "CUDA graph train": lambda d: _runs(d, runtime="cudagraph", mode="train"),
    "events, warm L2": lambda d: _events(d, cold=False),
    "events, cold L2": lambda d: _events(d, cold=True),
    "end to end": _end_to_end,
    "peak memory": _memory,
    "out of memory": _exhausted,
}
"""Every branch by its name; each gives the figures or raises the reason, `LackingError` of the device's kind."""


BranchOutcome = Literal["works", "lacking", "failed"]
TOLD: dict[BranchOutcome, str] = {"works": "", "lacking": "not on this device: ", "failed": "failed: "}
"""What is said before the figures or the reason."""


@dataclass(frozen=True, slots=True)
class Branch:
    """One branch tried: whether it works here, the device has none of it, or it failed; the figures or the reason."""

    name: str
    outcome: BranchOutcome
    detail: str


def self_check(device: str = "cuda") -> Iterator[Branch]:
    """Try everything that timing on this device relies on, one `Branch` each; nothing raises."""
    for name, check in BRANCHES.items():
        yield attempt(name, functools.partial(check, device))


def attempt(name: str, check: Callable[[], str]) -> Branch:
    """The check's outcome; whatever it raises becomes its reason."""
    try:
        return Branch(name, "works", check())
    except LackingError as error:
        return Branch(name, "lacking", str(error))
    except Exception as error:  # noqa: BLE001 - a self-check reports every failure
        return Branch(name, "failed", one_line(error))


def checks() -> list[Finding]:
    """What this machine offers for measuring, and what is missing with how to get it."""
    packages = environment().packages
    findings = [
        Finding("senet-bench", __version__),
        Finding("python", platform.python_version()),
        Finding("cpu", f"{cpu_model()}, {torch.backends.cpu.get_cpu_capability()}"),
        Finding("cores / threads", f"{cores()} / {torch.get_num_threads()}"),
        Finding("memory", f"{psutil.virtual_memory().total / 2**30:.1f} GiB"),
        _load(),
        _allocator(),
        Finding("machine key", environment().machine),
    ]
    for kind, make in DEVICE_CLASSES.items():
        if kind != "cpu":
            number = make(torch.device(kind)).count()
            places = [torch.device(kind, index) for index in range(number)]
            findings += [Finding(str(place) if make.several else kind, make(place).name()) for place in places]
            findings += [Finding(kind, "none", make.absent)] if not number else []
    for package, extra in EXTRAS.items():
        version = packages.get(package) or version_of(package)
        remedy = "" if version or extra is None else f"pip install 'senet-bench[{extra}]'"
        findings.append(Finding(package, version or "missing", remedy))
    place = shutil.which("sbatch")
    return [*findings, Finding("sbatch", place or "missing", "" if place else "--engine slurm runs where Slurm is")]


def _load() -> Finding:
    """How many processes want to run, on the average of a minute."""
    load = psutil.getloadavg()[0]
    busy = load > BUSY_SHARE * cores()
    return Finding("load", f"{load:.1f}", "times are judged by their control, and take longer" if busy else "")


def _allocator() -> Finding:
    """What this process allocates with, and what can be done about it."""
    what = {"default": "glibc's default", "environment": "glibc, set by the environment", "other": "not glibc's"}
    setting, obstacle = allocator_setting(), tuning_obstacle()
    set_by = ", ".join(f"{name}={value}" for name, value in allocator_variables().items())
    words = what.get(setting, setting) + (f" ({set_by})" if set_by else "")
    return Finding(
        "allocator", words, f"cannot be tuned: {obstacle}" if obstacle else "--allocator tuned keeps freed memory"
    )
