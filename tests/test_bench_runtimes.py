"""What SE costs in every runtime: cells are kept, gone on with, and laid out as a table."""

from __future__ import annotations

from pathlib import Path

from benchmarks import bench_forms as forms
from benchmarks.bench_runtimes import Cell, Costs, Side, lines_of, stored, table, write
from senet_bench.bench.machine import environment


def cell(threads: int = 1, batch: int = 1) -> Cell:
    def side(*seconds: float) -> Side:
        return Side(list(seconds), [2 * value for value in seconds])

    return Cell(
        pair="resnet50", label="ResNet-50", batch=batch, precision="fp32", threads=threads, created="today",
        load=(0.1, 0.2), seconds=60.0, gate_bytes=10_000_000, bytes_per_s=1e10,
        base={"eager": side(0.10, 0.10, 0.10), "openvino": side(0.05, 0.05, 0.05)},
        se={"eager": side(0.11, 0.12, 0.13), "openvino": side(0.05, 0.06, 0.07)},
        control=side(0.10, 0.10, 0.10), left_out={"onnxruntime": "it is not here"},
    )  # fmt: skip


def test_the_fastest_runtime_comes_first_with_its_ratio_to_the_baseline_and_to_eager() -> None:
    first, second = lines_of(cell())
    assert first == ("openvino", "1.200", "1.000 to 1.400", "0.500", "50", "60", "1.020")
    assert second[:2] == ("eager", "1.200")
    assert lines_of(cell(threads=2))[0][4:] == ("100", "120", "1.010")  # wall time


def test_cells_of_this_machine_are_read_back_and_others_left(tmp_path: Path) -> None:
    costs = Costs(environment=environment(), cells=[cell(batch=8), cell()])
    write(costs, tmp_path)
    assert stored(tmp_path).cells == costs.cells
    assert not stored(tmp_path / "elsewhere").cells
    text = (tmp_path / "se_cost.md").read_text()
    assert text == table(costs)
    assert text.index("batch 1,") < text.index("batch 8,")
    assert "Left out: onnxruntime: it is not here." in text


def test_a_form_pays_where_its_quartiles_say_so() -> None:
    text = forms.table([("ResNet-50", "1", "openvino", "dropped", "0.900", "0.890 to 0.910", "yes")], "a machine")
    assert text.splitlines()[-1] == "| ResNet-50 | 1 | openvino | dropped | 0.900 | 0.890 to 0.910 | yes |"
    assert [forms.paid(*bounds) for bounds in ((0.8, 0.9), (1.1, 1.2), (0.9, 1.1))] == ["yes", "no", "as much"]
