"""Errors, their intervals, per-class counts, kept predictions and pairs on the same images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from msgspec import structs
from scipy import stats
from torch import Tensor, nn

import senet_bench
from senet_bench.core.intervals import images_for, mcnemar, paired_images, paired_seeds, sd, wilson
from senet_bench.core.progress import result_of
from senet_bench.data import images, sets
from senet_bench.errors import MeasurementError, NotComparableError, UsageError
from senet_bench.models import build
from senet_bench.run.evaluate import EvaluationRequest, _timed, settings_that_differ
from senet_bench.show.measurements import pareto
from senet_bench.training.evaluation import Predictions, Viewing, paired_errors, predict
from tests.support import stored

pytestmark = pytest.mark.usefixtures("one_thread")


def predictions(best: list[int], labels: list[int], classes: int = 6) -> Predictions:
    order = np.array([[b, *(c for c in range(classes) if c != b)][:5] for b in best])
    return Predictions(np.arange(len(best)), np.array(labels), order, np.ones(len(best), np.float32))


def test_wilsons_interval_agrees_with_scipy() -> None:
    for errors, n in [(0, 10), (3, 10), (10, 10), (150, 1697)]:
        expected = stats.binomtest(errors, n).proportion_ci(method="wilson")
        assert wilson(errors, n) == pytest.approx((expected.low, expected.high), abs=1e-12)
    with pytest.raises(UsageError):
        wilson(1, 0)


def test_mcnemar_is_the_exact_binomial_test() -> None:
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(3, 14) == pytest.approx(stats.binomtest(3, 17, 0.5).pvalue)
    assert mcnemar(7, 7) == 1.0


def test_the_interval_of_a_paired_difference_covers_at_its_level() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(600):
        cells = rng.multinomial(200, [0.05, 0.09, 0.86])
        low, high = paired_images(int(cells[0]), int(cells[1]), 200).ci or (0, 0)
        covered += low <= 0.04 <= high
    assert 0.92 <= covered / 600 <= 0.99


def test_the_images_that_a_margin_takes_are_those_whose_interval_reaches_it() -> None:
    images = images_for(6, 180, 0.03)
    assert images > 180, "6 of 180 reach 3.05 points"
    assert images_for(60, 1800, 0.03) == images, "the share counts, not the number"
    fewer, more = (paired_images(n // 60, n // 60, n).ci or (0, 0) for n in (120, 240))
    assert fewer[1] > 0.03 > more[1]


def test_paired_seeds_give_the_t_interval_and_test() -> None:
    first, second = [0.10, 0.12, 0.09, 0.11], [0.09, 0.10, 0.09, 0.08]
    found = paired_seeds(first, second)
    expected = stats.ttest_rel(second, first)
    assert found.p_value == pytest.approx(expected.pvalue)
    assert found.ci == pytest.approx(tuple(expected.confidence_interval()))
    assert paired_seeds([0.1], [0.2]).ci is None
    assert sd([1.0, 3.0]) == pytest.approx(2**0.5)
    with pytest.raises(UsageError, match="no pairs"):
        paired_seeds([0.1], [])


def test_equal_differences_have_no_interval_and_the_p_of_their_signs() -> None:
    for first, second, p in (
        ([0.1, 0.1], [0.2, 0.2], 0.5),
        ([0.1, 0.3, 0.25], [0.2, 0.4, 0.35], 0.25),  # equal but for rounding
        ([0.2] * 8, [0.1] * 8, 2 * 0.5**8),
        ([0.1, 0.2], [0.1, 0.2], 1.0),
    ):
        found = paired_seeds(first, second)
        assert (found.ci, found.p_value, found.n) == (None, p, len(first))
        assert found.difference == pytest.approx(second[0] - first[0])


def test_exact_ties_stay_on_the_pareto_front() -> None:
    points = [
        ("a", 1.0, 0.3),
        ("b", 1.0, 0.3),
        ("dear", 2.0, 0.3),
        ("c", 2.0, 0.1),
        ("d", 2.0, 0.1),
        ("worse", 3.0, 0.2),
    ]
    front = pareto(points, lambda point: point[1], lambda point: point[2])
    assert [name for name, *_ in front] == ["a", "b", "c", "d"]


def test_errors_and_counts_per_class() -> None:
    seen = predictions([0, 1, 2, 5], [0, 2, 2, 0])
    assert (seen.top1_err, seen.top5_err) == (0.5, 0.0)
    assert seen.by_class(("a", "b", "c")) == [("a", 2, 1), ("b", 0, 0), ("c", 2, 1)]
    last = predictions([0, 0], [5, 0])
    assert last.top5_err == 0.5
    assert seen.interval() == wilson(2, 4)


def test_kept_predictions_come_back(tmp_path: Path) -> None:
    seen = predictions([0, 1, 2], [0, 2, 2])
    seen.save(tmp_path / "kept.npz")
    again = Predictions.load(tmp_path / "kept.npz")
    assert np.array_equal(again.best, seen.best)
    (tmp_path / "other").write_text("no")
    with pytest.raises(UsageError, match="holds no predictions"):
        Predictions.load(tmp_path / "other")


def test_a_pair_is_compared_image_by_image() -> None:
    first, second = predictions([0, 0, 0, 1], [0, 1, 2, 1]), predictions([0, 1, 0, 1], [0, 1, 2, 1])
    found = paired_errors(first, second)
    assert (found.difference, found.n, found.p_value) == (-0.25, 4, 1.0)
    with pytest.raises(NotComparableError, match="same images"):
        paired_errors(first, predictions([0], [0]))


def test_a_row_says_what_is_not_fair() -> None:
    mine = stored.evaluated().rows[0]
    assert settings_that_differ(mine, mine) == []
    assert settings_that_differ(mine, structs.replace(mine, size=320)) == ["size: 224 against 320"]


class Sums(nn.Module):
    """Class k for the k-th brightest corner; counts the images it has seen."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes, self.seen = classes, 0

    def forward(self, x: Tensor) -> Tensor:
        self.seen += len(x)
        return x.flatten(1)[:, : self.classes]


