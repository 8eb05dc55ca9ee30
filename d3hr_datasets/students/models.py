"""A name -> an untrained student of timm's registry, to which those of the literature are added.

After `import d3hr_datasets.students.models`, `timm.create_model` knows `convnet3` ... `convnet6`,
`resnet18_modified` and `resnetap10`. In: images (B, C, H, W). Out: logits (B, K).
"""

from __future__ import annotations

import difflib
from typing import Any

from torch import nn

from d3hr_datasets.errors import ConfigError
from d3hr_datasets.io.extras import needs_extra
from d3hr_datasets.students.convnet import IMAGENET_SIZE, ConvNet
from d3hr_datasets.students.resnets import ModifiedResNet, ResNetAP

with needs_extra("train", "students are networks of timm's registry"):
    import timm
    from timm.models import build_model_with_cfg, generate_default_cfgs, register_model


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
