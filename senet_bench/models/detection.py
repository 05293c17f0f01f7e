"""Faster R-CNN (Ren et al., arXiv 1506.01497) on our ResNets, made of torchvision's detection parts.

Two heads: `fpn`, a feature pyramid (Lin et al., arXiv 1612.03144) with a box head of two FCs, and `c4`, proposals on
stage 4 and stage 5 as the box head (He et al., arXiv 1512.03385, appendix A). Settings are those of Detectron, which
the paper follows (section 5.3); its BatchNorms are frozen affine maps, so are the trunk's here.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool
from torchvision.ops.misc import FrozenBatchNorm2d

from senet_bench.models.attention import Attend
from senet_bench.models.resnet import ResidualUnit, ResNet

Target = dict[str, Tensor]
DIVISOR = 32
PROPOSALS = 1000
ANCHORS = (32, 64, 128, 256, 512)
RATIOS = (0.5, 1.0, 2.0)
BRANCH_SCALE = 0.25
"""Last BatchNorm weight of each branch of a trunk without weights, which would else grow with its depth."""


class Trunk(nn.Module):
    """The stem and the first stages of a ResNet, BatchNorm frozen; (N, C, H, W) to the maps of `returned` stages."""

    def __init__(self, network: ResNet, returned: tuple[int, ...]) -> None:
        super().__init__()
        self.stem = network.stem
        self.stages = network.stages[: returned[-1] - 1]
        self.returned = returned
        self.out_channels = widths(network)[returned[-1] - 2]

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        """The maps by their number from "0", as torchvision's parts name them."""
        x = self.stem(x)
        maps: OrderedDict[str, Tensor] = OrderedDict()
        for number, stage in enumerate(self.stages, 2):
            x = stage(x)
            if number in self.returned:
                maps[str(len(maps))] = x
        return maps


class Pyramid(nn.Module):
    """A trunk (`body`) and the pyramid over its stages 2 to 5, with a fifth, coarser map for the proposals."""

    def __init__(self, network: ResNet, channels: int = 256) -> None:
        super().__init__()
        self.body = Trunk(network, (2, 3, 4, 5))
        self.fpn = FeaturePyramidNetwork(widths(network), channels, extra_blocks=LastLevelMaxPool())
        self.out_channels = channels

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        """(N, C, H, W) to maps of 256 channels with strides 4 to 64."""
        return self.fpn(self.body(x))  # type: ignore[no-any-return]


class StageHead(nn.Module):
    """Stage 5 as a box head: (R, C, 14, 14) to the mean over its 7x7 map, (R, 2 C)."""

    def __init__(self, stage: nn.Module) -> None:
        super().__init__()
        self.stage = stage

    def forward(self, x: Tensor) -> Tensor:
        """The features of each box."""
        return self.stage(x).mean((2, 3))  # type: ignore[no-any-return]


