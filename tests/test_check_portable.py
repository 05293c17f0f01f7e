"""The exact facts of a network, and what is said of a difference."""

from dataclasses import replace

import pytest

from senet_bench.regression.exact import by_module, change_sentence, changed_texts, exact_row, memory_row
from senet_bench.regression.facts import Portable, leaves, named_facts
from senet_bench.regression.limits import Limit, limit_of, usual_limits
from senet_bench.regression.outcome import LimitRow

SIZE = (3, 32, 32)


@pytest.fixture(scope="module")
def base() -> Portable:
    return named_facts("seresnet20_cifar", SIZE)


def row(metric: str, base: Portable, now: Portable) -> LimitRow:
    return exact_row("seresnet20_cifar", metric, base, now, usual_limits()[metric])


def test_the_facts_of_a_network(base: Portable) -> None:
    assert base.total == 274_655
    assert base.flops["conv"] > 40_000_000
    assert {"se_excitation", "se_scale"} <= base.flops.keys()
    assert base.shapes == ["float32[1, 10]"]
    assert base.operators["aten::sigmoid"] == 9
    assert all("[" in shape for shape in base.state.values())
    assert base == named_facts("seresnet20_cifar", SIZE)


@pytest.mark.parametrize("metric", ["params", "flops", "outputs", "shapes", "state_dict", "operators"])
def test_the_same_network_passes(base: Portable, metric: str) -> None:
    found = row(metric, base, base)
    assert (found.verdict, found.reason, found.stale) == ("pass", "", False)


def test_one_more_parameter_is_named(base: Portable) -> None:
    found = row("params", base, replace(base, params={**base.params, "layer3.0.se.fc1.extra": 12_288}))
    assert found.verdict == "fail"
    assert found.reason == "params +12,288: layer3.0.se.fc1"


def test_one_parameter_more_in_a_tensor_is_found(base: Portable) -> None:
    name = next(iter(base.params))
    found = row("params", base, replace(base, params={**base.params, name: base.params[name] + 1}))
    assert (found.verdict, found.now) == ("fail", 274_656)


def test_one_more_kind_of_flops_fails_whatever_the_total_is(base: Portable) -> None:
    fewer = {**base.flops, "conv": base.flops["conv"] - 1000, "max_pool": 10}
    found = row("flops", base, replace(base, flops=fewer))
    assert found.verdict == "fail"
    assert "max_pool +10" in found.reason


def test_another_list_of_what_is_not_counted_fails_by_name(base: Portable) -> None:
    assert base.uncounted == []
    more = row("flops", base, replace(base, uncounted=["fft_c2c"]))
    assert (more.verdict, more.reason) == ("fail", "operators: fft_c2c is not counted")
    fewer = row("flops", replace(base, uncounted=["fft_c2c"]), base)
    assert (fewer.verdict, fewer.stale) == ("fail", False)
    assert "fft_c2c is not among the uncounted any more" in fewer.reason
    loose = exact_row(
        "n", "flops", base, replace(base, uncounted=["fft_c2c"]), limit_of("flops", {"max": "any"}, "", Limit())
    )
    assert loose.verdict == "pass"
    unknown = row("flops", replace(base, uncounted=None), replace(base, uncounted=["fft_c2c"]))
    assert unknown.verdict == "pass"
    assert "baseline record" in unknown.reason
    assert row("flops", replace(base, uncounted=None), base).reason == ""


def test_an_operator_more_is_named(base: Portable) -> None:
    found = row("operators", base, replace(base, operators={**base.operators, "aten::sin": 1}))
    assert (found.verdict, found.reason) == ("fail", "operators +1: aten::sin")


def test_operators_are_judged_one_by_one(base: Portable) -> None:
    swapped = {**base.operators, "aten::sigmoid": base.operators["aten::sigmoid"] + 1}
    swapped["aten::relu"] = base.operators["aten::relu"] - 1
    found = row("operators", base, replace(base, operators=swapped))
    assert (found.verdict, found.stale) == ("fail", False)
    assert "aten::sigmoid +1" in found.reason
    assert "aten::relu -1" in found.reason
    fewer = replace(base, operators={**base.operators, "aten::relu": base.operators["aten::relu"] - 1})
    assert (row("operators", base, fewer).verdict, row("operators", base, fewer).stale) == ("pass", True)
    loose = exact_row("n", "operators", base, replace(base, operators=swapped), Limit(absolute=1))
    assert loose.verdict == "pass"


def test_another_function_fails_and_one_that_was_not_recorded_is_judged_by_its_shapes(base: Portable) -> None:
    assert base.function is not None
    outputs = [{**one, "projections": [9.0] * 16} for one in base.function["outputs"]]  # type: ignore[attr-defined]
    found = row("outputs", base, replace(base, function={**base.function, "outputs": outputs}))
    assert (found.verdict, "the function changed" in found.reason) == ("fail", True)
    assert (found.difference or 0) > 1e-3
    old = replace(base, function=None)
    found = row("outputs", old, base)
    assert (found.verdict, "baseline record" in found.reason) == ("pass", True)
    assert row("outputs", old, replace(base, shapes=["float32[1, 11]"])).verdict == "fail"
    broken = replace(base, function=None, failures={"outputs": "ValueError: no"})
    assert (row("outputs", base, broken).verdict, row("outputs", broken, broken).verdict) == ("fail", "pass")


def test_keys_and_shapes_are_named(base: Portable) -> None:
    key = next(iter(base.state))
    found = row("state_dict", base, replace(base, state={**base.state, key: "float16[1]", "new.weight": "float32[3]"}))
    assert found.verdict == "fail"
    assert "new.weight new, float32[3]" in found.reason
    assert f"{key} float32" in found.reason
    assert row("outputs", base, replace(base, shapes=["float32[1, 11]"])).verdict == "fail"


def test_an_improvement_passes_and_says_that_the_baseline_is_stale(base: Portable) -> None:
    name = next(iter(base.params))
    found = row("params", base, replace(base, params={**base.params, name: base.params[name] - 1}))
    assert (found.verdict, found.stale) == ("pass", True)


def test_a_gate_that_lets_everything_pass(base: Portable) -> None:
    now = replace(base, params={"x": 10**9}, state={})
    assert exact_row("n", "params", base, now, Limit(judged=False)).verdict == "pass"
    assert exact_row("n", "state_dict", base, now, Limit(judged=False)).verdict == "pass"


def test_memory_needs_both_its_limits() -> None:
    gate = usual_limits()["memory"]
    assert memory_row("n", 1 << 20, (1 << 20) + 100_000, gate).verdict == "pass"
    assert memory_row("n", 1 << 30, (1 << 30) + 300_000, gate).verdict == "pass"
    assert memory_row("n", 1 << 20, 2 << 20, gate).verdict == "fail"
    assert memory_row("n", 2 << 20, 1 << 20, gate).stale


def test_sentences() -> None:
    changes = [(f"m{i}.weight", 10 - i) for i in range(9)]
    assert change_sentence("params", by_module(changes), 54).endswith("and 3 more")
    assert by_module([("a.weight", 3), ("a.bias", -3)]) == []
    assert changed_texts({"a": "1", "b": "2"}, {"b": "3", "c": "4"}) == [
        ("c", "new, 4"),
        ("a", "gone"),
        ("b", "2 -> 3"),
    ]


def test_nested_outputs_keep_their_places() -> None:
    assert list(leaves({"boxes": [1, 2], "logits": 3})) == [("boxes: 0: ", 1), ("boxes: 1: ", 2), ("logits: ", 3)]
