"""Numbers in tables: to some figures, and large ones in full."""

from __future__ import annotations

from dataclasses import replace

import pytest

from senet_bench.regression.text import value
from senet_bench.show.documents import of_run
from senet_bench.show.figures import significant
from tests.support import stored


@pytest.mark.parametrize(
    ("number", "figures", "shown"),
    [
        (None, 4, ""),
        (23451.4, 4, "23451"),
        (9999.6, 4, "10000"),
        (1234.56, 4, "1235"),
        (1234.56, 3, "1235"),
        (12.3456, 3, "12.3"),
        (0.000012345, 3, "1.23e-05"),
        (0.0, 4, "0"),
        (-123456.0, 4, "-123456"),
    ],
)
def test_a_large_number_is_written_in_full(number: float | None, figures: int, shown: str) -> None:
    assert significant(number, figures) == shown
    assert significant(number and number / 1000, figures, 1000) == shown


def test_times_and_rates_of_a_table_are_never_powers_of_ten() -> None:
    run = stored.ablation()
    rows = [
        replace(row, latency=replace(row.latency, seconds=12.3456, mean_seconds=12.4, images_per_second=23451.4))
        for row in run.rows
        if row.latency
    ]
    (times,) = (table for table in of_run(replace(run, rows=rows)).wide if table.title.startswith("Latency"))
    cells = dict(zip([column.name for column in times.columns], times.texts[0]))
    assert (cells["ms"], cells["images/s"]) == ("12346", "23451")
    assert value(1020 * 2**20, "bytes") == "1020 MiB"
    assert value(12345.6, "") == "12346"
