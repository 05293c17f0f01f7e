"""Small stored facts for the tests of reports: an ablation with errors, another machine, gates, and hostile names."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from senet_bench.core.environment import Environment
from senet_bench.core.files import write_atomically
from senet_bench.core.learning import ClassifierRow, Evaluation, EvaluationConditions
from senet_bench.core.results import (
    Accuracy,
    Facts,
    Latency,
    Row,
    Run,
    RunConditions,
    StoredDocument,
    TrainingProtocol,
    to_json,
)
from senet_bench.core.schemas import schema_of
from senet_bench.core.specs import AttentionSpec, Conditions, Role, Runtime
from senet_bench.gates.rows import ErrorChange, GateConditions, GateFacts, GateRow, GateSummary

COMMITTED = Path(__file__).parents[2] / "results"
HOSTILE = '</script><img src=x onerror="document.title=1">$\\frac$\x00\x1b[31m\u202e&amp;'
HARD = {"cpu": "Test CPU", "isa": "AVX2", "cores": 4, "virtual": False, "gpu": None}
PROTOCOL = TrainingProtocol(dataset="digits", recipe="digits", epochs=60, lr=0.1, seeds=4, precision="fp32")


def header(command: str, machine: str = "aaaaaaaaaaaa", **conditions: Any) -> dict[str, Any]:
    """What a document of a command on a machine begins with."""
    return {
        "schema": schema_of(command),
        "version": "0.1.0",
        "created": "2026-11-20T10:00:00Z",
        "environment": {"machine": machine, "hard": HARD, "packages": {"torch": "2.15.0"}, "load_1min": 0.5},
        "conditions": conditions,
    }


def made(command: str, machine: str = "aaaaaaaaaaaa", **conditions: Any) -> dict[str, Any]:
    """The same with its environment typed."""
    about = header(command, machine, **conditions)
    return about | {"environment": msgspec.convert(about["environment"], Environment)}


def store(root: Path, document: StoredDocument, name: str) -> Path:
    """Write a document where a command would have."""
    path = root / "runs" / document.environment.machine / f"{name}.json"
    write_atomically(path, to_json(document))
    return path


def row(label: str, attention: AttentionSpec | None, error: float, *, axes: dict[str, Any] | None = None) -> Row:
    """A small network with an error over four seeds, counted, timed."""
    per_seed = {str(seed): error + 0.004 * seed for seed in range(4)}
    mean = sum(per_seed.values()) / 4
    role: Role = "baseline" if attention is None else "control" if attention.block == "constant" else "variant"
    reduction = attention.reductions[0] if attention else 0
    difference = None if attention is None else mean - 0.106
    accuracy = Accuracy(
        dataset="digits",
        top1_err=mean,
        sd=0.005,
        seeds=4,
        difference=difference,
        difference_ci=None if difference is None else (difference - 0.01, difference + 0.01),
        p_value=None if difference is None else 0.2,
        p_holm=None if difference is None else 0.4,
        protocol=PROTOCOL,
        per_seed=per_seed,
    )
    return Row(
        model="seresnet20_cifar" if attention else "resnet20_cifar",
        label=label,
        family="cifar",
        input_size=(1, 8, 8),
        classes=10,
        baseline="resnet20_cifar" if attention else None,
        role=role,
        attention=attention,
        axes=axes,
        params=270_000 + (40_000 // reduction if reduction else 0),
        flops={"macs": 2_500_000 + (40_000 // reduction if reduction else 0), "bn-inclusive": 2_600_000},
        accuracy=accuracy,
        latency=latency(None if attention is None else 1 + 0.2 / reduction),
    )


def latency(ratio: float | None, **conditions: Any) -> Latency:
    """A latency with its interval and control, or that of a baseline."""
    found = Latency(seconds=0.002 * (ratio or 1), rounds=40, conditions=Conditions(**conditions))
    if ratio is None:
        return found
    about = {"ci": (ratio - 0.01, ratio + 0.01), "confidence": 0.95, "mde": 0.01}
    return replace(found, ratio=ratio, control_ratio=1.001, control_ci=(0.99, 1.01), **about)  # type: ignore[arg-type]


SECONDS: dict[Runtime, float] = {"eager": 0.1, "openvino": 0.05, "deploy:openvino": 0.04}
"""Of a baseline's image in `by_runtime`, 0.1 where it is not named."""


