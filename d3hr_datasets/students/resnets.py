"""The ResNets that timm does not have, for small images. In: images (B, C, H, W). Out: logits (B, K)."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from d3hr_datasets.io.extras import needs_extra
from d3hr_datasets.students.convnet import IMAGENET_SIZE, normalization

with needs_extra("train", "students are networks of timm's registry"):
    from timm.models.resnet import BasicBlock, ResNet


class AveragePoolBlock(nn.Module):
    """A residual block of two 3 x 3 convolutions that halves the side by average pooling, not by stride."""

    def __init__(self, inputs: int, outputs: int, stride: int, norm: str) -> None:
        super().__init__()
        self.stride = stride
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=norm == "none")
        self.norm1 = normalization(norm, outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=norm == "none")
        self.norm2 = normalization(norm, outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, bias=norm == "none"),
                nn.AvgPool2d(stride),
                normalization(norm, outputs),
            )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return feature maps (B, outputs, H / stride, W / stride)."""
        hidden = F.avg_pool2d(F.relu(self.norm1(self.conv1(images))), self.stride)
        return F.relu(self.norm2(self.conv2(hidden)) + self.shortcut(images))


class ResNetAP(nn.Module):
    """ResNet with average pooling in place of strides, and instance norm.

    Source: IDC (Kim et al., 2022); Minimax Diffusion (Gu et al., 2024) trains ResNetAP-10.

    Args:
        num_classes: Logits; 0 gives the features instead.
        in_chans: Channels of the images.
        img_size: Side of the images, which chooses the stem: up to 64 a 3 x 3 convolution, up to 128 the same
            and a 2 x 2 average pool, above a 7 x 7 convolution and a 4 x 4 average pool.
        layers: Blocks in each of the four stages, (1, 1, 1, 1) for ResNetAP-10.
        width: Channels of the first stage; each further one has twice as many.
        norm: "instance" (affine), "batch" or "none".
        drop_rate: Dropout before the linear layer.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        in_chans: int = 3,
        img_size: int | tuple[int, int] = IMAGENET_SIZE,
        layers: tuple[int, ...] = (1, 1, 1, 1),
        width: int = 64,
        norm: str = "instance",
        drop_rate: float = 0.0,
    ) -> None:
        super().__init__()
        side = img_size if isinstance(img_size, int) else img_size[0]
        kernel, pool = (3, 1) if side <= 64 else (3, 2) if side <= 128 else (7, 4)
        self.stem = nn.Sequential(
            nn.Conv2d(in_chans, width, kernel, padding=kernel // 2, bias=norm == "none"),
            normalization(norm, width),
            nn.ReLU(inplace=True),
            nn.AvgPool2d(pool),
        )
        blocks: list[nn.Module] = []
        inputs = width
        for stage, count in enumerate(layers):
            for index in range(count):
                stride = 2 if stage > 0 and index == 0 else 1
                blocks.append(AveragePoolBlock(inputs, width << stage, stride, norm))
                inputs = width << stage
        self.blocks = nn.Sequential(*blocks)
        self.num_features = self.head_hidden_size = inputs
        self.in_chans, self.drop_rate = in_chans, drop_rate
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        self.reset_classifier(num_classes)

    def get_classifier(self) -> nn.Module:
        """Return the linear layer."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the linear layer."""
        self.num_classes = num_classes
        self.head = nn.Linear(self.num_features, num_classes) if num_classes > 0 else nn.Identity()

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        """Return the last feature maps (B, 8 * width, h, w)."""
        return self.blocks(self.stem(images))  # type: ignore[no-any-return]

    def forward_head(self, features: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """Return the logits of feature maps, or with `pre_logits` their average (B, 8 * width)."""
        features = F.dropout(features.mean(dim=(2, 3)), self.drop_rate, self.training)
        return features if pre_logits else self.head(features)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits (B, num_classes)."""
        return self.forward_head(self.forward_features(images))


class ModifiedResNet(ResNet):
    """A ResNet for small images: a 3 x 3 stem of stride 1 and no max pool. `width` scales its channels."""

    def __init__(self, width: int = 64, **kwargs: Any) -> None:
        channels = tuple(width << stage for stage in range(4))
        # A deep stem, since only that has other widths than 64; its convolutions are replaced.
        arguments = {"zero_init_last": False, **kwargs, "stem_type": "deep", "stem_width": width // 2}
        super().__init__(BasicBlock, channels=channels, **arguments)  # type: ignore[arg-type]
        stem = nn.Conv2d(kwargs.get("in_chans", 3), width, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")
        self.conv1 = stem  # type: ignore[assignment]
        self.maxpool = nn.Identity()  # type: ignore[assignment]
