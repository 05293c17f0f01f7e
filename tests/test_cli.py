"""The commands as a user types them: what they print, their JSON, their exit codes."""

import csv
import io
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from senet_bench.cli import completed
from senet_bench.core.catalog import CATALOG
from tests.conftest import Run

FORMATS = ("table", "md", "csv", "json", "latex", "html")


def rows(run: Run, *arguments: str) -> dict[str, dict[str, Any]]:
    ended = run(*arguments, "--format", "json")
    assert ended.code == 0, ended.err
    return {row["model"]: row for row in json.loads(ended.out)["rows"]}


def flop_cells(found: dict[str, dict[str, Any]]) -> list[tuple[str, str]]:
    return [
        (name, cell["status"])
        for name, row in found.items()
        for cell in row["paper"]
        if cell["metric"].endswith("flops")
    ]


def test_the_main_job_reaches_every_flop_cell_of_tables_2_and_3_but_the_two_known_ones(run: Run) -> None:
    found = rows(run, "compare", "--no-latency")
    assert len(found) == 20
    cells = flop_cells(found)
    assert len(cells) == 20
    assert [name for name, status in cells if status != "match"] == ["inception_resnet_v2", "seinception_resnet_v2"]
    assert {status for name, status in cells if "inception_resnet" in name} == {"not reproduced"}


def test_the_flop_cells_of_the_ablations_match_too(run: Run) -> None:
    ended = run("compare", "table13", "table15", "table16", "--no-latency", "--format", "json")
    cells = [cell for row in json.loads(ended.out)["rows"] for cell in row["paper"]]
    assert {cell["status"] for cell in cells if cell["metric"] == "gflops"} == {"match"}
    assert {cell["status"] for cell in cells if cell["metric"] == "params_m"} <= {"match", "near"}


def test_the_document_has_the_promised_fields(run: Run) -> None:
    ended = run("compare", "seresnet50", "--no-latency", "--format", "json")
    document = json.loads(ended.out)
    assert document["schema"] == "senet-bench.compare/1"
    assert {"version", "environment", "conditions", "rows"} <= document.keys()
    base, variant = document["rows"]
    assert (base["model"], base["attention"], base["baseline"]) == ("resnet50", None, None)
    assert variant["params"] == 28_088_024
    assert variant["baseline"] == "resnet50"
    assert variant["input_size"] == [3, 224, 224]
    assert variant["attention"]["reduction"] == 16
    assert variant["flops"] == {"macs": 3_866_007_552, "bn-inclusive": 3_877_497_856}
    assert {"conv", "linear", "se_excitation", "se_scale", "bn"} <= variant["flops_by_kind"].keys()
    cell = next(cell for cell in variant["paper"] if cell["metric"] == "gflops")
    assert {"table", "metric", "printed", "measured", "delta", "status", "convention"} <= cell.keys()
    assert (cell["table"], cell["printed"], cell["status"]) == ("2", "3.87", "match")
    assert variant["latency"] is None
    assert variant["missing"]["latency"]


def test_a_row_is_compared_with_its_own_table_only(run: Run) -> None:
    errors = {
        table: next(
            cell["printed"]
            for cell in rows(run, "compare", table, "--no-latency")["seresnet50"]["paper"]
            if cell["metric"] == "top1_err"
        )
        for table in ("table2", "table14")
    }
    assert errors["table2"] == "23.29"
    assert errors["table14"] in {"22.28", "22.23", "22.78", "22.20"}


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_to_stdout_and_to_a_file(run: Run, tmp_path: Path, form: str) -> None:
    ended = run("compare", "table3", "--no-latency", "--format", form)
    assert ended.code == 0
    assert "SE" in ended.out
    assert run("compare", "table3", "--no-latency", "--format", form, "-o", "out.txt").out == ""
    text = (tmp_path / "out.txt").read_text()
    if form == "json":
        assert json.loads(text)["rows"] == json.loads(ended.out)["rows"]
    elif form == "csv":
        lines = list(csv.DictReader(io.StringIO(text)))
        assert [line["params"] for line in lines] == ["4231976", "4718044", "1865728", "2441923"]
        assert lines[1]["attention_reduction"] == "16"
    elif form == "latex":
        assert r"\toprule" in text
        assert not re.search(r"(?<!\\)%(?! )", text.partition(r"\end{table}")[0])
    elif form != "table":
        assert text == ended.out


def test_progress_and_remarks_stay_off_stdout(run: Run) -> None:
    ended = run("compare", "seresnet18", "--no-latency", "--format", "json")
    json.loads(ended.out)
    assert "stored in" in ended.err
    assert run("compare", "seresnet18", "--no-latency", "-q").err == ""


def test_changes_reach_the_network(run: Run) -> None:
    options = ("--classes", "100", "--in-channels", "1", "--img-size", "64", "--cardinality", "16", "-r", "8")
    found = rows(run, "compare", "seresnext50_32x4d", "--no-latency", *options)["seresnext50_32x4d"]
    assert found["input_size"] == [1, 64, 64]
    assert found["attention"]["reduction"] == 8
    assert found["paper"] == []
    assert "paper" in found["missing"]


