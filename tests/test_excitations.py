"""What gates do: planted gates whose class means, saturation and worth are known, and the command on the digits."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from senet_bench.core.blocks import BLOCKS
from senet_bench.core.catalog import resolve
from senet_bench.core.results import from_json
from senet_bench.core.specs import AttentionSpec
from senet_bench.core.store import Store
from senet_bench.data.sets import IMAGENET_MEAN, IMAGENET_STD, Arrays, DataSet
from senet_bench.errors import UsageError
from senet_bench.gallery import report
from senet_bench.gallery.report import observation_files
from senet_bench.gates import tables, watch
from senet_bench.gates.excitations import Excitations, excitations
from senet_bench.gates.plots import shown_blocks
from senet_bench.gates.rows import GateFacts
from senet_bench.gates.tally import GateTally
from senet_bench.gates.watch import GateWatch, gate_of, variants
from senet_bench.models import attention_blocks, build, build_spec
from senet_bench.models.attach import GatedInput, gated_input
from senet_bench.models.attention import SqueezeExcitation, maker
from senet_bench.run.cases import Changes, spec_of
from senet_bench.show import terminal, writers
from senet_bench.training import weights
from senet_bench.training.evaluation import Viewing, predict
from tests.conftest import Run
from tests.support.stored import gates as stored_gates

SHORT = ("--dataset", "digits", "--epochs", "1", "-q")


pytestmark = pytest.mark.usefixtures("one_thread")


def tally(gates: list[list[float]], labels: list[int], **options: Any) -> GateTally:
    """The sums over gates, given in two parts."""
    found = GateTally(max(labels) + 1, **options)
    middle = len(gates) // 2
    for part in (slice(None, middle), slice(middle, None)):
        found.add(np.array(gates[part]), np.array(labels[part]))
    return found


# numbers


def test_class_means_and_deviations_are_those_of_the_gates() -> None:
    rng = np.random.default_rng(0)
    gates, labels = rng.random((40, 5)), np.arange(40) % 3
    found = tally(gates.tolist(), labels.tolist())
    for label in range(3):
        own = gates[labels == label]
        assert found.class_mean()[label] == pytest.approx(own.mean(0))
        assert found.class_sd()[label] == pytest.approx(own.std(0, ddof=1))
    assert found.mean() == pytest.approx(gates.mean(0))
    assert found.sd() == pytest.approx(gates.std(0, ddof=1))


def test_the_share_between_classes_is_eta_squared() -> None:
    only_class = tally([[0.2, 0.5], [0.8, 0.1], [0.2, 0.5], [0.8, 0.1]], [0, 1, 0, 1])
    assert only_class.between_class_share() == pytest.approx(1.0)
    only_image = tally([[0.2], [0.2], [0.8], [0.8]], [0, 1, 0, 1])
    assert only_image.between_class_share() == pytest.approx(0.0, abs=1e-12)
    # channel 0: classes at 0.25 and 0.75, images 0.05 around them; channel 1: images 0.1 around one mean
    mixed = tally([[0.2, 0.4], [0.7, 0.4], [0.3, 0.6], [0.8, 0.6]], [0, 1, 0, 1])
    assert mixed.between_class_share() == pytest.approx(0.0625 / (0.0625 + 0.0025 + 0.01))


def test_gates_blind_to_the_class_have_the_share_expected_by_chance() -> None:
    rng = np.random.default_rng(1)
    shares = []
    for _ in range(20):
        labels = rng.permutation(np.arange(100) % 10)
        found = tally(rng.random((100, 30)).tolist(), labels.tolist())
        shares.append(found.between_class_share() or 0.0)
    assert found.share_by_chance() == pytest.approx(9 / 99)
    assert np.mean(shares) == pytest.approx(9 / 99, abs=0.006)


def test_constant_gates_have_no_variance_to_share() -> None:
    found = tally([[0.3, 0.7]] * 6, [0, 1, 0, 1, 0, 1])
    assert (found.between_class_share(), found.scale_share()) == (None, None)
    assert found.distance_from_constant() == 0.0
    assert found.distance_from_identity() == pytest.approx(math.sqrt((0.49 + 0.09) / 2))


def test_one_factor_a_class_is_a_change_in_scale_and_another_pattern_is_not() -> None:
    pattern = np.array([0.2, 0.4, 0.6])
    scaled = tally([(s * pattern).tolist() for s in (0.9, 1.1, 0.9, 1.1)], [0, 1, 0, 1])
    assert scaled.scale_share() == pytest.approx(1.0)
    across = np.array([0.2, -0.1, 0.0])  # at right angles to the mean pattern
    other = tally([(pattern + sign * across).tolist() for sign in (1, -1, 1, -1)], [0, 1, 0, 1])
    assert other.scale_share() == pytest.approx(0.0, abs=1e-12)


def test_saturation_counts_gates_within_the_stated_distance() -> None:
    found = tally([[0.0, 0.04, 0.06, 0.5], [0.94, 0.96, 1.0, 1.2]], [0, 0], near=0.05)
    assert found.saturated() == (2 / 8, 2 / 8)
    assert tally([[1.0, 1.0], [1.0, 1.0]], [0, 1]).distance_from_identity() == 0.0


def test_gates_that_could_not_be_seen_count_nowhere() -> None:
    found = tally([[math.nan, 0.4], [0.2, 0.6], [0.4, 0.4], [math.nan, 0.6]], [0, 0, 1, 1])
    assert found.class_mean()[:, 0] == pytest.approx([0.2, 0.4])
    assert found.mean() == pytest.approx([0.3, 0.5])
    assert found.seen == 6


# gates in place


@pytest.mark.parametrize("block", [name for name in BLOCKS if name not in ("cbam", "ge_theta", "ge_theta_plus")])
def test_a_gate_is_read_from_any_block_that_scales_channels(block: str) -> None:
    torch.manual_seed(0)
    made = maker(block)(16, AttentionSpec(block, reduction=4), 4).eval()
    x = torch.randn(3, 16, 6, 6)
    with torch.no_grad():
        gates = gate_of(made, x, made(x))
        assert torch.allclose(x * gates[:, :, None, None].float(), made(x), atol=1e-5)
    assert gates.shape == (3, 16)


def test_what_is_read_from_se_is_its_own_formula_and_zero_channels_are_not_seen() -> None:
    torch.manual_seed(0)
    made = SqueezeExcitation(8, AttentionSpec(reduction=2), 2)
    x = torch.relu(torch.randn(2, 8, 4, 4))
    x[:, 3] = 0
    with torch.no_grad():
        exact = gate_of(made, x, made(x))
        read = gate_of(nn.Sequential(made), x, made(x))
    assert torch.isfinite(exact).all()
    assert torch.isnan(read[:, 3]).all()
    others = [channel for channel in range(8) if channel != 3]
    assert torch.allclose(exact[:, others], read[:, others], atol=1e-6)


@pytest.mark.parametrize("block", ["cbam", "ge_theta"])
def test_a_block_that_acts_on_places_is_refused(block: str) -> None:
    torch.manual_seed(0)
    made = maker(block)(16, AttentionSpec(block, reduction=4), 4).eval()
    x = torch.randn(2, 16, 16, 16)
    with torch.no_grad(), pytest.raises(UsageError, match="no gate per channel"):
        gate_of(made, x, made(x))


class Planted(nn.Module):
    """The identity but for channel 0, which it multiplies by 0.25 in bright images: their class is 1."""

    def __init__(self) -> None:
        super().__init__()
        self.attention_place, self.attention_stage = "standard", 2

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.ones(x.shape[:2])
        gate[:, 0] = torch.where(x[:, 1].mean((1, 2)) > 0, 0.25, 0.75)
        return x * gate[:, :, None, None]


class Judge(nn.Module):
    """Class 1 where channel 0, always 1 in the image, comes out of the block below a half."""

    def __init__(self) -> None:
        super().__init__()
        self.block = Planted()

    def forward(self, x: Tensor) -> Tensor:
        x = torch.stack([torch.ones_like(x[:, 0]), x[:, 0]], 1)
        value = self.block(x)[:, 0].mean((1, 2))
        return torch.stack([value, 0.5 + 0 * value], 1)


def bright_and_dark(wrong: int = 1) -> DataSet:
    """Twelve images, four of them bright; the first `wrong` dark ones carry the wrong label."""
    bright = np.array([True] * 4 + [False] * 8)
    images = np.where(bright[:, None, None, None], 255, 0).astype(np.uint8) * np.ones((12, 1, 4, 4), np.uint8)
    labels = bright.astype(np.int64)
    labels[4 : 4 + wrong] = 1
    split = Arrays(images, labels)
    return DataSet("planted", ("dark", "bright"), split, split, (0.5,), (0.5,), 4)


def watched(wrong: int = 1) -> GateWatch:
    watch = GateWatch(Judge(), bright_and_dark(wrong), np.arange(12), Viewing(size=4, batch=5))
    assert [*watch.observe()] == [5, 10, 12]
    assert [*watch.hold(variants(watch.means()))] == [5, 10, 12]
    return watch


def test_planted_gates_are_found_by_class() -> None:
    found = watched(wrong=0).tallies["block"]
    assert found.class_mean().tolist() == [[0.75, 1.0], [0.25, 1.0]]
    assert found.between_class_share() == pytest.approx(1.0)
    assert found.mean()[0] == pytest.approx((4 * 0.25 + 8 * 0.75) / 12)
    assert found.saturated() == (0.0, 0.5)


def test_taking_a_block_out_changes_the_error_by_what_it_was_worth() -> None:
    watch = watched(wrong=1)
    assert watch.seen.top1_err == pytest.approx(1 / 12)  # the wrong label
    # at 1 every image is called dark, so the five labelled bright are wrong; so too at the mean, 0.58
    assert watch.held["block=1"].top1_err == pytest.approx(5 / 12)
    assert watch.held["block=mean"].top1_err == pytest.approx(5 / 12)
    assert watch.held["*=1"].top1_err == pytest.approx(5 / 12)


def test_a_network_is_as_it_was_after_being_watched() -> None:
    network = build("seresnet20_cifar", in_channels=1).train()
    network.get_submodule("stages.0").eval()  # a frozen part
    modes = [module.training for module in network.modules()]
    data = bright_and_dark()
    data = DataSet("ten", tuple("0123456789"), data.train, data.test, data.mean, data.std, 8)
    before = predict(network, data, data.test, Viewing(size=8))
    assert [module.training for module in network.modules()] == modes
    watch = GateWatch(network, data, np.arange(12), Viewing(size=8))
    assert max(watch.observe()) == 12
    assert max(watch.hold(variants(watch.means()))) == 12
    assert [module.training for module in network.modules()] == modes
    assert not any(module._forward_hooks for module in network.modules())
    assert np.array_equal(predict(network, data, data.test, Viewing(size=8)).losses, before.losses)


def test_every_block_at_one_is_the_network_without_attention() -> None:
    torch.manual_seed(0)
    variant, base = build("seresnet20_cifar", in_channels=1), build("resnet20_cifar", in_channels=1)
    base.load_state_dict(variant.state_dict(), strict=False)
    rng = np.random.default_rng(0)
    split = Arrays(rng.integers(0, 255, (6, 1, 8, 8), dtype=np.uint8), np.arange(6))
    data = DataSet("noise", tuple("0123456789"), split, split, (0.5,), (0.5,), 8)
    watch = GateWatch(variant, data, np.arange(6), Viewing(size=8))
    for _ in (*watch.observe(), *watch.hold(variants(watch.means()))):
        pass
    without = predict(base, data, split, Viewing(size=8))
    assert np.allclose(watch.held["*=1"].losses, without.losses, atol=1e-5)


def test_blocks_know_their_stage() -> None:
    stages = [block.attention_stage for block in attention_blocks(build("seresnet50", device="meta")).values()]
    assert stages == [2] * 3 + [3] * 4 + [4] * 6 + [5] * 3


@pytest.mark.parametrize(
    "name",
    ["seresnet18", "mobilenet_v3_small", "efficientnet_b0", "semobilenet_v1", "seshufflenet_v1_g3", "sebninception"],
)
def test_every_family_with_se_is_observed_and_taken_out(name: str) -> None:
    rng = np.random.default_rng(0)
    split = Arrays(rng.integers(0, 255, (3, 3, 64, 64), dtype=np.uint8), np.arange(3))
    data = DataSet("noise", tuple("abc"), split, split, (0.5,) * 3, (0.25,) * 3, 64)
    network = build(name, 3)
    watch = GateWatch(network, data, np.arange(3), Viewing(size=64))
    for _ in (*watch.observe(), *watch.hold(variants(watch.means()))):
        pass
    assert [*watch.tallies] == [*attention_blocks(network)]
    assert all(0 < tally.mean().mean() < 1 for tally in watch.tallies.values())
    assert len(watch.held) == 2 * len(watch.tallies) + 2


class PlantedInPlace(Planted):
    """The same, written over the map."""

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.ones(x.shape[:2])
        gate[:, 0] = torch.where(x[:, 1].mean((1, 2)) > 0, 0.25, 0.75)
        return x.mul_(gate[:, :, None, None])


class ReadsLater(Judge):
    """Reads the map that its block was given once the block is through."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block: nn.Module = block  # type: ignore[assignment]

    def forward(self, x: Tensor) -> Tensor:
        x = torch.stack([torch.ones_like(x[:, 0]), x[:, 0]], 1)
        y = self.block(x)
        value = (x if isinstance(self.block, PlantedInPlace) else y)[:, 0].mean((1, 2))
        return torch.stack([value, 0.5 + 0 * value], 1)


