"""Images side by side as one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PIL import Image

from d3hr_datasets.errors import ConfigError

if TYPE_CHECKING:
    from d3hr_datasets.dataset.dataset import D3HRDataset


def contact_sheet(dataset: D3HRDataset) -> Image.Image:
    """Return all images of a data set as one, one class a row."""
    first = dataset.cache.read(0, 0)
    if first is None:
        raise ConfigError("the data set has no images yet; call materialize()")
    step = first.width + 2
    size = (dataset.ipc * step + 2, len(dataset.classes) * step + 2)
    sheet = Image.new(first.mode, size, "white")
    for index in range(len(dataset)):
        row, column = divmod(index, dataset.ipc)
        image = dataset.cache.read(row, column)
        if image is not None:
            sheet.paste(image, (2 + column * step, 2 + row * step))
    return sheet
