"""The rows of `excitations`: a block each, from what was counted while images passed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from senet_bench.core.results import AnyFacts
from senet_bench.core.statistics import holm

if TYPE_CHECKING:
    from senet_bench.gates.tally import GateTally
    from senet_bench.gates.watch import Watch
    from senet_bench.train.evaluation import Predictions

NOT_MEASURED = "not measured (--no-removal, or the run ended before)"


def of_blocks(model: str, watch: Watch, chosen: Mapping[str, int], channels: int) -> list[dict[str, Any]]:
    """A row for every block: where it is, its gates by class, and the numbers of section 7.2's words."""
    rows, depth = [], dict[Any, int]()
    for name, tally in watch.tallies.items():
        stage = getattr(watch.blocks[name], "attention_stage", None)
        depth[stage] = depth.get(stage, 0) + 1
        rows.append(
            {
                "model": model,
                "block": name,
                "label": f"SE_{stage}_{depth[stage]}",
                "stage": str(stage),
                **_gates(tally, chosen, channels),
                **_numbers(tally),
                "error": watch.seen.top1_err,
                "error_ci": list(watch.seen.interval()),
                "missing": {"difference": NOT_MEASURED},
            }
        )
    return rows


def _gates(tally: GateTally, chosen: Mapping[str, int], channels: int) -> dict[str, Any]:
    """The gates of the channels kept, over all images and by class; null where a channel was zero throughout."""
    from senet_bench.gates.tally import evenly

    kept = evenly(len(tally.shift), channels)
    means, sds = tally.class_mean(), tally.class_sd()
    return {
        "channels": len(tally.shift),
        "shown": kept,
        "images": int(tally.count.max(1).sum()),
        "class_images": {name: int(tally.count[place].max()) for name, place in chosen.items()},
        "classes": {name: _short(means[place][kept]) for name, place in chosen.items()},
        "class_sd": {name: _short(sds[place][kept]) for name, place in chosen.items()},
        "mean": _short(tally.mean()[kept]),
        "sd": _short(tally.sd()[kept]),
    }


def _numbers(tally: GateTally) -> dict[str, Any]:
    low, high = tally.saturated()
    mean = float(tally.mean()[tally.count.sum(0) > 0].mean()) if tally.seen else None
    return {
        "mean_gate": mean,
        "between_class_share": tally.between_class_share(),
        "share_by_chance": tally.share_by_chance(),
        "scale_share": tally.scale_share(),
        "saturated_low": low,
        "saturated_high": high,
        "distance_from_identity": tally.distance_from_identity(),
        "distance_from_constant": tally.distance_from_constant(),
    }


def _short(values: Any) -> list[float | None]:
    """Numbers to five digits after the point, None for NaN."""
    return [None if math.isnan(value) else round(float(value), 5) for value in values]


def summary(watch: Watch) -> dict[str, Any]:
    """The error of the network as it is, and what could not be read."""
    seen = watch.seen
    return {
        "error": seen.top1_err,
        "error_ci": list(seen.interval()),
        "images": len(seen),
        "skipped": list(seen.skipped),
    }


def with_errors(run: AnyFacts, watch: Watch) -> AnyFacts:
    """The run with the error of every variant and its paired difference, Holm's p over the blocks of each kind."""
    kinds = {"1": ("error_without", "difference"), "mean": ("error_at_mean", "difference_at_mean")}
    rows, summary = [{**row, "missing": {}} for row in run.rows], dict(run.summary)
    for kind, (error, difference) in kinds.items():
        for row in rows:
            row[error], row[difference] = _change(watch.seen, watch.held[f"{row['block']}={kind}"])
        for row, adjusted in zip(rows, holm([row[difference]["p"] for row in rows])):
            row[difference]["p_holm"] = adjusted
        summary[f"all_{error}"], summary[f"all_{difference}"] = _change(watch.seen, watch.held[f"*={kind}"])
    return replace(run, rows=rows, summary=summary)


def _change(seen: Predictions, changed: Predictions) -> tuple[float, dict[str, Any]]:
    """The error of a variant, and its difference to the network as it is on the same images."""
    from senet_bench.train.evaluation import compare

    paired = compare(seen, changed)
    ci = list(paired.ci) if paired.ci else None
    return changed.top1_err, {
        "value": paired.difference,
        "ci": ci,
        "confidence": paired.confidence,
        "p": paired.p_value,
    }
