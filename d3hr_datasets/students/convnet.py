"""ConvNet-D, the student of most papers on distilled sets. In: images (B, C, H, W). Out: logits (B, K)."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from d3hr_datasets.errors import ConfigError
from d3hr_datasets.io.extras import needs_extra

with needs_extra("train", "students are networks of timm's registry"):
    from timm.layers import create_act_layer

IMAGENET_SIZE = 224
POOLS = {"avg": nn.AvgPool2d, "max": nn.MaxPool2d}


def normalization(name: str, channels: int) -> nn.Module:
    """Return a normalisation of feature maps: "instance" (affine), "batch" or "none".

    Raises:
        ConfigError: There is no such normalisation.
    """
    if name == "instance":
        return nn.GroupNorm(channels, channels)
    if name == "batch":
        return nn.BatchNorm2d(channels)
    if name == "none":
        return nn.Identity()
    raise ConfigError(f"norm must be one of ['instance', 'batch', 'none'], not {name!r}")


class ConvNet(nn.Module):
    """ConvNet-D: D x (3 x 3 convolution, instance norm, ReLU, 2 x 2 average pool), linear.

    Source: Gidaris & Komodakis (2018), as used by DC (Zhao et al., 2021).

    Args:
        num_classes: Logits; 0 gives the features instead.
        in_chans: Channels of the images.
        img_size: Side of the images; the linear layer depends on it.
        depth: Blocks, each halving the side.
        width: Channels of every block.
        norm: "instance" (affine), "batch" or "none".
        act: Name of an activation in timm.
        pool: "avg" or "max".
        first_padding: Padding of the first convolution. DC pads 28 x 28 images to 32 x 32 with 3.
        drop_rate: Dropout before the linear layer.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        in_chans: int = 3,
        img_size: int | tuple[int, int] = IMAGENET_SIZE,
        depth: int = 3,
        width: int = 128,
        norm: str = "instance",
        act: str = "relu",
        pool: str = "avg",
        first_padding: int = 1,
        drop_rate: float = 0.0,
    ) -> None:
        super().__init__()
        side = (img_size if isinstance(img_size, int) else img_size[0]) + 2 * (first_padding - 1)
        if pool not in POOLS:
            raise ConfigError(f"pool must be one of {sorted(POOLS)}, not {pool!r}")
        if side >> depth < 1:
            raise ConfigError(f"images of side {img_size} are too small for {depth} halvings; lower depth")
        layers: list[nn.Module] = []
        for index in range(depth):
            layers += [
                nn.Conv2d(
                    in_chans if index == 0 else width, width, 3, padding=first_padding if index == 0 else 1
                ),
                normalization(norm, width),
                create_act_layer(act, inplace=True),
                POOLS[pool](2),
            ]
            side //= 2
        self.in_chans, self.drop_rate = in_chans, drop_rate
        self.num_features = self.head_hidden_size = width * side**2
        self.features = nn.Sequential(*layers)
        self.reset_classifier(num_classes)

    def get_classifier(self) -> nn.Module:
        """Return the linear layer."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the linear layer."""
        self.num_classes = num_classes
        self.head = nn.Linear(self.num_features, num_classes) if num_classes > 0 else nn.Identity()

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        """Return the last feature maps (B, width, side, side)."""
        return self.features(images)  # type: ignore[no-any-return]

    def forward_head(self, features: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """Return the logits of feature maps, or with `pre_logits` the flat features."""
        features = F.dropout(features.flatten(1), self.drop_rate, self.training)
        return features if pre_logits else self.head(features)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits (B, num_classes)."""
        return self.forward_head(self.forward_features(images))
