"""Wider and deeper forms: named, built, counted; the same network at width 1."""

from __future__ import annotations

import pytest

from senet_bench.bench.count import count, parameters
from senet_bench.core.catalog import CATALOG, pair, resolve
from senet_bench.core.sizing import sizes_of
from senet_bench.errors import UsageError
from senet_bench.models import build


@pytest.mark.parametrize("name", ["resnet50", "seresnext50_32x4d", "resnet18", "resnet20_cifar", "resnet164_cifar"])
def test_at_width_1_a_network_is_itself(name: str) -> None:
    assert parameters(build(f"{name}@width=1", device="meta")) == CATALOG[name].params


def test_every_stage_is_as_much_wider_and_groups_stay_whole() -> None:
    wide = build("resnext50_32x4d@width=1.5", device="meta")
    shapes = {name: tuple(value.shape) for name, value in wide.state_dict().items()}
    assert shapes["stem.0.weight"][0] == 96
    assert shapes["stages.0.0.branch.3.weight"] == (192, 6, 3, 3)
    assert shapes["classifier.weight"] == (1000, 3072)
    shapes = {
        name: tuple(value.shape) for name, value in build("resnet50@width=1.01", device="meta").state_dict().items()
    }
    assert [shapes[f"stages.{stage}.0.branch.3.weight"][0] for stage in range(4)] == [65, 129, 259, 517]
    assert resolve("resnet20_cifar@width=1.05").options["outputs"] == (17, 34, 67)


def test_a_unit_more_adds_its_own_parameters() -> None:
    deeper = parameters(build("resnet50@depth=2", device="meta")) - CATALOG["resnet50"].params
    assert deeper == 2 * (2 * 1024 * 256 + 9 * 256 * 256 + 2 * (256 + 256 + 1024))  # two bottlenecks at 14 px
    assert parameters(build("resnet50@depth=17", device="meta")) == CATALOG["resnet101"].params
    assert parameters(build("resnet20_cifar@depth=15", device="meta")) == CATALOG["resnet110_cifar"].params
    assert parameters(build("vgg13_bn@depth=1", device="meta")) > CATALOG["vgg13_bn"].params


def test_costs_rise_with_the_width() -> None:
    widths = [1, 1.004, 1.02, 1.3]
    macs = [count(build(f"resnet20_cifar@width={w}", device="meta"), (3, 32, 32)).macs for w in widths]
    assert macs == sorted(macs)
    assert macs[0] < macs[-1]


def test_a_size_belongs_to_both_of_a_pair_however_it_is_named() -> None:
    base, variant = pair(resolve("SE-ResNet-50@width=1.05"))
    assert (base.name, variant.name) == ("resnet50@width=1.05", "seresnet50@width=1.05")
    assert pair(base) == (base, variant)
    assert base.label == "ResNet-50 1.05x wide"
    assert resolve("resnet50@depth=1").label == "ResNet-50 + 1 unit"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("resnet50@width=0.9", "no size 'width=0.9'; write @width=1.05 or @depth=1"),
        ("resnet50@width=9", "no size"),
        ("resnet50@depth=0", "no size"),
        ("resnet50@depth=1.5", "no size"),
        ("resnet50@width=1.5x", "no size"),
        ("resnet50@", "no size ''"),
        ("resnet50@r=4", "no size"),
        ("mobilenet_v2@width=1.1", "mobilenet_v2 has no other width here"),
        ("shakeshake26_2x96d_cifar@depth=1", "no other depth here"),
        ("resnet51@width=1.1", "unknown model 'resnet51'"),
        ("resnet50@width=1.1@depth=1", "no size"),
    ],
)
def test_what_cannot_be_is_said(name: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        resolve(name)


def test_which_sizes_a_network_has() -> None:
    assert sizes_of(CATALOG["resnet50"]) == sizes_of(CATALOG["resnet20_cifar"]) == ("width", "depth")
    assert sizes_of(CATALOG["vgg16_bn"]) == ("depth",)
    assert sizes_of(CATALOG["mobilenet_v1"]) == sizes_of(CATALOG["shakeshake26_2x96d_cifar"]) == ()
