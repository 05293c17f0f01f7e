"""How the paper trains, as data: one row per recipe, each with its section, its smoke variant by `smoke`.

The paper is arXiv 1709.01507v4. What it leaves open is filled from the works it follows and listed in `deviations`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from senet_bench.core.datasets import DATASETS
from senet_bench.core.specs import Task
from senet_bench.errors import UsageError, nearest


@dataclass(frozen=True, slots=True)
class Schedule:
    """How the learning rate falls.

    `steps`: times `factor` at each of `milestones` (epochs). `plateau`: times `factor` whenever the validation loss
    has not fallen for `patience` epochs, `drops` times at most, and training ends when it stalls once more.
    `cosine`: to zero along half a cosine. `warmup` epochs rise linearly from zero first, or `low` epochs are trained at
    `factor` times the rate.
    """

    kind: Literal["steps", "plateau", "cosine"]
    milestones: tuple[float, ...] = ()
    factor: float = 0.1
    patience: int = 10
    drops: int = 3
    warmup: float = 0.0
    low: float = 0.0

    def moved(self, ratio: float) -> Schedule:
        """The same over `ratio` times as many epochs."""
        milestones = tuple(milestone * ratio for milestone in self.milestones)
        return replace(self, milestones=milestones, low=self.low * ratio)


@dataclass(frozen=True, slots=True)
class Augmentation:
    """Training-time changes to an image; each is off unless given.

    `pad` zero-pads that many pixels on each side and crops the original size at random (CIFAR, section 5.1).
    `flip` mirrors left and right with probability 1/2. `area` and `ratio` bound the random-resized crop of files
    (fraction of the image's area, width over height; the paper's reference 5). `cutout` is the side in pixels of a
    square in the mean colour, its centre anywhere in the image (DeVries and Taylor, arXiv 1708.04552).
    """

    pad: int = 0
    flip: bool = False
    area: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    cutout: int = 0


@dataclass(frozen=True, slots=True)
class Scaling:
    """How a detector's images are scaled: the shorter side to `shorter` pixels, the longer one at most `longest`."""

    shorter: int = 800
    longest: int = 1333


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything that decides how a network is trained, apart from the network, the data and the seed.

    `lr` belongs to `batch_size` images per step, see `scaled`. `size` is the side of the training crop in pixels,
    None for the data set's own. `frozen_bn` is the number of last epochs with BatchNorm statistics frozen,
    `max_steps` a limit on the steps of an epoch, for smoke runs. A detector's recipe has a `scaling`, and `freeze_at`:
    the last stage of a trunk with weights that is not trained.
    """

    name: str
    source: str
    epochs: int
    batch_size: int
    lr: float
    schedule: Schedule
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 1e-4
    label_smoothing: float = 0.0
    augmentation: Augmentation = field(default=Augmentation())
    size: int | None = None
    frozen_bn: int = 0
    scaling: Scaling | None = None
    freeze_at: int = 0
    max_steps: int | None = None
    deviations: tuple[str, ...] = ()

    @property
    def task(self) -> Task:
        """What the networks do that it trains."""
        return "classification" if self.scaling is None else "detection"

    def scaled(self, batch_size: int | None) -> Recipe:
        """The recipe at another global batch size, the learning rate scaled in proportion."""
        if batch_size is None or batch_size == self.batch_size:
            return self
        if batch_size < 1:
            raise UsageError(f"batch size must be a positive integer, not {batch_size}")
        return replace(self, batch_size=batch_size, lr=self.lr * batch_size / self.batch_size)

    def filled(self, images: int) -> Recipe:
        """The recipe at a batch that so many training images fill; where there are none, as it is."""
        return self.scaled(min(self.batch_size, images)) if images else self

    def lasting(self, epochs: int | None) -> Recipe:
        """The recipe over another number of epochs, its milestones and frozen epochs in proportion."""
        if epochs is None or epochs == self.epochs:
            return self
        if epochs < 1:
            raise UsageError(f"epochs must be a positive integer, not {epochs}")
        ratio = epochs / self.epochs
        frozen_bn = round(self.frozen_bn * ratio)
        return replace(self, epochs=epochs, schedule=self.schedule.moved(ratio), frozen_bn=frozen_bn)

    def as_dict(self) -> dict[str, Any]:
        """The recipe as plain values, for results, checkpoints and the comparison of two runs.

        A switch that came later is left out where it is off, so that earlier files stay comparable.
        """
        plain = asdict(self)
        for part, name in LATER:
            if not plain[part][name]:
                del plain[part][name]
        return plain


LATER = (("schedule", "low"), ("augmentation", "cutout"))


IMAGENET_FLIP = Augmentation(flip=True)
STD = "images are divided by their standard deviation too (the paper subtracts the mean only)"

RECIPES: dict[str, Recipe] = {
    # Sections 5.1: synchronous SGD, momentum 0.9, batch 1024, lr 0.6, x0.1 every 30 epochs, 100 epochs from scratch,
    # He initialisation, random-resized crop and flip.
    "imagenet": Recipe(
        name="imagenet",
        source="section 5.1",
        epochs=100,
        batch_size=1024,
        lr=0.6,
        schedule=Schedule("steps", (30, 60, 90)),
        augmentation=IMAGENET_FLIP,
        deviations=(STD, "weight decay 1e-4 (not printed)"),
    ),
    # Section 5.1, mobile: batch 256, lr 0.1, x0.1 on a plateau of the validation loss, about 400 epochs, slightly
    # less aggressive augmentation and regularisation; the weight decay is that of the paper's third version.
    "mobile": Recipe(
        name="mobile",
        source="section 5.1, mobile networks",
        epochs=400,
        batch_size=256,
        lr=0.1,
        schedule=Schedule("plateau", patience=10, drops=3),
        weight_decay=4e-5,
        augmentation=replace(IMAGENET_FLIP, area=(0.25, 1.0)),
        deviations=(STD, "crop area from 0.25 and a patience of 10 epochs (not printed)", "weight decay as in v3"),
    ),
    # Section 5.1, CIFAR: flip, 4 px of padding and a random 32x32 crop, mean and deviation normalised; the rest as in
    # the networks' own papers: He et al. (1512.03385) section 4.2 for ResNet.
    "cifar": Recipe(
        name="cifar",
        source="section 5.1, CIFAR; ResNet paper section 4.2",
        epochs=164,
        batch_size=128,
        lr=0.1,
        schedule=Schedule("steps", (82, 123)),
        augmentation=Augmentation(pad=4, flip=True),
        deviations=("64k iterations taken as 164 epochs; no lower first learning rate for 110 layers",),
    ),
    # Table 4 and 5, pre-activation ResNet-110 and ResNet-164: He et al. (1603.05027), appendix, which takes over from
    # 1512.03385 section 4.2 what it does not repeat: batch 128, lr 0.1 divided by 10 after 32k and 48k of 64k
    # iterations, weight decay 1e-4, momentum 0.9, and lr 0.01 for the first 400 iterations.
    "cifar-preact": Recipe(
        name="cifar-preact",
        source="section 5.1, CIFAR; Identity Mappings (arXiv 1603.05027), appendix; ResNet paper section 4.2",
        epochs=164,
        batch_size=128,
        lr=0.1,
        schedule=Schedule("steps", (82, 123), low=400 / 390),
        augmentation=Augmentation(pad=4, flip=True),
        deviations=(
            "64k iterations taken as 164 epochs",
            "lr 0.01 for 400 iterations, as arXiv 1603.05027 has it for every network",
            "arXiv 1512.03385 has it for 110 layers alone, until the training error is below 80 %: not taken",
            "trained on all 50,000 images (the ResNet paper holds 5,000 of them out while it chooses)",
        ),
    ),
    # Table 4 and 5, WRN-16-8: Zagoruyko and Komodakis (1605.07146), section 3: Nesterov momentum 0.9, lr 0.1 times 0.2
    # after 60, 120 and 160 of 200 epochs, batch 128, weight decay 5e-4: so too its code (github.com/szagoruyko/
    # wide-residual-networks: scripts/train_cifar.sh, and train.lua for batch, momentum and decay).
    "cifar-wrn": Recipe(
        name="cifar-wrn",
        source="section 5.1, CIFAR; Wide Residual Networks (arXiv 1605.07146), section 3",
        epochs=200,
        batch_size=128,
        lr=0.1,
        schedule=Schedule("steps", (60, 120, 160), factor=0.2),
        nesterov=True,
        weight_decay=5e-4,
        augmentation=Augmentation(pad=4, flip=True),
        deviations=(
            "padded with zeros, as this paper says; Wide Residual Networks pads with reflections",
            "images normalised by mean and deviation (its first version whitened them by ZCA)",
            "no dropout",
        ),
    ),
    # Table 4, Shake-Shake 26 2x96d + Cutout: Gastaldi (1705.07485), section 2.1, by the command of its code
    # (github.com/xgastaldi/shake-shake, README, opts.lua and train.lua): lr 0.2, cosine by steps to zero, 1,800 epochs,
    # batch 128, weight decay 1e-4, Nesterov momentum 0.9, the error of the last epoch; DeVries and Taylor (1708.04552),
    # section 4, and github.com/uoguelph-mlrg/Cutout, shake-shake: a square of 16x16 px for CIFAR-10.
    "cifar-shakeshake": Recipe(
        name="cifar-shakeshake",
        source="section 5.1, CIFAR; Shake-Shake (arXiv 1705.07485), section 2.1; Cutout (arXiv 1708.04552), section 4",
        epochs=1800,
        batch_size=128,
        lr=0.2,
        schedule=Schedule("cosine"),
        nesterov=True,
        augmentation=Augmentation(pad=4, flip=True, cutout=16),
        deviations=(
            "a square of 16x16 px, as Cutout's article says; an early version of its code cut out twice that side",
            "the square is in the mean colour to within half a grey level (Cutout: zero after normalisation)",
        ),
    ),
    # Table 5, Shake-Even 29 2x4x64d + Cutout: the same articles and code, whose command for CIFAR-100 has 1,800 epochs,
    # cosine, batch 32, lr 0.025, weight decay 5e-4, shaken forward and even backward by image; a square of 8x8 px.
    "cifar-shakeeven": Recipe(
        name="cifar-shakeeven",
        source="section 5.1, CIFAR; Shake-Shake (arXiv 1705.07485), section 2.2; Cutout (arXiv 1708.04552), section 4",
        epochs=1800,
        batch_size=32,
        lr=0.025,
        schedule=Schedule("cosine"),
        nesterov=True,
        weight_decay=5e-4,
        augmentation=Augmentation(pad=4, flip=True, cutout=8),
        deviations=(
            "the square is in the mean colour to within half a grey level (Cutout: zero after normalisation)",
            "Cutout's article has 15.20 % for this network; the 15.85 % printed here are Shake-Shake's, without Cutout",
        ),
    ),
    # Section 6: as 5.1, lr 0.1 until the validation loss plateaus, x0.1, three times in total (about 300 epochs),
    # label smoothing, no biases in the excitation (AttentionSpec(bias=False)).
    "ablation": Recipe(
        name="ablation",
        source="section 6",
        epochs=300,
        batch_size=256,
        lr=0.1,
        schedule=Schedule("plateau", patience=10, drops=3),
        label_smoothing=0.1,
        augmentation=IMAGENET_FLIP,
        deviations=(STD, "batch 256, label smoothing 0.1, weight decay 1e-4, patience 10 (not printed)"),
    ),
    # Section 5.1 (SENet-154): batch 2048, lr 1.0, label smoothing, BatchNorm frozen for the last few epochs.
    "senet154": Recipe(
        name="senet154",
        source="appendix, SENet-154",
        epochs=100,
        batch_size=2048,
        lr=1.0,
        schedule=Schedule("steps", (30, 60, 90)),
        label_smoothing=0.1,
        augmentation=IMAGENET_FLIP,
        frozen_bn=5,
        deviations=(STD, "label smoothing 0.1, 5 frozen epochs, weight decay 1e-4 (not printed)"),
    ),
    # Section 5.2: from scratch, by the protocols of its references 72 and 74, which print no rate, batch or epochs that
    # this paper repeats: those of section 5.1 stand in.
    "places365": Recipe(
        name="places365",
        source="section 5.2",
        epochs=100,
        batch_size=1024,
        lr=0.6,
        schedule=Schedule("steps", (30, 60, 90)),
        augmentation=IMAGENET_FLIP,
        deviations=(
            STD,
            "batch, learning rate, epochs, crop and flip as section 5.1, weight decay 1e-4 (not printed for Places365)",
        ),
    ),
    # Not in the paper: 100 labelled 8x8 images, the quick honest task of this toolkit. Of the few settings tried (lr
    # 0.03 without shifts, 0.05 and 0.1 with them, 0.1 without) the one with the lowest error of the baseline.
    "digits": Recipe(
        name="digits",
        source="not in the paper: this toolkit's embedded task",
        epochs=60,
        batch_size=50,
        lr=0.1,
        schedule=Schedule("cosine", warmup=2),
        weight_decay=5e-4,
        augmentation=Augmentation(pad=1),
    ),
    # Not in the paper: images of clothes, 60,000 of them, by a plan that a CPU can follow at 14 px.
    "fashion-mnist": Recipe(
        name="fashion-mnist",
        source="not in the paper: a short plan for Fashion-MNIST",
        epochs=10,
        batch_size=128,
        lr=0.1,
        schedule=Schedule("cosine", warmup=1),
        weight_decay=5e-4,
        augmentation=Augmentation(pad=2, flip=True),
    ),
    # Section 5.3: Detectron's settings end to end, 2x schedule, from ImageNet weights. Detectron's configuration
    # (e2e_faster_rcnn_R-50-FPN_2x): 180,000 steps of 16 images, lr 0.02, x0.1 after 120,000 and 160,000, 500 steps of
    # warm-up, 800 px and at most 1333, flips, BatchNorm frozen, the stem and stage 2 too.
    "coco": Recipe(
        name="coco",
        source="section 5.3; Detectron's 2x schedule",
        epochs=24,
        batch_size=16,
        lr=0.02,
        schedule=Schedule("steps", (16, 64 / 3), warmup=500 * 24 / 180_000),
        augmentation=Augmentation(flip=True),
        scaling=Scaling(),
        freeze_at=2,
        deviations=(
            STD,
            "180,000 steps taken as 24 epochs, the warm-up from zero (Detectron: from a third)",
            "torchvision's box losses (smooth L1, beta 1/9 in both stages; Detectron: 1/9 for proposals, 1 for boxes)",
            "batches are not grouped by aspect ratio",
            "biases are decayed and learn at the plain rate (Detectron: no decay, twice the rate)",
            "momentum is not rescaled where the rate changes (Detectron: it is)",
        ),
    ),
}

DEFAULTS: dict[str, str] = {key: row.recipe for key, row in DATASETS.items()}
"""The recipe of each data set that networks are trained by unless another is named."""


SMOKE, FINETUNE = "smoke", "finetune"
"""Recipes made of another: two short epochs of it, or that for networks which are trained already."""
OF_OWN = (SMOKE, FINETUNE, f"{FINETUNE}-{SMOKE}")


def recipe(name: str, own: str | None = None) -> Recipe:
    """The recipe of that name; `NAME-smoke` is its smoke variant, `NAME-finetune` that for trained networks.

    Those endings alone are variants of `own`, the recipe that is used where none is named. `UsageError` for an unknown
    one.
    """
    full = f"{own}-{name}" if own is not None and name in OF_OWN else name
    kept = full.removesuffix(f"-{SMOKE}")
    base = kept.removesuffix(f"-{FINETUNE}")
    if base not in RECIPES:
        hint = nearest(base, RECIPES, most=1) or f"choose from {', '.join(RECIPES)}"
        raise UsageError(f"unknown recipe {name!r}", hint)
    made = RECIPES[base] if base == kept else finetune(RECIPES[base])
    return made if full == kept else smoke(made)


def smaller_batch(asked: Recipe, used: Recipe) -> tuple[str, ...]:
    """What is said of a batch that is smaller than asked, as there are no more training images; else nothing."""
    if used.batch_size == asked.batch_size:
        return ()
    rate = "" if used.lr == asked.lr else f" and lr {used.lr:g} instead of {asked.lr:g}"
    return (f"batch {used.batch_size} instead of {asked.batch_size}{rate}: there are no more training images",)


def is_finetune(name: str | None) -> bool:
    """Whether a recipe is called as one for networks that are trained already."""
    return (name or "").removesuffix(f"-{SMOKE}").endswith(FINETUNE)


def finetune(full: Recipe) -> Recipe:
    """The same recipe for a network that is trained already: a tenth of the rate, falling to zero, and of the epochs.

    Five epochs at least, where the recipe itself has so many.
    """
    return replace(
        full,
        name=f"{full.name}-{FINETUNE}",
        source=f"{full.source}; a tenth of its learning rate and epochs",
        epochs=min(full.epochs, max(5, full.epochs // 10)),
        lr=full.lr / 10,
        schedule=Schedule("cosine"),
        frozen_bn=0,
        deviations=(),
    )


def smoke(full: Recipe) -> Recipe:
    """The same recipe cut to two epochs of two small steps (a detector's on small images): does it run, in seconds."""
    small = Scaling(128, 224) if full.scaling else None
    short = full.scaled(min(16 if small is None else 2, full.batch_size)).lasting(2)
    return replace(short, name=f"{full.name}-smoke", max_steps=2, frozen_bn=min(1, full.frozen_bn), scaling=small)
