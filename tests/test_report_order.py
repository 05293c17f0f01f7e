"""A report of many runs: nothing depends on the order of files, and damaged ones are found and change nothing."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from senet_bench.core.schemas import DOCUMENT_KINDS
from senet_bench.core.store import Store
from senet_bench.gallery import report as reporting
from senet_bench.gallery.collection import Collection, gather
from senet_bench.gallery.page.content import Content, content
from tests.conftest import Run
from tests.support import folders, stored


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_files_changes_no_byte_of_tables_plots_and_page(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders.drawn(tmp_path, seed)
    stored.store(tmp_path, stored.ablation("cccccccccccc"), "20261120T100000Z-ablate-0")  # as old as another one's
    survey = list(Store(tmp_path).survey())
    files = dict(reporting.read_gallery(Store(tmp_path)).files)
    for place in range(3):
        random.Random(place).shuffle(survey)
        monkeypatch.setattr(Store, "survey", lambda _: iter(survey))
        assert dict(reporting.read_gallery(Store(tmp_path)).files) == files


def test_a_damaged_file_of_each_kind_changes_no_table_and_is_named(run: Run, tmp_path: Path) -> None:
    root = tmp_path / "results"
    folders.drawn(root, 1)
    assert run("report", "-q").code == 0
    tables = {path.name: path.read_bytes() for path in (root / "tables").iterdir()}
    broken = []
    for place, schema in enumerate(DOCUMENT_KINDS):
        damage = {"schema": schema, "version": "0.1.0", "created": "2026-11-20T10:00:00Z", "rows": [{"model": place}]}
        broken.append(root / "runs" / "aaaaaaaaaaaa" / f"20261120T1000{place:02}Z-damaged-{place}.json")
        broken[-1].write_text(json.dumps(damage))
    ended = run("report", "-q")
    assert ended.code == 2
    assert all(sum(path.name in line for line in ended.err.splitlines()[:-1]) == 1 for path in broken)
    assert {path.name: path.read_bytes() for path in (root / "tables").iterdir()} == tables
    assert all(path.name in (root / "index.html").read_text() for path in broken)


def test_files_that_cannot_be_shown_are_found_by_halves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in range(32):
        stored.store(tmp_path, stored.evaluated(), f"20261120T1000{place:02}Z-evaluate-{place}")
    bad = {"20261120T100007Z-evaluate-7.json", "20261120T100030Z-evaluate-30.json"}
    sizes = []

    def laid_out(collection: Collection) -> Content:
        sizes.append(len(collection.sources))
        if any(source.path.rpartition("/")[2] in bad for source in collection.sources):
            raise ZeroDivisionError
        return content(collection)

    monkeypatch.setattr(reporting, "content", laid_out)
    found = reporting.read_gallery(Store(tmp_path))
    assert {one.path.rpartition("/")[2] for one in found.collection.left_out} == bad
    assert len(found.collection.sources) == 30
    assert len(sizes) < 24
    assert sum(sizes) < 6 * 32
    assert [one.path for one in gather(tmp_path, Store(tmp_path).survey()).left_out] == []
