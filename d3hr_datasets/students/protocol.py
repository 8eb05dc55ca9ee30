"""The constants of a training, as one frozen dataclass that is checked on construction.

In: values, as `experiments/protocols/` has them for the published protocols. Out: `Protocol`, and the
learning-rate factor of an epoch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from d3hr_datasets.config.checks import check_choice, check_int, check_number
from d3hr_datasets.errors import ConfigError

Optimizer = Literal["sgd", "adamw"]
Schedule = Literal["step", "half_cosine", "one_cycle"]
Labels = Literal["hard", "soft", "stored"]
Decayed = Literal["all", "matrices"]


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How a student is trained.

    Args:
        student: Name of a model in timm's registry.
        student_args: Further arguments of the model.
        image_size: Side of the square images the student sees.
        channels: Channels of the images.
        mean: Mean of each channel, of images in [0, 1].
        std: Standard deviation of each channel.
        epochs: Passes over the training set.
        batch_size: Images a step, over all processes; at most the training set. The last batch of an epoch
            may be smaller.
        optimizer: "sgd" (with `momentum`) or "adamw" (betas 0.9, 0.999).
        learning_rate: At the start.
        momentum: Of "sgd".
        weight_decay: Of the parameters `decayed`.
        decayed: "all" parameters, or "matrices": those of two or more dimensions only.
        schedule: "step" (times `gamma` at each of `milestones`, fractions of the epochs, rounded down),
            "half_cosine" (0.5 * (1 + cos(pi * epoch / (2 * epochs))), which ends near one half) or
            "one_cycle" (a linear rise over a fifth of the epochs, then a half cosine to zero; in fewer than
            40 epochs the rate changes within them, too).
        milestones: Of "step".
        gamma: Of "step".
        resize: Shorter side that test images are resized to before the centre crop; 0 is `image_size`.
        center_first: Resize and centre-crop training images to `image_size` before any augmentation.
        crop_scale: Least and largest share of the area of a random resized crop; empty for none.
        random_crop: Pixels of zero padding around the image before a random crop; 0 for none.
        flip: Horizontal flips.
        color_jitter: Strength of the jitter of brightness, contrast and saturation; 0 for none.
        lighting: Standard deviation of AlexNet's PCA lighting noise; 0 for none. RGB only.
        shuffle_patches: Patches a side whose order is shuffled first (RDED's images are 2 x 2); 1 for none.
        dsa: DSA's augmentation, after normalisation.
        cutmix: Beta of CutMix, applied to every batch; 0 for none.
        labels: "hard", "soft" (a teacher on every augmented view) or "stored" (the teacher on the plain
            image, kept in a file).
        temperature: Of soft labels.
        label_smoothing: Of hard labels.
    """

    student: str
    image_size: int
    channels: int
    mean: list[float]
    std: list[float]
    epochs: int
    batch_size: int
    optimizer: Optimizer
    learning_rate: float
    weight_decay: float
    schedule: Schedule
    labels: Labels
    student_args: dict[str, Any] = field(default_factory=dict)
    momentum: float = 0.9
    decayed: Decayed = "all"
    milestones: list[float] = field(default_factory=list)
    gamma: float = 0.1
    resize: int = 0
    center_first: bool = False
    crop_scale: list[float] = field(default_factory=list)
    random_crop: int = 0
    flip: bool = False
    color_jitter: float = 0.0
    lighting: float = 0.0
    shuffle_patches: int = 1
    dsa: bool = False
    cutmix: float = 0.0
    temperature: float = 20.0
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        for name in ("image_size", "channels", "epochs", "batch_size", "shuffle_patches"):
            check_int(name, getattr(self, name), 1)
        check_int("resize", self.resize, 0)
        check_int("random_crop", self.random_crop, 0)
        for name in (
            "learning_rate",
            "weight_decay",
            "momentum",
            "gamma",
            "color_jitter",
            "lighting",
            "cutmix",
        ):
            check_number(name, getattr(self, name), 0.0)
        check_choice("optimizer", self.optimizer, Optimizer)
        check_choice("schedule", self.schedule, Schedule)
        check_choice("labels", self.labels, Labels)
        check_choice("decayed", self.decayed, Decayed)
        if len(self.mean) != self.channels or len(self.std) != self.channels or min(self.std) <= 0:
            raise ConfigError(
                f"mean {self.mean} and std {self.std} must have a value for each of the {self.channels} "
                "channels, and std must be positive"
            )
        if not all(0 < milestone < 1 for milestone in self.milestones):
            raise ConfigError(
                f"milestones are fractions of the epochs, between 0 and 1, not {self.milestones}"
            )
        if (self.schedule == "step") != bool(self.milestones):
            raise ConfigError(
                f"schedule {self.schedule!r} and milestones {self.milestones} do not go together"
            )
        scale = self.crop_scale
        if scale and not (len(scale) == 2 and 0 < scale[0] <= scale[1] <= 1):
            raise ConfigError(
                f"crop_scale must be empty or two ascending shares above 0, at most 1, not {scale}"
            )
        if self.temperature <= 0:
            raise ConfigError(f"temperature must be positive, not {self.temperature}")
        if self.lighting and self.channels != 3:
            raise ConfigError(f"lighting needs 3 channels, not {self.channels}")

    def learning_rate_factor(self, epoch: float) -> float:
        """Return the factor on the learning rate during an epoch, counted from 0, or at a fraction of one."""
        if self.schedule == "one_cycle":
            per_epoch = -(-40 // self.epochs)  # one of few epochs ends near zero, given the steps
            change, changes = int(epoch * per_epoch), self.epochs * per_epoch
            rise = 0.2 * changes
            if change < rise:
                return (change + 1) / (rise + 1)
            return 0.5 * (1 + math.cos(math.pi * (change - rise) / (changes - rise)))
        whole = int(epoch)
        if self.schedule == "half_cosine":
            return 0.5 * (1 + math.cos(math.pi * whole / self.epochs / 2))
        # Rounded down as public code does (2 * epochs // 3), also where 2 / 3 is written with a few digits.
        passed = sum(whole >= int(milestone * self.epochs + 1e-6) for milestone in self.milestones)
        return float(self.gamma**passed)
