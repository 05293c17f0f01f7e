"""How fast training and evaluation are against loops as torchvision's references write them.

Run `python -m benchmarks.bench_training [data] [rate] [loops] [error] [jpeg] [--threads 2]`; `loops` needs timm. Each
pair is interleaved in one process, in turns of first, each side twice and the second time counted: the first pays for
what the other side left behind (the pages that a DataLoader's fork made read-only cost ours 5 %). Printed are the
medians over rounds of the ratios reference / ours, with their range: of times by the clock, and of CPU times, which
tell more on a busy machine (a DataLoader's processes are counted). `loops` takes about five minutes.
"""

from __future__ import annotations

import argparse
import importlib
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy.stats import t
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.datasets import ImageFolder

from benchmarks.clock import Taken, ratios, taken
from senet_bench.bench.process import tune_allocator
from senet_bench.core.progress import result_of
from senet_bench.core.recipes import recipe
from senet_bench.data import images, sets
from senet_bench.data.augment import normalised
from senet_bench.data.batches import Batches
from senet_bench.models import build
from senet_bench.training.evaluation import predict
from senet_bench.training.loop import train
from senet_bench.training.objective import Settings
from senet_bench.training.optimisation import LearningRate
from senet_bench.training.start import initialise_by_name

SEEDS = 12
LOOPS_IMAGES, LOOPS_S, LEAST_ROUNDS = 512, 45.0, 3
"""Of the comparison of loops: images an epoch, and seconds after which a pair begins no further round."""
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
CIFAR = replace(recipe("cifar").lasting(1), batch_size=128)


class Pictures(Dataset[tuple[torch.Tensor, int]]):
    """CIFAR-shaped images as torchvision's CIFAR10 hands them out: PIL, then transforms one by one."""

    def __init__(self, split: sets.Arrays, transform: Any) -> None:
        self.images, self.labels, self.transform = split.images.transpose(0, 2, 3, 1), split.labels, transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image = self.images[index]
        picture = Image.fromarray(np.ascontiguousarray(image if image.shape[2] == 3 else image[:, :, 0]))
        return self.transform(picture), int(self.labels[index])


def cifar_shaped(count: int) -> sets.DataSet:
    rng = np.random.default_rng(0)
    split = sets.Arrays(rng.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8), rng.integers(0, 10, count))
    return sets.DataSet("cifar10", tuple("0123456789"), split, split, MEAN, STD, 32)


