"""What lay in a folder of images when networks were first trained on it, so that a change of it is not trained over."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import msgspec

from senet_bench.core.files import read_file, write_atomically
from senet_bench.core.identity import Data
from senet_bench.core.store import TrialStore
from senet_bench.errors import UsageError


def check_unchanged(kept: TrialStore, folder: Path | None, data: Data, *, fresh: bool = False) -> None:
    """Note what a folder holds, or raise `UsageError` with what is not as it was noted; taken as it is if `fresh`."""
    if folder is None:
        return
    place = kept.folder / ".claims" / "data.json"
    known, name = _noted(place), f"{data.name} in {folder.expanduser().resolve()}"
    now = replace(data, size=0)  # the side that they are shown at is the network's
    before = known.get(name)
    if before == now:
        return
    if before is not None and not fresh:
        raise UsageError(
            f"{name} has changed since it was trained on: {', '.join(_changes(before, now))}",
            "put it back, name another --results, or train on it as it is with --fresh",
        )
    facts = {key: asdict(value) for key, value in (known | {name: now}).items()}
    write_atomically(place, msgspec.json.format(msgspec.json.encode(facts), indent=1))


def _noted(place: Path) -> dict[str, Data]:
    """What was noted of each folder; nothing where the note is damaged, as it is no result."""
    try:
        return msgspec.json.decode(read_file(place), type=dict[str, Data]) if place.is_file() else {}
    except (msgspec.DecodeError, msgspec.ValidationError, UsageError):
        return {}


def _changes(before: Data, now: Data) -> Iterator[str]:
    """What of a data set is not as it was, a few words each."""
    words = {"train": "training images", "test": "test images", "classes": "classes", "channels": "channels"}
    for field, what in words.items():
        was, is_now = getattr(before, field), getattr(now, field)
        if was != is_now:
            yield f"{is_now:,} {what}, not {was:,}"
    if before.labels != now.labels:
        yield "other labels"
    if before.images != now.images:
        yield "other images"
