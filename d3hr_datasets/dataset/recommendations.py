"""What the published numbers of each named set rest on: student, teacher and preprocessing.

In: the name of a data set. Out: a `Recommendation`, and the transforms that it means. The values are those of
the settings of the protocol that is named; a test compares them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torchvision.transforms import v2

from d3hr_datasets.errors import ConfigError


@dataclass(frozen=True)
class Recommendation:
    """The student, the teacher and the preprocessing that the numbers of a data set were measured with.

    Args:
        protocol: The recipe of the students' training: "soft" (this project's own) or "d3hr" (the paper's).
        student: The student, by its name in timm's registry once `d3hr_datasets.students` is imported.
        teacher: What gives the soft labels, as `load_teacher` of `students.teachers` takes it. A "local-dir:"
            is a folder that training a teacher (protocol "teacher") writes: no such teacher is published.
        image_size: Side in pixels of the square images that student and teacher see.
        mean: Mean of each channel, of pixels in [0, 1].
        std: Standard deviation of each channel, of pixels in [0, 1].
        student_args: Further arguments of the student.
        crop_scale: Least and largest share of the area that a random crop of a training image keeps; None
            where training images are not cropped.
        resize: Shorter side that test images are resized to before the centre crop; 0 is `image_size`.
        results: File of this project's repository with the numbers; None where none are measured yet.
    """

    protocol: str
    student: str
    teacher: str
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    student_args: Mapping[str, Any] = field(default_factory=dict)
    crop_scale: tuple[float, float] | None = None
    resize: int = 0
    results: str | None = None

    @property
    def channels(self) -> int:
        """Channels of the images: 1 for grey, 3 for RGB."""
        return len(self.mean)

    def transforms(self, train: bool) -> v2.Compose:
        """Return what makes of a PIL image the normalised tensor that the student takes.

        For training: a random resized crop where `crop_scale` says so, else a resize and a centre crop; then
        a random flip. For testing: a resize and a centre crop. The recipe also mixes the images of a batch
        by CutMix, which is not part of this: `torchvision.transforms.v2.CutMix` works on batches.

        Args:
            train: Whether the images are trained on; else they are tested on.

        Returns:
            A transform of PIL images to (channels, image_size, image_size) float32.
        """
        size = self.image_size
        steps: list[Any] = [v2.ToImage()]
        if train and self.crop_scale:
            steps.append(v2.RandomResizedCrop((size, size), self.crop_scale, antialias=True))
        else:
            shorter = size if train else self.resize or size
            steps += [v2.Resize(shorter, antialias=True), v2.CenterCrop(size)]
        if train:
            steps.append(v2.RandomHorizontalFlip())
        steps += [v2.ToDtype(torch.float32, scale=True), v2.Normalize(list(self.mean), list(self.std))]
        return v2.Compose([*steps, v2.ToPureTensor()])


_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CROPS = (0.08, 1.0)

RECOMMENDATIONS = {
    "fashion-mnist": Recommendation(
        protocol="soft",
        student="convnet3",
        teacher="embedded:fashion-mnist",
        image_size=28,
        mean=(0.2861,),
        std=(0.3530,),
        results="hub/results/tables/soft-labels.md",
    ),
    "cifar10": Recommendation(
        protocol="d3hr",
        student="resnet18_modified",
        teacher="local-dir:runs/teachers/cifar10",
        image_size=32,
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2023, 0.1994, 0.2010),
        crop_scale=_CROPS,
    ),
    "cifar100": Recommendation(
        protocol="d3hr",
        student="resnet18_modified",
        teacher="local-dir:runs/teachers/cifar100",
        image_size=32,
        mean=(0.5071, 0.4866, 0.4409),
        std=(0.2673, 0.2564, 0.2762),
        crop_scale=_CROPS,
    ),
    "tiny-imagenet": Recommendation(
        protocol="d3hr",
        student="resnet18_modified",
        teacher="local-dir:runs/teachers/tiny-imagenet",
        image_size=64,
        mean=_IMAGENET_MEAN,
        std=_IMAGENET_STD,
        crop_scale=_CROPS,
        resize=72,
    ),
    "imagenet": Recommendation(
        protocol="d3hr",
        student="resnet18",
        teacher="resnet18.tv_in1k",
        image_size=224,
        mean=_IMAGENET_MEAN,
        std=_IMAGENET_STD,
        crop_scale=_CROPS,
        resize=256,
    ),
}


def recommendation(name: str) -> Recommendation:
    """Return what the numbers of a named set rest on.

    Raises:
        ConfigError: Nothing is known of it.
    """
    if name not in RECOMMENDATIONS:
        raise ConfigError(
            f"no student, teacher and preprocessing are recommended for {name!r}; known: "
            f"{sorted(RECOMMENDATIONS)}; choose your own transforms"
        )
    return RECOMMENDATIONS[name]
