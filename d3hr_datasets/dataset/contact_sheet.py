"""Images side by side: PIL images of one size -> one picture of them all, in white gaps."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image


def contact_sheet(images: Sequence[Image.Image], columns: int, gap: int = 2) -> Image.Image:
    """Return images as one, row by row; a single one as it is.

    Args:
        images: At least one, of the size and mode of the first.
        columns: Images in a row; a sheet of fewer is as wide as they are.
        gap: Pixels between images and around them.
    """
    first = images[0]
    if len(images) == 1:
        return first
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    width, height = first.width + gap, first.height + gap
    sheet = Image.new(first.mode, (columns * width + gap, rows * height + gap), "white")
    for index, image in enumerate(images):
        row, column = divmod(index, columns)
        sheet.paste(image, (gap + column * width, gap + row * height))
    return sheet
