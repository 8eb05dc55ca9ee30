"""The students of the literature that timm does not have, registered in timm's registry.

After `import d3hr_datasets.students.models`, `timm.create_model` knows `convnet3` ... `convnet6`,
`resnet18_modified` and `resnetap10`. In: images (B, C, H, W). Out: logits (B, K).
"""

from __future__ import annotations

import difflib
from typing import Any

import timm
import torch
from timm.layers import create_act_layer
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.resnet import BasicBlock, ResNet
from torch import nn
from torch.nn import functional as F

from d3hr_datasets.errors import ConfigError

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


def _cfg(**values: Any) -> dict[str, Any]:
    return {"url": "", "num_classes": 1000, "classifier": "head", "crop_pct": 1.0, **values}


_SIZED = {"input_size": (3, IMAGENET_SIZE, IMAGENET_SIZE), "fixed_input_size": True}
default_cfgs = generate_default_cfgs(
    {
        **{f"convnet{depth}.untrained": _cfg(first_conv="features.0", **_SIZED) for depth in range(3, 7)},
        "resnet18_modified.untrained": _cfg(first_conv="conv1", classifier="fc", input_size=(3, 32, 32)),
        "resnetap10.untrained": _cfg(first_conv="stem.0", **_SIZED),
    }
)


def _convnet(variant: str, depth: int, pretrained: bool, **kwargs: Any) -> nn.Module:
    model: nn.Module = build_model_with_cfg(ConvNet, variant, pretrained, **{"depth": depth, **kwargs})
    return model


@register_model
def convnet3(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Return ConvNet-3 with instance norm."""
    return _convnet("convnet3", 3, pretrained, **kwargs)


@register_model
def convnet4(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Return ConvNet-4 with instance norm."""
    return _convnet("convnet4", 4, pretrained, **kwargs)


@register_model
def convnet5(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Return ConvNet-5 with instance norm."""
    return _convnet("convnet5", 5, pretrained, **kwargs)


@register_model
def convnet6(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Return ConvNet-6 with instance norm."""
    return _convnet("convnet6", 6, pretrained, **kwargs)


@register_model
def resnet18_modified(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Return ResNet-18 with a 3 x 3 stem and no max pool, for images of 28 to 64 pixels."""
    arguments = {"layers": (2, 2, 2, 2), **kwargs}
    model: nn.Module = build_model_with_cfg(ModifiedResNet, "resnet18_modified", pretrained, **arguments)
    return model


@register_model
def resnetap10(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Return ResNetAP-10 with instance norm."""
    model: nn.Module = build_model_with_cfg(ResNetAP, "resnetap10", pretrained, **kwargs)
    return model


def create_student(
    name: str, num_classes: int, in_chans: int, image_size: int, arguments: dict[str, Any] | None = None
) -> nn.Module:
    """Return an untrained model of timm's registry for square images.

    Args:
        name: Any name that timm knows, those of this module among them.
        num_classes: Logits.
        in_chans: Channels of the images.
        image_size: Side of the images, given to models that are made for one size (`fixed_input_size`).
        arguments: Further arguments of the model.

    Raises:
        ConfigError: timm knows no such model, or the model does not take the arguments.
    """
    cfg = timm.get_pretrained_cfg(name)
    if not timm.is_model(name) or cfg is None:
        close = difflib.get_close_matches(name, timm.list_models())
        raise ConfigError(f"timm knows no model {name!r}; similar: {close or 'none'}; see timm.list_models()")
    sized = {"img_size": image_size} if cfg.fixed_input_size else {}
    overlay = {"input_size": (in_chans, image_size, image_size)}  # what an export says of the model
    try:
        model: nn.Module = timm.create_model(
            name,
            num_classes=num_classes,
            in_chans=in_chans,
            pretrained_cfg_overlay=overlay,
            **{**sized, **(arguments or {})},
        )
    except TypeError as error:
        raise ConfigError(f"{name} does not take {arguments}: {error}") from error
    return model
