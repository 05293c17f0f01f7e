"""Relatives of SE, each from its own paper: controls for what SE gains, placed wherever SE may go.

Each maps (N, C, H, W) to the same shape and is made as `Class(channels, **options)`, the protocol that blocks
from outside follow too. A `reduction` among the parameters is the stage's r. Made as an `identity`, a block gives its
input until it is trained, for networks that are trained already: its last layer starts at zero, where a sigmoid is 1/2,
and its gate is twice the sigmoid. `restart` puts it there again.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from senet_bench.errors import UsageError


def hidden_channels(channels: int, reduction: int, divisor: int = 1, least: int = 0) -> int:
    """C/r rounded down, or with a `divisor` to its nearest multiple, at least that and at most 10 % below C/r.

    The second is MobileNet's `make_divisible(C // r, divisor)`. It is never below `least`; without that, an r larger
    than C is a `UsageError`.
    """
    hidden = max(channels // reduction, least)
    if hidden < 1:
        raise UsageError(
            f"reduction {reduction} is larger than the {channels} channels it meets",
            f"use a reduction of at most {channels}, or --attention se/min_width=1",
        )
    rounded = hidden if divisor == 1 else make_divisible(hidden, divisor)
    return rounded if rounded >= least else rounded + divisor


def make_divisible(channels: int, divisor: int = 8) -> int:
    """The nearest multiple of `divisor`, at least one of it, and not less than 90 % of `channels`."""
    nearest = max(divisor, (2 * channels + divisor) // (2 * divisor) * divisor)
    return nearest if 10 * nearest >= 9 * channels else nearest + divisor


def twice_sigmoid(z: Tensor) -> Tensor:
    """A gate between 0 and 2 that is 1 where nothing speaks for or against a channel."""
    return 2 * torch.sigmoid(z)


def twice_hardsigmoid(z: Tensor) -> Tensor:
    """The same of a hard sigmoid."""
    return 2 * F.hardsigmoid(z)


class FromIdentity(nn.Module):
    """Any block as one that starts as the identity: x + a (block(x) - x), with a learned number a that starts at 0.

    One that writes over its map is given a copy of it (`copies`).
    """

    def __init__(self, block: nn.Module, *, copies: bool = False) -> None:
        super().__init__()
        self.block = block
        self.copies = copies
        self.share = nn.Parameter(torch.zeros(1))

    def restart(self) -> None:
        """Be the identity again; the block stays as it is."""
        nn.init.zeros_(self.share)

    def forward(self, x: Tensor) -> Tensor:
        """The map, moved as far as was learnt towards what the block makes of it."""
        return x + self.share * (self.block(x.clone() if self.copies else x) - x)  # type: ignore[no-any-return]


class EfficientChannelAttention(nn.Module):
    """ECA (Wang et al., arXiv 1910.03151, equations 7, 9 and 12): neighbouring channels gate each other.

    x * sigmoid(w * gap(x)), w a kernel of k taps along the channels, k the odd number that follows
    (log2(C) + 1) / 2 rounded down, at least 3 (as timm has it; it matters below 8 channels). Adds k parameters.
    `kernel` sets another k.
    """

    def __init__(self, channels: int, *, kernel: int = 0, identity: bool = False) -> None:
        super().__init__()
        self.gate = twice_sigmoid if identity else torch.sigmoid
        kernel = kernel or max(3, int((math.log2(channels) + 1) / 2) // 2 * 2 + 1)
        self.conv = nn.Conv1d(1, 1, kernel, padding=kernel // 2, bias=False)

    def restart(self) -> None:
        """Let every gate be what it is of nothing."""
        nn.init.zeros_(self.conv.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Equation 7."""
        return x * self.gate(self.conv(x.mean((2, 3)).unsqueeze(1))).transpose(1, 2).unsqueeze(3)


