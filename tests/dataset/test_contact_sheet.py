"""Images side by side are what torchvision's grid makes of them, in their own mode."""

from __future__ import annotations

import pytest
import torch
from PIL import Image
from torchvision.transforms.v2.functional import pil_to_tensor, to_pil_image
from torchvision.utils import make_grid

from d3hr_datasets.dataset.contact_sheet import contact_sheet


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize(("count", "columns", "gap"), [(1, 10, 1), (3, 10, 1), (12, 5, 2), (6, 3, 0)])
def test_a_sheet_is_the_grid_of_torchvision(mode: str, count: int, columns: int, gap: int) -> None:
    channels = {"L": 1, "RGB": 3}[mode]
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (count, channels, 5, 7), dtype=torch.uint8, generator=generator)
    sheet = contact_sheet([to_pil_image(image) for image in pixels], columns, gap)
    expected = make_grid(pixels.expand(-1, 3, -1, -1), nrow=columns, padding=gap, pad_value=255)
    assert sheet.mode == mode and isinstance(sheet, Image.Image)
    assert torch.equal(pil_to_tensor(sheet.convert("RGB")), expected)
