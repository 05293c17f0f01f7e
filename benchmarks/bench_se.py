"""What SE costs, as people run it and in the deploy form, in one run: interleaved pairs, medians of ratios.

Run `python benchmarks/bench_se.py [tail] [units] [networks] [mobile] [training] [--side 224] [--no-compile]
[--out FOLDER]`; without names everything, in about a quarter of an hour. CPU seconds of one thread, in rounds of random
order. The allocator is as people have it, in `training` as the training loop sets it; `--allocator tuned` sets it for
all sides alike. Units are summed over the residual units of ResNet-50, which is sharper than whole networks. The ratios
are kept in se_parts.json; se_parts.md and se_parts.csv are made of it.
"""

from __future__ import annotations

import argparse
import csv
import io
import os
import random
import statistics
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from msgspec import to_builtins
from torch import Tensor, nn

from senet_bench.bench.machine import environment
from senet_bench.bench.process import applied_allocator, tune_allocator
from senet_bench.core.files import write_atomically
from senet_bench.core.results import to_json
from senet_bench.core.specs import AttentionSpec, Precision
from senet_bench.deployment import deploy
from senet_bench.deployment.convolution import gated_sum
from senet_bench.models import build
from senet_bench.models.attention import SqueezeExcitation
from senet_bench.training.optimisation import Sgd, autocast

Call = Callable[[], object]
STAGES = ((64, 256, 56, 3), (128, 512, 28, 4), (256, 1024, 14, 6), (512, 2048, 7, 3))
"""Width, channels, side and number of the units of ResNet-50."""


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table: ratios by round (a quotient of differences: by draw of rounds), and the goal for them."""

    what: str
    against: str
    batch: int
    ratios: tuple[float, ...]
    most: float | None = None

    @property
    def quartiles(self) -> tuple[float, float, float]:
        """The lower quartile, the median, the upper quartile."""
        low, middle, high = statistics.quantiles(self.ratios, n=4)
        return low, middle, high

    def cells(self) -> tuple[str, ...]:
        """The line as it is printed."""
        low, middle, high = self.quartiles
        goal = "" if self.most is None else f"<= {self.most:.2f}"
        reached = "" if self.most is None else "yes" if middle <= self.most else "no"
        return self.what, self.against, str(self.batch), f"{middle:.3f}", f"{low:.3f} .. {high:.3f}", goal, reached


def rounds(
    calls: Mapping[str, Call], count: int, repeats: int = 2, *, inference: bool = True
) -> dict[str, list[float]]:
    """CPU seconds of each call by round, the least of `repeats`; each is called twice before."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    with torch.inference_mode(inference):
        for call in calls.values():
            call(), call()
        for _ in range(count):
            for name in random.sample(sorted(calls), len(calls)):
                times = []
                for _ in range(repeats):
                    started = time.process_time()
                    calls[name]()
                    times.append(time.process_time() - started)
                seconds[name].append(min(times))
    return seconds


def row(what: str, against: str, batch: int, ratios: Sequence[float], most: float | None = None) -> Row:
    return Row(what, against, batch, tuple(round(ratio, 5) for ratio in ratios), most)


def ratios(seconds: Mapping[str, list[float]], a: str, b: str) -> list[float]:
    return [x / y for x, y in zip(seconds[a], seconds[b])]


def extra(seconds: Mapping[str, list[float]], se: str, base: str, other_se: str, other_base: str) -> list[float]:
    """What SE adds over its baseline, as a fraction of what the other implementation's SE adds, from medians."""
    rng, found = random.Random(0), []
    names, count = (se, base, other_se, other_base), len(seconds[se])
    for _ in range(200):  # bootstrap of rounds: a quotient of small differences has no useful ratio per round
        chosen = [rng.randrange(count) for _ in range(count)]
        a, b, c, d = (statistics.median(seconds[name][i] for i in chosen) for name in names)
        found.append((a - b) / (c - d))
    return found