def test_counters_agree_and_verification_passes(run: Run) -> None:
    shapes = rows(run, "compare", "seresnet18", "--no-latency", "--img-size", "64", "--verify")
    fvcore = rows(run, "compare", "seresnet18", "--no-latency", "--img-size", "64", "--counter", "fvcore")
    assert shapes == fvcore


def test_a_bare_axis_takes_the_papers_values(run: Run) -> None:
    ended = run("ablate", "--reduction", "--format", "json")
    document = json.loads(ended.out)
    assert document["schema"] == "senet-bench.ablate/1"
    assert [row["axes"].get("reduction") for row in document["rows"]] == [None, 2, 4, 8, 16, 32]
    params = {row["axes"].get("reduction"): row["params"] for row in document["rows"]}
    assert params[None] == 25_557_032
    assert round(params[2] / 1e6, 3) == 45.699
    assert all(
        cell["status"] in ("match", "near")
        for row in document["rows"]
        for cell in row["paper"]
        if cell["metric"] == "params_m"
    )


def test_several_axes_make_a_grid_with_its_baseline(run: Run) -> None:
    ended = run("ablate", "-m", "resnet18", "--squeeze", "--stages", "2,3+4", "--format", "json")
    found = json.loads(ended.out)["rows"]
    assert len(found) == 5
    assert found[0]["attention"] is None
    assert {tuple(row["attention"]["stages"]) for row in found[1:]} == {(2,), (3, 4)}


def test_one_reduction_a_stage(run: Run) -> None:
    ended = run("ablate", "--reduction", "16/16/8/4", "--format", "json")
    assert json.loads(ended.out)["rows"][1]["attention"]["reduction"] == [16, 16, 8, 4]


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (["ablate", "--reduction"], ["ablate", "--reduction", "paper"]),
        (["ablate", "--reduction", "--squeeze", "avg"], ["ablate", "--reduction", "paper", "--squeeze", "avg"]),
        (["ablate", "--no-squeeze", "-m", "x"], ["ablate", "--no-squeeze", "paper", "-m", "x"]),
        (["compare", "--reduction"], ["compare", "--reduction"]),
        (["compare", "x", "--debug"], ["--debug", "compare", "x"]),
    ],
)
def test_completed_arguments(typed: list[str], expected: list[str]) -> None:
    assert completed(typed) == expected


@pytest.mark.parametrize("arguments", [["check", "--base", "nowhere"], ["compare", "nothere"]])
def test_debug_adds_the_traceback_and_leaves_the_exit_code(run: Run, arguments: list[str]) -> None:
    plain, traced = run(*arguments), run(*arguments, "--debug")
    assert plain.code == traced.code == 2
    assert "Traceback" not in plain.err
    assert "Traceback" in traced.err
    assert traced.err.endswith(plain.err)


BAD = {
    ("compare", "seresnet51"): "seresnet50",
    ("compare", "table99"): "table99",
    ("compare", "table9"): "Table 9",
    ("compare", "resnet18", "-r", "0"): "positive",
    ("compare", "resnet18", "-r", "-4"): "positive",
    ("compare", "resnet18", "-r", "many"): "many",
    ("compare", "resnet18", "-r", "65"): "64 channels",
    ("compare", "resnet18", "-r", "2,4"): "ablate",
    ("compare", "resnet18", "-r", "2/4"): "4",
    ("compare", "resnet18", "--classes", "0"): "classes",
    ("compare", "resnet18", "--classes", "ten"): "integer",
    ("compare", "resnet18", "--img-size", "0"): "img-size",
    ("compare", "bninception", "--img-size", "5"): "cannot take 3x5x5",
    ("compare", "resnet18", "--cardinality", "4"): "grouped",
    ("compare", "resnet18", "--epochs", "3", "--seeds", "4"): "--epochs, --seeds are for training; add --dataset",
    ("compare", "resnet18", "--placement", "3x3"): "3x3",
    ("compare", "resnet18", "--format", "xml"): "xml",
    ("compare", "resnet18", "-o", "no/such/folder.md"): "does not exist",
    ("compare", "resnet18", "-o", "."): "folder",
    ("compare", "resnet18", "--counter", "abacus"): "abacus",
    ("compare", "--nonsense"): "nonsense",
    ("nonsense",): "nonsense",
    ("--call-timeout", "x", "models"): "call-timeout",
    ("ablate",): "--reduction",
    ("ablate", "--squeeze", "median"): "median",
    ("ablate", "-m", "sevgg16_bn", "--placement"): "3x3",
    ("ablate", "-m", "seresnet20_cifar", "--reduction", "8,16,32,64"): "2 impossible",
    ("ablate", "--stages", "7"): "stage 7",
    ("models", "transformers"): "transformers",
    ("report",): "compare",
}


