"""Result folders drawn from a seed: networks of all sorts of names, errors near the edges, machines, ablations."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

from senet_bench.core import comparisons
from senet_bench.core.results import Row, Run, RunConditions
from senet_bench.core.runtimes import RUNTIMES
from senet_bench.core.specs import AttentionSpec, AxisValue
from tests.support import stored

NAMES = ("my_blocks:SimAM", "a:B", "package.with.many.parts.of_a_name:AttentionOverEverything", "x:ÄÖ", stored.HOSTILE)


def drawn(root: Path, seed: int) -> None:
    """Store a few runs under a folder: a comparison, an ablation or two, on one machine or two."""
    dice = random.Random(seed)
    base = dice.choice([0.004, 0.05, 0.2, 0.5, 0.97])
    for place in range(dice.randint(1, 3)):
        machine = dice.choice(["aaaaaaaaaaaa", "bbbbbbbbbbbb"])
        reduction = place == 0 or dice.random() < 0.5
        run = _ablation(dice, base, "reduction" if reduction else "attention", machine)
        stored.store(root, run, f"20261120T1000{place:02}Z-ablate-{place}")
    rows = [replace(row, axes=None) for row in run.rows]
    compared = replace(run, schema="senet-bench.compare/1", rows=rows, conditions=RunConditions(what=["x"]))
    stored.store(root, compared, "20261120T110000Z-compare-9")
    if dice.random() < 0.5:
        stored.store(root, stored.gates(dice.choice(NAMES), dice.choice(NAMES)), "20261120T120000Z-excitations-8")
    if dice.random() < 0.3:
        stored.store(root, stored.evaluated(dice.choice(NAMES)), "20261120T130000Z-evaluate-7")
    if dice.random() < 0.5:
        stored.store(root, _by_runtime(dice), "20261120T140000Z-compare-6")


def _ablation(dice: random.Random, base: float, axis: str, machine: str) -> Run:
    seeds, protocol = dice.randint(1, 5), replace(stored.PROTOCOL, epochs=dice.choice([3, 60]))
    values: list[AxisValue] = [*(2, 4, 8, 16, 32)[: dice.randint(1, 5)]]
    if axis == "attention":
        values = ["se", "eca", *dice.sample(NAMES, dice.randint(1, 4))]
    specs = [AttentionSpec(reduction=value) if isinstance(value, int) else _block(str(value)) for value in values]
    rows = [_row(dice, base, None, {}, seeds)]
    rows += [_row(dice, base, spec, {axis: value}, seeds) for spec, value in zip(specs, values)]
    rows.append(_row(dice, base, AttentionSpec(block="constant"), {"block": "constant"}, seeds))
    rows = [replace(row, accuracy=row.accuracy and replace(row.accuracy, protocol=protocol)) for row in rows]
    asked = RunConditions(model="seresnet20_cifar", axes={axis: "some"}, accuracy=protocol)
    return Run(**{**stored.made("ablate", machine), "conditions": asked}, rows=comparisons.compared(rows))


def _by_runtime(dice: random.Random) -> Run:
    """Networks in some runtimes at some batch sizes, their ratios far apart or nearly equal, some doubted."""
    runtimes = dice.sample(list(RUNTIMES), dice.randint(2, len(RUNTIMES)))
    batches, wide = dice.sample([1, 8, 32, 256], dice.randint(1, 4)), dice.choice([0.001, 0.1, 3])
    names = dice.sample(["ResNet", "MobileNetV3-Large", *NAMES], dice.randint(1, 7))
    rows = []
    for name in names:
        places = [(runtime, batch) for runtime in runtimes for batch in batches if dice.random() < 0.9]
        rows += stored.by_runtime(name, {place: 1 + wide * dice.random() for place in places or [("eager", 1)]})
    rows[-1] = replace(rows[-1], more_latency=[replace(one, reason="doubted") for one in rows[-1].more_latency])
    return Run(**{**stored.made("compare"), "conditions": RunConditions(what=["x"])}, rows=rows)


def _block(name: str) -> AttentionSpec:
    return AttentionSpec(block=name) if ":" in name or name in ("se", "eca") else AttentionSpec(block=f"h:{name}")


def _row(dice: random.Random, base: float, spec: AttentionSpec | None, axes: dict[str, AxisValue], seeds: int) -> Row:
    label = f"ResNet-20 + {spec.block} {axes}" if spec else "ResNet-20"
    row = stored.row(label, spec, 0.1, axes=axes)
    errors = {seed: min(1.0, max(0.0, base + dice.gauss(0, 0.02))) for seed in range(seeds)}
    params = dice.choice([270_000, 271_000, 300_000, 2_700_000])
    flops = {"macs": dice.choice([2_500_000, 2_510_000, 3_000_000, 40_000_000]), "bn-inclusive": 2_600_000}
    accuracy = comparisons.of_seeds(errors, stored.PROTOCOL)
    timed = row.latency if dice.random() < 0.8 else None
    return replace(row, accuracy=accuracy, params=params, flops=flops, latency=timed)
