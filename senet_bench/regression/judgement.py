"""Rows of a latency ratio, of a latency against a stored one, and of accuracy on the same images."""

from __future__ import annotations

import math
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from senet_bench.bench.rounds import CONTROL
from senet_bench.core import statistics
from senet_bench.errors import BenchError
from senet_bench.regression.baselines import StoredLatency
from senet_bench.regression.config import PredictionPair, Ratio
from senet_bench.regression.limits import Limit
from senet_bench.regression.outcome import LimitRow, Verdict

UNJUDGED = 0.01
"""The limit by which the control of a ratio without one is judged, a fraction."""

if TYPE_CHECKING:
    from senet_bench.bench.samples import Comparison
    from senet_bench.train.evaluation import Predictions


def ratio_row(ratio: Ratio, latency: Comparison) -> LimitRow:
    """A latency ratio measured in this process, of the arms of `ratio`."""
    arm, base = latency.arms[ratio.network], latency.arms[ratio.baseline]
    assert arm.judgement is not None
    judged, copies = arm.judgement, latency.samples.log_ratios(CONTROL, latency.baseline)
    verdicts: dict[str, Verdict] = {"regressed": "fail", "ok": "pass"}
    return LimitRow(
        id=ratio.id,
        network=ratio.network,
        metric="latency-ratio",
        kind="ratio",
        verdict=verdicts.get(judged.verdict, "inconclusive") if ratio.limit.judged else "info",
        reason=f"{judged.ratio:.4f} of {ratio.baseline}'s" + (f"; {judged.reason}" if judged.reason else ""),
        base=base.seconds,
        now=arm.seconds,
        unit="s",
        ratio=judged.ratio,
        ci=judged.ci,
        confidence=judged.confidence,
        gate=ratio.limit.stored(),
        p_worse=judged.p_worse,
        p_ok=judged.p_ok,
        rounds=judged.rounds,
        mde80=judged.mde if math.isfinite(judged.mde) else None,
        control_ratio=latency.control.ratio,
        control_ci=latency.control.ci,
        control_ok=not statistics.control_failed(copies, ratio.limit.fraction(base.seconds) or UNJUDGED),
        elapsed_s=latency.elapsed_s,
    )


def stored_row(network: str, base: StoredLatency, now: StoredLatency, limit: Limit, *, judged: bool) -> LimitRow:
    """A latency against a stored one: unpaired, so never judged tighter than three spreads between processes."""
    ratio = now.floor / base.floor
    spread = max(one.between or 0.0 for one in (base, now)) or None
    text = "unpaired, " + ("spread unknown" if spread is None else f"spread {100 * spread:.2g} %")
    row = LimitRow(
        id=f"{network}/latency",
        network=network,
        metric="latency",
        kind="stored",
        verdict="info",
        reason=f"{text}, {100 * (ratio - 1):+.1f} % since it was recorded",
        base=base.floor,
        now=now.floor,
        unit="s",
        ratio=ratio,
        gate=limit.stored(),
        rounds=now.rounds,
    )
    if not judged or not limit.judged:
        return row
    if spread is None:
        return replace(row, verdict="inconclusive", reason=f"{row.reason}; record it with several launches to gate it")
    margin = max(math.log1p(limit.fraction(base.floor)), 3 * spread)
    found: Verdict = "fail" if math.log(ratio) > margin else "pass"
    return replace(row, verdict=found, mde80=math.expm1(margin), stale=math.log(ratio) < -margin)


def accuracy_row(pair: PredictionPair, limit: Limit, alpha: float) -> LimitRow:
    """Two networks on the same images: the difference of their errors against the limit.

    It fails only where the one-sided interval at `alpha` lies above the limit, and passes only where it lies below;
    McNemar's p, against no difference at all, is told beside it.
    """
    from senet_bench.train.evaluation import compare

    first, second = (_loaded(path) for path in (pair.base, pair.head))
    paired = compare(first, second, 1 - 2 * alpha)
    worse, most = paired.difference, limit.absolute or 0.0
    low, high = paired.ci or (-1.0, 1.0)
    p = paired.p_value if paired.p_value is not None else 1.0
    found: Verdict = "inconclusive"
    if low > most:
        found = "fail"
    elif high < most or (p == 1.0 and worse == 0 and not (first.wrong ^ second.wrong).any()):
        found = "pass"
    reason = (
        f"top-1 error {100 * worse:+.2f} pt on {paired.n:,} images (gate +{100 * most:g} pt), McNemar p = {p:.2g},"
        f" {100 * (1 - 2 * alpha):g} % interval {100 * low:+.2f} to {100 * high:+.2f} pt"
    )
    return LimitRow(
        id=f"{pair.network}/accuracy",
        network=pair.network,
        metric="accuracy",
        kind="paired",
        verdict=found if limit.judged else "info",
        reason=reason,
        base=first.top1_err,
        now=second.top1_err,
        unit="top-1 error",
        gate=limit.stored(),
        p_worse=None,
        confidence=1 - 2 * alpha,
        rounds=paired.n,
    )


def _loaded(path: Path) -> Predictions:
    """The predictions in a file; any damage is a `BenchError` that names it."""
    from senet_bench.train.evaluation import Predictions

    if not path.is_file():
        raise BenchError(f"predictions {path} are not there", "make them with evaluate --keep-predictions")
    if not zipfile.is_zipfile(path):
        raise BenchError(f"{path} holds no predictions", "make it with evaluate --keep-predictions")
    try:
        found = Predictions.load(path)
        shapes = {len(one) for one in (found.rows, found.labels, found.best, found.losses)}
    except (zipfile.BadZipFile, zlib.error, EOFError, TypeError, MemoryError) as error:
        raise BenchError(f"{path} is damaged ({type(error).__name__})", "make it again") from error
    if len(shapes) != 1 or found.best.ndim != 2 or not len(found) or not found.best.shape[1]:
        raise BenchError(f"{path} is damaged (its parts do not fit)", "make it again")
    return found
