"""The networks of a probe: a row for every control and every block on every task, before anything is trained."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from senet_bench.core.blocks import BLOCKS, find_block
from senet_bench.core.foreign import contained
from senet_bench.core.identity import source_digest
from senet_bench.core.source import imported
from senet_bench.core.specs import AttentionSpec, ModelSpec, is_outside
from senet_bench.errors import BenchError, UsageError
from senet_bench.models import build_spec
from senet_bench.probing.network import UNITS, WIDTH
from senet_bench.probing.rows import ArmRole, ProbeRow
from senet_bench.probing.tasks import ProbeTask
from senet_bench.probing.trials import CLASSES

PROBE_REDUCTION = 4
"""The r of blocks that take one: of 32 channels 8 are left."""
CONSTANT = AttentionSpec(block="constant")
DEFAULT_BLOCKS = tuple(name for name in BLOCKS if name != "constant")
"""Every built-in block; the constant gate is a control."""
MOST_WIDTH, WIDER_BY = 4 * WIDTH, 4
"""The widest control, and the steps in which it is made wider: blocks of nearly the same cost share one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """A network of the probe, the same on all tasks but for the channels of their images."""

    label: str
    role: ArmRole
    attention: AttentionSpec | None = None
    width: int = WIDTH

    @property
    def spec(self) -> ModelSpec:
        """What is built."""
        options: dict[str, Any] = {"width": self.width, "units": UNITS}
        return ModelSpec(
            name="probe",
            family="probe",
            label=self.label,
            builder="senet_bench.probing.network:probe_network",
            layout="",
            params=0,
            options=options | ({"random_gates": True} if self.role == "random" else {}),
            classes=CLASSES,
            stages=tuple(range(1, UNITS + 1)),
            attention=self.attention,
        )

    def params(self, channels: int) -> int:
        """Its trainable parameters on images of that many channels; raises as the building of a block does."""
        with contained(self.label, draws=True):
            network = build_spec(self.spec, CLASSES, in_channels=channels)
        return sum(part.numel() for part in network.parameters())


def blocks_of(names: Iterable[str], reduction: int | None) -> tuple[AttentionSpec, ...]:
    """The blocks of some names, each once, those that take an r with that which was typed.

    Raises `UsageError` for a name that is none, and for an r that none of the blocks takes.
    """
    own = list(dict.fromkeys(names))
    blocks = tuple(attention_of(name, reduction) for name in own)
    if reduction is not None and not any(is_outside(name) or find_block(name).reduces for name in own):
        take = "takes" if len(own) == 1 else "take"
        raise UsageError(f"{', '.join(own)} {take} no reduction", "leave out -r, or name another block")
    return blocks


def attention_of(name: str, reduction: int | None) -> AttentionSpec:
    """The block of a name, with r as it was typed, else 4, where a built-in one takes it.

    Raises `UsageError` for a name that is none.
    """
    if is_outside(name):
        imported(name, "attention block")
        return AttentionSpec(block=name, reduction=reduction)
    usual = PROBE_REDUCTION if reduction is None else reduction
    return AttentionSpec(block=name, reduction=usual if find_block(name).reduces else None)


def arms_of(blocks: Sequence[AttentionSpec]) -> list[Arm]:
    """The controls, a wider one for each cost that a block has, and the blocks."""
    own = [Arm(label=block.block, role="block", attention=block) for block in blocks]
    widths = sorted({width for arm in own if (width := _width_at_cost(arm)) is not None})
    return [
        Arm(label="no block", role="baseline"),
        Arm(label="gates fixed at 0.5", role="constant", attention=CONSTANT),
        Arm(label="random gates", role="random"),
        *(Arm(label=f"{width} channels", role="wider", width=width) for width in widths),
        *own,
    ]


def _width_at_cost(arm: Arm) -> int | None:
    """The least width, in steps of 4, at which a network without a block has as many parameters as this arm."""
    try:
        cost = arm.params(3)
    except BenchError:  # it is named where the block is trained
        return None
    plain = (width for width in range(WIDTH + WIDER_BY, MOST_WIDTH, WIDER_BY) if _plain(width) >= cost)
    return next(plain, MOST_WIDTH)


def _plain(width: int) -> int:
    return Arm(label="", role="wider", width=width).params(3)


def rows_of(arms: Sequence[Arm], tasks: Sequence[tuple[ProbeTask, float]]) -> Iterator[tuple[Arm, ProbeRow]]:
    """A row for every arm on every task at its difficulty, nothing measured yet."""
    sources = {arm.label: source_digest(arm.spec) for arm in arms}
    for task, difficulty in tasks:
        channels = task.images(0, 1, difficulty)[0].shape[1]
        for arm in arms:
            params, reason = _params(arm, channels)
            yield (
                arm,
                ProbeRow(
                    task=task.name,
                    difficulty=difficulty,
                    label=arm.label,
                    role=arm.role,
                    attention=arm.attention if arm.role == "block" else None,
                    source=sources[arm.label],
                    width=arm.width,
                    params=params,
                    reason=reason,
                ),
            )


def _params(arm: Arm, channels: int) -> tuple[int | None, str]:
    try:
        return arm.params(channels), ""
    except BenchError as error:
        return None, str(error)


def chosen_tasks(tasks: Sequence[ProbeTask], difficulty: str | None) -> list[tuple[ProbeTask, float]]:
    """The tasks with their usual difficulty, with a number that was typed, or with `curve` at all of their levels.

    Raises `UsageError` for another word, and for a number that is none of the levels of a task.
    """
    if difficulty is None:
        return [(task, float(task.usual)) for task in tasks]
    if difficulty == "curve":
        return [(task, float(level)) for task in tasks for level in task.levels]
    try:
        level = float(difficulty)
    except ValueError:
        raise UsageError(f"--difficulty {difficulty!r} is no number", "give a level of the task, or curve") from None
    for task in tasks:
        if level not in task.levels:
            known = ", ".join(f"{value:g}" for value in task.levels)
            raise UsageError(f"{task.name} has no {task.knob} {difficulty}", f"choose from {known}, or name --task")
    return [(task, level) for task in tasks]