def test_a_block_that_writes_over_its_map_is_read_and_held_as_one_that_does_not() -> None:
    found = []
    for block in (Planted(), PlantedInPlace()):
        watch = GateWatch(ReadsLater(block), bright_and_dark(), np.arange(12), Viewing(size=4, batch=5))
        for _ in (*watch.observe(), *watch.hold(variants(watch.means()))):
            pass
        tally, held = watch.tallies["block"], {name: seen.losses.tolist() for name, seen in watch.held.items()}
        found.append((tally.class_mean().tolist(), watch.seen.losses.tolist(), held))
    assert found[0] == found[1]
    assert found[0][0][0][0] != 1.0


class Mirrored(Judge):
    """Calls its block on an image and on its negative."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) - super().forward(-x)


def test_a_block_that_is_called_twice_is_tallied_by_both_calls() -> None:
    watch = GateWatch(Mirrored(), bright_and_dark(wrong=0), np.arange(12), Viewing(size=4, batch=5))
    assert [*watch.observe()] == [5, 10, 12]
    assert watch.images("block").tolist() == [8, 4]
    assert watch.tallies["block"].class_mean().tolist() == [[0.5, 1.0], [0.5, 1.0]]


# what is looked at


def many(count: int, name: str = "many") -> DataSet:
    split = Arrays(np.zeros((2 * count, 1, 2, 2), np.uint8), np.repeat(np.arange(count), 2))
    names = tuple(f"n{index:04}" for index in range(count))
    return DataSet(name, names, split, split, (0.5,), (0.5,), 2)


def test_classes_are_all_of_ten_the_papers_four_of_imagenet_and_spaced_ones_of_others() -> None:
    assert [*watch.chosen_classes((), many(10)).values()] == [*range(10)]
    assert watch.chosen_classes((), many(1000, "imagenet")) == {"goldfish": 1, "plane": 404, "pug": 254, "cliff": 972}
    assert [*watch.chosen_classes((), many(100)).values()] == [0, 25, 50, 75]
    assert watch.chosen_classes(("n0003", "7"), many(10)) == {"n0003": 3, "7": 7}
    with pytest.raises(UsageError, match="did you mean n0003"):
        watch.chosen_classes(("n003",), many(10))


def test_images_are_drawn_by_class_and_seed() -> None:
    labels = np.repeat(np.arange(3), 20)
    rows = watch.drawn_rows(labels, 5, 0)
    assert np.bincount(labels[rows]).tolist() == [5, 5, 5]
    assert rows.tolist() == watch.drawn_rows(labels, 5, 0).tolist() != watch.drawn_rows(labels, 5, 1).tolist()
    assert len(watch.drawn_rows(labels, None, 0)) == 60


def test_figure_6_shows_the_last_block_of_each_stage_and_the_whole_last_stage() -> None:
    blocks = [(stage, index) for stage, depth in ((2, 3), (3, 4), (4, 6), (5, 3)) for index in range(depth)]
    some = stored_gates().rows[0]
    rows = [replace(some, stage=str(stage), block=f"{stage}_{index + 1}") for stage, index in blocks]
    assert [row.block for row in shown_blocks(rows)] == ["2_3", "3_4", "4_6", "5_1", "5_2", "5_3"]


# the command


def observed(run: Run, *options: str) -> dict[str, Any]:
    ended = run("excitations", "seresnet20_cifar", *SHORT, "--format", "json", *options)
    assert ended.code == 0, ended.err
    found: dict[str, Any] = json.loads(ended.out)
    return found


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[GateFacts, Store]:
    """A run on twenty digits of each class by a network trained for an epoch."""
    torch.set_num_threads(1)
    store = Store(tmp_path_factory.mktemp("results"))
    asked = Excitations(model="seresnet20_cifar", epochs=1, images_per_class=20)
    return terminal.run_steps(excitations(asked, store), quiet=True).document, store


def test_every_block_has_its_gates_its_numbers_and_its_worth(stored: tuple[GateFacts, Store]) -> None:
    facts, store = stored
    assert [row.label for row in facts.rows] == [f"SE_{stage}_{index}" for stage in (2, 3, 4) for index in (1, 2, 3)]
    for row in facts.rows:
        assert row.difference is not None
        assert row.difference.ci is not None
        assert row.difference.p_holm is not None
        assert row.error_without is not None
        assert [len(gates) for gates in row.classes.values()] == [row.channels] * 10
        assert row.class_images == dict.fromkeys("0123456789", 20)
        assert np.mean(np.array([*row.classes.values()], dtype=float), axis=0) == pytest.approx(row.mean, abs=1e-4)
        assert row.difference.value == pytest.approx(row.error_without - row.error)
        low, high = row.difference.ci
        assert low <= row.difference.value <= high
        assert row.difference.p <= row.difference.p_holm
        assert not row.missing
    (file,) = store.root.glob("runs/*/*-excitations-*.json")
    assert from_json(file.read_bytes(), "").rows == facts.rows
    assert file.stat().st_size < 300_000


def test_report_writes_the_same_bytes_again(stored: tuple[GateFacts, Store]) -> None:
    facts, store = stored
    paths = list(observation_files(facts, store.root))
    kinds = {path.name.removeprefix("excitations-se-resnet-20-digits") for path in paths}
    pictures = {f"-{kind}.{end}" for kind in ("classes", "spread", "blocks") for end in ("pdf", "svg")}
    assert kinds == {".csv", ".md", ".tex", ".html", "-channels.csv"} | pictures
    made = {path: path.read_bytes() for path in paths}
    for path in paths:
        path.unlink()
    assert set(paths) <= set(report.write_gallery(report.read_gallery(store), store.root))
    assert {path: path.read_bytes() for path in paths} == made
    channels = next(path for path in paths if path.name.endswith("-channels.csv"))
    lines = list(csv.DictReader(channels.read_text().splitlines()))
    assert len(lines) == 336 * 11
    assert {line["class"] for line in lines} == {"all", *"0123456789"}


@pytest.mark.parametrize("format", ["md", "csv", "json", "latex", "html"])
def test_every_format_shows_every_block(stored: tuple[GateFacts, Store], format: str) -> None:  # noqa: A002
    text = writers.render(tables.gates_document(stored[0]), format).replace("\\_", "_")
    assert all(f"SE_{stage}_{index}" in text for stage in (2, 3, 4) for index in (1, 2, 3))


def test_the_narrow_table_fits_80_columns(stored: tuple[GateFacts, Store]) -> None:
    (table,) = tables.gates_document(stored[0]).narrow
    cells = zip(*([column.name for column in table.columns], *table.rows))
    assert sum(max(map(len, column)) + 2 for column in cells) <= 80
    assert table.rows[-1][0] == "all blocks"


def test_the_command_finds_the_weights_of_an_earlier_one(run: Run, tmp_path: Path) -> None:
    options = ("--no-removal", "--images-per-class", "2", "--classes", "3,8", "--near", "0.1")
    first = observed(run, *options)
    assert first["schema"] == "senet-bench.excitations/1"
    assert [*first["rows"][0]["classes"]] == ["3", "8"]
    assert first["rows"][0]["missing"]["difference"]
    (file,) = (tmp_path / "results" / "weights").iterdir()
    written = file.stat().st_mtime_ns
    assert observed(run, *options)["rows"] == first["rows"]
    assert file.stat().st_mtime_ns == written
    (trial,) = (tmp_path / "results" / "runs").glob("*/trials/*.json")
    assert json.loads(trial.read_text())["result"]["model"] == "seresnet20_cifar"


@pytest.mark.slow
def test_the_network_trained_here_is_the_one_that_compare_trains(run: Run, tmp_path: Path) -> None:
    document = observed(run)
    assert document["summary"]["images"] == 1697
    (trial,) = (tmp_path / "results" / "runs").glob("*/trials/*.json")
    options = ("--dataset", "digits", "--seeds", "1", "--epochs", "1", "--no-latency", "--format", "json")
    ended = run("compare", "resnet20_cifar", *options, "--workers", "1")
    variant = json.loads(ended.out)["rows"][1]
    assert variant["accuracy"]["top1_err"] == document["summary"]["error"]
    trials = [*(tmp_path / "results" / "runs").glob("*/trials/*.json")]
    assert len(trials) == 3
    assert trial in trials  # found, not run again


def test_given_weights_are_observed_on_the_images_they_were_not_trained_on(run: Run) -> None:
    options = ("--dataset", "digits", "--epochs", "1", "--seed", "3", "--out", "w.safetensors", "-q")
    trained = run("train", "seresnet20_cifar", *options, "--format", "json")
    document = observed(run, "--weights", "w.safetensors", "--no-removal")
    assert document["summary"]["error"] == json.loads(trained.out)["rows"][-1]["top1_err"]


def test_another_block_and_a_network_from_outside_are_observed(run: Run) -> None:
    eca = observed(run, "--attention", "eca", "--no-removal", "--images-per-class", "2")
    assert eca["conditions"]["attention"]["block"] == "eca"
    ended = run("excitations", "seresnet20_cifar", *SHORT, "--attention", "cbam")
    assert ended.code == 2
    assert "no gate per channel" in ended.err


@pytest.mark.slow
def test_attention_attached_to_a_network_from_outside_is_observed(run: Run, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "from senet_bench.models import build\n"
        "def plain(classes=10, in_channels=3):\n    return build('resnet20_cifar', classes, in_channels)\n"
    )
    options = ("--attach", *SHORT, "--no-removal", "--images-per-class", "2", "--format", "json")
    first, second = (run("excitations", "own:plain", *options) for _ in range(2))
    assert first.code == 0, first.err
    rows = json.loads(first.out)["rows"]
    assert len(rows) == 9
    assert json.loads(second.out)["rows"] == rows  # with the weights that the first run kept


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("resnet20_cifar",), 2, "seresnet20_cifar"),
        (("seresnet21",), 2, "did you mean"),
        (("seresnet20_cifar", "--dataset", "mnist"), 2, "mnist"),
        (("seresnet50", "--dataset", "imagenet"), 2, "--weights"),
        (("seresnet20_cifar", "--dataset", "digits", "--weights", "no.safetensors"), 5, "no.safetensors"),
        (("seresnet20_cifar", "--near", "0.7"), 2, "--near"),
        (("seresnet20_cifar", "--images-per-class", "0"), 2, "--images-per-class"),
        (("seresnet20_cifar", "--epochs", "0"), 2, "--epochs"),
        (("seresnet20_cifar", "--lr", "-1"), 2, "--lr"),
        (("seresnet20_cifar", "--classes", "eleven", "--epochs", "1"), 2, "no class 'eleven'"),
        (("seresnet20_cifar", "--img-size", "32"), 2, "--img-size is 8 on digits, not 32"),
        (
            ("seresnet18", "--input-channels", "--dataset", "cifar10", "--img-size", "64"),
            2,
            "--img-size is 32 on cifar10",
        ),
        (("seresnet20_cifar", "--device", "cuda:97"), 2, "cuda:97"),
        (("seresnet20_cifar", "--attention", "cba", "--epochs", "1"), 2, "cbam"),
        (("torchvision:resnet18", "-r", "4"), 2, "torchvision:resnet18 has no attention to switch; add --attach"),
        (("resnet18", "--input-channels", "-r", "4"), 2, "has no attention to switch; name a network with attention"),
        (("seresnet18", "--input-channels"), 2, "colour"),
        (("seresnet18", "--input-channels", "--dataset", "folder"), 2, "--data"),
        (("seresnet18", "--input-channels", "--dataset", "folder", "--data", "nowhere"), 5, "nowhere"),
    ],
)
def test_bad_input_is_one_line(run: Run, arguments: tuple[str, ...], code: int, message: str) -> None:
    ended = run("excitations", *arguments)
    assert (ended.code, ended.out) == (code, "")
    assert message in ended.err
    assert ended.err.count("\n") == 1


def test_weights_without_attention_are_refused(run: Run) -> None:
    run("train", "resnet20_cifar", "--dataset", "digits", "--epochs", "1", "--out", "w.safetensors", "-q")
    ended = run("excitations", "seresnet20_cifar", "--dataset", "digits", "--weights", "w.safetensors")
    assert ended.code == 2
    assert "no attention" in ended.err
    assert ended.err.count("\n") == 1


# colours


COLOURS = {"red": (200, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 200)}


def colour_tree(root: Path, images: int = 3, side: int = 40) -> Path:
    """A folder of classes whose images are of one colour, with a little noise."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for name, colour in COLOURS.items():
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(images):
                pixels = np.array(colour) + rng.integers(-20, 20, (side, side, 3))
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{index}.png")
    return root