def by_runtime(name: str, ratios: dict[tuple[Runtime, int], float], **conditions: object) -> list[Row]:
    """A baseline and its SE network with ratios by runtime and batch, 400 bytes of gates apart, 1 MB read a second."""

    def timed(runtime: Runtime, batch: int, ratio: float | None) -> Latency:
        under = replace(Conditions(runtime=runtime, batch_size=batch), **conditions)  # type: ignore[arg-type]
        seconds = SECONDS.get(runtime, 0.1) * batch * (ratio or 1)
        about = Latency(seconds=seconds, rounds=40, conditions=under, read_bytes_per_s=1e6, weight_bytes=1000)
        if ratio is None:
            return about
        about = replace(about, ratio=ratio, ci=(ratio - 0.01, ratio + 0.02), confidence=0.95, weight_bytes=1400)
        control = 0.99 if batch == 1 else 1.01
        return replace(about, quartiles=(ratio - 0.02, ratio + 0.03), control_ratio=control, control_ci=(0.98, 1.02))

    def network(label: str, attention: AttentionSpec | None) -> Row:
        known = [timed(*place, ratio if attention else None) for place, ratio in ratios.items()]
        return Row(
            model=label.lower(), label=label, family="resnet", input_size=(3, 224, 224), classes=1000,
            baseline=name.lower() if attention else None, role="variant" if attention else "baseline",
            attention=attention, params=1000, flops={"macs": 1000}, latency=known[0], more_latency=known[1:],
        )  # fmt: skip

    return [network(name, None), network(f"SE-{name}", AttentionSpec())]


def ablation(machine: str = "aaaaaaaaaaaa") -> Run:
    """`ablate --reduction` with errors and latencies, its baseline and its constant gate."""
    rows = [row("ResNet-20", None, 0.10, axes={})]
    for r, error in ((2, 0.09), (4, 0.085), (8, 0.088)):
        spec = AttentionSpec(reduction=r)
        rows.append(row(f"SE-ResNet-20 (reduction={r})", spec, error, axes={"reduction": r}))
    rows.append(row("gates fixed at 0.5", AttentionSpec(block="constant"), 0.095))
    asked = RunConditions(model="seresnet20_cifar", axes={"reduction": "2,4,8"}, accuracy=PROTOCOL)
    return Run(**{**made("ablate", machine), "conditions": asked}, rows=rows)


def evaluated(label: str = "SE-ResNet-50") -> Evaluation:
    """`evaluate` on ImageNet of a pair."""
    about: dict[str, Any] = {"images": 50_000, "size": 224, "dataset": "imagenet", "weights": "w.safetensors"}
    about |= {"notes": [], "skipped": [], "top5_err": 0.07, "precision": "fp32", "mean": [0.5], "std": [0.2]}
    about |= {"loss": 1.0, "recipe": None, "epochs": None}
    base = ClassifierRow(
        model="resnet50", label="ResNet-50", attention=None, top1_err=0.245, ci=(0.241, 0.249), **about
    )
    variant = ClassifierRow(
        model="seresnet50",
        label=label,
        attention=AttentionSpec(),
        top1_err=0.229,
        ci=(0.225, 0.233),
        difference=-0.016,
        difference_ci=(-0.02, -0.012),
        **about,
    )
    asked = EvaluationConditions(dataset="imagenet", notes=[])
    return Facts(**{**made("evaluate"), "conditions": asked}, rows=[base, variant])


def gates(block: str = "layer1.0", label: str = "SE-ResNet-20") -> GateFacts:
    """`excitations` of a network of four blocks."""
    dice = random.Random(7)
    rows = [_gates(place, block if place == 0 else f"layer{place + 1}.0", dice) for place in range(4)]
    conditions = GateConditions(
        model="seresnet20_cifar",
        label=label,
        attention=AttentionSpec(),
        dataset="digits",
        weights="some.safetensors",
        notes=[],
        images=100,
        images_per_class=None,
        classes=["0", "1", "2"],
        class_count=10,
        near=0.05,
        size=8,
        seed=0,
        device="cpu",
    )
    summary = GateSummary(images=100, error=0.1, error_ci=(0.05, 0.18), skipped=[])
    return Facts(**made("excitations") | {"conditions": conditions}, rows=rows, summary=summary)


def _gates(place: int, block: str, dice: random.Random) -> GateRow:
    mean: list[float | None] = [0.3 + 0.4 * dice.random() for _ in range(16)]
    ci = (0.01 * place - 0.005, 0.01 * place + 0.005)
    return GateRow(
        model="seresnet20_cifar",
        block=block,
        label=f"SE_{place + 2}_1",
        stage=str(place + 2),
        images=100,
        channels=16,
        shown=list(range(16)),
        classes={str(one): [(value or 0.0) + 0.05 * dice.random() for value in mean] for one in range(3)},
        class_sd={str(one): [0.05] * 16 for one in range(3)},
        class_images={str(one): 33 for one in range(3)},
        mean=mean,
        sd=[0.1] * 16,
        mean_gate=math.fsum(value or 0.0 for value in mean) / 16,
        between_class_share=0.1 + 0.1 * place,
        share_by_chance=0.02,
        scale_share=0.5,
        saturated_low=0.0,
        saturated_high=0.01 * place,
        distance_from_identity=0.5,
        distance_from_constant=0.1,
        error=0.1,
        error_ci=(0.05, 0.18),
        error_without=0.1 + 0.01 * place,
        difference=ErrorChange(value=0.01 * place, ci=ci, confidence=0.95, p=0.5),
    )
