"""Weights of timm and torchvision in our networks give the outputs they gave there; layouts are never mixed."""

from __future__ import annotations

import argparse
import hashlib
import json
import pickle
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from senet_bench.core import catalog
from senet_bench.data.sets import IMAGENET_MEAN, IMAGENET_STD, Arrays, DataSet
from senet_bench.errors import MeasurementError, UsageError
from senet_bench.models import build, build_spec, outside
from senet_bench.training import downloads, weights
from senet_bench.training.renaming import REFUSED, SOURCES, fitted
from senet_bench.training.statedict import contents
from tests.conftest import Run

HEAVY = {"legacy_senet154", "legacy_seresnext101_32x4d", "resnext101_64x4d", "legacy_seresnet152", "resnet152"}
HEAVY |= {"legacy_seresnet101", "resnet101", "vgg13_bn", "vgg16_bn", "vgg19_bn", "resnet34"}
HEAVY |= {"vgg11_bn", "legacy_seresnext50_32x4d", "resnet50", "resnext50_32x4d", "legacy_seresnet50"}


def theirs(name: str) -> nn.Module:
    """The other library's network with random weights and BatchNorm statistics that matter."""
    torch.manual_seed(0)
    library, _, model = name.partition(":")
    if library == "timm":
        network: nn.Module = pytest.importorskip("timm").create_model(model)
    else:
        network = torchvision.models.get_model(model, weights=None)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.0)
            nn.init.normal_(module.bias, 0, 0.1)
    return network.eval()


def stored(network: nn.Module, file: Path) -> Path:
    state = {name: value.contiguous() for name, value in network.state_dict().items()}
    if file.suffix == ".safetensors":
        save_file(state, file)
    else:
        torch.save(state, file)
    return file


@torch.inference_mode()
def agree(first: nn.Module, second: nn.Module, side: int = 65) -> None:
    x = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    expected, got = first.eval()(x), second.eval()(x)
    assert expected.std() > 0
    assert (got - expected).abs().max() <= 1e-5 * expected.abs().max().clamp_min(1)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] if name.partition(":")[2] in HEAVY else []) for name in SOURCES],
)
def test_every_known_checkpoint_gives_its_own_outputs(name: str, tmp_path: Path) -> None:
    source, network = SOURCES[name], theirs(name)
    file = stored(network, tmp_path / ("w.safetensors" if source.library == "timm" else "w.pth"))
    loaded = weights.load_weights(catalog.resolve(source.ours), str(file))
    agree(network, loaded.network)
    assert loaded.fresh == ()
    told = {"torchvision:resnext50_32x4d", "torchvision:resnext101_64x4d"}
    told |= {"torchvision:resnet18", "torchvision:resnet50"}
    told |= {"timm:mobilenetv3_large_100", "timm:mobilenetv3_small_100", "timm:efficientnet_b0"}
    assert bool(loaded.notes) == (name in told)


@pytest.mark.parametrize("name", ["mobilenet_v3_large", "mobilenet_v3_small", "efficientnet_b0"])
def test_a_network_without_se_refuses_weights_that_have_it(name: str, tmp_path: Path) -> None:
    file = stored(torchvision.models.get_model(name, weights=None), tmp_path / "w.pth")
    with pytest.raises(UsageError, match=rf"attention blocks and {name}_nose has none: .*; use {name}$"):
        weights.load_weights(catalog.resolve(f"{name}_nose"), str(file))


def test_a_resnet_refuses_weights_of_its_se_network(tmp_path: Path) -> None:
    weights.save(build("seresnet20_cifar"), tmp_path / "a.safetensors", replace(catalog.resolve("resnet20_cifar")))
    with pytest.raises(UsageError, match=r"holds 9 attention blocks and resnet20_cifar has none.*use seresnet20_cifar"):
        weights.load_weights(catalog.resolve("resnet20_cifar"), str(tmp_path / "a.safetensors"))