def by_image(folder: Path) -> list[dict[str, str]]:
    """The CSV of a run on the colours."""
    text = (folder / "results" / "tables" / "input-channels-se-resnet-18-folder.csv").read_text()
    return list(csv.DictReader(text.splitlines()))


def planted_gate(path: Path) -> None:
    """Weights of a network whose gate is sigmoid(4 mean - 2) of each colour."""
    spec = gated_input(resolve("seresnet18"), IMAGENET_MEAN, IMAGENET_STD)
    network = build_spec(spec, 3)
    assert isinstance(network, GatedInput)
    with torch.no_grad():
        for layer, factor, bias in ((network.gate.fc1, 1.0, 0.0), (network.gate.fc2, 4.0, -2.0)):
            assert isinstance(layer, nn.Linear)
            layer.weight.copy_(factor * torch.eye(3))
            layer.bias.fill_(bias)
    weights.save(network, path, spec, dataset="folder", epochs=2)


def test_a_gate_on_the_input_raises_the_colours_it_was_made_to_raise(run: Run, tmp_path: Path) -> None:
    data = str(colour_tree(tmp_path / "tree"))
    planted_gate(tmp_path / "gate.safetensors")
    options = ("--dataset", "folder", "--data", data, "--img-size", "32", "--weights", "gate.safetensors", "-q")
    ended = run("excitations", "seresnet18", "--input-channels", *options, "--format", "json")
    assert ended.code == 0, ended.err
    document = json.loads(ended.out)
    assert document["conditions"]["trained"]
    assert len(document["rows"]) == 9
    for row in document["rows"]:
        assert row["raised"] == row["class"]
        for mean, gate in zip(row["mean"], row["gate"]):
            assert gate == pytest.approx(1 / (1 + math.exp(2 - 4 * mean)), abs=1e-4)
    assert document["summary"]["between_class_share"] > 0.99
    made = sorted(path.name for path in (tmp_path / "results").glob("[tp]*/*"))
    assert made == [f"input-channels-se-resnet-18-folder.{end}" for end in ("csv", "png", "svg")]
    before = {path: path.read_bytes() for path in (tmp_path / "results").glob("[tp]*/*")}
    assert run("report", "-q").code == 0
    assert {path: path.read_bytes() for path in before} == before
    lines = list(
        csv.DictReader((tmp_path / "results/tables/input-channels-se-resnet-18-folder.csv").read_text().splitlines())
    )
    assert [line["raised"] for line in lines] == [line["class"] for line in lines]


