"""Which part of `deploy` pays: what the benchmark of its forms says."""

from __future__ import annotations

from benchmarks import bench_forms as forms


def test_a_form_pays_where_its_quartiles_say_so() -> None:
    text = forms.table([("ResNet-50", "1", "openvino", "dropped", "0.900", "0.890 to 0.910", "yes")], "a machine")
    assert text.splitlines()[-1] == "| ResNet-50 | 1 | openvino | dropped | 0.900 | 0.890 to 0.910 | yes |"
    assert [forms.paid(*bounds) for bounds in ((0.8, 0.9), (1.1, 1.2), (0.9, 1.1))] == ["yes", "no", "as much"]
