"""A teacher that looks at images of any size, grey or colour -> features and logits. The one way to both.

In: a teacher, and uint8 images as a data set or a file has them. Out: what the teacher makes of them, at the
size and in the channels that it was trained on, in float32 on the CPU.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

from d3hr_datasets.artifact.info import ArtifactInfo
from d3hr_datasets.config.defaults import BATCH_SIZE
from d3hr_datasets.errors import ConfigError, TeacherError
from d3hr_datasets.image_sets.pixel_format import to_channels
from d3hr_datasets.numerics.torch_settings import neutral

if TYPE_CHECKING:
    from d3hr_datasets.students.teachers import Teacher

LOCAL = "local-dir:"


class Judge:
    """A teacher that looks at images of any size, grey or colour.

    Args:
        teacher: The teacher. Images are resized to the side that it was trained on, where its config says so
            and it was not told another.
        device: Where it runs.
    """

    @neutral()
    def __init__(self, teacher: Teacher, device: torch.device) -> None:
        cfg = teacher.model.pretrained_cfg
        size = cfg.get("input_size") or (None, None, None)  # type: ignore[union-attr,operator]
        self.teacher = teacher.to(device)
        self._device = device
        self._size: int | None = teacher.image_size or size[-1]
        first = next((part for part in teacher.model.modules() if isinstance(part, nn.Conv2d)), None)
        self.channels = len(teacher.mean) if first is None else first.in_channels

    @property
    def name(self) -> str:
        """What the teacher is, without folders of this machine."""
        name = self.teacher.name
        return f"{LOCAL}{PurePath(name).name}" if name.startswith(LOCAL) else name

    @neutral()
    def sha256(self) -> str:
        """Return the checksum of the weights, with their names and shapes."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.teacher.model.state_dict().items()):
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    @neutral(full_float32=True)
    def features(self, pixels: torch.Tensor | Sequence[torch.Tensor]) -> torch.Tensor:
        """Return the features before the classifier (N, D) of images (C, S, S) uint8."""
        return self._in_batches(self.teacher.features, pixels)

    @neutral(full_float32=True)
    def logits(self, pixels: torch.Tensor | Sequence[torch.Tensor]) -> torch.Tensor:
        """Return the logits (N, K) of images (C, S, S) uint8, in the order of the teacher's labels."""
        return self._in_batches(self.teacher, pixels)

    @torch.no_grad()
    def _in_batches(
        self, network: Callable[[torch.Tensor], torch.Tensor], pixels: torch.Tensor | Sequence[torch.Tensor]
    ) -> torch.Tensor:
        starts = range(0, len(pixels), BATCH_SIZE)
        return torch.cat([network(self._views(pixels[i : i + BATCH_SIZE])).float().cpu() for i in starts])

    def _views(self, pixels: torch.Tensor | Sequence[torch.Tensor]) -> torch.Tensor:
        images = torch.stack([to_channels(image, self.channels, "an image") for image in pixels])
        views = images.to(self._device).float() / 255
        if self._size is not None and views.shape[-1] != self._size:
            views = F.interpolate(views, size=self._size, mode="bilinear", antialias=True).clamp(0, 1)
        return views


def load_judge(teacher: str | Teacher, info: ArtifactInfo, device: torch.device) -> Judge:
    """Return a teacher that knows the classes of an artifact and takes images like the artifact's.

    Args:
        teacher: As `students.teachers.load_teacher` takes it, or a loaded one, whose logits are in the order
            of the classes.
        info: Of the artifact.
        device: Where it runs.

    Raises:
        TeacherError: It cannot be loaded, or has other classes.
        ConfigError: It takes images of other channels.
        MissingExtraError: The libraries of the extra 'train' are missing.
    """
    from d3hr_datasets.students.teachers import load_teacher  # needs the extra 'train'

    if isinstance(teacher, str):
        teacher = load_teacher(teacher, info.classes, wnids=info.wnids)
    if len(teacher.columns) != len(info.classes):
        raise TeacherError(
            f"the teacher {teacher.name!r} has logits of {len(teacher.columns)} classes, the artifact "
            f"{info.name} has {len(info.classes)}; load it with the classes of the artifact"
        )
    judge, channels = Judge(teacher, device), 1 if info.image_mode == "L" else 3
    if judge.channels not in {channels, 3}:
        raise ConfigError(
            f"the teacher {teacher.name!r} takes images of {judge.channels} channel(s), the artifact's have "
            f"{channels}; give a teacher of such images"
        )
    return judge
