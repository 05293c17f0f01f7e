"""The committed table of what SE costs is made of the ratios beside it."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.bench_se import table, write

TABLES = Path(__file__).parent.parent / "results" / "tables"


def test_the_committed_table_is_that_of_its_ratios(tmp_path: Path) -> None:
    document = json.loads((TABLES / "se_parts.json").read_text())
    write(document, tmp_path)
    for name in ("se_parts.json", "se_parts.md", "se_parts.csv"):
        assert (tmp_path / name).read_bytes() == (TABLES / name).read_bytes()


def test_a_goal_is_reached_by_the_median() -> None:
    line = {"what": "a", "against": "b", "batch": 8, "most": 0.75}
    document = {
        "environment": {
            "hard": {"cpu": "x", "cores": 2, "isa": "y"},
            "packages": dict.fromkeys(("torch", "torchvision", "timm"), "1"),
        },
        "allocator": "default",
        "created": "now",
        "load": [0.0, 1.0],
        "rows": [{**line, "ratios": ratios} for ratios in ([0.7, 0.74, 0.8], [0.7, 0.76, 0.8])],
    }
    reached, missed = table(document).splitlines()[-2:]
    assert reached.endswith("| <= 0.75 | yes |")
    assert missed.endswith("| <= 0.75 | no |")