def test_an_untrained_gate_is_said_to_be_and_raises_nothing(run: Run, tmp_path: Path) -> None:
    data = str(colour_tree(tmp_path / "tree", images=1))
    options = ("--dataset", "folder", "--data", data, "--img-size", "32", "--epochs", "0", "-q")
    ended = run("excitations", "seresnet18", "--input-channels", *options)
    assert ended.code == 0, ended.err
    assert "UNTRAINED" in ended.out
    assert "UNTRAINED" in (tmp_path / "results/plots/input-channels-se-resnet-18-folder.svg").read_text()
    lines = list(
        csv.DictReader((tmp_path / "results/tables/input-channels-se-resnet-18-folder.csv").read_text().splitlines())
    )
    assert {line["raised"] for line in lines} == {""}
    assert {line["gate_red"] for line in lines} == {"0.5"}
    assert not (tmp_path / "results" / "weights").exists()


def test_the_network_behind_a_gate_on_the_input_may_have_any_block(run: Run, tmp_path: Path) -> None:
    data = str(colour_tree(tmp_path / "tree", images=1))
    options = ("--dataset", "folder", "--data", data, "--img-size", "32", "--epochs", "0", "--format", "json")
    ended = run("excitations", "seresnet18", "--input-channels", "--attention", "cbam", *options)
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["summary"]["mean_gate"] == [0.5, 0.5, 0.5]


