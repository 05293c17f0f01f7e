"""The fixture `senet_bench` in the tests of somebody's own network."""

import json
from pathlib import Path

import pytest
from torch import Tensor, nn

from senet_bench.errors import BenchError, UsageError
from senet_bench.pytest_plugin import SenetBench
from senet_bench.regression.ci import exported
from senet_bench.regression.files import benchmark_stats
from tests.test_check_report import report, row

pytest_plugins = ["pytester"]
SIZE = (3, 8, 8)
SUITE = """
import pytest
from torch import nn

@pytest.mark.senet_bench(params="+50 %", state_dict="any", flops="any", operators="any")
def test_net(senet_bench):
    width = int(open("width").read())
    net = nn.Sequential(nn.Conv2d(3, width, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 2))
    senet_bench.check(net, (3, 8, 8))

@pytest.mark.senet_bench(parms="+1")
def test_a_mistake(senet_bench):
    pass
"""


def net(width: int = 4) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 2))


def test_facts_are_recorded_then_checked_and_a_change_is_named(tmp_path: Path) -> None:
    plain, recording = SenetBench("t", tmp_path), SenetBench("t", tmp_path, "new")
    with pytest.raises(pytest.fail.Exception, match="--senet-bench-record"):
        plain.check(net(), SIZE)
    recording.check(net(), SIZE)
    assert {row.verdict for row in plain.check(net(), SIZE)} == {"pass"}
    with pytest.raises(pytest.fail.Exception, match=r"params \+30: 0 \+28, 3 \+2"):
        plain.check(net(5), SIZE)
    with pytest.raises(pytest.fail.Exception, match="params"):
        recording.check(net(5), SIZE)
    with pytest.raises(pytest.fail.Exception, match="images"):
        plain.check(net(), (3, 9, 9))
    SenetBench("t", tmp_path, "all").check(net(5), SIZE)
    plain.check(net(5), SIZE)


def test_operators_of_another_torch_skip_a_test_until_they_are_recorded_anew(tmp_path: Path) -> None:
    for name in ("t", "u"):
        SenetBench(name, tmp_path, "new").check(net(), SIZE)
    path = tmp_path / "pytest" / "portable.json"
    document = json.loads(path.read_text())
    here = document["torch"]
    document["torch"] = "1.13"
    path.write_text(json.dumps(document))
    plain = SenetBench("t", tmp_path)
    assert {row.verdict for row in plain.check(net(), SIZE)} == {"pass"}
    for name in ("t", "u"):
        document["networks"][name]["operators"].popitem()
    path.write_text(json.dumps(document))
    with pytest.raises(pytest.skip.Exception, match=r"recorded with torch 1\.13, here is .*--senet-bench-record=all"):
        plain.check(net(), SIZE)
    with pytest.raises(pytest.fail.Exception, match="params"):
        plain.check(net(5), SIZE)
    SenetBench("t", tmp_path, "all").check(net(), SIZE)
    document = json.loads(path.read_text())
    assert (document["torch"], document["torches"]) == ("1.13", {"t": here})
    assert {row.verdict for row in plain.check(net(), SIZE)} == {"pass"}
    with pytest.raises(pytest.skip.Exception, match=r"recorded with torch 1\.13"):
        SenetBench("u", tmp_path).check(net(), SIZE)
    SenetBench("v", tmp_path, "new").check(net(), SIZE)
    assert json.loads(path.read_text())["torches"] == {"t": here, "v": here}


def test_thresholds_are_those_of_the_marker(tmp_path: Path) -> None:
    SenetBench("t", tmp_path, "new").check(net(), SIZE)
    lenient = {"params": "+50 %", "flops": "any", "state_dict": "any", "operators": "any"}
    SenetBench("t", tmp_path, "", lenient).check(net(5), SIZE)
    with pytest.raises(UsageError, match="params"):
        SenetBench("t", tmp_path, "", {"params": "many"}).check(net(), SIZE)


def test_a_network_is_compared_with_another_in_the_same_rounds(tmp_path: Path) -> None:
    wanted = {"latency": "+400 %", "budget": 0.3, "inconclusive": "pass"}
    row = SenetBench("t", tmp_path, "", wanted).not_slower(net(), net(), SIZE)
    assert row.verdict in ("pass", "inconclusive")
    assert row.rounds