class CBAM(nn.Module):
    """CBAM (Woo et al., arXiv 1807.06521, equations 1 to 3): channels first, then places.

    x' = x * sigmoid(W1 relu(W0 avg(x)) + W1 relu(W0 max(x))), x'' = x' * sigmoid(BN(f([avg(x'); max(x')]))), where
    the first pools go over space, the second over channels, and f is a 7x7 convolution. W0 and W1 have no
    bias, and f is followed by the BatchNorm of the authors' code, both as timm has them. Adds 2 C (C/r) + 2 k^2 + 2.
    """

    def __init__(self, channels: int, *, reduction: int = 16, kernel: int = 7, identity: bool = False) -> None:
        super().__init__()
        self.gate = twice_sigmoid if identity else torch.sigmoid
        hidden = hidden_channels(channels, reduction)
        self.fc1 = nn.Linear(channels, hidden, bias=False)
        self.fc2 = nn.Linear(hidden, channels, bias=False)
        self.conv = nn.Conv2d(2, 1, kernel, padding=kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(1)

    def restart(self) -> None:
        """Let the gates of channels and places be what they are of nothing."""
        for tensor in (self.fc2.weight, self.norm.weight, self.norm.bias):
            nn.init.zeros_(tensor)

    def _mlp(self, z: Tensor) -> Tensor:
        return self.fc2(torch.relu(self.fc1(z)))  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        """Equations 2 and 3, in that order."""
        x = x * self.gate(self._mlp(x.mean((2, 3))) + self._mlp(x.amax((2, 3)))).unsqueeze(2).unsqueeze(3)
        pooled = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        return x * self.gate(self.norm(self.conv(pooled)))


class EffectiveSE(nn.Module):
    """eSE (Lee and Park, arXiv 1911.06667, equations 3 and 4): SE with one FC, so that no channel is squeezed away.

    x * hardsigmoid(W gap(x) + b), W of shape (C, C). Adds C^2 + C.
    """

    def __init__(self, channels: int, *, identity: bool = False) -> None:
        super().__init__()
        self.gate = twice_hardsigmoid if identity else F.hardsigmoid
        self.fc = nn.Linear(channels, channels)

    def restart(self) -> None:
        """Let every gate be what it is of nothing."""
        nn.init.zeros_(self.fc.weight)
        nn.init.zeros_(self.fc.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Equation 4."""
        return x * self.gate(self.fc(x.mean((2, 3)))).unsqueeze(2).unsqueeze(3)


class GatherExcite(nn.Module):
    """Gather-Excite (Hu et al., arXiv 1810.12348, sections 3 and 4): x * sigmoid(excite(gather(x))).

    Theta-minus gathers by an average over `extent` x `extent` neighbourhoods (window 2 e - 1, stride e; 0 is the
    whole map) and excites by resizing alone: no parameters. With `learned`, GE-theta, the gathering is log2(e)
    depthwise 3x3 convolutions of stride 2 with BatchNorm, ReLU between them: 11 C log2(e) parameters. With
    `mlp` too, GE-theta-plus, SE's two layers follow it as 1x1 convolutions: 2 C (C/r) + C + C/r more. What is
    gathered is resized to the map's size by its nearest neighbours.

    The learned gathering of the whole map is a convolution as large as the map, which ties a network to one image
    size, and is not offered: the learned kinds have extent 8 unless set.

    Theta-minus has no layer that could start at zero: as an `identity` it is mixed with its input by a learned share
    that starts at 0, as `FromIdentity` has it.
    """

    def __init__(
        self,
        channels: int,
        *,
        extent: int = 0,
        learned: bool = False,
        mlp: bool = False,
        reduction: int = 16,
        identity: bool = False,
    ) -> None:
        super().__init__()
        self.gate = twice_sigmoid if identity and (learned or mlp) else torch.sigmoid
        self.share = nn.Parameter(torch.zeros(1)) if identity and not (learned or mlp) else None
        if learned and not extent:
            raise UsageError("learned gathering needs an extent", "use 2, 4 or 8")
        self.extent = extent
        self.gather = _learned_gathering(channels, extent) if learned else None
        if mlp:
            hidden = hidden_channels(channels, reduction)
            layers = (nn.Conv2d(channels, hidden, 1), nn.ReLU(inplace=True), nn.Conv2d(hidden, channels, 1))
            self.excite: nn.Module = nn.Sequential(*layers)
        else:
            self.excite = nn.Identity()

    def restart(self) -> None:
        """Let every gate be what it is of nothing, or no share of it count."""
        last = self.excite[-1] if isinstance(self.excite, nn.Sequential) else self.gather[-1] if self.gather else None
        for parameter in [self.share] if last is None else last.parameters():
            if parameter is not None:
                nn.init.zeros_(parameter)

    def gathered(self, x: Tensor) -> Tensor:
        """Equation 1: (N, C, H, W) to (N, C, H / e, W / e), rounded up."""
        if self.gather is not None:
            return self.gather(x)  # type: ignore[no-any-return]
        if not self.extent:
            return x.mean((2, 3), keepdim=True)
        window = 2 * self.extent - 1
        return F.avg_pool2d(x, window, self.extent, window // 2, count_include_pad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Equation 2."""
        gate = self.excite(self.gathered(x))
        if self.extent:
            gate = F.interpolate(gate, size=x.shape[-2:])
        gated = x * self.gate(gate)
        return gated if self.share is None else x + self.share * (gated - x)


def _learned_gathering(channels: int, extent: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(extent.bit_length() - 1):
        conv = nn.Conv2d(channels, channels, 3, 2, 1, groups=channels, bias=False)
        layers += [conv, nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers[:-1])


class StyleRecalibration(nn.Module):
    """SRM (Lee et al., arXiv 1903.10829, equations 1 to 6): each channel's mean and deviation gate it.

    x * sigmoid(BN(w_c . [mean(x_c), std(x_c)])), w one pair for each channel. Adds 2 C and the BatchNorm's 2 C. The
    weights start at 0, as in the authors' code, so that every gate starts at 1/2. `eps` is added to the variance.
    """

    def __init__(self, channels: int, *, eps: float = 1e-5, identity: bool = False) -> None:
        super().__init__()
        self.eps = eps
        self.gate = twice_sigmoid if identity else torch.sigmoid
        self.weigh = nn.Conv1d(channels, channels, 2, groups=channels, bias=False)
        self.norm = nn.BatchNorm1d(channels)
        self.restart()

    def restart(self) -> None:
        """Let every gate be what it is of nothing."""
        nn.init.zeros_(self.weigh.weight)
        nn.init.zeros_(self.norm.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Equations 1 to 6."""
        mean = x.mean((2, 3), keepdim=True)
        deviation = ((x - mean).square().mean((2, 3), keepdim=True) + self.eps).sqrt()
        style = torch.cat([mean, deviation], 3).squeeze(2)
        return x * self.gate(self.norm(self.weigh(style))).unsqueeze(3)


class GatedChannelTransformation(nn.Module):
    """GCT (Yang et al., arXiv 1909.11519, equations 2 to 4): channels compete by their norms.

    s_c = alpha_c ||x_c||, n_c = s_c sqrt(C) / ||s||, and x_c * (1 + tanh(gamma_c n_c + beta_c)), with the 2-norms over
    space and over channels and `eps` inside their roots. Adds 3 C. alpha starts at 1, gamma and beta at 0: the
    block starts as the identity.
    """

    def __init__(self, channels: int, *, eps: float = 1e-5, identity: bool = True) -> None:
        super().__init__()
        self.eps = eps
        self.alpha = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.gamma = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.beta = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def restart(self) -> None:
        """Be the identity again."""
        nn.init.zeros_(self.gamma)
        nn.init.zeros_(self.beta)

    def forward(self, x: Tensor) -> Tensor:
        """Equations 2 to 4."""
        return x * (1 + torch.tanh(self.gamma * _competition(x, self.alpha, self.eps) + self.beta))


@fx.wrap
def _competition(x: Tensor, alpha: Tensor, eps: float) -> Tensor:
    """The normed embedding of GCT, (N, C, 1, 1); of half precision it is made in single: squares overflow."""
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    embedding = alpha.to(wide.dtype) * (wide.square().sum((2, 3), keepdim=True) + eps).sqrt()
    return (embedding / (embedding.square().mean(1, keepdim=True) + eps).sqrt()).to(x.dtype)