def test_a_gate_without_training_images_or_weights_is_refused(run: Run, tmp_path: Path) -> None:
    data = str(colour_tree(tmp_path / "tree", images=1) / "val")
    ended = run("excitations", "seresnet18", "--input-channels", "--dataset", "folder", "--data", data)
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "--epochs 0" in ended.err


def test_the_figure_is_drawn_of_a_gate_trained_on_a_folder(run: Run, tmp_path: Path) -> None:
    data = str(colour_tree(tmp_path / "tree", images=2))
    options = ("--dataset", "folder", "--data", data, "--img-size", "32", "-q", "--format", "json")
    ended = run("excitations", "seresnet18", "--input-channels", *options, "--epochs", "2", "--lr", "0.1")
    assert ended.code == 0, ended.err
    document = json.loads(ended.out)
    assert document["summary"]["moved"] > 0
    assert document["conditions"]["epochs"] == 2
    with Image.open(tmp_path / "results/plots/input-channels-se-resnet-18-folder.png") as picture:
        assert picture.size[0] > 500
    again = run("excitations", "seresnet18", "--input-channels", *options, "--weights", kept(tmp_path))
    assert json.loads(again.out)["rows"] == document["rows"]


def test_a_gate_on_the_input_is_learnt_and_shown_with_the_images_as_the_network_knows_them(
    run: Run, tmp_path: Path
) -> None:
    data, half = str(colour_tree(tmp_path / "tree", images=1)), ((0.5,) * 3, (0.5,) * 3)
    weights.save(build("seresnet18", 3), tmp_path / "half.safetensors", resolve("seresnet18"), normalisation=half)
    options = ("--dataset", "folder", "--data", data, "--img-size", "32", "--format", "json", "--weights")
    ended = run("excitations", "seresnet18", "--input-channels", "--epochs", "1", *options, "half.safetensors")
    assert ended.code == 0, ended.err
    document = json.loads(ended.out)
    assert any(f"normalised by mean {half[0]}" in note for note in document["conditions"]["notes"])
    gated = gated_input(resolve("seresnet18"), *half)
    assert weights.load_weights(gated, kept(tmp_path), classes=3).normalisation == half
    again = run("excitations", "seresnet18", "--input-channels", *options, kept(tmp_path))
    assert json.loads(again.out)["rows"] == document["rows"]
    assert json.loads(again.out)["summary"]["error"] == document["summary"]["error"]


