"""Attention in networks that are trained already: blocks that start as the identity, and are trained first."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from senet_bench.core import catalog
from senet_bench.core.blocks import BLOCKS
from senet_bench.core.recipes import recipe
from senet_bench.core.specs import AttentionSpec
from senet_bench.core.trial import Trial
from senet_bench.data.sets import load_images
from senet_bench.errors import UsageError
from senet_bench.models import attention_blocks, build_spec, outside
from senet_bench.models.attention import attend_with, restart_identities
from senet_bench.run.training import TrainingRequest
from senet_bench.training import checkpoint, downloads, trials
from senet_bench.training.identity import identity_of
from senet_bench.training.start import DRAWN_ANEW, as_identity, start_of_training
from senet_bench.training.weights import check_draw, draw_in, load_weights, save
from tests.conftest import Run


def made(block: str, channels: int = 32, **switches: object) -> nn.Module:
    """A block as networks get it, that starts as the identity, its weights drawn before."""
    options = (("identity", True), *switches.pop("options", ()))  # type: ignore[misc]
    spec = AttentionSpec(block, options=options, **switches)  # type: ignore[arg-type]
    network = nn.ModuleList([attend_with(spec, (2,))("standard", channels, stage=2)])
    for parameter in network.parameters():
        nn.init.normal_(parameter)
    restart_identities(network)
    return network[0]


class Scale(nn.Module):
    """A user's own block, which is no gate."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Conv2d(channels, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scaled: torch.Tensor = self.scale(x)
        return x + 3 * scaled


class InPlace(nn.Module):
    """A user's own block that writes over its map, in training alone where it says so."""

    def __init__(self, channels: int, *, in_training: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels, 1, 1))
        self.in_training = in_training

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mul_(self.weight) if self.training or not self.in_training else x * self.weight


KINDS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in BLOCKS),
    ("se", {"excitation": "relu"}),
    ("se", {"squeeze": "none"}),
    ("se", {"squeeze": "max", "bias": False}),
    ("ge", {"options": (("mlp", True), ("reduction", 4))}),
    ("ge", {"options": (("learned", True), ("extent", 4))}),
    ("constant", {"options": (("learned", True),)}),
    ("tests.test_finetuning:Scale", {}),
    ("tests.test_finetuning:InPlace", {}),
    ("tests.test_finetuning:InPlace", {"options": (("in_training", True),)}),
]


def test_every_block_can_start_as_the_identity_to_the_bit_and_learns_from_there() -> None:
    torch.manual_seed(1)  # of the smallest block's two hidden units both are dead for some draws
    x = torch.randn(4, 32, 8, 8)
    for name, switches in KINDS:
        block = made(name, **switches)
        for mode in (False, True):
            given = x.clone()
            assert torch.equal(block.train(mode)(given), x), name
            assert torch.equal(given, x), name
        if any(True for _ in block.parameters()):
            block(x).square().sum().backward()
            assert any(p.grad is not None and p.grad.abs().max() > 0 for p in block.parameters()), name


def test_a_gate_that_is_never_one_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match="tanh gate is never 1"):
        made("se", excitation="tanh")
    with pytest.raises(UsageError, match="needs its bias"):
        made("se", excitation="relu", bias=False)


TEN = (
    "resnet18", "resnext26ts", "mobilenetv2_050", "resnetv2_18", "densenet121", "regnetx_002",
    "convnext_atto", "mobileone_s0", "dla34", "tf_mobilenetv3_small_minimal_100",
)  # fmt: skip


