"""The pages fit the program: commands parse, options are those there are, links lead somewhere, outputs are true."""

from __future__ import annotations

import importlib
import runpy
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.conftest import Run
from tests.documentation import transcripts
from tests.documentation.pages import (
    DOCS,
    README,
    SPECIAL,
    Block,
    blocks,
    command_lines,
    comparable,
    complaint,
    dead_links,
    leaves,
    option_table,
    page_of,
    pages,
    typed,
)
from tests.support.networks import slow_but

PAGES = pages()
TRIED_WHOLE = ("extending",)
"""Pages that are run in a copy of the repository, by a slow test of their own."""


def complaints(text: str) -> dict[str, str]:
    """Every command line of a page that the program would not understand, with its complaint."""
    lines = [(line, arguments) for line in command_lines(text) for arguments in typed(line)]
    return {line: said for line, arguments in lines if (said := complaint(arguments))}


def repeated_steps(text: str) -> list[Block]:
    """The blocks that make a page's folder, and those whose outputs every run repeats."""
    return [block for block in blocks(text) if block.mark in ("file", "apply") or _repeats(block)]


def _repeats(block: Block) -> bool:
    return block.kind == "console" and block.mark != "varies"


# --- every page -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_page_parses(page: str) -> None:
    text = PAGES[page].read_text()
    assert complaints(text) == {}


@pytest.mark.parametrize("page", PAGES)
def test_links_of_a_page_lead_somewhere(page: str) -> None:
    assert dead_links(PAGES[page], PAGES[page].read_text()) == []


@pytest.mark.parametrize("page", PAGES)
def test_options_runs_and_timings_are_those_there_are(page: str) -> None:
    text = PAGES[page].read_text()
    assert transcripts.generated(text) == text, f"run `nox -s docs -- --generated {page}`"


@pytest.mark.parametrize("command", leaves())
def test_every_command_has_a_page_with_its_options(command: str) -> None:
    page = DOCS / f"{page_of(command)}.md"
    assert f"<!-- options: {command} -->\n" in page.read_text()
    for part in ("## Exit codes", "not do", "## Options"):
        assert part in page.read_text()
    assert page.name in README.read_text()


def test_pages_are_of_commands_or_linked_from_the_readme() -> None:
    assert {path.name for path in DOCS.glob("*.md") if path.name not in README.read_text()} == set()
    assert set(SPECIAL.values()) <= {path.stem for path in DOCS.glob("*.md")}


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_transcript_was_run(page: str) -> None:
    shown = [
        command
        for block in blocks(PAGES[page].read_text())
        if block.kind == "console"
        for command in block.commands()
        if command.arguments()
    ]
    assert [command.text for command in shown if not command.output] == []


