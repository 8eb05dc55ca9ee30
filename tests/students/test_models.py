"""Students' networks: those of the literature, in timm's registry."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch

from d3hr_datasets.errors import ConfigError
from d3hr_datasets.students.models import create_student


@pytest.mark.parametrize(
    ("name", "channels", "size", "arguments", "parameters"),
    [
        # DC's ConvNet-3 of width 128: convolutions, affine instance norms and a linear layer.
        ("convnet3", 1, 28, {}, 10 * 128 + 2 * (1152 + 1) * 128 + 3 * 256 + (128 * 9 + 1) * 10),
        ("convnet3", 1, 28, {"first_padding": 3}, 10 * 128 + 2 * 1153 * 128 + 3 * 256 + (128 * 16 + 1) * 10),
        ("convnet6", 3, 64, {"width": 4}, 28 * 4 + 5 * 37 * 4 + 6 * 8 + 5 * 10),
        ("resnet18_modified", 3, 32, {}, 11_173_962),  # as published for 10 classes
        ("resnetap10", 3, 32, {}, 4_903_242),
    ],
)
def test_models_are_the_published_ones(
    name: str, channels: int, size: int, arguments: dict[str, Any], parameters: int
) -> None:
    model = create_student(name, 10, channels, size, arguments)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    images = torch.randn(2, channels, size, size)
    assert model(images).shape == (2, 10)
    features = model.forward_head(model.forward_features(images), pre_logits=True)  # type: ignore[operator]
    assert features.shape == (2, model.num_features)


def test_timm_knows_the_models_and_unknown_ones_are_refused() -> None:
    assert {"convnet3", "convnet4", "convnet5", "convnet6", "resnet18_modified", "resnetap10"} <= set(
        timm.list_models()
    )
    with pytest.raises(ConfigError, match=r"no model 'convnet9'; similar: .*convnet"):
        create_student("convnet9", 10, 1, 28)
    with pytest.raises(ConfigError, match="convnet3 does not take"):
        create_student("convnet3", 10, 1, 28, {"height": 3})
    with pytest.raises(ConfigError, match="too small for 3 halvings"):
        create_student("convnet3", 10, 1, 7)
