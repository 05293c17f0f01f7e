"""Which part of `deploy` pays: what the benchmark of its forms says."""

from __future__ import annotations

from pathlib import Path

from benchmarks import bench_forms as forms


def test_a_form_pays_where_it_is_faster_than_both_copies_of_the_yardstick() -> None:
    rounds = 9
    seconds = {
        "folded": [1.0] * rounds,
        "quick": [0.8] * rounds,
        "slow": [1.2] * rounds,
        "lucky": [0.95] * rounds,
        "folded again": [0.9] * rounds,
    }
    lines = {form: rest for form, *rest in forms.compared(seconds)}
    assert {form: pays for form, (*_, pays) in lines.items()} == {
        "quick": "yes", "slow": "no", "lucky": "as much", "folded again": "",
    }  # fmt: skip
    assert lines["folded again"][:2] == ["0.900", "0.900 to 0.900"]
    assert lines["quick"][0] == f"{(0.8 + 0.8 / 0.9) / 2:.3f}"


def test_a_table_keeps_the_rows_of_its_machine(tmp_path: Path) -> None:
    line = ("ResNet-50", "1", "openvino", "folded again", "0.990", "0.980 to 1.010", "", "2026-11-30, load 0.2")
    (tmp_path / "deploy_forms.md").write_text(forms.table([line, line], "a machine"), encoding="utf-8")
    assert forms.stored(tmp_path / "deploy_forms.md", "a machine") == [line, line]
    assert forms.stored(tmp_path / "deploy_forms.md", "another machine") == []
    assert forms.stored(tmp_path / "none.md", "a machine") == []