def summed(parts: list[tuple[int, dict[str, list[float]]]]) -> dict[str, list[float]]:
    """Seconds by round of several kinds of units, each taken as often as the network has it."""
    names = parts[0][1]
    return {name: [sum(n * s[name][i] for n, s in parts) for i in range(len(names[name]))] for name in names}


def tail(batch: int = 8) -> list[Row]:
    """Pool, FCs, gate, sum and ReLU over the map of the last convolution."""
    import torchvision
    from timm.layers import SEModule  # type: ignore[attr-defined]

    parts = []
    for _, channels, side, count in STAGES:
        x, skip = (torch.randn(batch, channels, side, side) for _ in range(2))
        ours = SqueezeExcitation(channels, AttentionSpec(), 16).eval()
        timms = SEModule(channels, rd_ratio=1 / 16, rd_divisor=1).eval()
        theirs = torchvision.ops.SqueezeExcitation(channels, channels // 16).eval()

        def fast(x: Tensor = x, skip: Tensor = skip, block: SqueezeExcitation = ours) -> Tensor:
            gate = block.excitation(block.squeeze(x))[:, :, None, None]
            return gated_sum(x, gate, skip, relu=True, out=x)

        def plain(x: Tensor = x, skip: Tensor = skip, block: nn.Module = timms) -> Tensor:
            return F.relu(block(x).add_(skip), inplace=True)

        def vision(x: Tensor = x, skip: Tensor = skip, block: nn.Module = theirs) -> Tensor:
            return F.relu(block(x).add_(skip), inplace=True)

        parts.append((count, rounds({"fast": fast, "timm": plain, "torchvision": vision}, 15)))
    seconds = summed(parts)
    return [
        row("SE tail, inference form", "timm's tail", batch, ratios(seconds, "fast", "timm"), 0.65),
        row("SE tail, inference form", "torchvision's tail", batch, ratios(seconds, "fast", "torchvision"), 0.80),
    ]


def units(batch: int) -> list[Row]:
    """The residual units of ResNet-50 (the later ones of each stage), SE's extra and the SE/baseline ratio."""
    import timm

    networks = {name: build(f"{name}_v1_5").eval() for name in ("resnet50", "seresnet50")}
    timms = {name: timm.create_model(name).eval() for name in networks}
    parts = []
    for stage, (_, channels, side, count) in enumerate(STAGES):
        x = torch.randn(batch, channels, side, side)
        nhwc = x.contiguous(memory_format=torch.channels_last)
        calls: dict[str, Call] = {}
        for name, network in networks.items():
            unit: Any = network.get_submodule(f"stages.{stage}.1")
            own = deploy(unit)
            late = deploy(unit, early_gate=False)
            calls[f"deploy {name}"] = partial(own, nhwc)
            calls[f"late {name}"] = partial(late, nhwc)
            calls[f"timm {name}"] = partial(timms[name].get_submodule(f"layer{stage + 1}.1"), x)
            calls[f"eager {name}"] = partial(unit, x)
        parts.append((count, rounds(calls, 12 if batch > 1 else 40)))
    s = summed(parts)
    theirs = ("timm seresnet50", "timm resnet50")
    goal = 0.20 if batch > 1 else 0.40
    found = extra(s, "deploy seresnet50", "deploy resnet50", *theirs)
    later = extra(s, "late seresnet50", "late resnet50", *theirs)
    return [
        row("SE's extra, early gate", "timm's extra", batch, found, goal),
        row("SE's extra, late gate", "timm's extra", batch, later),
        row("deploy SE / baseline", "1 (units)", batch, ratios(s, "deploy seresnet50", "deploy resnet50"), 1.02),
        row("eager SE / baseline", "1 (units)", batch, ratios(s, "eager seresnet50", "eager resnet50")),
        row("timm SE / baseline", "1 (units)", batch, ratios(s, *theirs)),
    ]


def networks(batch: int, compiled: bool) -> list[Row]:
    """SE-ResNet-50 in timm's layout as a whole."""
    import timm

    x = torch.randn(batch, 3, 224, 224)
    se, base = deploy(build("seresnet50_v1_5")), deploy(build("resnet50_v1_5"))
    theirs = timm.create_model("seresnet50").eval()
    calls: dict[str, Call] = {"deploy": lambda: se(x), "baseline": lambda: base(x), "timm": lambda: theirs(x)}
    if compiled:
        calls["frozen"] = frozen(theirs, x)
    seconds = rounds(calls, 10 if batch > 1 else 20, 1 if batch > 1 else 2)
    found = [
        row("deploy SE-ResNet-50", "timm seresnet50, eager", batch, ratios(seconds, "deploy", "timm"), 0.75),
        row("deploy SE-ResNet-50", "deploy ResNet-50", batch, ratios(seconds, "deploy", "baseline")),
    ]
    if compiled:
        against = "timm seresnet50, compile + freezing"
        found.append(row("deploy SE-ResNet-50", against, batch, ratios(seconds, "deploy", "frozen"), 1.0))
    return found


def frozen(network: nn.Module, x: Tensor) -> Call:
    """The network compiled with its weights as constants."""
    from torch._inductor import config

    with config.patch(freezing=True), torch.inference_mode():  # the mode of the rounds, else it compiles again
        made: Any = torch.compile(network)
        started = time.perf_counter()
        made(x)
        print(f"torch.compile with freezing, batch {len(x)}: {time.perf_counter() - started:.0f} s")  # noqa: T201
    return lambda: made(x)


def mobile(batch: int = 8) -> list[Row]:
    """The extra cost of SE in MobileNet and ShuffleNet, against the block as timm writes it, eager."""
    found = []
    for name, label in (("mobilenet_v1", "MobileNet"), ("shufflenet_v1_g3", "ShuffleNet")):
        x = torch.randn(batch, 3, 224, 224)
        plain = {"base": build(name).eval(), "se": as_timm(build(f"se{name}")).eval()}
        calls: dict[str, Call] = {f"eager {key}": partial(network, x) for key, network in plain.items()}
        fast = {"base": deploy(build(name)), "se": deploy(build(f"se{name}"))}
        calls |= {f"deploy {key}": partial(network, x) for key, network in fast.items()}
        seconds = rounds(calls, 12)
        ratio = extra(seconds, "deploy se", "deploy base", "eager se", "eager base")
        found += [
            row(f"SE-{label}'s extra, deploy", "timm-style extra, eager", batch, ratio, 1 / 3),
            row(f"deploy SE-{label}", f"deploy {label}", batch, ratios(seconds, "deploy se", "deploy base")),
            row(f"timm-style SE-{label}", f"{label}, eager", batch, ratios(seconds, "eager se", "eager base")),
        ]
    return found


def as_timm(network: nn.Module) -> nn.Module:
    """The network with timm's SE modules in the places of ours."""
    from timm.layers import SEModule  # type: ignore[attr-defined]

    for name, block in list(network.named_modules()):
        if isinstance(block, SqueezeExcitation):
            channels, hidden = block.fc1.in_features, block.fc1.out_features
            network.set_submodule(name, SEModule(channels, rd_channels=hidden))  # type: ignore[arg-type]
    return network


def training(side: int, batch: int = 8) -> list[Row]:
    """Saved activations and the time of a step of SE-ResNet-50 beside those of ResNet-50."""
    from tests.test_recomputation import saved_bytes

    tune_allocator()  # as the training loop does
    x = torch.randn(batch, 3, side, side)
    base, plain, ours = (
        saved_bytes(n, x, on) for n, on in (("resnet50", True), ("seresnet50", False), ("seresnet50", True))
    )
    found = [
        row("saved activations, SE-ResNet-50", "ResNet-50", batch, [ours / base] * 2, 1.03),
        row("saved activations, without recomputing", "ResNet-50", batch, [plain / base] * 2),
    ]
    x = x.contiguous(memory_format=torch.channels_last)
    goals: dict[Precision, float | None] = {"fp32": None, "bf16": 1.06}
    for precision, goal in goals.items():
        names = {"base": "resnet50", "control": "resnet50", "plain": "seresnet50", "ours": "seresnet50"}
        calls = {key: step(name, x, precision, key == "ours") for key, name in names.items()}
        seconds = rounds(calls, 15, 1, inference=False)
        what = f"a step at {side} px, {precision}, channels last"
        found += [
            row(f"{what}: SE-ResNet-50", "ResNet-50", batch, ratios(seconds, "ours", "base"), goal),
            row(f"{what}: without recomputing", "ResNet-50", batch, ratios(seconds, "plain", "base")),
            row(f"{what}: ResNet-50, control", "ResNet-50", batch, ratios(seconds, "control", "base")),
        ]
    return found


def step(name: str, x: Tensor, precision: Precision, recomputes: bool) -> Call:
    """A step as the training loop does it: forward pass, loss, backward pass, SGD."""
    network = build(name).to(memory_format=torch.channels_last)
    for block in network.modules():
        if isinstance(block, SqueezeExcitation):
            block.recomputes = recomputes
    optimizer, labels = Sgd(network.parameters(), 0.01, 0.9, 1e-4, nesterov=False), torch.arange(len(x))

    def call() -> None:
        with autocast(x.device, precision):
            logits = network(x)
        F.cross_entropy(logits.float(), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()

    return call


PARTS: dict[str, Callable[[argparse.Namespace], list[Row]]] = {
    "tail": lambda _: tail(),
    "units": lambda _: [*units(8), *units(1)],
    "networks": lambda asked: [*networks(8, not asked.no_compile), *networks(1, not asked.no_compile)],
    "mobile": lambda _: mobile(),
    "training": lambda asked: training(asked.side),
}
COLUMNS = ("what", "against", "batch", "ratio", "quartiles", "goal", "reached")


def table(document: Mapping[str, Any]) -> str:
    """The document as Markdown, with the machine it was measured on."""
    about = document["environment"]
    versions = ", ".join(f"{name} {about['packages'][name]}" for name in ("torch", "torchvision", "timm"))
    hard = about["hard"]
    how = "CPU seconds of one thread, medians of ratios of interleaved calls"
    what = "units: summed over the residual units of ResNet-50 at 224 px"
    machine = f"{hard['cpu']}, {hard['cores']} cores, {hard['isa']}, {versions}, allocator {document['allocator']}"
    lines = [
        f"What SE costs: {how}; {what}.",
        "",
        f"{machine}; {document['created']}, load {document['load'][0]:.1f} to {document['load'][1]:.1f}.",
        "",
        f"| {' | '.join(COLUMNS)} |",
        "|---|---|--:|--:|---|---|---|",
        *(f"| {' | '.join(line.cells())} |" for line in rows_of(document)),
    ]
    return "\n".join(lines) + "\n"


def rows_of(document: Mapping[str, Any]) -> list[Row]:
    """The rows of a document."""
    return [Row(**{**line, "ratios": tuple(line["ratios"])}) for line in document["rows"]]


def write(document: Mapping[str, Any], folder: Path) -> None:
    """The document, and the tables that are made of it."""
    write_atomically(folder / "se_parts.json", to_json(document))
    write_atomically(folder / "se_parts.md", table(document))
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([COLUMNS, *(line.cells() for line in rows_of(document))])
    write_atomically(folder / "se_parts.csv", text.getvalue())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], default=[])
    parser.add_argument("--out", type=Path, default=Path("results/tables"))
    parser.add_argument("--allocator", choices=["as-is", "tuned"], default="as-is")
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--side", type=int, default=224, help="of the images of `training`, in pixels")
    options = parser.parse_args()
    torch.set_num_threads(1)
    random.seed(0)
    document: dict[str, Any] = {
        "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "environment": to_builtins(environment()),
        "allocator": applied_allocator(options.allocator),
        "load": [os.getloadavg()[0]] * 2,
        "rows": [],
    }
    for part in options.parts or PARTS:
        started = time.perf_counter()
        document["rows"] += [asdict(line) for line in PARTS[part](options)]
        document["load"][1] = os.getloadavg()[0]
        write(document, options.out)
        print(f"{part}: {time.perf_counter() - started:.0f} s", flush=True)  # noqa: T201
    print(table(document))  # noqa: T201


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