@pytest.mark.parametrize("name", ["test_resnet", *(pytest.param(name, marks=pytest.mark.slow) for name in TEN)])
def test_attached_attention_leaves_the_function_of_trained_weights_as_it_was(name: str, tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    spec = outside.resolve_outside(f"timm:{name}+attach")
    theirs = timm.create_model(name, pretrained=False, num_classes=7)
    for module in theirs.modules():  # as trained ones have them, so that nothing is zero by chance
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean = torch.randn(module.num_features) / 10
            nn.init.uniform_(module.weight, 0.5, 1.5)
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    spec = as_identity(spec, str(tmp_path / "weights.pth"))
    ours = load_weights(spec, str(tmp_path / "weights.pth"), classes=7)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected, outputs = theirs.eval()(x), ours.network.eval()(x)
    assert len(ours.fresh) > 0
    torch.testing.assert_close(outputs, expected, rtol=0, atol=1e-6 * float(expected.abs().max()))


SE = catalog.resolve("seresnet20_cifar")
PLAIN = replace(SE, attention=None)
SHORT = replace(recipe("digits-finetune"), batch_size=50, max_steps=None, epochs=2)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights of a plain network, with statistics that are not those of its start."""
    path = tmp_path_factory.mktemp("weights") / "plain.safetensors"
    network = build_spec(PLAIN, in_channels=1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean = torch.randn(module.num_features) / 10
    save(network, path, replace(PLAIN, name=str(SE.baseline)))
    return path


def fine_tuning(weights: Path, **changes: Any) -> Trial:
    spec = as_identity(SE, str(weights))
    return Trial(**{"arm": "0", "spec": spec, "recipe": SHORT, "seed": 0, "pretrained": str(weights), **changes})


def test_blocks_are_trained_alone_first_and_an_interrupted_trial_ends_in_the_same_bits(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = replace(fine_tuning(weights, blocks_first=1), recipe=SHORT.lasting(1))
    begun, (network, _) = trials.start(first), trials.trained(first)
    before, after = begun.network.state_dict(), network.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(".standard.fc" in name for name in changed), changed

    monkeypatch.setattr(trials, "CHECKPOINT_S", 0.0)
    whole, result = trials.trained(fine_tuning(weights, blocks_first=1))
    assert not torch.equal(whole.state_dict()["classifier.weight"], before["classifier.weight"])
    write, written = checkpoint.write_checkpoint, list[int]()

    def cut(path: Path, content: dict[str, Any]) -> None:
        write(path, content)
        written.append(1)
        if len(written) in (1, 3):  # among the epoch of the blocks, and in that of everything
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "write_checkpoint", cut)
    kept = fine_tuning(weights, blocks_first=1, checkpoint=tmp_path / "k.checkpoint")
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            trials.run_trial(kept)
    network, resumed = trials.trained(kept)
    assert resumed.test_loss == result.test_loss
    state = network.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in whole.state_dict().items())


def test_the_start_and_the_blocks_first_are_part_of_a_trial_and_train_finds_what_a_sweep_has_trained(
    weights: Path, tmp_path: Path
) -> None:
    trial = fine_tuning(weights)
    asked = TrainingRequest(spec=SE, dataset="digits", recipe="finetune", epochs=2, weights=str(weights)).prepared()
    assert asked.spec == trial.spec
    own = replace(trial, recipe=asked.resolved())
    assert asked.identity(None).key == identity_of(own).key
    others = [replace(own, blocks_first=1), replace(own, pretrained=None), replace(own, spec=SE)]
    moved = tmp_path / "moved.safetensors"
    moved.write_bytes(weights.read_bytes())
    edited = tmp_path / "edited.safetensors"
    save(build_spec(PLAIN, in_channels=1), edited, replace(PLAIN, name=str(SE.baseline)))
    others.append(replace(own, pretrained=str(edited)))
    assert len({identity_of(one).key for one in (own, *others)}) == 5
    assert identity_of(replace(own, pretrained=str(moved))).key == identity_of(own).key


def test_a_head_of_other_classes_is_new_and_said_and_the_same_in_every_arm(tmp_path: Path) -> None:
    path = tmp_path / "seven.safetensors"
    save(build_spec(PLAIN, 7, in_channels=1), path, replace(PLAIN, name=str(SE.baseline)))
    images = load_images("digits")
    plain, ours = (start_of_training(spec, images, 3, str(path)) for spec in (PLAIN, as_identity(SE, str(path))))
    assert any("the head (classifier) is new: the weights are of 7 classes" in note for note in ours.notes)
    assert torch.equal(plain.network.state_dict()["classifier.weight"], ours.network.state_dict()["classifier.weight"])
    x = torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(plain.network.eval()(x), ours.network.eval()(x))


def test_blocks_that_were_fine_tuned_stay_as_trained_where_only_the_head_is_new(weights: Path, tmp_path: Path) -> None:
    spec, path = as_identity(SE, str(weights)), tmp_path / "tuned.safetensors"
    tuned = build_spec(spec, 7, in_channels=1)
    for block in attention_blocks(tuned).values():
        for parameter in block.parameters():
            nn.init.normal_(parameter)
    save(tuned, path, spec)
    assert as_identity(SE, str(path)) == spec
    begun = start_of_training(spec, load_images("digits"), 3, str(path)).network.state_dict()
    blocks = {name: value for name, value in tuned.state_dict().items() if ".standard." in name}
    assert blocks
    assert all(torch.equal(begun[name], value) for name, value in blocks.items())


OTHER_WAY = ((0.25,), (0.5,))
"""A mean and a deviation that are not those of the digits."""


def test_images_are_normalised_as_the_weights_were_trained_here_and_in_what_comes_out(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save(build_spec(PLAIN, in_channels=1), path, replace(PLAIN, name=str(SE.baseline)), normalisation=OTHER_WAY)
    note = f"images are normalised by mean {OTHER_WAY[0]} and deviation {OTHER_WAY[1]}, as in its training"
    on_digits = ("--dataset", "digits-full", "--format", "json")
    for recipe_name, epochs in (("finetune-smoke", ()), ("digits", ("--epochs", "1"))):
        options = (
            *on_digits,
            "--recipe",
            recipe_name,
            *epochs,
            "--weights",
            str(path),
            "--out",
            f"{recipe_name}.safetensors",
        )
        ended = run("train", "resnet20_cifar", *options)
        assert ended.code == 0, ended.err
        assert json.loads(ended.out)["conditions"]["notes"].count(note) == 1
        shown = run("evaluate", "resnet20_cifar", *on_digits, "--weights", f"{recipe_name}.safetensors")
        (row,) = json.loads(shown.out)["rows"]
        assert (row["mean"], row["std"], row["notes"]) == ([0.25], [0.5], [note])
        assert row["top1_err"] == json.loads(ended.out)["rows"][-1]["top1_err"]


def test_the_weights_of_a_trial_say_how_its_images_were_normalised(weights: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept.safetensors"
    trials.run_trial(replace(fine_tuning(weights), recipe=SHORT.lasting(1), weights=kept))
    assert (
        load_weights(SE, str(kept), in_channels=1, as_trained=True).normalisation == load_images("digits").normalisation
    )


def test_what_cannot_be_fine_tuned_is_one_line(run: Run, weights: Path) -> None:
    finetune = ("--dataset", "digits", "--recipe", "finetune")
    own = ("--weights", str(weights))
    os.mkfifo("pipe.safetensors")
    for line, options in {
        "starts from trained weights": ("train", "seresnet20_cifar", *finetune),
        "has none; name a network with attention": (
            "train", "resnet20_cifar", *finetune, *own, "--blocks-first", "1",
        ),
        "is for networks that are trained already": ("train", "seresnet20_cifar", *own, "--blocks-first", "1"),
        "is more than the 6 epochs": ("train", "seresnet20_cifar", *finetune, *own, "--blocks-first", "7"),
        "plain.safetensors holds resnet20_cifar, not": ("train", "seresnet164_cifar", *finetune, *own),
        "is no regular file": ("train", "seresnet20_cifar", *finetune, "--weights", "pipe.safetensors"),
        "is no network of timm": ("train", "seresnet20_cifar", *finetune, "--weights", "timm"),
        "tanh gate is never 1": ("train", "seresnet20_cifar", *finetune, *own, "--excitation", "tanh"),
        "--weights is for training": ("compare", "seresnet20_cifar", *own),
        "is not for networks that are trained already": (
            "compare", "seresnet20_cifar", "--dataset", "digits", "--recipe", "digits", *own,
        ),
        "plain.safetensors holds resnet20_cifar, not resnet164_cifar": (
            "compare", "seresnet164_cifar", "--dataset", "digits", *own,
        ),
    }.items():  # fmt: skip
        ended = run(*options)
        assert (ended.code, ended.err.count("\n")) == (2, 1), (options, ended.err)
        assert line in ended.err, ended.err


def test_digits_are_not_fine_tuned_on_from_weights_that_have_seen_the_test_images(run: Run, tmp_path: Path) -> None:
    for dataset, seed in (("digits", 2), ("digits-full", 0), ("mnist", 0)):
        save(
            build_spec(PLAIN, in_channels=1),
            tmp_path / dataset,
            replace(PLAIN, name=str(SE.baseline)),
            dataset=dataset,
            seed=seed,
        )
    sweep = ("compare", "seresnet20_cifar", "--dataset", "digits", "--dry-run", "--no-latency", "--weights")
    one = ("train", "seresnet20_cifar", "--dataset", "digits", "--recipe", "finetune", "--weights")
    for command, seed in (
        ((*sweep, "digits"), 0),
        ((*sweep, "digits-full", "--seeds", "1"), 0),
        ((*one, "digits", "--seed", "1"), 1),
    ):
        ended = run(*command)
        assert (ended.code, ended.err.count("\n")) == (2, 1), ended.err
        assert f"that digits with seed {seed} is tested on; train and fine-tune with --dataset digits-full" in ended.err
    assert run(*sweep, "mnist").code == 0
    check_draw("digits", "digits", [2])
    check_draw("digits-full", "digits-full", range(8))
    with pytest.raises(UsageError, match="trained on images of digits that digits-full with seed 0 is tested on"):
        check_draw("digits", "digits-full", range(8))
    assert (draw_in("digits", "digits"), draw_in("digits-full", "digits-full"), draw_in("mnist", "digits")) == (2, 0, 0)
    with pytest.raises(UsageError, match="trained on images of digits-full that digits is tested on; use digits-full"):
        draw_in("digits-full", "digits")


def test_plain_attention_and_learned_constant_gates_are_compared_from_the_same_weights(run: Run, weights: Path) -> None:
    options = (
        "--dataset",
        "digits",
        "--recipe",
        "finetune-smoke",
        "--seeds",
        "1",
        "--workers",
        "1",
        "--blocks-first",
        "1",
    )
    more = ("--blocks-first", "1", "--no-latency", "--format", "json", "--weights", str(weights))
    command = ("compare", "seresnet20_cifar", *options, *more)
    ended = run(*command)
    assert ended.code == 0, ended.err
    rows = json.loads(ended.out)["rows"]
    assert [row["role"] for row in rows] == ["baseline", "variant", "control"]
    assert [dict((row["attention"] or {}).get("options", [])) for row in rows] == [
        {}, {"identity": True}, {"identity": True, "learned": True},
    ]  # fmt: skip
    recipe_name = rows[0]["accuracy"]["protocol"]["recipe"]
    assert recipe_name.startswith("digits-finetune-smoke-blocks-first-1-from-")
    again = run(*command)
    assert json.loads(again.out)["rows"][1]["accuracy"] == rows[1]["accuracy"]


@pytest.mark.slow
def test_the_front_end_of_a_sweep_from_weights_loads_no_torch(weights: Path, tmp_path: Path) -> None:
    code = (
        "import sys\nfrom senet_bench.cli import main\n"
        "if __name__ == '__main__':\n    try:\n        main(sys.argv[1:])\n"
        "    except SystemExit as end:\n        assert not end.code\n"
        "    assert not {'torch', 'torchvision'} & set(sys.modules)\n"
    )
    (tmp_path / "front.py").write_text(code)
    asked = ["compare", "seresnet20_cifar", "--no-latency", "--weights", str(weights), "--dataset", "digits"]
    asked += ["--recipe", "finetune-smoke", "--seeds", "1", "--workers", "2"]
    told = subprocess.run(
        [sys.executable, "front.py", *asked], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert told.returncode == 0, told.stderr


def test_a_network_from_outside_says_that_its_own_initial_values_are_not_those_it_starts_from() -> None:
    images = load_images("digits")
    plain, attached = (
        start_of_training(outside.resolve_outside(f"torchvision:resnet18{end}"), images, 0) for end in ("", "+attach")
    )
    assert plain.notes == attached.notes == (DRAWN_ANEW,)
    assert start_of_training(PLAIN, images, 0).notes == ()
    assert torch.equal(plain.network.state_dict()["fc.weight"], attached.network.state_dict()["fc.weight"])


def test_a_networks_own_weights_are_named_by_its_library_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timm = pytest.importorskip("timm")
    path = tmp_path / "model.pth"
    torch.save(timm.create_model("test_resnet", pretrained=False).state_dict(), path)
    named = list[tuple[str, str]]()

    def fetched(library: str, name: str) -> Path:
        named.append((library, name))
        return path

    monkeypatch.setattr(downloads, "fetch", fetched)
    spec = outside.resolve_outside("timm:test_resnet+attach")
    asked = TrainingRequest(spec=spec, dataset="digits", recipe="finetune", weights="timm").prepared()
    assert asked.weights == "timm:test_resnet"
    assert dict((asked.spec.attention or AttentionSpec()).options) == {"identity": True}
    loaded = load_weights(asked.spec, asked.weights, classes=10, head="new")
    assert set(named) == {("timm", "test_resnet")}
    assert any("head" in note and "1,000 classes" in note for note in loaded.notes)
    with pytest.raises(UsageError, match="timm:resnet18 are weights of timm:resnet18, not of timm:test_resnet"):
        replace(asked, spec=spec, weights="timm:resnet18").prepared()
    with pytest.raises(UsageError, match="loses the attention"):
        as_identity(replace(spec, options={**spec.options, "replaces": True}), str(path))
