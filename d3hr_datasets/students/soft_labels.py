"""Stored soft labels: a teacher's logits of each plain image -> a small file -> targets of a student.

Kept are log-probabilities, all of them or the `top_k` largest, as float16 or as int8 with a scale for each
image. What is not kept shares the rest of the probability evenly. `num_bytes` says what that costs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from d3hr_datasets.config.checks import check_choice, check_int
from d3hr_datasets.errors import ArtifactFormatError, SoftLabelsError
from d3hr_datasets.io.atomic import replace_file
from d3hr_datasets.io.untrusted_files import read_header
from d3hr_datasets.numerics.torch_settings import neutral
from d3hr_datasets.students.views import Images

Storage = Literal["float16", "int8"]
FORMAT = "d3hr soft labels 1"


@dataclass(frozen=True)
class SoftLabels:
    """The soft labels of a data set.

    Args:
        values: (N, k) log-probabilities: float16, or int8 steps of `scale` above `lowest`.
        scale: (N,) float16, of int8 values; empty for float16.
        lowest: (N,) float16, of int8 values; empty for float16.
        indices: (N, k) which classes were kept, uint8 or int16; empty if all were.
        classes: Class names, by label.
        teacher: What gave the logits.
        digest: `images_digest` of the images.
    """

    values: torch.Tensor
    scale: torch.Tensor
    lowest: torch.Tensor
    indices: torch.Tensor
    classes: tuple[str, ...]
    teacher: str
    digest: str

    @classmethod
    @neutral()
    def from_logits(
        cls,
        logits: torch.Tensor,
        classes: Sequence[str],
        teacher: str,
        digest: str,
        top_k: int | None = None,
        storage: Storage = "float16",
    ) -> SoftLabels:
        """Make soft labels of logits (N, K), in the order of `classes`.

        Raises:
            ConfigError: `top_k` or `storage` is not accepted.
            SoftLabelsError: `logits` do not have a column for each class, or are not finite.
        """
        check_choice("storage", storage, Storage)
        if logits.shape[1] != len(classes) or not logits.isfinite().all():
            raise SoftLabelsError(
                f"logits {tuple(logits.shape)} must be finite and have a column for each of the "
                f"{len(classes)} classes"
            )
        number = check_int("top_k", top_k, 1, len(classes)) if top_k is not None else len(classes)
        kept, indices = logits.float().log_softmax(dim=1).topk(number)
        index_type = torch.uint8 if len(classes) <= 256 else torch.int16
        empty = torch.empty(0, dtype=torch.float16)
        if number == len(classes):
            kept, indices = torch.zeros_like(kept).scatter(1, indices, kept), torch.empty(0)
        scale = lowest = empty
        values = kept.half()
        if storage == "int8":
            lowest = kept.min(dim=1).values.half()
            spread = kept.max(dim=1).values - lowest.float()
            scale = (spread / 255).clamp(min=1e-4).half()
            steps = (kept - lowest.float()[:, None]) / scale.float()[:, None]
            values = (steps.round().clamp(0, 255) - 128).to(torch.int8)
        return cls(values, scale, lowest, indices.to(index_type), tuple(classes), teacher, digest)

    def __len__(self) -> int:
        return len(self.values)

    @property
    def num_bytes(self) -> int:
        """Bytes of all tensors: what the labels cost, without the header of the file."""
        tensors = (self.values, self.scale, self.lowest, self.indices)
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    @neutral()
    def log_probabilities(self, index: torch.Tensor) -> torch.Tensor:
        """Return the log-probabilities (B, K), float32, of the images `index` (B,)."""
        kept = self.values[index].float()
        if self.values.dtype == torch.int8:
            kept = (kept + 128) * self.scale[index].float()[:, None] + self.lowest[index].float()[:, None]
        if self.indices.numel() == 0:
            return kept
        others = len(self.classes) - kept.shape[1]
        rest = ((1 - kept.exp().sum(dim=1)) / others).clamp(min=1e-8).log()
        everything = rest[:, None].expand(-1, len(self.classes)).clone()
        return everything.scatter_(1, self.indices[index].long(), kept)

    @neutral()
    def probabilities(self, index: torch.Tensor, temperature: float) -> torch.Tensor:
        """Return the probabilities (B, K) of the images `index` (B,) at a temperature."""
        return (self.log_probabilities(index) / temperature).softmax(dim=1)

    def check(self, classes: Sequence[str], digest: str) -> None:
        """Check that these are the labels of a data set.

        Raises:
            SoftLabelsError: Its classes, their order or its images are others.
        """
        if tuple(classes) != self.classes:
            pairs = enumerate(zip(self.classes, classes, strict=False))
            label = next(
                (i for i, (own, other) in pairs if own != other), min(len(classes), len(self.classes))
            )
            raise SoftLabelsError(
                f"these soft labels have the classes {list(self.classes)[:5]} ... ({len(self.classes)}), the "
                f"data set {list(classes)[:5]} ... ({len(classes)}), and differ first at label {label}. "
                "Make the labels again for this data set"
            )
        if digest != self.digest:
            raise SoftLabelsError(
                "these soft labels were made for other images, or for these in another order; make them "
                "again for this data set"
            )

    def save(self, path: str | Path) -> None:
        """Write a safetensors file, whole or not at all."""
        metadata = {
            "format": FORMAT,
            "classes": json.dumps(self.classes),
            "teacher": self.teacher,
            "digest": self.digest,
        }
        tensors = {name: getattr(self, name) for name in ("values", "scale", "lowest", "indices")}
        tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
        replace_file(Path(path), lambda temporary: save_file(tensors, temporary, metadata))

    @classmethod
    @neutral()
    def load(cls, path: str | Path) -> SoftLabels:
        """Read what `save` wrote.

        Raises:
            SoftLabelsError: The file cannot be read, or holds something else.
        """
        try:
            read_header(Path(path))
            with safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("format") != FORMAT:
                    raise SoftLabelsError(
                        f"{path} has the format {metadata.get('format')!r}, accepted: {FORMAT!r}"
                    )
                tensors = {name: file.get_tensor(name) for name in ("values", "scale", "lowest", "indices")}
            classes = tuple(map(str, json.loads(metadata["classes"])))
            teacher, digest = metadata["teacher"], metadata["digest"]
        except (
            ArtifactFormatError,
            OSError,
            SafetensorError,
            ValueError,
            LookupError,
            TypeError,
            RecursionError,
        ) as error:
            if isinstance(error, SoftLabelsError):
                raise
            raise SoftLabelsError(f"{path} cannot be read: {error!r}; make the labels again") from error
        labels = cls(**tensors, classes=classes, teacher=teacher, digest=digest)
        labels._check_tensors(path)
        return labels

    def _check_tensors(self, path: str | Path) -> None:
        """Check that the tensors of a file have rows for the same images, and columns for its classes."""
        shape, count = self.values.shape, len(self.classes)
        is_int8 = self.values.dtype == torch.int8
        lengths = {len(tensor) for tensor in (self.scale, self.lowest)}
        complete = len(shape) == 2 and lengths == ({shape[0]} if is_int8 else {0})
        kept = self.indices.shape == shape if self.indices.numel() else shape[1:] == (count,)
        known = not self.indices.numel() or 0 <= int(self.indices.min()) <= int(self.indices.max()) < count
        if not (complete and kept and known and self.values.dtype in (torch.int8, torch.float16)):
            raise SoftLabelsError(
                f"{path} has {self.values.dtype} values {tuple(shape)} for {count} classes, which do not "
                "fit; make the labels again"
            )


def images_digest(images: Images) -> str:
    """Return the SHA-256 of the pixels of all images in their order."""
    digest = hashlib.sha256()
    for index in range(len(images)):
        image: Any = images[index][0]
        array = image.numpy() if isinstance(image, torch.Tensor) else np.asarray(image)
        digest.update(f"{array.shape}{array.dtype}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
