"""The steps of action.yml, each run as GitHub runs it, with a `gh` and a `senet-bench` that write down their calls."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

yaml = pytest.importorskip("yaml")
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the steps are bash")
ACTION = Path(__file__).parent.parent / "action.yml"
BASH = ("bash", "--noprofile", "--norc", "-eo", "pipefail", "-c")
GH = """#!/bin/bash
printf '%s\\n' "$*" >> "$CALLS"
case "$*" in
  *PATCH*) exit "${PATCH_CODE:-0}" ;;
  *--paginate*) printf '%s' "$COMMENT_IDS" ;;
esac
"""
CHECK = """#!/bin/bash
printf '%s\\n' "$@" > "$CALLS.check"
while [ $# -gt 0 ]; do
  case "$1" in --output | --markdown) [ -n "$SILENT" ] || echo report > "$2" ;; esac
  shift
done
exit "$CHECK_CODE"
"""
MARK = '.[] | select(.body | startswith("<!-- senet-bench check -->")) | .id'


def git(path: Path, *arguments: str) -> str:
    who = ("-c", "user.name=n", "-c", "user.email=n@example.org", "-c", "protocol.file.allow=always")
    return subprocess.run(
        ["git", *who, *arguments], cwd=path, check=True, capture_output=True, text=True
    ).stdout.strip()


class Runner:
    """GitHub's runner as far as the action sees it: files it writes to, programs it calls, expressions filled in."""

    def __init__(self, path: Path, workspace: Path, inputs: Mapping[str, str]) -> None:
        self.path, self.workspace = path, workspace
        self.steps = yaml.safe_load(ACTION.read_text())["runs"]["steps"]
        known = {
            name: str(one.get("default", "")) for name, one in yaml.safe_load(ACTION.read_text())["inputs"].items()
        }
        self.values = {f"inputs.{name}": value for name, value in {**known, **inputs}.items()}
        self.values |= {"github.repository": "o/r", "github.event.pull_request.number": "7", "github.token": "t"}
        tools = path / "tools"
        tools.mkdir()
        for name, source in (("gh", GH), ("senet-bench", CHECK)):
            (tools / name).write_text(source)
            (tools / name).chmod(0o755)
        self.environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "RUNNER_TEMP": str(path / "a temp")}
        self.environment |= {"GITHUB_OUTPUT": str(path / "output"), "CALLS": str(path / "calls"), "CHECK_CODE": "0"}

    def filled(self, text: str) -> str:
        return re.sub(r"\$\{\{ ([\w.-]+) \}\}", lambda match: self.values[match[1]], text)

    def run(self, step: Mapping[str, object], **more: str) -> subprocess.CompletedProcess[str]:
        own = step.get("env", {})
        assert isinstance(own, dict)
        values = {name: self.filled(str(value)) for name, value in own.items()}
        folder = self.workspace / self.filled(str(step.get("working-directory", ".")))
        environment = {**self.environment, **values, **more}
        return subprocess.run(
            [*BASH, str(step["run"])], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )

    def check(self, **more: str) -> list[str]:
        """Run the step `check`; the arguments that senet-bench was called with."""
        done = self.run(next(step for step in self.steps if step.get("id") == "check"), **more)
        assert done.returncode == 0, done.stderr
        self.said = done.stdout
        outputs = dict(line.split("=", 1) for line in (self.path / "output").read_text().splitlines())
        self.values |= {f"steps.check.outputs.{name}": value for name, value in outputs.items()}
        return (self.path / "calls.check").read_text().splitlines()

    def upload(self, step: Mapping[str, Any]) -> tuple[str, list[str]]:
        """What actions/upload-artifact would keep: the artifact's name and its files; it fails where it is told to."""
        options = {key: self.filled(str(value)) for key, value in step["with"].items()}
        folder = Path(options["path"])
        files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
        assert files or options["if-no-files-found"] == "ignore"
        return options["name"], files

    def ended(self) -> int:
        """The exit code of the last step."""
        return self.run(self.steps[-1]).returncode

    def comment(self, **more: str) -> list[str]:
        """Run the step that comments; the calls of gh."""
        done = self.run(next(step for step in self.steps if "gh api" in str(step.get("run"))), **more)
        assert done.returncode == 0, done.stderr
        return (self.path / "calls").read_text().splitlines()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with two commits, a tag and a branch, and a folder of a monorepo with a space in its name."""
    path = tmp_path / "origin"
    (path / "a package").mkdir(parents=True)
    (path / "a package" / "file").write_text("1")
    git(tmp_path, "init", "-q", "-b", "main", str(path))
    git(path, "config", "uploadpack.allowAnySHA1InWant", "true")
    for message in ("one", "two"):
        git(path, "add", "-A")
        git(path, "commit", "-q", "--allow-empty", "-m", message)
        git(path, "tag", message)
    git(path, "branch", "feature")
    return path


@pytest.mark.parametrize("code", ["0", "1", "2", "3", "5"])
def test_the_exit_code_is_that_of_the_check_and_the_report_is_kept(tmp_path: Path, repository: Path, code: str) -> None:
    runner = Runner(
        tmp_path, repository, {"arguments": "--only seresnet* --launches 5", "working-directory": "a package"}
    )
    arguments = runner.check(CHECK_CODE=code)
    assert arguments[:2] == ["check", "--annotations"]
    assert arguments[-4:] == ["--only", "seresnet*", "--launches", "5"]
    assert "--base" not in arguments
    assert runner.ended() == int(code)
    report = Path(runner.values["steps.check.outputs.report"])
    assert (report / "report.json").exists()
    assert "::error" not in runner.said
    runner.check(CHECK_CODE="2", SILENT="1")
    assert "::error title=senet-bench check::ended with exit code 2" in runner.said


@pytest.mark.parametrize("code", ["0", "1", "5"])
def test_the_report_is_uploaded_however_the_check_ended(tmp_path: Path, repository: Path, code: str) -> None:
    runner = Runner(tmp_path, repository, {})
    runner.check(CHECK_CODE=code)
    step = next(step for step in runner.steps if str(step.get("uses")).startswith("actions/upload-artifact@"))
    assert step["if"] == "always()"  # also where the step before failed
    name, files = runner.upload(step)
    assert (name, files) == ("senet-bench", ["report.json", "report.md"])
    runner.check(CHECK_CODE=code, SILENT="1")
    assert runner.upload(step) == ("senet-bench", ["report.md"])  # says why there is no other


def test_a_merge_commit_is_compared_with_its_base(tmp_path: Path, repository: Path) -> None:
    """What actions/checkout gives for a pull request: the merge of its head into its base, of depth 1."""
    git(repository, "checkout", "-q", "-b", "change")
    (repository / "a package" / "file").write_text("2")
    git(repository, "commit", "-q", "-am", "a change")
    git(repository, "checkout", "-q", "-b", "merged", "main")
    git(repository, "merge", "-q", "--no-ff", "-m", "merge", "change")
    git(tmp_path, "clone", "-q", "--depth=1", "-b", "merged", f"file://{repository}", str(tmp_path / "clone"))
    (tmp_path / "clone" / "a package" / "file").write_text("3")  # a dirty tree is left as it is
    runner = Runner(tmp_path, tmp_path / "clone", {"base": "origin/main", "working-directory": "a package"})
    arguments = runner.check()
    assert arguments[1:3] == ["--base", git(repository, "rev-parse", "main")]
    assert "a package/file" in git(tmp_path / "clone", "status", "--porcelain")


@pytest.mark.parametrize("base", ["sha", "one", "feature", "origin/main", "origin/feature"])
@pytest.mark.parametrize("depth", ["1", ""])
def test_a_shallow_clone_fetches_the_commit_that_it_needs(
    tmp_path: Path, repository: Path, base: str, depth: str
) -> None:
    wanted = git(repository, "rev-parse", {"sha": "one"}.get(base, base.removeprefix("origin/")))
    options = [f"--depth={depth}", "--no-tags"] if depth else []
    git(tmp_path, "clone", "-q", *options, f"file://{repository}", "clone")
    runner = Runner(tmp_path, tmp_path / "clone", {"base": wanted if base == "sha" else base})
    arguments = runner.check()
    commit = git(tmp_path / "clone", "rev-parse", arguments[arguments.index("--base") + 1])
    assert commit == wanted


def test_a_base_that_is_nowhere_is_left_to_the_check_to_refuse(tmp_path: Path, repository: Path) -> None:
    git(tmp_path, "clone", "-q", f"file://{repository}", "clone")
    arguments = Runner(tmp_path, tmp_path / "clone", {"base": "no-such"}).check(CHECK_CODE="2")
    assert arguments[arguments.index("--base") + 1] == "no-such"


def test_its_own_comment_is_edited_and_nobody_elses(tmp_path: Path, repository: Path) -> None:
    runner = Runner(tmp_path, repository, {})
    runner.check()
    report = Path(runner.values["steps.check.outputs.report"]) / "report.md"
    listing = f"api --paginate repos/o/r/issues/7/comments --jq {MARK}"
    posting = f"api --method POST repos/o/r/issues/7/comments -F body=@{report}"
    editing = f"api --method PATCH repos/o/r/issues/comments/12 -F body=@{report}"
    assert runner.comment(COMMENT_IDS="") == [listing, posting]
    assert runner.comment(COMMENT_IDS="12\n34")[2:] == [listing, editing]
    assert runner.comment(COMMENT_IDS="12", PATCH_CODE="1")[4:] == [listing, editing, posting]
    report.unlink()
    assert len(runner.comment(COMMENT_IDS="")) == 7


def test_the_report_begins_with_the_mark_that_it_is_found_by() -> None:
    from senet_bench.regression.text import MARKER

    assert f'startswith("{MARKER}")' in MARK
    assert MARK in ACTION.read_text()