@pytest.mark.skipif(int(version("rich").partition(".")[0]) < 15, reason="an older rich pads its lines otherwise")
@pytest.mark.parametrize(
    "page", slow_but([page for page in PAGES if page not in TRIED_WHOLE], set(PAGES) - {"check", "python"})
)
def test_outputs_that_every_run_repeats_are_those_of_the_program(
    page: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = PAGES[page].read_text()
    for name, value in transcripts.environment(tmp_path / ".home").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    transcripts.begin(text, tmp_path)
    found, told, code = [], [], 0
    for block in repeated_steps(text):
        transcripts.prepare(block, tmp_path)
        for command in block.commands() if block.kind == "console" else ():
            _forget_modules_of(tmp_path)
            arguments = command.arguments()
            words = command.text.split()
            if words[0] == "python" and len(words) == 2:
                runpy.run_path(str(tmp_path / words[1]), run_name="__main__")
                output, code = capsys.readouterr().out, 0
            elif arguments is None:
                ended = transcripts.run(command.text, tmp_path, code)
                output, code = ended.output, ended.code
            else:
                inside = run(*arguments)
                output, code = inside.out + inside.err, inside.code
            found.append((command.text, comparable(output)))
            told.append((command.text, comparable(command.output)))
    assert told == found


def _forget_modules_of(folder: Path) -> None:
    """Let the next import see what lies in a folder now."""
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(str(folder)):
            del sys.modules[name]
    importlib.invalidate_caches()


@pytest.mark.slow
@pytest.mark.parametrize("page", TRIED_WHOLE)
def test_a_page_followed_to_the_letter_in_a_copy_of_the_repository_gives_what_it_shows(
    page: str, tmp_path: Path
) -> None:
    text = PAGES[page].read_text()
    folder, home = tmp_path / "clone", tmp_path / "home"
    folder.mkdir()
    home.mkdir()
    repeated = blocks(transcripts.transcribed(text, folder, home))
    for was, now in zip(blocks(text), repeated, strict=True):
        if _repeats(was):
            assert comparable(now.text) == comparable(was.text)
        elif was.kind == "console":
            assert "failed" not in now.text
            assert [command.text for command in was.commands()] == [command.text for command in now.commands()]


# --- the checks themselves ------------------------------------------------------------------------------------------

DOCTORED = """# Page

See [there](nowhere.md), [here](#exit-codes) and `senet-bench compare --no-such-thing`.

```console
$ senet-bench compare resnet50 --latencies | head
ResNet-50
$ senet-bench ablate --reduction --squeeze avg
$ senet-bench compere
```

```sh
. .venv/bin/activate && .venv/bin/senet-bench train seresnet20_cifar --epochs ten   # a comment
senet-bench evaluate
senet-bench models --format yaml
```

<!-- options: report -->
| option | takes | default | what |
|---|---|---|---|
| `--gone` |  |  | An option that was. |
<!-- end -->
"""


def test_commands_that_would_not_be_understood_are_found() -> None:
    assert [line.split(" #")[0].split("&& ")[-1].strip() for line in complaints(DOCTORED)] == [
        "senet-bench compare resnet50 --latencies | head",
        "senet-bench compere",
        ".venv/bin/senet-bench train seresnet20_cifar --epochs ten",
        "senet-bench evaluate",
        "senet-bench models --format yaml",
        "senet-bench compare --no-such-thing",
    ]


def test_dead_links_and_headings_are_found() -> None:
    assert dead_links(DOCS / "compare.md", DOCTORED) == ["nowhere.md", "#exit-codes"]
    assert dead_links(DOCS / "compare.md", "[a](common.md#exit-codes) [b](https://example.org)") == []


def test_an_option_that_is_gone_or_new_is_found() -> None:
    mended = transcripts.generated(DOCTORED)
    assert mended != DOCTORED
    assert "--gone" not in mended
    assert option_table("report") in mended


def test_an_output_is_taken_from_a_terminal_with_its_exit_code_known_to_the_next(tmp_path: Path) -> None:
    page = "```console\n$ test -t 1 && echo terminal\nold\n$ false\n$ echo $?\n```\n\nend\n"
    wanted = "```console\n$ test -t 1 && echo terminal\nterminal\n$ false\n$ echo $?\n1\n```\n\nend\n"
    assert transcripts.transcribed(page, tmp_path, tmp_path / "home") == wanted


def test_an_output_that_names_a_folder_of_the_machine_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="names a folder"):
        transcripts.transcribed("```console\n$ pwd\n```\n", tmp_path, tmp_path / "home")


def test_files_and_patches_of_a_page_are_made_before_its_commands(tmp_path: Path) -> None:
    page = (
        "<!-- file: a/b.txt -->\n```text\none\n```\n\n<!-- apply -->\n```diff\n--- a/a/b.txt\n+++ b/a/b.txt\n"
        "@@ -1 +1 @@\n-one\n+two\n```\n\n```console\n$ cat a/b.txt\n```\n"
    )
    assert "$ cat a/b.txt\ntwo\n```" in transcripts.transcribed(page, tmp_path, tmp_path / "home")


def test_what_no_two_runs_share_is_left_out_and_nothing_else() -> None:
    one = "stored in results/runs/3d062c35783c/20261121T033244Z-compare-29953f.json\n3.866  \n"
    two = "stored in results/runs/abcdef012345/20270101T000000Z-compare-000000.json\n3.866"
    assert comparable(one) == comparable(two)
    assert comparable(one) != comparable(two.replace("3.866", "3.867"))
