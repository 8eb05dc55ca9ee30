"""A file of tensors that anybody wrote -> images, and labels where it has some.

In: a `.pt` or `.pth` file of `torch.save`, of which tensors alone are read, or a `.safetensors` file. Out:
images as they are stored, and integer labels. These layouts are known:

- a dict (all that safetensors has) with the images under one of `IMAGES` and the labels under one of `LABELS`
- a pair (images, labels)
- {"data": [[images, labels], ...]}, as DC and DSA save their images; the last entry counts
- images alone, (N, C, H, W) or (K, N / K, C, H, W). They have no labels: whoever reads them has to know that
  they are in the order of the classes, as many of each
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from d3hr_datasets.diffusion.untrusted_models import check_torch_file
from d3hr_datasets.errors import ArtifactFormatError, ForeignFileError, SourceError
from d3hr_datasets.io.text import printable
from d3hr_datasets.io.untrusted_files import check_file, open_file, read_header

SUFFIXES = (".pt", ".pth", ".safetensors")
IMAGES = ("images", "image", "data", "x")
LABELS = ("labels", "label", "targets", "y")
MAX_BYTES = 8 * 2**30  # of a file; 10,000 float images of 224 x 224 have 6
MAX_LABELS = 2**28  # elements; one-hot labels of a million images of 256 classes
_ACCEPTED = (
    f"a dict with images under one of {list(IMAGES)} and labels under one of {list(LABELS)}, a pair (images, "
    "labels), {'data': [[images, labels], ...]}, or images alone, class by class"
)
_MENDS = "torch.save({'images': images, 'labels': labels}, 'FILE.pt') writes what is accepted"


@dataclass(frozen=True)
class StoredImages:
    """What a file of tensors holds.

    Args:
        images: (N, C, H, W), of the type that they are stored in.
        labels: (N,), int64; None where the file has none.
        num_classes: Where the shape says it: K of images (K, N / K, C, H, W) or of one-hot labels (N, K).
    """

    images: torch.Tensor
    labels: torch.Tensor | None
    num_classes: int | None = None


def read_tensor_file(path: Path) -> StoredImages:
    """Return the images of a file, and their labels.

    Raises:
        SourceError: The file cannot be read, would run code, or has another layout.
    """
    stored = _load_safetensors(path) if path.suffix == ".safetensors" else _load_torch(path)
    images, labels = _find(stored, str(path))
    return _checked(images, labels, str(path))


def _load_torch(path: Path) -> Any:
    try:
        check_torch_file(path, MAX_BYTES)
        with open_file(path, MAX_BYTES) as file:
            return torch.load(file, map_location="cpu", weights_only=True)
    except (
        OSError,
        RuntimeError,
        EOFError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        pickle.UnpicklingError,
        zipfile.BadZipFile,
    ) as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise SourceError(
            f"{printable(path)} is damaged, or has more than tensors, lists, dicts and numbers, which is all "
            f"that is read (nothing of it was run): {printable(reason)}. {_MENDS}"
        ) from error


def _load_safetensors(path: Path) -> dict[str, torch.Tensor | None]:
    try:
        check_file(path, MAX_BYTES)
        names = read_header(path)
        with safe_open(path, "pt") as file:
            wanted = {*IMAGES, *LABELS}
            return {name: file.get_tensor(name) if name in wanted else None for name in names}
    except (ArtifactFormatError, ForeignFileError, SafetensorError, OSError, ValueError) as error:
        raise SourceError(f"{printable(path)} cannot be read: {printable(error)}") from error


def _find(stored: Any, where: str) -> tuple[Any, Any]:
    """Return images and labels as they are stored; None for labels where there are none."""
    if isinstance(stored, torch.Tensor):
        return stored, None
    if isinstance(stored, list | tuple) and len(stored) == 2:
        return stored[0], stored[1]
    if not isinstance(stored, Mapping):
        raise SourceError(f"{where} holds a {type(stored).__name__}; accepted: {_ACCEPTED}. {_MENDS}")
    entries = stored.get("data")
    if isinstance(entries, list | tuple):
        last = entries[-1] if entries else None
        if not (isinstance(last, list | tuple) and len(last) == 2):
            raise SourceError(f"{where}: 'data' is no list of [images, labels]; accepted: {_ACCEPTED}")
        return last[0], last[1]
    found = [[key for key in keys if key in stored] for keys in (IMAGES, LABELS)]
    for what, keys, accepted in zip(("images", "labels"), found, (IMAGES, LABELS), strict=True):
        if len(keys) != 1:
            raise SourceError(
                f"{where} has {len(keys)} entries that may be the {what}; its keys are "
                f"{printable([str(key)[:80] for key in stored][:20])}. Accepted: exactly one of "
                f"{list(accepted)}. {_MENDS}"
            )
    return stored[found[0][0]], stored[found[1][0]]


def _checked(images: Any, labels: Any, where: str) -> StoredImages:
    if not _is_dense(images):
        raise SourceError(f"{where}: the images are a {type(images).__name__}, not a dense tensor; {_MENDS}")
    shape = tuple(images.shape)
    if len(shape) not in (4, 5) or shape[-3] not in (1, 3) or images.numel() == 0:
        mends = "there must be at least one image, of at least one pixel"
        if len(shape) == 3:
            mends = "images[:, None] adds the channel of grey images"
        elif len(shape) == 4 and shape[1] not in (1, 3) and shape[3] in (1, 3):
            mends = "images.permute(0, 3, 1, 2) puts the channels first"
        raise SourceError(
            f"{where} has images of the shape {shape}; accepted: (N, C, H, W) or (K, N / K, C, H, W) with 1 "
            f"or 3 channels C; {mends}"
        )
    if images.numel() * images.element_size() > MAX_BYTES:  # a stride of 0 needs no bytes in the file
        raise SourceError(f"{where} has images of the shape {shape}, more than {MAX_BYTES:,} bytes")
    flat = images.detach().reshape(-1, *shape[-3:])
    if labels is None:
        return StoredImages(flat, None, shape[0] if len(shape) == 5 else None)
    return StoredImages(flat, *_labels(labels, shape, where))


def _is_dense(value: Any) -> bool:
    """Say whether a value is a tensor whose elements are in memory."""
    if not isinstance(value, torch.Tensor) or value.layout != torch.strided:
        return False
    return value.device.type == "cpu" and not (value.is_quantized or value.is_nested or value.is_complex())


def _labels(found: Any, shape: tuple[int, ...], where: str) -> tuple[torch.Tensor, int | None]:
    """Return labels as integers (N,), stored so, (K, N / K), or one-hot (N, K); and K of the last."""
    if isinstance(found, list | tuple) and all(type(label) is int and abs(label) < 2**63 for label in found):
        found = torch.tensor(found, dtype=torch.int64)
    if not _is_dense(found) or found.numel() > MAX_LABELS:
        raise SourceError(
            f"{where}: the labels are a {type(found).__name__}, not a dense tensor of at most {MAX_LABELS:,} "
            f"elements; {_MENDS}"
        )
    labels: torch.Tensor = found.detach()
    number = shape[0] if len(shape) == 4 else shape[0] * shape[1]
    if len(shape) == 5 and tuple(labels.shape) == shape[:2]:
        labels = labels.reshape(-1)
    if labels.dim() == 0 or labels.shape[0] != number:
        raise SourceError(
            f"{where} has {number} images and labels of the shape {tuple(labels.shape)}; give one label for "
            "each image"
        )
    if labels.dim() == 2 and labels.shape[1] > 1:
        return _from_one_hot(labels, where), labels.shape[1]
    if labels.dim() != 1 or labels.is_floating_point() or labels.dtype == torch.bool:
        raise SourceError(
            f"{where} has labels {tuple(labels.shape)} of {labels.dtype}; accepted: integers (N,), or "
            "one-hot labels (N, K)"
        )
    return labels.to(torch.int64), None


def _from_one_hot(labels: torch.Tensor, where: str) -> torch.Tensor:
    values = labels.double()
    highest = values.argmax(dim=1)
    if not torch.equal(values, torch.nn.functional.one_hot(highest, labels.shape[1]).double()):
        raise SourceError(
            f"{where} has soft labels {tuple(labels.shape)}, which are not read; give the class of each "
            "image as an integer (labels.argmax(dim=1))"
        )
    return highest