class Broken(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise KeyError("lost")


@pytest.mark.parametrize("broken", ["candidate", "base"])
def test_a_network_that_cannot_be_timed_fails_the_test_with_its_reason(tmp_path: Path, broken: str) -> None:
    both = {"candidate": net(), "base": net(), broken: Broken()}
    timer = SenetBench("t", tmp_path, "", {"budget": 0.1})
    with pytest.raises(pytest.fail.Exception, match=r"t: latency: .*KeyError: 'lost'"):
        timer.not_slower(both["candidate"], both["base"], SIZE)


@pytest.fixture
def plugin(request: pytest.FixtureRequest) -> tuple[str, ...]:
    return () if request.config.pluginmanager.hasplugin("senet_bench") else ("-p", "senet_bench.pytest_plugin")


def test_what_an_undecided_time_means_is_one_of_three_words(pytester: pytest.Pytester, plugin: tuple[str, ...]) -> None:
    marked = 'import pytest\n@pytest.mark.senet_bench(inconclusive="{}")\ndef test_it(senet_bench):\n    pass\n'
    pytester.makepyfile(test_wrong=marked.format("Fail"), test_right=marked.format("fail"))
    ended = pytester.runpytest_inprocess(*plugin)
    ended.assert_outcomes(passed=1, errors=1)
    ended.stdout.fnmatch_lines(["*senet_bench(inconclusive='Fail') is unknown; use skip, pass, fail"])


@pytest.mark.slow
def test_the_plugin_in_a_project_of_its_own(pytester: pytest.Pytester, plugin: tuple[str, ...]) -> None:
    pytester.makepyfile(test_it=SUITE)
    width = pytester.path / "width"
    width.write_text("4")
    pytester.runpytest_subprocess(*plugin, "--senet-bench-record").assert_outcomes(passed=1, errors=1)
    width.write_text("9")
    changed = pytester.runpytest_subprocess(*plugin)
    changed.assert_outcomes(failed=1, errors=1)
    changed.stdout.fnmatch_lines(["*params +150*"])


def test_what_is_written_for_pytest_benchmark_is_read_again(tmp_path: Path) -> None:
    from senet_bench.core.results import to_json

    timed = row("n", "latency", "pass", base=1e-3, now=1.1e-3, unit="s", launches=[0.1, 0.09, 0.11], rounds=90)
    (tmp_path / "b.json").write_text(to_json(exported(report([timed]))))
    found = benchmark_stats(tmp_path / "b.json")["n/latency"]
    assert found.median == pytest.approx(1.1e-3)
    assert found.rounds == 90


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b'{"benchmarks": []}',
        b'{"benchmarks": [{"name": "x", "stats": {"min": NaN, "median": 1, "rounds": 1}}]}',
        b'{"benchmarks": [{"name": "x", "stats": {"min": 0, "median": 1, "rounds": 1}}]}',
        b'{"benchmarks": [{"name": "x", "stats": {"min": "1", "median": 1, "rounds": 1}}]}',
        b'{"benchmarks": 3}',
    ],
)
def test_a_damaged_benchmark_file_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "b.json").write_bytes(content)
    with pytest.raises(BenchError) as raised:
        benchmark_stats(tmp_path / "b.json")
    assert "b.json" in str(raised.value)
    assert raised.value.exit_code in (2, 5)


def test_tests_of_one_name_are_apart_and_check_does_not_see_them(tmp_path: Path) -> None:
    first, second = (SenetBench(f"tests/{file}.py::test_net", tmp_path, "new") for file in "ab")
    first.check(net(4), SIZE)
    second.check(net(5), SIZE)
    SenetBench("tests/a.py::test_net", tmp_path).check(net(4), SIZE)
    SenetBench("tests/b.py::test_net", tmp_path).check(net(5), SIZE)
    assert not (tmp_path / "portable.json").exists()


def test_facts_that_an_older_version_recorded_are_still_compared_with(tmp_path: Path) -> None:
    SenetBench("test_net", tmp_path, "new").check(net(), SIZE)
    (tmp_path / "pytest" / "portable.json").rename(tmp_path / "portable.json")
    plain = SenetBench("tests/a.py::test_net", tmp_path)
    plain.check(net(), SIZE)
    with pytest.raises(pytest.fail.Exception, match="params"):
        plain.check(net(5), SIZE)


def test_two_networks_of_one_test_are_told_apart_by_name_or_refused(tmp_path: Path) -> None:
    recording = SenetBench("tests/a.py::test_two", tmp_path, "new")
    recording.check(net(4), SIZE, name="narrow")
    recording.check(net(5), SIZE, name="wide")
    plain = SenetBench("tests/a.py::test_two", tmp_path)
    plain.check(net(4), SIZE, name="narrow")
    plain.check(net(5), SIZE, name="wide")
    replacing = SenetBench("tests/a.py::test_three", tmp_path, "all")
    replacing.check(net(4), SIZE)
    with pytest.raises(pytest.fail.Exception, match="name="):
        replacing.check(net(5), SIZE)
    other = SenetBench("tests/b.py::test_two", tmp_path)
    with pytest.raises(pytest.fail.Exception, match="no recorded facts"):
        other.check(net(5), SIZE, name="thin")
