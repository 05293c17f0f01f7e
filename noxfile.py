"""Sessions: `nox` runs lint, types, tests and the check of our own networks; `nox -s bench` times our own code."""

import itertools

import nox

nox.options.default_venv_backend = "uv|virtualenv"
nox.options.sessions = ["lint", "all"]
nox.options.reuse_existing_virtualenvs = True

PYPROJECT = nox.project.load_toml("pyproject.toml")
PINS = ("-c", ".ci/constraints.txt")

PARALLEL = ("-n", "auto", "--dist", "loadfile")  # a file's tests share what they build

MYPY = ("mypy", "--num-workers", "auto")

BYTECODE = {"PYTHONDONTWRITEBYTECODE": ""}  # else each of hundreds of processes compiles torch's sources anew

QUICK_TOPICS = ("architecture", "remedies", "paper", "studies", "verdict", "budget", "recipes")
QUICK = [f"tests/test_{topic}.py" for topic in QUICK_TOPICS]


def groups(*names: str) -> list[str]:
    """The requirements of dependency groups of pyproject.toml."""
    return [str(one) for one in nox.project.dependency_groups(PYPROJECT, *names)]


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff: rules and format."""
    session.install(*PINS, *groups("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session(name="all")
def everything(session: nox.Session) -> None:
    """`check`, `types` and `tests` in one environment; the check comes first, with no more than what users install."""
    session.install(*PINS, ".")
    check_networks(session)
    session.install(*PINS, *groups("types", "test"))
    session.run(*MYPY)
    run_tests(session)


@nox.session
def types(session: nox.Session) -> None:
    """Mypy, strict."""
    session.install(*PINS, ".", *groups("types", "test"))
    session.run(*MYPY)


@nox.session
def check(session: nox.Session) -> None:
    """Our own networks against `results/baselines`: the exact gates."""
    session.install(*PINS, ".")
    check_networks(session)


@nox.session
def tests(session: nox.Session) -> None:
    """Pytest without the slow tests, a process for each core; `nox -s tests -- -m slow` runs those, one by one."""
    session.install(*PINS, ".", *groups("test"))
    run_tests(session)


def check_networks(session: nox.Session) -> None:
    """The command a maintainer's CI runs, on ourselves."""
    report = f"{session.virtualenv.location}/check.md"
    session.run("senet-bench", "check", "-q", "--results", "results", "--markdown", report, env=BYTECODE)


def run_tests(session: nox.Session) -> None:
    """Those that the command line names, else all but the slow ones."""
    session.run("pytest", *(session.posargs or ("-m", "not slow", *PARALLEL)), env={"OMP_NUM_THREADS": "1", **BYTECODE})


@nox.session
def clusters(session: nox.Session) -> None:
    """The tests on a real Slurm, where its programs are installed and we are root, and on two nodes of a real Ray."""
    session.install(*PINS, ".[ray,slurm]", *groups("test"))
    env = {"OMP_NUM_THREADS": "1", **BYTECODE}
    session.run(
        "pytest",
        "tests/test_slurm.py",
        "tests/test_slurm_trials.py",
        "tests/test_ray.py",
        "tests/test_engines.py",
        env=env,
    )


@nox.session
def quick(session: nox.Session) -> None:
    """A subset while one works, meant to take at most about a minute on a quiet machine."""
    session.install(*PINS, ".", *groups("test"))
    session.run("pytest", "-m", "not slow", *QUICK, env={"OMP_NUM_THREADS": "1", **BYTECODE})


@nox.session
def gpu(session: nox.Session) -> None:
    """Everything that runs on a GPU, in ten minutes: one table of what held, one JSON file to send back."""
    session.install(*PINS, ".[nvidia]", *groups("test"))
    session.run("python", "-m", "senet_bench.cli.gpu_acceptance", *session.posargs, success_codes=[0, 5])


@nox.session
def docs(session: nox.Session) -> None:
    """Every command of the pages run anew, its output put below it; `nox -s docs -- check` does one page."""
    session.install(*PINS, ".", *groups("test"))
    session.run("python", "-m", "tests.documentation.transcripts", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """pytest-benchmark on the project's own code."""
    session.install(*PINS, ".", *groups("test"))
    session.run("pytest", "benchmarks", "-o", "python_files=bench_*.py", "--benchmark-only", *session.posargs)


TIMED = (
    *("seresnet50", "seresnet50_v1_5", "semobilenet_v1", "seshufflenet_v1_g3"),
    *("semobilenet_v2", "mobilenet_v3_large", "efficientnet_b0"),
)
TORCH = "eager,compile,deploy,deploy:eager,deploy:compile"
RUN_IN = {
    "fp32": f"{TORCH},onnxruntime,openvino,deploy:onnxruntime,deploy:openvino",
    "bf16": f"{TORCH},openvino,deploy:openvino",
}
"""By precision the runtimes that have it."""
BUDGETS = {"1": "8", "8": "20"}
"""By batch size the seconds for a pair in a runtime."""


@nox.session(name="bench-runtimes")
def bench_runtimes(session: nox.Session) -> None:
    """What SE costs in every runtime: results/tables/se_cost.md and the page's first chart, in about four hours."""
    session.install(*PINS, ".[onnx,openvino]")
    for threads, (precision, runtimes), (batch, seconds) in itertools.product("12", RUN_IN.items(), BUDGETS.items()):
        options = ("--runtime", runtimes, "-b", batch, "--precision", precision, "--threads", threads)
        session.run("senet-bench", "compare", *TIMED, *options, "--budget", seconds, *session.posargs)
    session.run("senet-bench", "report")


@nox.session(name="bench-forms")
def bench_forms(session: nox.Session) -> None:
    """Which part of deploy pays where: results/tables/deploy_forms.md."""
    session.install(*PINS, ".[onnx,openvino]", *groups("test"))
    session.run("python", "-m", "benchmarks.bench_forms", *session.posargs, env={"OMP_NUM_THREADS": "1"})


@nox.session(name="bench-se")
def bench_se(session: nox.Session) -> None:
    """SE's tails, extras and deployed forms side by side, against timm, torchvision and torch.compile."""
    session.install(*PINS, ".", *groups("test"))
    arguments = session.posargs or ("--out", "results/tables")
    session.run("python", "benchmarks/bench_se.py", *arguments, env={"OMP_NUM_THREADS": "1", "PYTHONPATH": "."})
