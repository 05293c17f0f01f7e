"""Networks in INT8 after training: ONNX Runtime's static QDQ and NNCF's quantisation for OpenVINO.

Both are calibrated by the smallest and largest values that images give. The gates, from the mean to the product's
second factor, are quantised like the rest or kept in fp32.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from senet_bench.core.runtimes import RuntimeFacts
from senet_bench.deployment.engines import (
    EngineCall,
    Running,
    arrays_of,
    onnxruntime_session,
    openvino_module,
    openvino_request,
    write_onnx,
)
from senet_bench.deployment.onnx_gates import gates_of, name_nodes

CALIBRATION = 64
"""Seeded standard normal images for a network without data."""


def seeded_images(shape: Sequence[int]) -> list[Tensor]:
    """At least `CALIBRATION` standard normal images in batches of the shape (N, C, H, W), the same every time."""
    random = torch.Generator().manual_seed(3)
    return [torch.randn(tuple(shape), generator=random) for _ in range(-(-CALIBRATION // shape[0]))]


def quantised(facts: RuntimeFacts, network: nn.Module, images: Sequence[Tensor]) -> EngineCall:
    """The network in evaluation as a call in INT8 for batches like those of `images`, which it is calibrated by."""
    with tempfile.TemporaryDirectory() as folder, _silent():
        path = Path(folder) / "network.onnx"
        write_onnx(network, images[0], path)
        excluded = _named(path, kept=facts.gates_fp32)
        if facts.engine == "onnxruntime":
            return Running(_by_onnxruntime(path, images, excluded), onnxruntime_session)
        return Running(_by_nncf(path, images, excluded), openvino_request)


def _named(path: Path, *, kept: bool) -> list[str]:
    """Name every node in the file; the names of those that make the gates, where they are `kept` in fp32."""
    import onnx

    model = onnx.load(str(path))
    name_nodes(model)
    onnx.save(model, str(path))
    return [name for gate in gates_of(model) for name in gate.nodes] if kept else []


def _by_onnxruntime(path: Path, images: Sequence[Tensor], excluded: list[str]) -> bytes:
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = iter(images)

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self.left, None)
            return None if batch is None else {"image": batch.numpy()}

    written = path.with_name("quantised.onnx")
    quantization.quantize_static(
        str(path), str(written), Reader(), quant_format=quantization.QuantFormat.QDQ, per_channel=True,
        activation_type=quantization.QuantType.QUInt8, weight_type=quantization.QuantType.QInt8, reduce_range=False,
        nodes_to_exclude=excluded,
    )  # fmt: skip
    return written.read_bytes()


def _by_nncf(path: Path, images: Sequence[Tensor], excluded: list[str]) -> Any:
    openvino = openvino_module()
    import nncf

    model = openvino.convert_model(str(path))
    present = {operation.get_friendly_name() for operation in model.get_ops()}
    ignored = nncf.IgnoredScope(names=[name for name in excluded if name in present], validate=False)
    batches = nncf.Dataset([arrays_of(batch) for batch in images])
    return nncf.quantize(model, batches, subset_size=len(images), ignored_scope=ignored if excluded else None)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Quantisers print and log how far they are; nobody reads it here."""
    import logging

    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)


class Quantised(nn.Module):
    """A network in INT8, which runs as many images at once as the batches have that it was calibrated by."""

    def __init__(self, facts: RuntimeFacts, network: nn.Module, images: Sequence[Tensor]) -> None:
        super().__init__()
        self.call, self.most = quantised(facts, network, images), len(images[0])

    def forward(self, x: Tensor) -> Any:
        """Images (N, C, H, W) to the logits; a batch is split, and what is left of it filled up."""
        if len(x) <= self.most:
            return self._logits(x)
        return torch.cat([self._logits(part) for part in torch.split(x, self.most)])

    def _logits(self, x: Tensor) -> Tensor:
        filled = torch.cat([x, x[:1].expand(self.most - len(x), *x.shape[1:])]) if len(x) < self.most else x
        logits: Tensor = self.call(filled.contiguous())[: len(x)].clone()
        return logits