def kept(folder: Path) -> str:
    (file,) = (folder / "results" / "weights").iterdir()
    return str(file)


def test_a_gate_over_all_channels_kept_is_listed_whole() -> None:
    gates: dict[str, Any] = {"mean": [0.1, 0.2], "sd": [0.0, 0.1], "classes": {"cat": [0.3, None]}}
    kept: dict[str, Any] = {"shown": [0, 4], "class_sd": {"cat": [0.0, None]}, "class_images": {"cat": 1}}
    records = list(tables.channel_records([replace(stored_gates().rows[0], **gates, **kept)]))
    assert [(one["channel"], one["class"], one["mean"]) for one in records] == [
        (0, "all", 0.1),
        (0, "cat", 0.3),
        (4, "all", 0.2),
        (4, "cat", None),
    ]


def test_the_attention_that_weights_say_they_were_trained_with_is_looked_into(run: Run, tmp_path: Path) -> None:
    spec = spec_of("seresnet20_cifar", Changes(img_size=8, in_channels=1, attention={"reduction": 8}))
    weights.save(build_spec(spec), tmp_path / "eight.safetensors", spec, dataset="digits-full", seed=0)
    given = ("excitations", "seresnet20_cifar", "--weights", "eight.safetensors", "--dataset", "digits-full")
    ended = run(*given, "--images-per-class", "2", "--no-removal", "--format", "json")
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["conditions"]["attention"]["reduction"] == 8
    refused = run(*given, "--reduction", "4")
    assert (refused.code, "was trained with reduction 8 (not 4)" in refused.err) == (2, True)