@pytest.mark.parametrize("arguments", BAD, ids=" ".join)
def test_bad_input_is_one_line_and_exit_2(run: Run, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    ended = run(*arguments)
    assert ended.code == 2
    assert ended.out == ""
    assert ended.err.count("\n") == 1, ended.err
    assert BAD[arguments] in ended.err
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    "asked",
    [
        ("compare", "resnet20_cifar", "--no-latency"),
        ("compare", "resnet50", "--budget-flops", "1.05", "--no-latency"),
        ("ablate", "-m", "seresnet20_cifar", "--reduction", "8"),
    ],
)
def test_a_folder_of_data_that_the_environment_names_asks_for_no_training(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: tuple[str, ...]
) -> None:
    monkeypatch.setenv("SENET_BENCH_DATA", str(tmp_path))
    assert run(*asked).code == 0
    typed = run(*asked, "--data", "elsewhere")
    assert (typed.code, "--data is for training; add --dataset" in typed.err) == (2, True)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"{", 2),
        (b"", 2),
        (b"[1, 2]", 2),
        (b"\xff\xfe", 2),
        (b'{"schema": "senet-bench.compare/1", "rows": 3}', 2),
        (b'{"schema": "senet-bench.compare/1", "rows": [{"params": NaN}]}', 2),
        (b"[" * 100_000, 2),
        (b'{"schema": "senet-bench.compare/99", "rows": []}', 4),
        (b'{"rows": []}', 4),
    ],
)
def test_a_damaged_results_folder_is_named_before_anything_runs(
    run: Run, tmp_path: Path, content: bytes, code: int
) -> None:
    broken = tmp_path / "results" / "runs" / "machine" / "20200101T000000Z-compare-x.json"
    broken.parent.mkdir(parents=True)
    broken.write_bytes(content)
    ended = run("compare", "seresnet18", "--no-latency")
    assert ended.code == code
    assert ended.out == ""
    assert ended.err.count("\n") == 1
    assert broken.name in ended.err
    assert list(broken.parent.iterdir()) == [broken]


def test_a_results_folder_that_is_a_file(run: Run, tmp_path: Path) -> None:
    (tmp_path / "here").write_text("")
    ended = run("compare", "seresnet18", "--no-latency", "--results", "here")
    assert (ended.code, ended.out) == (2, "")


def test_models_lists_every_network(run: Run) -> None:
    listed = json.loads(run("models", "--format", "json").out)
    assert listed["schema"] == "senet-bench.models/1"
    assert [row["model"] for row in listed["rows"]] == list(CATALOG)
    assert all({"family", "layout", "params", "tables"} <= row.keys() for row in listed["rows"])
    assert "2" in next(row for row in listed["rows"] if row["model"] == "seresnet50")["tables"]
    assert {row["family"] for row in json.loads(run("models", "vgg", "--format", "json").out)["rows"]} == {"vgg"}


def test_doctor_says_what_is_here_and_how_to_get_the_rest(run: Run) -> None:
    found = {row["name"]: row for row in json.loads(run("doctor", "--format", "json").out)["rows"]}
    assert found["torch"]["found"][0].isdigit()
    assert {"load", "ray", "submitit", "sbatch"} <= found.keys()
    assert all(row["remedy"] for row in found.values() if row["found"] == "missing")


def test_report_rebuilds_the_same_bytes(run: Run, tmp_path: Path) -> None:
    assert run("compare", "--no-latency").code == 0
    written = []
    for _ in range(2):
        assert run("report").code == 0
        files = sorted(path for part in ("tables", "plots") for path in (tmp_path / "results" / part).iterdir())
        written.append({path.name: path.read_bytes() for path in files})
    assert {"table2.md", "table3.tex", "error-vs-flops.svg", "error-vs-params.pdf"} <= written[0].keys()
    assert written[0] == written[1]


def test_an_interrupted_run_keeps_its_rows_and_says_so(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from senet_bench.run.count import Count

    real, calls = Count.row, []

    def interrupted(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(Count, "row", interrupted)
    ended = run("compare", "resnet", "--no-latency")
    assert ended.code == 130
    assert "2 of 20 steps are saved" in ended.err
    (stored,) = (tmp_path / "results" / "runs").glob("*/*.json")
    assert len(json.loads(stored.read_text())["rows"]) == 2


def test_a_network_that_an_interrupted_run_did_not_reach_is_not_said_to_be_unasked(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from senet_bench.bench import latency

    def interrupted(*arguments: Any, **options: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(latency, "measure_networks", interrupted)
    assert run("compare", "resnet20_cifar").code == 130
    (stored,) = (tmp_path / "results" / "runs").glob("*/*.json")
    missing = [row["missing"]["latency"] for row in json.loads(stored.read_text())["rows"]]
    assert missing == ["not reached: the run ended before"] * len(missing) != []


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_what_is_no_regular_file_is_refused_in_the_results_folder(run: Run, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "results" / "runs" / "m" / "a.json"
    path.parent.mkdir(parents=True)
    os.mkfifo(path) if kind == "pipe" else path.symlink_to("/dev/zero")
    ended = run("compare", "resnet20_cifar", "--no-latency")
    assert ended.code == 2
    assert "a.json is no regular file; move it away" in ended.err
