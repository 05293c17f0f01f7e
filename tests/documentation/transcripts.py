"""Run the pages' commands and put what each prints below it: `python -m tests.documentation.transcripts [PAGE...]`.

Each page is run in its own fresh folder, as on a terminal of 80 columns without colour; what is generated in the
pages (tables of options, `probe`'s tasks, the runs kept in `results/`, their timings) is written anew too.
`--generated` does only that.
"""

from __future__ import annotations

import os
import pty
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from senet_bench.core.results import Run, StoredDocument
from senet_bench.core.store import Store
from senet_bench.show import documents, writers
from tests.documentation.pages import ROOT, Block, blocks, option_table, pages, task_sections

RESULTS = ROOT / "results"
COPIED = ("senet_bench", "tests", "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", ".ci")
SHOWN = ("resnet50", "resnet152", "vgg16_bn", "mobilenet_v1", "shufflenet_v1_g3")
"""The baselines whose timings the README shows."""
LOGGED = re.compile(r"^[IWE]\d{4} \d\d:.*\n?", re.MULTILINE)
"""What torch logs about a machine's CUDA."""
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
GENERATED = re.compile(r"(<!-- (options|tasks|runs|timings)(?:: ([^>]+?))? -->\n).*?(<!-- end -->)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Ended:
    """What a command printed, and its exit code."""

    output: str
    code: int


def environment(home: Path) -> dict[str, str]:
    """The environment of a page's commands: nothing of this machine's but the programs."""
    programs = os.pathsep.join((str(Path(sys.executable).parent), os.defpath, os.environ.get("PATH", "")))
    told = {"COLUMNS": "80", "TERM": "dumb", "NO_COLOR": "1", "OMP_NUM_THREADS": "1", "LC_ALL": "C.UTF-8"}
    person = {"LOGNAME": "ada", "GIT_CONFIG_NOSYSTEM": "1", "HOME": str(home)}
    return {**told, **person, "PATH": programs, "PYTHONDONTWRITEBYTECODE": "1"}


def run(command: str, folder: Path, code: int = 0, home: Path | None = None) -> Ended:
    """Run a shell line in a folder, its stdout a terminal; `code` is what `$?` holds before it."""
    leader, follower = pty.openpty()
    with tempfile.TemporaryFile() as errors, tempfile.TemporaryDirectory() as spare:
        process = subprocess.Popen(
            ["bash", "-c", f"(exit {code})\n{command}"],
            stdin=subprocess.DEVNULL,
            stdout=follower,
            stderr=errors,
            cwd=folder,
            env=environment(home or Path(spare)) | _own_package(folder),
        )
        os.close(follower)
        shown = b"".join(_read(leader))
        os.close(leader)
        process.wait()
        errors.seek(0)
        text = (shown + errors.read()).decode().replace("\r\n", "\n")
        text = LOGGED.sub("", COLOUR.sub("", text))
    return Ended("\n".join(line.rstrip() for line in text.strip("\n").splitlines()), process.returncode)


def _own_package(folder: Path) -> dict[str, str]:
    """What makes the package of a folder the one that runs, where it has one."""
    return {"PYTHONPATH": str(folder)} if (folder / "senet_bench").is_dir() else {}


def _read(terminal: int) -> Iterator[bytes]:
    """What is written to a terminal until its last writer is gone."""
    while True:
        try:
            data = os.read(terminal, 65536)
        except OSError:
            return
        if not data:
            return
        yield data


def prepare(block: Block, folder: Path) -> None:
    """Write the file that a block is, or apply it as a patch."""
    if block.mark == "file":
        (folder / block.about).parent.mkdir(parents=True, exist_ok=True)
        (folder / block.about).write_text(block.text)
    elif block.mark == "apply":
        subprocess.run(["git", "apply", "-"], input=block.text, text=True, cwd=folder, check=True)


def begin(text: str, folder: Path) -> None:
    """Fill a page's folder: with a copy of the repository where the page wants one."""
    if "<!-- clone -->" in text:
        for name in COPIED:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, folder / name)
        subprocess.run(["git", "init", "-q"], cwd=folder, check=True)


def transcribed(text: str, folder: Path, home: Path) -> str:
    """A page with the outputs of its commands, run in `folder`."""
    begin(text, folder)
    lines, shift, code = text.splitlines(), 0, 0
    for block in blocks(text):
        prepare(block, folder)
        if block.kind != "console":
            continue
        found: list[str] = []
        for command in block.commands():
            ended = run(command.text, folder, code, home)
            code = ended.code
            _check_private(ended.output, folder, home)
            found += [f"$ {command.text}".replace("\n", "\n> "), *ended.output.splitlines()]
        lines[block.first + shift : block.last + shift] = found
        shift += len(found) - (block.last - block.first)
    return "\n".join(lines) + "\n"