def reference_loader(pictures: sets.DataSet, workers: int) -> DataLoader[Any]:
    steps = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()]
    steps += [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    split = Pictures(pictures.training(), transforms.Compose(steps))  # type: ignore[arg-type]
    return DataLoader(split, batch_size=128, shuffle=True, num_workers=workers, drop_last=True)


def reference_epoch(network: nn.Module, optimizer: torch.optim.Optimizer, loader: Iterable[Any]) -> None:
    """One epoch as in torchvision's references/classification/train.py."""
    criterion = nn.CrossEntropyLoss()
    network.train()
    for x, y in loader:
        output = network(x)
        loss = criterion(output, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        hit = output.topk(5, 1).indices.eq(y[:, None])
        float(hit[:, :1].sum() / len(y)), float(hit.sum() / len(y)), loss.item()


def paired(
    name: str, rounds: int, reference: Callable[[], object], ours: Callable[[], object], within_s: float = 1e9
) -> None:
    """Print the ratios of two times; no round begins after so many seconds, but three are made."""
    times: tuple[list[Taken], list[Taken]] = ([], [])
    began = time.perf_counter()
    for turn in range(rounds + 1):
        if turn > LEAST_ROUNDS and time.perf_counter() - began > within_s:
            break
        for which in (0, 1) if turn % 2 else (1, 0):
            (reference, ours)[which]()
            lasted = taken((reference, ours)[which])
            if turn:
                times[which].append(lasted)
    theirs, own = (statistics.median(clock for clock, _ in side) for side in times)
    ended = f"{len(times[0])} rounds, {theirs:.3f} s against {own:.3f} s, load {os.getloadavg()[0]:.1f}"
    print(f"{name:44} {ratios(*times)}; {ended}", flush=True)  # noqa: T201


def rate() -> None:
    """Training rate on CIFAR-shaped data, ResNet-20, batch 128, two threads."""
    pictures = cifar_shaped(2560)
    for workers in (0, 2):
        network = build("resnet20_cifar")
        optimizer = torch.optim.SGD(network.parameters(), 0.1, 0.9, weight_decay=1e-4)
        loader = reference_loader(pictures, workers)
        for precision in ("fp32", "bf16"):
            mine = build("resnet20_cifar")
            settings = Settings(precision=precision, evaluate_every=0, progress_every=1e9)

            def ours(network: nn.Module = mine, settings: Settings = settings) -> None:
                result_of(train(network, pictures, CIFAR, settings))

            def theirs(
                network: nn.Module = network, optimizer: Any = optimizer, loader: DataLoader[Any] = loader
            ) -> None:
                reference_epoch(network, optimizer, loader)

            paired(f"training, {precision}, DataLoader({workers})", 5, theirs, ours)


def timm_loader(pictures: sets.DataSet, workers: int) -> Any:
    """The same crops and flips as timm loads them: collated as uint8, normalised a batch at a time."""
    from timm.data.loader import PrefetchLoader, fast_collate
    from timm.data.transforms import ToNumpy

    steps = transforms.Compose([transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(), ToNumpy()])
    split = Pictures(pictures.training(), steps)  # type: ignore[arg-type]
    loader = DataLoader(
        split, batch_size=128, shuffle=True, num_workers=workers, drop_last=True, collate_fn=fast_collate
    )
    return PrefetchLoader(loader, mean=MEAN, std=STD, device=torch.device("cpu"))


def timm_epoch(network: nn.Module, optimizer: Any, schedule: Any, loader: Any) -> None:
    """One epoch in the steps of timm's train.py: meters by batch, the schedule by update, the loss now and then."""
    utils: Any = importlib.import_module("timm.utils")
    criterion, losses, times = nn.CrossEntropyLoss(), utils.AverageMeter(), utils.AverageMeter()
    network.train()
    ended = time.perf_counter()
    for index, (x, y) in enumerate(loader):
        loss = criterion(network(x.contiguous(memory_format=torch.channels_last)), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step_update(num_updates=index + 1)
        times.update(time.perf_counter() - ended)
        if index % 50 == 0:
            losses.update(loss.item(), len(y))
        ended = time.perf_counter()


def loops() -> None:
    """Ours against torchvision's loop, timm's and torchvision's on batches that are there: one run, interleaved."""
    optim: Any = importlib.import_module("timm.optim")
    scheduler: Any = importlib.import_module("timm.scheduler")
    pictures = cifar_shaped(LOOPS_IMAGES)
    networks = [build("resnet20_cifar") for _ in range(4)]
    networks[2] = networks[2].to(memory_format=torch.channels_last)
    plain = [torch.optim.SGD(network.parameters(), 0.1, 0.9, weight_decay=1e-4) for network in networks]
    theirs = optim.create_optimizer_v2(networks[2], opt="sgd", lr=0.1, momentum=0.9, weight_decay=1e-4)
    schedule = scheduler.CosineLRScheduler(theirs, t_initial=1000, t_in_epochs=False)
    still = list(reference_loader(pictures, 0))
    settings = Settings(evaluate_every=0, progress_every=1e9)

    def ours() -> None:
        result_of(train(networks[0], pictures, CIFAR, settings))

    references = {"torchvision's loop, synthetic data": partial(reference_epoch, networks[3], plain[3], still)}
    for workers in (0, 2):
        read, timms = reference_loader(pictures, workers), timm_loader(pictures, workers)
        references[f"torchvision's loop, {workers} workers"] = partial(reference_epoch, networks[1], plain[1], read)
        references[f"timm's loop, {workers} workers"] = partial(timm_epoch, networks[2], theirs, schedule, timms)
    for name, reference in references.items():
        paired(f"fp32, {name}", 5, reference, ours, LOOPS_S)


def error() -> None:
    """The error on digits after the reference's loop and after ours: the same recipe, images and initial weights."""
    torch.set_num_threads(1)
    plan, gaps, means = recipe("digits"), [], []
    for seed in range(SEEDS):
        pictures = sets.load_images("digits", draw=seed)
        networks = [build("resnet20_cifar", classes=10, in_channels=1) for _ in range(2)]
        for network in networks:
            initialise_by_name(network, seed)
        torch.manual_seed(seed)
        steps = [transforms.RandomCrop(8, padding=1), transforms.ToTensor()]
        steps += [transforms.Normalize(pictures.mean, pictures.std)]
        split = Pictures(pictures.training(), transforms.Compose(steps))  # type: ignore[arg-type]
        loader = DataLoader(split, batch_size=plan.batch_size, shuffle=True, drop_last=True)
        optimizer = torch.optim.SGD(networks[0].parameters(), plan.lr, plan.momentum, weight_decay=plan.weight_decay)
        rate = LearningRate(plan)
        for epoch in range(plan.epochs):
            reference_epoch(networks[0], optimizer, rated(loader, optimizer, rate, epoch))
        result_of(train(networks[1], pictures, plan, Settings(seed=seed, evaluate_every=0)))
        theirs, ours = (predict(network, pictures, pictures.test).top1_err for network in networks)
        gaps.append(ours - theirs)
        means.append((theirs, ours))
    first, second = (100 * statistics.mean(pair[i] for pair in means) for i in (0, 1))
    reach = 100 * t.ppf(0.975, SEEDS - 1) * statistics.stdev(gaps) / SEEDS**0.5
    print(  # noqa: T201
        f"error on digits: reference {first:.2f} %, ours {second:.2f} %, difference {second - first:+.2f}"
        f" +- {reach:.2f} points (95 %, {SEEDS} seeds)"
    )


def rated(loader: Any, optimizer: torch.optim.Optimizer, rate: LearningRate, epoch: int) -> Iterator[Any]:
    """The loader's batches, the learning rate set before each."""
    for step, batch in enumerate(loader):
        for group in optimizer.param_groups:
            group["lr"] = rate.at(epoch + step / len(loader))
        yield batch


def path() -> None:
    """The data path alone: augmented, normalised float batches of 128."""
    pictures = cifar_shaped(2560)
    loader = reference_loader(pictures, 0)
    batches = Batches(pictures.training(), 128, 0, CIFAR.augmentation, 32)

    def ours() -> None:
        for x, _ in batches.epoch(0):
            normalised(x, MEAN, STD)

    paired("data path, DataLoader(0)", 7, lambda: list(loader), ours)


def jpegs(root: Path, count: int = 384) -> sets.Files:
    """JPEG files of 500x375 px and about 116 kB, as ImageNet's are."""
    rng = np.random.default_rng(0)
    (root / "c").mkdir(parents=True)
    for index in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)).resize((500, 375), 3)
        noisy = np.asarray(coarse).astype(int) + rng.normal(0, 12, (375, 500, 1)).astype(int)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(root / "c" / f"{index:04}.jpg", quality=92)
    read = sets.load_images("folder", root).test
    assert isinstance(read, sets.Files)
    return read


def shown(crops: Iterator[images.Crops]) -> Iterator[torch.Tensor]:
    for part in crops:
        yield normalised(torch.from_numpy(part.images), sets.IMAGENET_MEAN, sets.IMAGENET_STD)


def consumed(batches: Iterable[Any]) -> None:
    """Take one batch after another, as an evaluation does: none is kept."""
    for _ in batches:
        pass


def jpeg() -> None:
    """Evaluation of JPEG trees: normalised float batches of 32."""
    with tempfile.TemporaryDirectory() as folder:
        files = jpegs(Path(folder, "set"))
        size = statistics.mean(file.stat().st_size for file in files.paths)
        print(f"{len(files)} files of {size / 1000:.0f} kB, decoded by {images.decoder()[0]}")  # noqa: T201
        v1 = [transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor()]
        v1 += [transforms.Normalize(sets.IMAGENET_MEAN, sets.IMAGENET_STD)]
        loader = DataLoader(ImageFolder(Path(folder, "set"), transforms.Compose(v1)), batch_size=32, num_workers=2)
        crop = images.centre_crop(224)
        exact = shown(images.centre_crops(files, crop, batch=32))
        tune_allocator()  # as `predict` does; the reference's main process has it too
        assert all(torch.equal(a, b) for (a, _), b in zip(loader, exact))

        def evaluate(fidelity: images.Fidelity) -> None:
            consumed(shown(images.centre_crops(files, crop, fidelity=fidelity, batch=32)))

        for fidelity in ("exact", "fast"):
            paired(
                f"JPEG evaluation, {fidelity}, DataLoader(2)",
                7,
                lambda: consumed(loader),
                partial(evaluate, fidelity),
            )
        kept = images.cached(files, crop, Path(folder, "cache"))

        def from_cache() -> None:
            for start in range(0, len(kept), 32):
                x = torch.from_numpy(np.array(kept.images[start : start + 32]))
                normalised(x, sets.IMAGENET_MEAN, sets.IMAGENET_STD)

        paired("JPEG evaluation, cached crops", 7, lambda: consumed(loader), from_cache)


PARTS = {"data": path, "rate": rate, "loops": loops, "error": error, "jpeg": jpeg}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], default=[])
    parser.add_argument("--threads", type=int, default=2, help="with one, a busy machine changes CPU times least")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    for part in asked.parts or PARTS:
        PARTS[part]()


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
