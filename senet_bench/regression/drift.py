"""Slow drift: what changes that passed one by one add up to since a release, against a limit of its own."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from senet_bench.core.checkout import git
from senet_bench.core.results import json_object, of_type
from senet_bench.errors import BenchError
from senet_bench.regression.baselines import Baselines, PortableBaseline, torch_here
from senet_bench.regression.config import Drift
from senet_bench.regression.exact import across_torch
from senet_bench.regression.facts import Portable
from senet_bench.regression.limits import counted_metrics
from senet_bench.regression.outcome import LimitRow, failed

MOST_COMMITS = 60
BARS = "▁▂▃▄▅▆▇█"
COUNTS = ("params", "flops", "operators")
LATER = "name a release since in drift.since"


def drift_rows(drift: Drift, folder: Path, baselines: Baselines, facts: Mapping[str, Portable]) -> list[LimitRow]:
    """A row for every counted metric of the networks that the release recorded, with its line over commits since."""
    commit = git(folder, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{drift.since}^{{commit}}")
    release = _recorded(folder, commit, baselines) if commit else None
    if release is None:
        why = f"nothing recorded at {drift.since} can be read; fetch it (in CI: fetch-depth: 0), or correct drift.since"
        return [failed("drift", "release", why, "not comparable")]
    log = git(folder, "log", "--reverse", "--format=%H", f"{commit}..HEAD", "--", _path(folder, baselines)).split()
    between = [one for one in (_recorded(folder, name, baselines) for name in log[-MOST_COMMITS:]) if one is not None]
    rows = []
    for name in (one for one in facts if one in release.networks):
        line = [release.networks[name].portable()]
        line += [one.networks[name].portable() for one in between if name in one.networks]
        for metric in (*COUNTS, *(key for key, _ in counted_metrics())):
            values = [total(metric, one) for one in (*line, facts[name])]
            known = [value for value in values if value is not None]
            if values[0] is not None and values[-1] is not None:
                rows.append(across_torch(_row(name, metric, known, drift), release.torch, torch_here(), LATER))
    return rows


def _row(network: str, metric: str, values: Sequence[int], drift: Drift) -> LimitRow:
    was, now = values[0], values[-1]
    change = f"{100 * (now / was - 1):+.3g} %" if was else f"{now - was:+,}"
    steps = sum(before != after for before, after in itertools.pairwise(values))
    changes = "one change" if steps == 1 else f"{steps} changes"
    return LimitRow(
        id=f"{network}/{metric}-drift",
        network=network,
        metric=f"{metric}-drift",
        kind="ratio",
        verdict="fail" if drift.limit.exceeded(was, now) else "pass",
        reason=f"{change} since {drift.since}, over {changes} {line_of(values)}" if steps else "",
        base=was,
        now=now,
        ratio=now / was if was else None,
        gate=drift.limit.stored(),
    )


def line_of(values: Sequence[float]) -> str:
    """Values as a line of bars, the least the lowest; empty where all are one."""
    low, high = min(values), max(values)
    if low == high:
        return ""
    return "".join(BARS[round((value - low) / (high - low) * (len(BARS) - 1))] for value in values)


def total(metric: str, facts: Portable) -> int | None:
    """One number of a network's facts, None where that was not counted."""
    named = {"params": facts.params, "flops": facts.flops, "operators": facts.operators}
    return sum(named[metric].values()) if metric in named else facts.counts.get(metric)


def _path(folder: Path, baselines: Baselines) -> str:
    path = baselines.portable_path.resolve()
    return path.relative_to(folder.resolve()).as_posix() if path.is_relative_to(folder.resolve()) else str(path)


def _recorded(folder: Path, commit: str, baselines: Baselines) -> PortableBaseline | None:
    """The portable facts as a commit has them, None where it has none that can be read."""
    text = git(folder, "show", f"{commit}:./{_path(folder, baselines)}")
    try:
        return of_type(json_object(os.fsencode(text), commit), PortableBaseline, commit) if text else None
    except BenchError:
        return None