class FasterRCNN(nn.Module):
    """Trunk, proposals, boxes. Images come normalised and scaled, boxes (N, 4) in pixels of those images.

    In training it maps images and their targets (`boxes`, and `labels` from 1) to its four losses; in evaluation
    images to their detections (`boxes`, `labels`, `scores`, at most 100).
    """

    def __init__(self, backbone: Trunk | Pyramid, rpn: RegionProposalNetwork, roi_heads: RoIHeads) -> None:
        super().__init__()
        self.backbone = backbone
        self.rpn = rpn
        self.roi_heads = roi_heads

    @property
    def trunk(self) -> Trunk:
        """The classifier's stages below the heads."""
        return self.backbone if isinstance(self.backbone, Trunk) else self.backbone.body

    def forward(self, images: Tensor | Sequence[Tensor], targets: list[Target] | None = None) -> Any:
        """Images, (N, C, H, W) or a list of (C, H, W), to losses or detections."""
        batch = padded(images)
        features = self.backbone(batch.tensors)
        proposals, losses = self.rpn(batch, features, targets)
        detections, box_losses = self.roi_heads(features, proposals, batch.image_sizes, targets)
        return {**losses, **box_losses} if self.training else detections

    def train(self, mode: bool = True) -> FasterRCNN:
        """Training mode, in which a BatchNorm that an attention block brought along keeps its statistics."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self

    def freeze(self, stage: int) -> None:
        """Train neither the stem nor the stages up to `stage` (Detectron's FREEZE_AT; 0 trains all)."""
        parts = [self.trunk.stem, *self.trunk.stages[: max(0, stage - 1)]] if stage else []
        for part in parts:
            part.requires_grad_(False)

    def initialise(self) -> None:
        """Start values where nothing is loaded: He's for the trunk, torchvision's for its own parts."""
        from senet_bench.models import initialise

        head = self.roi_heads.box_head
        for part in (self.trunk, *([head] if isinstance(head, StageHead) else [])):
            initialise(part)
            for unit in part.modules():
                if isinstance(unit, ResidualUnit):
                    nn.init.constant_(unit.branch[-1].weight, BRANCH_SCALE)  # type: ignore[arg-type]

    def with_fixed_proposals(self, *, dense: bool = False) -> FixedProposals:
        """The detector, sharing its weights, doing the same work whatever its weights and images are."""
        return FixedProposals(self, dense)


class FixedProposals(nn.Module):
    """A detector in evaluation whose box head always looks at the same 1,000 boxes of an image.

    The boxes that an untrained network proposes say nothing about a trained one's work. Everything else runs
    as it does: proposals are made, and thrown away. With `dense`, what only selects and samples (anchors, NMS,
    RoIAlign) is left out: the multiply-adds are all in what remains.
    """

    spread: Tensor
    waits_for_device = True
    """How many boxes NMS leaves is asked of the device in the middle of a call."""

    def __init__(self, detector: FasterRCNN, dense: bool) -> None:
        super().__init__()
        self.detector = detector
        self.dense = dense
        self.register_buffer("spread", None if dense else spread_boxes(), persistent=False)
        self.train(False)

    def train(self, mode: bool = True) -> FixedProposals:
        """Evaluation mode always: training needs targets."""
        return super().train(False)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """(N, C, H, W) to the box head's class logits (N 1000, classes + 1) and box deltas (N 1000, 4 classes + 4).

        With `dense`, the proposal head's logits and deltas of every map follow.
        """
        batch, heads = padded(images), self.detector.roi_heads
        features = self.detector.backbone(batch.tensors)
        count = len(images) * PROPOSALS
        if self.dense:
            objectness, moves = self.detector.rpn.head(list(features.values()))
            side = heads.box_roi_pool.output_size[0]
            crops = images.new_zeros((count, self.detector.backbone.out_channels, side, side))
        else:
            self.detector.rpn(batch, features)
            height, width = batch.image_sizes[0]
            boxes = [boxes_over(height, width, self.spread).to(images)] * len(images)
            crops = heads.box_roi_pool(features, boxes, batch.image_sizes)
        logits, deltas = heads.box_predictor(heads.box_head(crops))
        if self.dense:
            return logits, deltas, *objectness, *moves
        heads.postprocess_detections(logits, deltas, boxes, batch.image_sizes)
        return logits, deltas


def spread_boxes() -> Tensor:
    """1,000 boxes spread over an image, with sides of 1/16 to 1/2 of it as proposals have, as fractions of its sides.

    (1000, 2, 2): left and top, right and bottom.
    """
    index = torch.arange(PROPOSALS, dtype=torch.float32)
    golden = (math.sqrt(5) - 1) / 2
    across, down = (index * golden) % 1, (index + 0.5) / PROPOSALS
    side = 2.0 ** (-1 - index % 4)
    first = torch.stack([across * (1 - side), down * (1 - side)], dim=1)
    return torch.stack([first, first + side[:, None]], dim=1)


def boxes_over(height: int, width: int, spread: Tensor) -> Tensor:
    """Boxes from `spread_boxes` in pixels of an image, (1000, 4), where they are: no call waits for the host's."""
    return torch.stack([spread[..., 0] * width, spread[..., 1] * height], dim=2).flatten(1)


def padded(images: Tensor | Sequence[Tensor]) -> ImageList:
    """One batch of images of several sizes: zeros right and below, to the largest, in multiples of 32."""
    sizes = [(int(image.shape[-2]), int(image.shape[-1])) for image in images]
    height, width = (max(side) + -max(side) % DIVISOR for side in zip(*sizes))
    if isinstance(images, Tensor) and sizes[0] == (height, width):
        return ImageList(images, sizes)
    filled = [F.pad(image, (0, width - w, 0, height - h)) for image, (h, w) in zip(images, sizes)]
    return ImageList(torch.stack(filled), sizes)


def widths(network: ResNet) -> list[int]:
    """Channels that each stage of a ResNet returns."""
    return [int(stage[-1].branch[-2].out_channels) for stage in network.stages]  # type: ignore[index]


def frozen(network: nn.Module) -> nn.Module:
    """The network, its two-dimensional BatchNorms replaced in place by affine maps of the same tensors.

    Those of attention blocks stay: what is not of the trunk has to be learnt.
    """
    for name, child in network.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(network, name, FrozenBatchNorm2d(child.num_features, child.eps))
        elif not hasattr(child, "attention_place"):
            frozen(child)
    return network


def faster_rcnn(
    attend: Attend, *, classes: int, in_channels: int, head: Literal["fpn", "c4"], **trunk: Any
) -> FasterRCNN:
    """Faster R-CNN for `classes` kinds of object on the ResNet that the options `trunk` describe."""
    network = ResNet(attend, classes=1, in_channels=in_channels, **trunk)
    frozen(network)
    if head == "fpn":
        backbone: Trunk | Pyramid = Pyramid(network)
        anchors = AnchorGenerator(tuple((size,) for size in ANCHORS), (RATIOS,) * len(ANCHORS))
        pool = MultiScaleRoIAlign(["0", "1", "2", "3"], output_size=7, sampling_ratio=2)
        box_head: nn.Module = TwoMLPHead(backbone.out_channels * 49, 1024)
        features, kept = 1024, {"training": 2000, "testing": 1000}
    else:
        backbone = Trunk(network, (4,))
        anchors = AnchorGenerator((ANCHORS,), (RATIOS,))
        pool = MultiScaleRoIAlign(["0"], output_size=14, sampling_ratio=0)
        box_head = StageHead(network.stages[3])
        features, kept = widths(network)[3], {"training": 12000, "testing": 6000}
    rpn = RegionProposalNetwork(
        anchors,
        RPNHead(backbone.out_channels, anchors.num_anchors_per_location()[0]),
        fg_iou_thresh=0.7,
        bg_iou_thresh=0.3,
        batch_size_per_image=256,
        positive_fraction=0.5,
        pre_nms_top_n=kept,
        post_nms_top_n={"training": 2000, "testing": PROPOSALS},
        nms_thresh=0.7,
    )
    roi_heads = RoIHeads(
        pool,
        box_head,
        FastRCNNPredictor(features, classes + 1),
        fg_iou_thresh=0.5,
        bg_iou_thresh=0.5,
        batch_size_per_image=512,
        positive_fraction=0.25,
        bbox_reg_weights=None,
        score_thresh=0.05,
        nms_thresh=0.5,
        detections_per_img=100,
    )
    return FasterRCNN(backbone, rpn, roi_heads)