def test_an_se_mobilenet_takes_a_plain_one_s_weights(tmp_path: Path) -> None:
    file = stored(torchvision.models.mobilenet_v2(), tmp_path / "w.pth")
    assert len(weights.load_weights(catalog.resolve("semobilenet_v2"), str(file)).fresh) == 17


def test_a_name_that_both_libraries_have_needs_its_library() -> None:
    with pytest.raises(UsageError, match="write timm:efficientnet_b0 or torchvision:efficientnet_b0"):
        weights.load_weights(catalog.resolve("efficientnet_b0"), "efficientnet_b0.ra_in1k")


@pytest.mark.parametrize(
    ("name", "ours"), [("tf_efficientnet_b0.ns_jft_in1k", "efficientnet_b0"), ("timm:tf_mobilenetv3_large_100", None)]
)
def test_tensorflow_s_padding_is_refused_by_name(name: str, ours: str | None) -> None:
    with pytest.raises(UsageError, match="as TensorFlow does"):
        weights.load_weights(catalog.resolve(ours or "mobilenet_v3_large"), name)


def test_a_network_padded_as_tensorflow_does_takes_its_own_weights(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    name = "timm:tf_mobilenetv3_small_100"
    network = theirs(name)
    file = stored(network, tmp_path / "w.safetensors")
    monkeypatch.setattr(downloads, "fetch", lambda library, name: file)
    loaded = weights.load_weights(outside.resolve_outside(name), f"{name}.in1k")
    assert loaded.origin == name
    agree(network, loaded.network)


@torch.inference_mode()
def test_the_refused_networks_do_compute_another_function(tmp_path: Path) -> None:
    for name in REFUSED:
        torch.manual_seed(0)
        theirs_ = pytest.importorskip("timm").create_model(name).eval()
        ours = SOURCES[f"timm:{name.removeprefix('tf_')}"].ours
        x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
        for module in (
            loaded := weights.load_weights(catalog.resolve(ours), str(stored(theirs_, tmp_path / "w.pth")))
        ).network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = 1e-3  # as theirs: what is left is the padding
        assert any("tf_" in note for note in loaded.notes)
        expected = theirs_(x)
        assert (loaded.network.eval()(x) - expected).abs().max() > 0.01 * expected.abs().max()


def test_images_are_normalised_as_the_weights_were_trained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    network = theirs("timm:mobilenetv1_100")
    file = stored(network, tmp_path / "w.safetensors")
    monkeypatch.setattr(downloads, "fetch", lambda library, name: file)
    half = weights.load_weights(catalog.resolve("mobilenet_v1"), "mobilenetv1_100.ra4_e3600_r224_in1k")
    loaded, shown = half.on(images_of(IMAGENET_MEAN, IMAGENET_STD))
    assert half.normalisation == shown.normalisation == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert "mean (0.5, 0.5, 0.5)" in loaded.notes[-1]
    assert weights.load_weights(catalog.resolve("mobilenet_v1"), str(file)).normalisation is None


def images_of(mean: tuple[float, ...], std: tuple[float, ...]) -> DataSet:
    """A data set of one grey image."""
    split = Arrays(np.zeros((1, len(mean), 4, 4), np.uint8), np.zeros(1, np.int64))
    return DataSet("grey", ("it",), None, split, mean, std, 4)


def test_weights_of_ours_say_how_images_are_normalised_and_that_is_told_where_it_is_not_the_sets_own_way(
    tmp_path: Path,
) -> None:
    spec, path, own = catalog.resolve("resnet20_cifar"), tmp_path / "w.safetensors", ((0.25,) * 3, (0.1,) * 3)
    weights.save(build("resnet20_cifar"), path, spec, normalisation=own)
    loaded = weights.load_weights(spec, str(path))
    same, images = loaded.on(images_of(*own))
    assert (same.notes, images.normalisation) == ((), own)
    told, images = loaded.on(images_of(IMAGENET_MEAN, IMAGENET_STD))
    assert images.normalisation == own
    assert told.notes == (f"images are normalised by mean {own[0]} and deviation {own[1]}, as in its training",)
    weights.save(build("resnet20_cifar"), path, spec)
    silent, images = weights.load_weights(spec, str(path)).on(images_of(IMAGENET_MEAN, IMAGENET_STD))
    assert (silent.notes, images.normalisation) == ((), (IMAGENET_MEAN, IMAGENET_STD))


def test_the_padded_pool_of_torchvisions_resnext_is_taken_over_and_told() -> None:
    spec = catalog.resolve("resnext50_32x4d")
    padded, note = fitted(spec, "plain")
    assert padded.options["padded_pool"] is True
    assert "padded stem pool" in (note or "")
    assert fitted(spec, "legacy") == (spec, None)


def test_the_other_layout_is_refused_with_the_id_that_fits() -> None:
    cases = {
        ("resnet50", "plain"): "resnet50_v1_5",
        ("seresnet50", "plain"): "seresnet50_v1_5",
        ("seresnet101_v1_5", "legacy"): "seresnet101",
        ("resnet18", "plain"): "resnet18_v1_5",
    }
    for (name, style), fits in cases.items():
        with pytest.raises(UsageError, match=f"use {fits}$"):
            fitted(catalog.resolve(name), style)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="family"):
        fitted(catalog.resolve("mobilenet_v1"), "legacy")