def _check_private(output: str, *folders: Path) -> None:
    """Raise where an output names a folder of this machine."""
    for folder in (*folders, ROOT, Path.home()):
        if str(folder) in output and str(folder) != "/":
            raise SystemExit(f"an output names a folder of this machine:\n{output}")


def generated(text: str) -> str:
    """A page with its generated parts written anew."""

    def part(match: re.Match[str]) -> str:
        makers = {
            "options": lambda: option_table(match[3]),
            "tasks": task_sections,
            "runs": run_table,
            "timings": timings,
        }
        return f"{match[1]}{makers[match[2]]()}\n{match[4]}"

    return GENERATED.sub(part, text)


def kept() -> list[tuple[Path, StoredDocument]]:
    """The runs that are committed; outside git, all there are."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "results/runs"], check=False, capture_output=True, text=True, cwd=ROOT
    )
    committed = {ROOT / name for name in listed.stdout.split("\0") if name}
    return [(path, one) for path, one in Store(RESULTS).documents() if path in committed or not committed]


def run_table() -> str:
    """The runs kept under `results/`: what machine, which command, which file."""
    lines = ["| when | machine | command | file |", "|---|---|---|---|"]
    for path, document in kept():
        name = path.relative_to(ROOT).as_posix()
        cells = (
            document.created[:10],
            machine(document),
            f"`{command(document)}`",
            f"[{path.stem[-6:]}](../../{name})",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def machine(document: StoredDocument) -> str:
    """The hardware and torch of a run, in words."""
    hard = document.environment.hard
    gpu = f"{hard.gpu}, CUDA {hard.cuda}, " if hard.gpu else ""
    virtual = " (virtual)" if hard.virtual else ""
    return f"{gpu}{hard.cpu} {hard.isa}, {hard.cores} cores{virtual}, torch {hard.torch}"


def command(document: StoredDocument) -> str:
    """What was typed, as the run's conditions tell it."""
    name, asked = document.schema.partition(".")[2].partition("/")[0], msgspec.to_builtins(document.conditions)
    words = [name]
    if name == "compare":
        words += [] if asked["what"] == ["table2", "table3"] else asked["what"]
    elif name == "ablate":
        words += ["-m", asked["model"], *(f"--{axis} {value}" for axis, value in asked["axes"].items())]
    elif "model" in asked:
        words.append(asked["model"])
    if name == "selftest":
        words += [f"--{key} {value}" for key, value in asked.items()]
    words += [] if "latency" in asked or name != "compare" else ["--no-latency"]
    words += ["--latency"] if "latency" in asked and name == "ablate" else []
    conditions = asked.get("latency", {}).get("conditions", [])
    words += sorted({f"--device {one['device']}" for one in conditions if one["device"] != "cpu"})
    sweep = asked.get("accuracy") or asked
    words += [f"--dataset {sweep['dataset']}"] if isinstance(sweep, dict) and sweep.get("dataset") else []
    return " ".join(["senet-bench", *words]).replace(" paper", "")


def timings() -> str:
    """The newest stored timings of a few networks and their SE variants, as a Markdown table."""
    runs = [run for _, run in kept() if isinstance(run, Run)]
    timed = [run for run in runs if {row.model for row in run.rows if row.latency} >= set(SHOWN)]
    newest = timed[-1]
    rows = [row for row in newest.rows if row.model in SHOWN or row.baseline in SHOWN]
    shown = Run(
        schema=newest.schema,
        version=newest.version,
        created=newest.created,
        environment=newest.environment,
        conditions=newest.conditions,
        rows=rows,
    )
    table = documents.of_run(shown).wide[-1]
    return (
        f"{machine(newest)}; {table.title.partition(': ')[2]}\n\n"
        + writers.markdown([table]).partition("\n\n")[2].partition("\n\n")[0]
    )


PARTS = {"tasks": task_sections, "runs": run_table, "timings": timings}
"""What makes the generated parts that are of no one command."""


def main(arguments: list[str]) -> None:
    """Rewrite the pages named, or all of them."""
    wanted = [one for one in arguments if not one.startswith("-")] or list(pages())
    for name in wanted:
        began, path = time.monotonic(), pages()[name]
        text = generated(path.read_text())
        if "--generated" not in arguments:
            with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as home:
                text = transcribed(text, Path(folder), Path(home))
        path.write_text(text)
        sys.stdout.write(f"{path.relative_to(ROOT)}, {time.monotonic() - began:.0f} s\n")


if __name__ == "__main__":
    main(sys.argv[1:])