def test_every_image_is_seen_once_and_the_network_keeps_its_mode() -> None:
    digits = sets.load_images("digits")
    network = Sums(10)
    network.train()
    seen = predict(network, digits, digits.test, Viewing(size=8, batch=100))
    assert (network.seen, len(seen), network.training) == (1697, 1697, True)
    assert seen.rows.tolist() == list(range(1697))


def test_files_are_shown_by_their_crop_and_corrupt_ones_counted(tmp_path: Path) -> None:
    from tests.test_data import tree

    folder = sets.load_images("folder", tree(tmp_path))
    assert isinstance(folder.test, sets.Files)
    folder.test.paths[1].write_bytes(b"no image")
    with pytest.raises(MeasurementError, match="--skip-corrupt"):
        predict(Sums(2), folder, folder.test, Viewing(size=32))
    seen = predict(Sums(2), folder, folder.test, Viewing(size=32, skip_corrupt=True))
    assert (len(seen), seen.skipped, seen.top5_err) == (5, (str(folder.test.paths[1]),), None)


def test_a_cache_of_crops_leaves_out_and_names_what_cannot_be_read_as_files_do(tmp_path: Path) -> None:
    from tests.test_data import tree

    folder = sets.load_images("folder", tree(tmp_path / "set"))
    assert isinstance(folder.test, sets.Files)
    folder.test.paths[1].write_bytes(b"no image")
    asked = (folder.test, images.centre_crop(32), tmp_path / "cache")
    with pytest.raises(MeasurementError, match="missing or corrupt"):
        images.cached(*asked)
    viewing = Viewing(size=32, skip_corrupt=True)
    direct = predict(Sums(2), folder, folder.test, viewing)
    for _ in range(2):
        seen = predict(Sums(2), folder, images.cached(*asked, skip_corrupt=True), viewing)
        assert (seen.rows.tolist(), seen.skipped) == (direct.rows.tolist(), direct.skipped)
        assert np.array_equal(seen.losses, direct.losses)
    with pytest.raises(MeasurementError, match="missing or corrupt"):
        images.cached(*asked)


def test_outputs_that_are_no_numbers_are_an_error() -> None:
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.full((len(x), 10), float("nan"))

    digits = sets.load_images("digits")
    with pytest.raises(MeasurementError, match="not finite"):
        predict(Broken(), digits, digits.test)


class Noting(nn.Module):
    """Notes in which precision it is called."""

    def __init__(self) -> None:
        super().__init__()
        self.dtypes, self.layer = set[torch.dtype](), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x.flatten(1))
        self.dtypes.add(y.dtype)
        return y


def test_a_network_is_timed_in_the_precision_of_its_error() -> None:
    request = EvaluationRequest(
        models=("a",), weights=("b",), dataset="digits", precision="bf16", timing_s=0.2, batch_size=2
    )
    network = Noting()
    (latency,) = result_of(_timed(request, [network], (3, 2, 2)))
    assert network.dtypes == {torch.bfloat16}
    assert latency.conditions is not None
    assert latency.conditions.precision == "bf16"


def test_errors_by_class_are_written_before_anything_is_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object) -> object:
        raise KeyboardInterrupt

    network = build("resnet20_cifar", classes=10, in_channels=1)
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    monkeypatch.setattr("senet_bench.run.evaluate._timed", stopped)
    weights = str(tmp_path / "weights.pt")
    with pytest.raises(KeyboardInterrupt):
        senet_bench.evaluate(
            "resnet20_cifar",
            weights=weights,
            dataset="digits",
            latency=True,
            per_class=tmp_path / "classes.csv",
            results=tmp_path / "results",
        )
    assert (tmp_path / "classes.csv").read_text().startswith("class,images,resnet20_cifar_wrong\n")


def test_detectors_are_not_timed_while_they_are_evaluated(tmp_path: Path) -> None:
    torch.save({}, tmp_path / "weights.pt")
    with pytest.raises(UsageError, match="leave out --latency"):
        senet_bench.evaluate(
            "fasterrcnn_resnet18_fpn", weights=str(tmp_path / "weights.pt"), dataset="coco", latency=True
        )
