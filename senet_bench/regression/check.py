"""`check`: this checkout against a base, exact facts first, then time, then accuracy; a report at the end."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from senet_bench import __version__
from senet_bench.bench.process import Health, allocator_of_process, check_allocator
from senet_bench.core.checkout import commit_of, git
from senet_bench.core.progress import Steps
from senet_bench.errors import UsageError
from senet_bench.regression.against import CheckAgainst
from senet_bench.regression.baselines import Baselines
from senet_bench.regression.comparison import Options, Rows, vanished
from senet_bench.regression.config import Config
from senet_bench.regression.drift import drift_rows
from senet_bench.regression.outcome import (
    SCHEMA,
    VERDICT_TITLES,
    Base,
    Control,
    Family,
    LimitRow,
    Machine,
    Report,
    State,
    drifts,
    exit_code,
    with_allowances,
)
from senet_bench.regression.policy import policy_of, with_acceptances
from senet_bench.regression.timing import Deadline
from senet_bench.regression.workers import Checkout, checked_out


def run_check(config: Config, baselines: Baselines, options: Options) -> Steps[Report]:
    """The report of a check. Raises only where nothing can be compared at all."""
    from senet_bench.bench.machine import environment

    if options.base is not None and options.stored:
        raise UsageError("--base and --compare stored exclude each other", "choose one of them")
    whole, config = config, config.only(options.only)
    check_allocator(config.allocator)
    health = Health.begin()
    run = Rows(config, baselines, options, environment())
    base = None
    if not config.networks:  # files of pytest-benchmark alone
        rows = []
    elif options.base is None:
        rows = yield from run.against_stored()
    else:
        with checked_out(options.base, options.folder) as base:
            run, rows = yield from _against(run, whole, base)
    if run.config.drift is not None:
        rows += drift_rows(run.config.drift, options.folder, baselines, run.facts)
    rows += yield from run.within()
    rows = with_allowances(rows, run.config, datetime.now(UTC).date())
    if base is None:
        rows += drifts(baselines.history(), rows, config.limit)
    top = Path(git(options.folder, "rev-parse", "--show-toplevel") or options.folder).resolve()
    report = _report(run, [_placed(row, top) for row in rows], base, health)
    return replace(report, config_file=_inside(options.folder / config.source, top) if config.source else "")


def _against(run: Rows, whole: Config, base: Checkout) -> Steps[tuple[Rows, list[LimitRow]]]:
    """The rows of a check against a commit, judged by its configuration."""
    options, baselines = run.options, run.baselines
    policy = policy_of(whole, base, by_head=options.by_head, only=options.only, typed=options.inconclusive)
    run = replace(run, config=policy.config)
    rows = [*policy.rows, *(vanished(name, "is in the base and not in the check") for name in policy.vanished)]
    against = CheckAgainst(policy.config, base, options.folder, run.work, options.seed)
    rows += yield from against.rows(Deadline(policy.config.max_seconds))
    run.facts.update(against.facts)
    return run, with_acceptances(rows, baselines, baselines.beside(options.folder, base.folder), against.facts)


def _placed(row: LimitRow, top: Path) -> LimitRow:
    """The row with its file relative to the repository, without one where the code lies elsewhere."""
    if not row.file:
        return row
    file = _inside(Path(row.file), top)
    return replace(row, file=file, line=row.line if file else 0)


def _inside(file: Path, top: Path) -> str:
    """A file as the repository at `top` names it, empty where it lies elsewhere."""
    file = file.resolve()
    own = file.is_relative_to(top) and not {".git", "site-packages"} & set(file.parts)
    return file.relative_to(top).as_posix() if own else ""


def _report(run: Rows, rows: Sequence[LimitRow], base: Checkout | None, health: Health) -> Report:
    """The document about the rows."""
    from senet_bench.run.record import header

    config, options = run.config, run.options
    code = exit_code(rows, config.inconclusive)
    tested = [row for row in rows if row.p_worse is not None]
    accept = _accept_line(run, rows)
    return Report(
        **{**header("check", _conditions(config)), "schema": SCHEMA, "version": __version__},
        verdict=_verdict(rows, code),
        exit_code=code,
        baseline=_base(run, base),
        machine=Machine(key=run.environment.machine, hard=asdict(run.environment.hard)),
        family=Family(alpha=config.alpha, comparisons=len(tested)),
        control=_control(rows),
        health=State(**health.ended()),
        rows=list(rows),
        missing=[row.network for row in rows if row.metric == "network"],
        new=[row.id for row in rows if row.verdict == "new"],
        reproduce=f"{options.command}{_shown(options, config)} --seed {options.seed}",
        accept=accept,
        judge=None if base is None else "head" if options.by_head else "base",
    )


def _accept_line(run: Rows, rows: Sequence[LimitRow]) -> str:
    """What to type to accept what failed, quoted for a shell; empty where nothing did or nothing is recorded.

    Times in files of pytest-benchmark are recorded nowhere.
    """
    names = {network.name for network in run.config.networks}
    failing = [row for row in rows if row.verdict == "fail" and row.kind in ("exact", "stored", "statistical")]
    ids = [row.network for row in failing if row.metric == "network"]
    ids += [row.id for row in failing if row.network in names and row.metric != "build"]
    if not ids or not run.baselines.portable_path.exists():
        return ""
    return f'senet-bench baseline accept {shlex.join(ids)} --reason "..."'


def _verdict(rows: Sequence[LimitRow], code: int) -> str:
    """The one word of the verdict line; undecided rows that are let pass still are told."""
    if any(row.verdict == "inconclusive" for row in rows) and code in (0, 1):
        return "FAIL" if code else "PASS"
    return VERDICT_TITLES[code]


def _shown(options: Options, config: Config) -> str:
    typed = {"--base": options.base, "--only": options.only, "--config": options.config_path}
    typed["--config"] = "head" if options.by_head else options.config_path
    typed["--allocator"] = "tuned" if config.allocator == "tuned" else None
    parts = [f" {name} {shlex.quote(str(value))}" for name, value in typed.items() if value is not None]
    return "".join(parts) + " --compare stored" * options.stored


def _base(run: Rows, base: Checkout | None) -> Base:
    """What was compared with: the checkout of a commit, else the stored facts."""
    head = commit_of(run.options.folder)
    if base is not None:
        return Base(ref=run.options.base, commit=base.commit, created=base.created, head=head)
    path, stored = str(run.baselines.portable_path), run.baselines.portable()
    if stored is None:
        return Base(path=path, head=head)
    return Base(path=path, commit=stored.commit, created=stored.created, head=head)


def _control(rows: Sequence[LimitRow]) -> Control:
    """The control that was furthest off."""
    controls = [row for row in rows if row.control_ratio is not None]
    worst = max(controls, key=lambda row: abs((row.control_ratio or 1.0) - 1), default=None)
    if worst is None or worst.control_ratio is None:
        return Control()
    return Control(ratio=worst.control_ratio, ci=worst.control_ci, row=worst.id, ok=worst.control_ok is not False)


def _conditions(config: Config) -> dict[str, Any]:
    return {
        "config": config.source,
        "networks": {one.name: list(one.input_size) for one in config.networks},
        "metrics": list(config.metrics),
        "threads": config.threads,
        "batch_size": config.batch_size,
        "allocator": allocator_of_process(config.allocator),
        "launches": config.launches,
        "max_seconds": config.max_seconds,
        "budget_s": config.budget_s,
        "inconclusive": config.inconclusive,
        "cores": os.cpu_count(),
    }
