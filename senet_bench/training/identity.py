"""What a trial is a trial of, and which of those stored under the keys of earlier versions are the same."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from senet_bench.core import catalog
from senet_bench.core.datasets import DATASETS, EMBEDDED
from senet_bench.core.files import kind_of_path, read_file
from senet_bench.core.identity import TEXTS, Data, Identity, NetworkIdentity, canonical, recipe_facts, source_digest
from senet_bench.core.learning import TrialResult
from senet_bench.core.recipes import Recipe
from senet_bench.core.results import json_object
from senet_bench.core.specs import AttentionSpec, ModelSpec, Precision, is_outside
from senet_bench.core.store import TrialStore
from senet_bench.core.trial import Trial
from senet_bench.errors import BenchError

if TYPE_CHECKING:
    from senet_bench.data.sets import Split

LOOKED_AT = 1000
"""How many images of a split are looked at for its digest, evenly spaced; of all others the labels and names."""


def identity_of(trial: Trial, data: Data | None = None) -> Identity:
    """What decides a trial's result. Its data, unless they are given, are read once for all trials on them."""
    return replace(_of_any_seed(trial, data)[0], seed=trial.seed)


def definition_of(trial: Trial, data: Data | None = None) -> dict[str, Any]:
    """The same as plain values; those of trials that differ by their seeds are shared, and not to be changed."""
    return {**_of_any_seed(trial, data)[1], "seed": trial.seed}


def _of_any_seed(trial: Trial, data: Data | None) -> tuple[Identity, dict[str, Any]]:
    """The identity of a trial, of seed 0, and its plain values."""
    data = data_at(data or data_of(trial.dataset, trial.folder), trial.spec.input_size[1])
    start = "" if trial.pretrained is None else start_of(trial.pretrained, by_name=True)
    source = source_digest(trial.spec)  # which may have been edited since
    return _identity(trial.spec, source, data, trial.recipe, trial.precision, start, trial.blocks_first)


@functools.lru_cache(maxsize=256)
def _identity(
    spec: ModelSpec, source: str, data: Data, recipe: Recipe, precision: Precision, start: str, blocks_first: int
) -> tuple[Identity, dict[str, Any]]:
    network = replace(NetworkIdentity.of(spec), source=source)
    identity = Identity(
        network=network,
        data=data,
        recipe=recipe_facts(recipe),
        batch=recipe.batch_size,
        seed=0,
        precision=precision,
        start=start,
        blocks_first=blocks_first,
    )
    return identity, identity.as_dict()


@functools.cache
def data_of(dataset: str, folder: str | None = None) -> Data:
    """What is in a data set; of `digits`, what is in its first draw, from which the seeds draw theirs."""
    from senet_bench.data.sets import load_images

    return read_data(load_images(dataset, folder))


def data_at(data: Data, side: int) -> Data:
    """What is in a data set whose files are shown in squares of `side` pixels; images in memory have their own."""
    files = DATASETS[data.name].side is None if data.name in DATASETS else False
    return replace(data, size=side) if files else data


def read_data(images: Any) -> Data:
    """What is in a data set that was read; a detector's images have sides of their own."""
    from senet_bench.data.sets import DataSet

    if not isinstance(images, DataSet):
        return _of_objects(images)
    splits = (images.train, images.test)
    return Data(
        name=images.name,
        size=images.size,
        channels=images.channels,
        classes=len(images.classes),
        train=0 if images.train is None else len(images.train),
        test=len(images.test),
        labels=_digest(np.ascontiguousarray(split.labels).tobytes() for split in splits if split is not None),
        images=_digest(part for split in splits if split is not None for part in _contents(split)),
    )


def _of_objects(images: Any) -> Data:
    splits = [split for split in (images.train, images.test) if split is not None]
    return Data(
        name=images.name,
        size=0,
        channels=images.channels,
        classes=len(images.classes),
        train=0 if images.train is None else len(images.train),
        test=len(images.test),
        labels=_digest(table.tobytes() for split in splits for both in split.objects() for table in both),
        images=_digest(f"{path.name}\n".encode() for split in splits for path in split.paths),
    )


