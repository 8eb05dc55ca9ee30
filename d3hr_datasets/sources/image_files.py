"""An image file, or one that is open -> its image: the one place where files of images are opened."""

from __future__ import annotations

from pathlib import Path
from typing import IO

from PIL import Image

from d3hr_datasets.io.untrusted_files import open_file

# The formats that images of data sets have. Pillow has others, some of which run programs (EPS: Ghostscript).
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "PPM", "TIFF", "GIF", "AVIF", "JPEG2000")
MAX_IMAGE_BYTES = 2**30


def open_image(source: Path | IO[bytes]) -> Image.Image:
    """Read an image in its own mode: torchvision's loader clips 16 bits per channel to 8.

    Args:
        source: A file, or one that is open.

    Raises:
        ForeignFileError: It is no regular file.
        OSError: It is none of `FORMATS`, or damaged; likewise all that Pillow raises.
    """
    if isinstance(source, Path):
        with open_file(source, MAX_IMAGE_BYTES) as file:
            return open_image(file)
    Image.init()
    image = Image.open(source, formats=[name for name in FORMATS if name in Image.OPEN])
    image.load()
    return image


def file_state(path: Path) -> str:
    """Return size and time of change of a file, which tell whether it has been replaced."""
    try:
        status = path.stat()
    except OSError:
        return "missing"  # reading it will say so
    return f"{status.st_size} {status.st_mtime_ns}"