def test_a_file_of_the_other_layout_is_refused_by_its_names(tmp_path: Path) -> None:
    file = stored(torchvision.models.resnet18(), tmp_path / "w.pth")
    with pytest.raises(UsageError, match="resnet18_v1_5"):
        weights.load_weights(catalog.resolve("resnet18"), str(file))


def test_an_se_network_takes_a_baselines_weights_and_says_what_is_fresh(tmp_path: Path) -> None:
    network = theirs("torchvision:resnet18")
    loaded = weights.load_weights(catalog.resolve("seresnet18_v1_5"), str(stored(network, tmp_path / "w.safetensors")))
    assert len(loaded.fresh) == 8
    assert "8 attention blocks keep their initial values" in loaded.notes[0]
    assert torch.equal(loaded.network.state_dict()["stem.0.weight"], network.state_dict()["conv1.weight"])


def test_our_own_checkpoints_come_back_with_what_they_are(tmp_path: Path) -> None:
    spec, network = catalog.resolve("seresnet20_cifar"), build("seresnet20_cifar")
    weights.save(network.to(memory_format=torch.channels_last), tmp_path / "a.safetensors", spec, epochs=3)
    loaded = weights.load_weights(spec, str(tmp_path / "a.safetensors"))
    assert loaded.metadata["epochs"] == 3
    agree(network.to(memory_format=torch.contiguous_format), loaded.network, 32)
    with pytest.raises(UsageError, match="holds seresnet20_cifar"):
        weights.load_weights(catalog.resolve("resnet110_cifar"), str(tmp_path / "a.safetensors"))


def test_another_reduction_is_refused(tmp_path: Path) -> None:
    spec = catalog.resolve("seresnet20_cifar")
    weights.save(build("seresnet20_cifar", reduction=4), tmp_path / "a.safetensors", spec)
    with pytest.raises(UsageError, match="does not fit"):
        weights.load_weights(spec, str(tmp_path / "a.safetensors"))
    weights.save(build("seresnet20_cifar"), tmp_path / "b.safetensors", spec)
    with pytest.raises(UsageError, match="classes"):
        weights.load_weights(spec, str(tmp_path / "b.safetensors"), classes=7)


