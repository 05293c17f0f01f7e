from __future__ import annotations

import pytest
import torch
from torch import nn

from senet_bench.bench.count import weight_bytes
from senet_bench.bench.device import peak_memory
from senet_bench.errors import MeasurementError

MEGA = 1024 * 1024


def test_the_peak_is_what_the_call_held_at_most() -> None:
    def call() -> object:
        first = torch.empty(MEGA)
        second = torch.empty(MEGA)
        del first
        return torch.empty(MEGA // 2), second

    assert peak_memory(call).bytes == 2 * 4 * MEGA


def test_what_was_there_before_does_not_count() -> None:
    x = torch.ones(MEGA)
    assert peak_memory(lambda: x.add_(1)).bytes < 1024


def test_the_same_call_has_the_same_peak() -> None:
    network, x = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 4, 3)), torch.ones(2, 3, 32, 32)
    peaks = {peak_memory(lambda: network(x)).bytes for _ in range(3)}
    assert len(peaks) == 1
    assert peaks.pop() > 2 * 16 * 30 * 30 * 4


def test_the_method_is_named() -> None:
    assert peak_memory(lambda: None).method == "CPU allocator trace"


def test_weights_count_parameters_and_buffers() -> None:
    assert weight_bytes(nn.BatchNorm2d(8)) == 4 * 8 * 4 + 8
    assert weight_bytes(nn.BatchNorm2d(8), torch.bfloat16) == 4 * 8 * 2 + 8
    assert weight_bytes(nn.BatchNorm2d(8).bfloat16(), torch.bfloat16) == 4 * 8 * 2 + 8


def test_a_device_without_an_allocator_to_ask_is_an_error() -> None:
    with pytest.raises(MeasurementError, match="meta"):
        peak_memory(lambda: None, "meta")


def test_nothing_is_logged_past_python(capfd: pytest.CaptureFixture[str]) -> None:
    peak_memory(lambda: torch.ones(3))
    assert capfd.readouterr().err == ""
