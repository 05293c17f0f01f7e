"""Whether an output is the network's: how far from eager, how far from double precision, for images it has not seen."""

from __future__ import annotations

import contextlib
import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from senet_bench.bench.clock import Call
from senet_bench.core.statistics import Floats
from senet_bench.errors import MeasurementError, out_of_memory

AS_FAR = 3.0
"""How many times the distance of eager, in the same precision, from double another way to run a network may have."""
FARTHEST = 0.5
"""A distance, as a fraction of the largest output, at which nothing is the same any more."""
SLACK = 3.0
"""How many times the allowed difference may be reached for images other than those it was judged by."""
CALIBRATING = 4
"""Images that the statistics of a fresh network are made of."""
UNTOLD = 1e-4
"""What single precision may be from double, of the largest output, for an output to be held against it.

Where it is further, rounding has grown a thousandfold on its way through the network, and another order of the same
sums may well be ten times as far: ONNX Runtime's was, once in seventy images.
"""


def witness(output: object) -> float:
    """One number for an output: its mean absolute value."""
    return float(np.abs(array(output)).mean())


def array(output: object) -> Floats:
    """The output, or the first of several, in double precision on the host."""
    first = output[0] if isinstance(output, tuple | list) else output
    if isinstance(first, Tensor):
        return np.asarray(first.detach().to("cpu", torch.float64).numpy())
    return np.asarray(first, dtype=np.float64)


def output_numbers(call: Call) -> Floats:
    """The output of a call; `MeasurementError` where it is not finite."""
    values = array(call())
    if not np.isfinite(values).all():
        raise MeasurementError("the output is not finite", "look at the weights and the precision")
    return values


def distance(output: Floats, reference: Floats) -> float:
    """The largest difference, as a fraction of the largest value of the reference."""
    if output.shape != reference.shape:
        raise MeasurementError(f"the output has the shape {output.shape}, eager's is {reference.shape}")
    return float(np.abs(output - reference).max() / max(np.abs(reference).max(), 1e-30))


def judge_output(output: Floats, eager: Floats, exact: Floats | None, allowed: float) -> tuple[float, float]:
    """What is allowed, and the difference: from double precision, as far as eager is from it, where that is known."""
    if exact is None:
        return allowed, distance(output, eager)
    return max(allowed, min(AS_FAR * distance(eager, exact), FARTHEST)), distance(output, exact)


def exactly(network: nn.Module, images: Tensor) -> Floats | None:
    """The network's output in double precision; None where it cannot be run so."""
    with torch.inference_mode(), contextlib.suppress(Exception):
        return output_numbers(lambda: copy.deepcopy(network).cpu().double().eval()(images.cpu().double()))
    return None


def calibrated(network: nn.Module, images: Tensor) -> nn.Module:
    """A copy whose untrained BatchNorm statistics are those of random images; itself without any, or where it fails.

    With means 0 and variances 1 a deep network grows its signal from block to block until single precision tells
    nothing of it, and half precision overflows.
    """
    if not any(map(_untrained, network.modules())):
        return network
    copied, norm_type = copy.deepcopy(network).train(), nn.modules.batchnorm._BatchNorm
    kept = [(module, module.momentum) for module in copied.modules() if isinstance(module, norm_type)]
    for norm, _ in kept:
        norm.momentum = 1.0 if _untrained(norm) else 0.0
    random = torch.Generator().manual_seed(2)
    batch = torch.randn((CALIBRATING, *images.shape[1:]), generator=random).to(images.device)
    try:
        with torch.no_grad():
            copied(batch)
    except Exception as error:
        if out_of_memory(error):
            raise
        return network  # what it cannot do in training it may do in inference
    for norm, momentum in kept:
        norm.momentum = momentum
    return copied.eval()


def _untrained(module: Any) -> bool:
    """Whether it is a BatchNorm whose statistics are those it starts with."""
    if not isinstance(module, nn.modules.batchnorm._BatchNorm):
        return False
    mean, variance = module.running_mean, module.running_var
    if mean is None or variance is None:
        return False
    return not mean.any() and torch.equal(variance, torch.ones_like(variance))