def test_a_pickle_that_would_run_code_is_never_opened(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
            return print, ("ran",)

    torch.save({"weight": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(UsageError, match="not opened"):
        weights.load_weights(catalog.resolve("resnet50"), str(tmp_path / "evil.pth"))
    (tmp_path / "plain.pth").write_bytes(pickle.dumps({"a": Evil()}, protocol=2))
    with pytest.raises(UsageError, match="not opened"):
        weights.load_weights(catalog.resolve("resnet50"), str(tmp_path / "plain.pth"))


def test_damaged_missing_and_unknown_weights_are_one_line_errors(tmp_path: Path) -> None:
    spec = catalog.resolve("resnet50")
    (tmp_path / "a.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{nonsense")
    with pytest.raises(MeasurementError, match="no readable weights"):
        weights.load_weights(spec, str(tmp_path / "a.safetensors"))
    for content in (b"a\0b", b"", b"0", b"(", b"\x80\x02", b"\x80\x02]e.", b"hello", b"PK\x03\x04"):
        (tmp_path / "b.pth").write_bytes(content)
        with pytest.raises((MeasurementError, UsageError), match=r"no readable weights|is not opened"):
            weights.load_weights(spec, str(tmp_path / "b.pth"))
    with pytest.raises(MeasurementError, match="there is no weights file"):
        weights.load_weights(spec, str(tmp_path / "missing.pth"))
    with pytest.raises(UsageError, match="unknown weights 'resnet999'"):
        weights.load_weights(spec, "resnet999")


def test_a_name_leads_to_its_file_without_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = theirs("torchvision:resnet18")
    asked: list[tuple[str, str]] = []

    def fetch(library: str, name: str) -> Path:
        asked.append((library, name))
        return stored(network, tmp_path / "w.safetensors")

    monkeypatch.setattr(downloads, "fetch", fetch)
    for name in ("resnet18", "torchvision:resnet18.IMAGENET1K_V1"):
        agree(network, weights.load_weights(catalog.resolve("resnet18_v1_5"), name).network, 64)
    assert asked == [("torchvision", "resnet18"), ("torchvision", "resnet18.IMAGENET1K_V1")]


def test_a_cached_release_file_is_checked_and_used_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    content = b"weights"
    name = f"net-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / name).write_bytes(content)
    assert downloads.from_url(f"https://example.invalid/{name}").read_bytes() == content
    (tmp_path / "checkpoints" / name).write_bytes(b"other")
    with pytest.raises(MeasurementError, match="is damaged"):
        downloads.from_url(f"https://example.invalid/{name}")

    def offline(*args: object, **kwargs: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(MeasurementError, match="cannot be downloaded"):
        downloads.from_url("https://example.invalid/net-00000000.pth")


def test_a_cached_hub_file_is_used_first_and_its_checksum_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = pytest.importorskip("huggingface_hub")
    content = b"weights"
    blob = tmp_path / hashlib.sha256(content).hexdigest()
    blob.write_bytes(content)
    link = tmp_path / "model.safetensors"
    link.symlink_to(blob)
    calls: list[bool] = []

    def download(repository: str, file: str, local_files_only: bool = False) -> str:
        calls.append(local_files_only)
        return str(link)

    monkeypatch.setattr(hub, "hf_hub_download", download)
    assert downloads.from_hub("timm/seresnet50.a1_in1k", "model.safetensors") == link
    assert calls == [True]
    blob.write_bytes(b"changed")
    with pytest.raises(MeasurementError, match="is damaged"):
        downloads.from_hub("timm/seresnet50.a1_in1k", "model.safetensors")


def test_timm_names_lead_to_the_hub_or_to_release_files(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("timm")
    monkeypatch.setattr(downloads, "from_hub", Path)
    monkeypatch.setattr(downloads, "from_url", Path)
    assert str(downloads.fetch("timm", "seresnet50.a1_in1k")) == "timm/seresnet50.a1_in1k/model.safetensors"
    assert "se_resnet50-ce0d4300" in str(downloads.fetch("timm", "legacy_seresnet50"))
    assert "resnet50" in str(downloads.fetch("torchvision", "resnet50.IMAGENET1K_V1"))
    with pytest.raises(UsageError, match="IMAGENET1K_V1"):
        downloads.fetch("torchvision", "resnet50.V9")


def test_a_training_checkpoint_gives_its_model(tmp_path: Path) -> None:
    from senet_bench.training import checkpoint

    state: dict[str, Tensor] = build("resnet20_cifar").state_dict()
    content = {"identity": {"model": "resnet20_cifar"}, "model": state, "ema": {}}
    checkpoint.write_checkpoint(tmp_path / "run.ckpt", content)
    held = contents(tmp_path / "run.ckpt")
    assert held.metadata["model"] == "resnet20_cifar"
    assert torch.equal(held.tensors["classifier.bias"], state["classifier.bias"])


@pytest.mark.parametrize("name", ["seresnet18", "seresnet34", "resnet18"])
def test_a_relu_after_the_second_batchnorm_is_refused(name: str, tmp_path: Path) -> None:
    theirs_ = theirs("timm:legacy_seresnet34" if "34" in name else "timm:legacy_seresnet18")
    with pytest.raises(UsageError, match="ReLU after its second BatchNorm, which no network here has"):
        weights.load_weights(catalog.resolve(name), str(stored(theirs_, tmp_path / "w.safetensors")))


WAYS = ("name of the file", "configuration beside it", "name", "name with library and tag")
SAME_TENSORS = (("resnetblur18", "resnet18_v1_5"), ("resnetaa50", "resnet50_v1_5"))


@pytest.mark.parametrize(
    ("name", "ours", "way"), [*((*SAME_TENSORS[0], way) for way in WAYS), (*SAME_TENSORS[1], WAYS[1])]
)
def test_the_same_tensors_with_another_function_are_refused(name: str, ours: str, way: str, tmp_path: Path) -> None:
    given = {"name": name, "name with library and tag": f"timm:{name}.a1h_in1k"}.get(way)
    if given is None:
        (tmp_path / "config.json").write_text(f'{{"architecture": "{name if way.startswith("conf") else "?"}"}}')
        file = f"{name}_a1h-4cf422b3.pth" if way.startswith("name") else "model.safetensors"
        given = str(stored(theirs(f"timm:{name}"), tmp_path / file))
    with pytest.raises(UsageError, match=rf"timm:{name} computes another function than {ours}.*by \d\.\d+"):
        weights.load_weights(catalog.resolve(ours), given)


def test_a_file_that_does_not_say_whose_it_is_is_taken_for_torchvisions_and_told(tmp_path: Path) -> None:
    network = torchvision.models.resnet18()
    spec = catalog.resolve("resnet18_v1_5")
    (note,) = weights.load_weights(spec, str(stored(network, tmp_path / "w.pth"))).notes
    assert note == "taken for torchvision's weights: those of timm's resnetblur18 have the same names"
    assert weights.load_weights(spec, str(stored(network, tmp_path / "resnet18-f37072fd.pth"))).notes == ()


def test_weights_of_another_name_with_the_same_function_are_proven_and_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = theirs("timm:resnet18")
    monkeypatch.setattr(downloads, "fetch", lambda library, name: stored(network, tmp_path / "w.safetensors"))
    loaded = weights.load_weights(catalog.resolve("resnet18_v1_5"), "timm:resnet18.a1_in1k")
    agree(network, loaded.network, 64)
    with pytest.raises(UsageError, match="other layout"):
        weights.load_weights(catalog.resolve("resnet18"), "timm:resnet18.a1_in1k")


PREFIXES = ("_orig_mod.", "module.", "module._orig_mod.", "model.", "model.module.", "_orig_mod.module.")


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("model", ["seresnet20_cifar", "theirs"])
def test_what_wrappers_put_before_names_is_taken_off(prefix: str, model: str, tmp_path: Path) -> None:
    ours = model != "theirs"
    network = build(model).eval() if ours else theirs("torchvision:resnet18")
    state = {prefix + name: value for name, value in network.state_dict().items()}
    content = {"state_dict": state, "pytorch-lightning_version": "2.5"} if prefix.startswith("model") else state
    torch.save(content, tmp_path / "w.ckpt")
    loaded = weights.load_weights(catalog.resolve(model if ours else "resnet18_v1_5"), str(tmp_path / "w.ckpt"))
    agree(network, loaded.network, 32)


def trainers_file(path: Path, raw: nn.Module, averaged: nn.Module, keys: tuple[str, str]) -> Path:
    """A checkpoint as timm's and torchvision's trainers write it."""
    content = {
        keys[0]: raw.state_dict(),
        keys[1]: {f"module.{name}": value for name, value in averaged.state_dict().items()}
        | ({"n_averaged": torch.tensor(3)} if keys[1] == "model_ema" else {}),
        "args": argparse.Namespace(lr=0.1, output=Path("/tmp"), scale=(0.08, 1.0), seed=np.float64(1)),
        "optimizer": torch.optim.SGD(raw.parameters(), 0.1, momentum=0.9).state_dict(),
        "arch": "resnet18",
        "metric": np.float64(0.7),
        "epoch": 3,
    }
    torch.save(content, path)
    return path


@pytest.mark.parametrize("keys", [("state_dict", "state_dict_ema"), ("model", "model_ema")])
def test_a_trainers_file_is_opened_and_says_which_of_its_weights_were_taken(
    keys: tuple[str, str], tmp_path: Path
) -> None:
    spec = catalog.resolve("resnet18_v1_5")
    raw, averaged = theirs("torchvision:resnet18"), theirs("torchvision:resnet18")
    with torch.no_grad():
        averaged.conv1.weight.mul_(2)  # type: ignore[operator,union-attr]
    file = str(trainers_file(tmp_path / "resnet18-last.pth.tar", raw, averaged, keys))
    loaded = weights.load_weights(spec, file)
    agree(raw, loaded.network, 64)
    assert loaded.notes == ("taken: the raw weights of the file, which holds the average (EMA) too",)
    average = weights.load_weights(spec, file, average=True)
    agree(averaged, average.network, 64)
    assert average.notes == ("taken: the average (EMA) of the file, which holds the raw weights too",)
    with pytest.raises(UsageError, match="holds no average"):
        weights.load_weights(spec, str(stored(raw, tmp_path / "w.pth")), average=True)


def test_a_checkpoint_of_ours_gives_its_average_unless_told_otherwise(tmp_path: Path) -> None:
    from senet_bench.training import checkpoint

    raw, averaged = build("resnet20_cifar").state_dict(), build("resnet20_cifar").state_dict()
    content = {"identity": {"model": "resnet20_cifar"}, "model": raw, "ema": averaged}
    checkpoint.write_checkpoint(tmp_path / "run.checkpoint", content)
    spec = catalog.resolve("resnet20_cifar")
    for average, state in ((None, averaged), (True, averaged), (False, raw)):
        loaded = weights.load_weights(spec, str(tmp_path / "run.checkpoint"), average=average)
        assert torch.equal(loaded.network.state_dict()["classifier.bias"], state["classifier.bias"])
        assert torch.equal(loaded.network.state_dict()["classifier.weight"], state["classifier.weight"])
        assert "taken: the " in loaded.notes[0]


def test_weights_without_the_attention_of_the_network_are_not_evaluated(tmp_path: Path, run: Run) -> None:
    save_file(build("resnet20_cifar", in_channels=1).state_dict(), tmp_path / "plain.safetensors")
    ended = run("evaluate", "seresnet20_cifar", "--weights", "plain.safetensors", "--dataset", "digits")
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "plain.safetensors has no attention: 9 blocks would keep random values" in ended.err


def test_which_state_was_taken_stands_in_the_row(tmp_path: Path, run: Run) -> None:
    state = build("seresnet20_cifar", in_channels=1).state_dict()
    torch.save({"state_dict": state, "state_dict_ema": state}, tmp_path / "last.pth.tar")
    typed = ("evaluate", "seresnet20_cifar", "--weights", "last.pth.tar", "--dataset", "digits", "--format", "json")
    for options, taken in (((), "raw"), (("--raw-weights",), "raw"), (("--ema-weights",), "average")):
        row = json.loads(run(*typed, *options).out)["rows"][0]
        assert (row["taken"], "taken: the " in row["notes"][0]) == (taken, True)
    torch.save(state, tmp_path / "last.pth.tar")
    assert "taken" not in json.loads(run(*typed).out)["rows"][0]
    refused = run(*typed, "--ema-weights")
    assert (refused.code, "leave out --ema-weights" in refused.err) == (2, True)


def test_a_file_name_in_capitals_is_known(tmp_path: Path) -> None:
    network = theirs("torchvision:resnet18")
    file = stored(network, tmp_path / "w.safetensors").rename(tmp_path / "RESNET18.SAFETENSORS")
    agree(network, weights.load_weights(catalog.resolve("resnet18_v1_5"), str(file)).network, 64)


def test_a_trainers_file_with_code_inside_is_still_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
            return print, ("ran",)

    torch.save({"state_dict": {}, "args": argparse.Namespace(evil=Evil())}, tmp_path / "evil.pth")
    with pytest.raises(UsageError, match="not opened"):
        weights.load_weights(catalog.resolve("resnet50"), str(tmp_path / "evil.pth"))


def with_names(network: nn.Module, *changes: tuple[str, str | Callable[[re.Match[str]], str]]) -> dict[str, Tensor]:
    """The state dict of a network with other names."""
    state: dict[str, Tensor] = network.state_dict()
    for pattern, text in changes:
        state = {re.sub(pattern, text, name): value for name, value in state.items()}
    return state


MMPRETRAIN = (("^(?!fc)", "backbone."), ("^fc", "head.fc"))
PYCLS: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
    (r"^layer(\d)\.(\d)\.(conv|bn)([123])\.", lambda m: f"s{m[1]}.b{m[2]}.f.{' abc'[int(m[4])]}{m[3][4:] or m[3]}."),
    (r"\.f\.(\w)conv\.", r".f.\1."),
    (r"\.f\.(\w)bn\.", r".f.\1_bn."),
    (r"^layer(\d)\.(\d)\.downsample\.0\.", r"s\1.b\2.proj."),
    (r"^layer(\d)\.(\d)\.downsample\.1\.", r"s\1.b\2.bn."),
    (r"^(conv|bn)1\.", r"stem.\1."),
    ("^fc", "head.fc"),
    (r"\.b(\d)\.", lambda unit: f".b{1 + int(unit[1])}."),
)
OLDER = ((r"^s(\d)", lambda stage: f"s{1 + int(stage[1])}"), ("^stem", "s1"))


def test_networks_of_other_libraries_give_their_own_outputs(tmp_path: Path) -> None:
    """mmpretrain and pycls name torchvision's ResNet anew; pycls shows it images whose first channel is blue."""
    network = theirs("torchvision:resnet50")
    spec = catalog.resolve("resnet50_v1_5")
    file = str(tmp_path / "w.pth")
    torch.save({"state_dict": with_names(network, *MMPRETRAIN), "meta": {"epoch": 3}}, file)
    agree(network, weights.load_weights(spec, file).network)
    for names in (PYCLS, (*PYCLS, *OLDER)):
        state = with_names(network, *names)
        state = {name: value.flip(1) if value.shape[2:] == (7, 7) else value for name, value in state.items()}
        torch.save({"model_state": state, "cfg": "RESNET: ..."}, file)
        loaded = weights.load_weights(spec, file)
        agree(network, loaded.network)
        assert "stride in the 3x3" in loaded.notes[0]
    with pytest.raises(UsageError, match="resnet/resnext family"):
        weights.load_weights(catalog.resolve("vgg16_bn"), file)


OURS = {
    "stages": "layer", "branch.0": "conv1", "branch.1": "bn1", "branch.3": "conv2", "branch.4": "bn2",
    "branch.7": "conv3", "branch.8": "bn3", "shortcut": "downsample", "classifier": "fc", "stem.0": "conv1",
    "stem.1": "bn1",
}  # fmt: skip


@pytest.mark.parametrize("library", ["moskomule", "mmpretrain"])
def test_se_of_other_libraries_gives_its_own_outputs(library: str, tmp_path: Path) -> None:
    """moskomule's SE-ResNets have torchvision's names and no biases in SE; mmpretrain's SE is of two convolutions."""
    spec, biased = catalog.resolve("seresnet50_v1_5"), library == "mmpretrain"
    assert spec.attention is not None
    network = build_spec(replace(spec, attention=replace(spec.attention, bias=biased))).eval()
    changes = [(re.escape(ours), other) for ours, other in OURS.items()]
    se = {"moskomule": ("se.fc.0", "se.fc.2"), "mmpretrain": ("se_layer.conv1.conv", "se_layer.conv2.conv")}[library]
    changes += [(rf"standard\.fc{index + 1}", name) for index, name in enumerate(se)]
    state = with_names(network, *changes, (r"^layer\.(\d)", lambda stage: f"layer{1 + int(stage[1])}"))
    state = {re.sub("^", "backbone.", n) if biased and n[:2] != "fc" else n: value for n, value in state.items()}
    state = {f"head.{n}" if biased and n.startswith("fc") else n: value for n, value in state.items()}
    torch.save(state, tmp_path / "seresnet.pkl")
    loaded = weights.load_weights(spec, str(tmp_path / "seresnet.pkl"))
    agree(network, loaded.network)
    assert loaded.spec.attention is not None
    assert loaded.spec.attention.bias == biased
    assert ("without biases" in " ".join(loaded.notes)) != biased


def test_the_network_among_others_in_a_file_is_taken_and_the_rest_named(tmp_path: Path) -> None:
    network, spec = theirs("torchvision:resnet18"), catalog.resolve("resnet18_v1_5")
    state, file = network.state_dict(), str(tmp_path / "last.ckpt")
    beside = {"criterion.weight": torch.ones(3), **{f"net.{name}": value for name, value in state.items()}}
    averaged = {f"ema_net.{name}": value * 2 for name, value in state.items()}
    contents_ = (beside, {"state_dict": beside}, {"params": beside, "optimizer": {"state": {}}})
    for content in contents_:
        torch.save(content, file)
        loaded = weights.load_weights(spec, file)
        agree(network, loaded.network)
        assert "left out: criterion.*" in loaded.notes
    torch.save({"state_dict": {**beside, **averaged}}, file)
    raw, average = (weights.load_weights(spec, file, average=choice) for choice in (None, True))
    agree(network, raw.network)
    assert (raw.taken, average.taken) == ("raw", "average")
    assert torch.equal(average.network.state_dict()["classifier.bias"], 2 * state["fc.bias"])
    torch.save({"teacher": state, "student": state}, file)
    with pytest.raises(UsageError, match="weights of 2 networks: teacher, student"):
        weights.load_weights(spec, file)
    save_file({name: value.contiguous() for name, value in state.items()}, tmp_path / "model.bin")
    agree(network, weights.load_weights(spec, str(tmp_path / "model.bin")).network)


def test_other_classes_are_a_new_head_or_the_rows_of_those_there_are(tmp_path: Path) -> None:
    network, spec = theirs("torchvision:resnet18"), catalog.resolve("resnet18_v1_5")
    file = str(stored(network, tmp_path / "w.pth"))
    tuned = weights.load_weights(spec, file, classes=7, head="new")
    assert "the head (classifier) is new: the weights are of 1,000 classes, the network has 7" in tuned.notes
    state = tuned.network.state_dict()
    assert state["classifier.weight"].shape == (7, 512)
    assert torch.equal(state["stem.0.weight"], network.state_dict()["conv1.weight"])
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        logits = network(x)
        for names, numbers in ((("2", "10", "999"), [2, 10, 999]), (("n01440764", "n15075141"), [0, 999])):
            loaded = weights.load_weights(spec, file, classes=len(names), head=names)
            assert torch.allclose(loaded.network.eval()(x), logits[:, numbers], atol=1e-4)
            assert f"{len(names)} of the weights' 1,000 classes" in loaded.notes[-1]
    for names in (("cat", "dog"), ("n01440764", "n00000000"), ("1000", "3")):
        with pytest.raises(UsageError, match="of 1,000 classes and the images of 2"):
            weights.load_weights(spec, file, classes=2, head=names)
    with pytest.raises(UsageError, match="does not fit"):
        weights.load_weights(spec, file, classes=2)
