"""The gate of a map as one Triton kernel: squeeze, both layers and their activations (equations 2 and 3).

Programs share an image's pixels and write partial sums. Each adds one to the image's counter; the one that finds all
others done sets it back to 0, so that the next call, or a replay, starts from nothing, and does both layers. Sums are
in single precision. Importing this needs Triton.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

TILE = 16384
"""Elements that a program holds at once, 32 a thread of its 16 warps."""
MOST_PARTIAL = 8192
"""Elements of an image's partial sums, which one program adds up."""
PIXELS_EACH = 4
"""That a program has at least, where a map has them."""
WARPS = 16
ON_CPU = 8
"""Programs that Triton's interpreter is given, where a GPU is given two for each of its multiprocessors."""


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _activated(x, name: tl.constexpr):  # type: ignore[no-untyped-def]
    if name == "relu":
        x = tl.maximum(x, 0.0)
    elif name == "sigmoid":
        x = tl.sigmoid(x)
    elif name == "silu":
        x = x * tl.sigmoid(x)
    elif name == "tanh":
        x = 2.0 * tl.sigmoid(2.0 * x) - 1.0
    elif name == "hardsigmoid":
        x = tl.minimum(tl.maximum(x + 3.0, 0.0), 6.0) / 6.0
    return x


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _gate(  # type: ignore[no-untyped-def]
    x, weight1, bias1, weight2, bias2, gate, partial, counters,
    image_step, row_step, column_step, columns, pixels,
    share: tl.constexpr, inputs: tl.constexpr, hidden: tl.constexpr, outputs: tl.constexpr,
    first: tl.constexpr, last: tl.constexpr, splits: tl.constexpr,
    tile_pixels: tl.constexpr, tile_channels: tl.constexpr,
    tile_inputs: tl.constexpr, tile_hidden: tl.constexpr, tile_outputs: tl.constexpr,
):  # fmt: skip
    split = tl.program_id(0)
    image = tl.program_id(1).to(tl.int64)
    end = tl.minimum((split + 1) * share, pixels)
    sums = partial + image * splits * inputs
    for begin in range(0, inputs, tile_channels):
        channel = begin + tl.arange(0, tile_channels)
        total = tl.zeros((tile_pixels, tile_channels), tl.float32)
        for start in range(0, share, tile_pixels):
            pixel = split * share + start + tl.arange(0, tile_pixels)
            place = image * image_step + (pixel // columns) * row_step + (pixel % columns) * column_step
            inside = (pixel < end)[:, None] & (channel < inputs)[None, :]
            total += tl.load(x + place[:, None] + channel[None, :], mask=inside, other=0.0).to(tl.float32)
        tl.store(sums + split * inputs + channel, tl.sum(total, 0), mask=channel < inputs)
    tl.debug_barrier()  # every thread's sums are written before one of them counts
    if tl.atomic_add(counters + image, 1, sem="acq_rel") == splits - 1:
        tl.store(counters + image, 0)
        unit = tl.arange(0, tile_hidden)
        part = tl.arange(0, splits)
        products = tl.zeros((tile_inputs, tile_hidden), tl.float32)
        for begin in range(0, inputs, tile_inputs):
            channel = begin + tl.arange(0, tile_inputs)
            places = part[:, None] * inputs + channel[None, :]
            means = tl.sum(tl.load(sums + places, (channel < inputs)[None, :], 0.0, cache_modifier=".cg"), 0) / pixels
            inside = (channel < inputs)[:, None] & (unit < hidden)[None, :]
            weight = tl.load(weight1 + channel[:, None] * hidden + unit[None, :], mask=inside, other=0.0)
            products += means[:, None] * weight.to(tl.float32)
        known = unit < hidden
        z = tl.sum(products, 0) + tl.load(bias1 + unit, mask=known, other=0.0).to(tl.float32)
        z = _activated(z, first)
        for begin in range(0, outputs, tile_outputs):
            channel = begin + tl.arange(0, tile_outputs)
            inside = known[:, None] & (channel < outputs)[None, :]
            weight = tl.load(weight2 + unit[:, None] * outputs + channel[None, :], mask=inside, other=0.0)
            y = tl.sum(z[:, None] * weight.to(tl.float32), 0)
            y += tl.load(bias2 + channel, mask=channel < outputs, other=0.0).to(tl.float32)
            y = _activated(y, last).to(gate.dtype.element_ty)
            tl.store(gate + image * outputs + channel, y, mask=channel < outputs)


def gate_of(
    x: Tensor,
    stride: int,
    layers: tuple[Tensor, Tensor, Tensor, Tensor],
    activations: tuple[str, str],
    counters: Tensor,
) -> Tensor:
    """The gate (N, outputs) of a map (N, inputs, H, W) whose channels lie beside each other.

    The mean is over every `stride`-th row and column. `layers` are the weight (inputs, hidden) and bias of the first
    layer and those of the second, (hidden, outputs), contiguous; `activations` are named as in `_activated`, any other
    name is none; `counters` holds at least N zeros of 32 bits, and holds them again afterwards.
    """
    images, inputs, height, width = x.shape
    (hidden, outputs), rows, columns = layers[2].shape, -(-height // stride), -(-width // stride)
    splits = _splits(x, images, inputs, rows * columns)
    share = -(-rows * columns // splits)
    partial = torch.empty((images, splits, inputs), dtype=torch.float32, device=x.device)
    gate = torch.empty((images, outputs), dtype=x.dtype, device=x.device)
    steps = x.stride(0), stride * x.stride(2), stride * x.stride(3)
    sizes = columns, rows * columns, share, inputs, hidden, outputs
    with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]
        _gate[(splits, images)](
            x, *layers, gate, partial, counters, *steps, *sizes, *activations, splits,
            **_tiles(share, inputs, hidden, outputs), num_warps=WARPS, enable_fp_fusion=True,
        )  # fmt: skip
    return gate


def _tiles(share: int, inputs: int, hidden: int, outputs: int) -> dict[str, int]:
    """What a program holds at once: pixels and channels of the map, inputs and outputs beside all hidden units."""
    channels, units = min(_power(inputs), 512), _power(hidden)
    return {
        "tile_pixels": min(_power(share), TILE // channels),
        "tile_channels": channels,
        "tile_inputs": min(_power(inputs), TILE // units),
        "tile_hidden": units,
        "tile_outputs": min(_power(outputs), TILE // units),
    }


def _splits(x: Tensor, images: int, inputs: int, pixels: int) -> int:
    """Programs an image, a power of two: two for each multiprocessor in all, as far as pixels and sums go."""
    programs = 2 * torch.cuda.get_device_properties(x.device).multi_processor_count if x.is_cuda else ON_CPU
    most = max(1, min(-(-pixels // PIXELS_EACH), MOST_PARTIAL // inputs, programs // images))
    return 1 << (most.bit_length() - 1)


def _power(number: int) -> int:
    """The least power of two that is not below a number, and at least 16."""
    return max(16, 1 << (number - 1).bit_length())