def start_of(
    weights: str | None, trunk: str | None = None, average: bool | None = None, *, by_name: bool = False
) -> str:
    """What a training starts from: weights by the digest of their file or by name, else layers one after another.

    What weights do not have is drawn in the order of the layers too, unless each is drawn `by_name`.
    """
    told = [(what, name) for what, name in (("weights", weights), ("trunk", trunk)) if name is not None]
    named = (
        f"{what} {_digest_of_file(Path(name)) if kind_of_path(Path(name)) == 'file' else name}" for what, name in told
    )
    chosen = ([] if average is None else ["average" if average else "raw"]) + ["the rest by name"] * by_name
    return ", ".join((*named, *chosen)) or "layers in their order"


def named_start(weights: str) -> str:
    """Weights in a few signs that a file's name may have: the start of their file's digest, or their name."""
    path = Path(weights).expanduser()
    return _digest_of_file(path)[:8] if kind_of_path(path) == "file" else weights.replace(":", "-")


def _digest_of_file(path: Path) -> str:
    """The digest of a file, read once as long as it stays as it is."""
    state = path.expanduser().stat()
    return _digest_at(path.expanduser(), state.st_size, state.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _digest_at(path: Path, size: int, written: int) -> str:
    return _digest([read_file(path)])


def _digest(parts: Any) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()[:16]


def _contents(split: Split) -> Any:
    """The bytes that tell a split's images from others': pixels in memory, or names and some sizes on disk."""
    from senet_bench.data.sets import Arrays

    chosen = np.unique(np.linspace(0, len(split) - 1, min(LOOKED_AT, len(split))).astype(int)).tolist()
    if isinstance(split, Arrays):
        yield repr(split.images.shape[1:]).encode()
        yield from (np.ascontiguousarray(split.images[row]).tobytes() for row in chosen)
        return
    yield from (f"{path.parent.name}/{path.name}\n".encode() for path in split.paths)
    for path in (split.paths[row] for row in chosen):
        yield f"{path.stat().st_size if path.is_file() else None}\n".encode()


@dataclass(frozen=True, slots=True)
class Former:
    """The trials that earlier versions stored: where each lies, by what it was a trial of, and how many say too little.

    Adopted is what names built-in code alone: nothing tells which source an import string stood for.
    """

    paths: Mapping[str, Path] = field(default_factory=dict)
    left_out: int = 0

    def result(self, trial: Trial) -> TrialResult | None:
        """The stored result of the same trial, None when there is none or it is damaged."""
        path = self.paths.get(_science_of(trial) or "") if self.paths and trial.pretrained is None else None
        try:
            return TrialStore.read(path) if path is not None else None
        except BenchError:
            return None


def may_be_former(text: bytes) -> bool:
    """Whether a stored trial may be one of an earlier version."""
    return b'"code"' in text


def former(texts: Iterable[tuple[Path, bytes]]) -> Former:
    """The trials of earlier versions among stored ones; later ones of equal science win."""
    paths, left_out = dict[str, Path](), 0
    for path, text in texts:
        try:
            definition = json_object(text, str(path)).get("definition") if may_be_former(text) else None
        except BenchError:  # raised where it is asked for by its key
            continue
        if not isinstance(definition, dict) or "code" not in definition:
            continue
        science = _science(definition)
        left_out += science is None
        if science is not None:
            paths[science] = path
    return Former(paths, left_out)


def _science_of(trial: Trial) -> str | None:
    """What a trial is a trial of, in the words of earlier versions."""
    return _science(
        {
            "model": trial.spec.name,
            "options": {name: repr(value) for name, value in trial.spec.options.items()},
            "attention": canonical(trial.spec.attention),
            "recipe": trial.recipe.as_dict(),
            "dataset": trial.dataset,
            "folder": trial.folder,
            "seed": trial.seed,
            "precision": trial.precision,
        }
    )


def _science(definition: Mapping[str, Any]) -> str | None:
    """The definition of a trial without what decides nothing; None where it names code from outside, or is damaged."""
    try:
        model, attention = str(definition["model"]), msgspec.convert(definition["attention"], AttentionSpec | None)
        if is_outside(model) or (attention is not None and is_outside(attention.block)):
            return None
        recipe = {name: value for name, value in definition["recipe"].items() if name not in TEXTS}
        kept = {name: definition[name] for name in ("options", "dataset", "seed", "precision")}
    except (KeyError, TypeError, AttributeError, ValueError, msgspec.ValidationError):
        return None
    row = catalog.CATALOG.get(model)
    where = None if kept["dataset"] in EMBEDDED else definition.get("folder")
    name = row.baseline or row.name if row else model
    return json.dumps(canonical([name, attention, recipe, kept, where]), sort_keys=True)
