"""A batch of views and its labels, hard or soft -> the loss that a student is trained with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F
from torchvision.transforms import v2

from d3hr_datasets.errors import ConfigError
from d3hr_datasets.students.protocol import Protocol
from d3hr_datasets.students.soft_labels import SoftLabels
from d3hr_datasets.students.teachers import Teacher
from d3hr_datasets.students.views import Network, dsa_augment, normalize

if TYPE_CHECKING:
    from accelerate import Accelerator


class StudentLoss:
    """The loss of a batch of views, by the labels that a protocol asks for.

    With weights it is the sum of the images' losses, each times its weight, over the number of images, not
    over the sum of the batch's weights. Weights have mean 1 over a set, so that batches drawn at random give
    the set's weighted loss on average, whatever their size. Divided by its own sum, a small batch would take
    back much of the weighting, and one of a single image all of it. A mixed image has the mixed weight.

    Args:
        protocol: Says which labels, and how views are mixed and augmented on the device.
        num_classes: Logits of the student.
        teacher: Gives soft labels of every view, for `labels="soft"`.
        soft_labels: Of the plain images, for `labels="stored"`.
        accelerator: Its device, and the precision of student and teacher.
        torch_compile: Compile the teacher.
        weights: (N,), of each image; None for the plain mean.

    Raises:
        ConfigError: The labels that the protocol asks for are not given, or others are.
    """

    def __init__(
        self,
        protocol: Protocol,
        num_classes: int,
        teacher: Teacher | None,
        soft_labels: SoftLabels | None,
        accelerator: Accelerator,
        torch_compile: bool,
        weights: torch.Tensor | None = None,
    ) -> None:
        if (protocol.labels == "soft") != (teacher is not None):
            raise ConfigError(f"labels {protocol.labels!r} and teacher {teacher!r:.60} do not go together")
        if (protocol.labels == "stored") != (soft_labels is not None):
            raise ConfigError(
                f"labels {protocol.labels!r} need soft_labels if, and only if, they are 'stored'"
            )
        self.protocol, self.num_classes = protocol, num_classes
        self.soft_labels, self.accelerator = soft_labels, accelerator
        self.weights = None if weights is None else weights.detach().cpu().float()
        self.teacher: Network | None = None
        if teacher is not None:
            # Its call would take it out of autocast.
            self.teacher = teacher.to(accelerator.device).forward
            if torch_compile:
                self.teacher = torch.compile(self.teacher, dynamic=False)

    def __call__(
        self, student: Network, views: torch.Tensor, labels: torch.Tensor, index: torch.Tensor
    ) -> torch.Tensor:
        """Return the loss of views (B, C, S, S) in [0, 1], labels (B,) and indices of their images (B,)."""
        protocol, mixing = self.protocol, None
        if protocol.cutmix and len(views) > 1:
            # Mixing "labels" 0..B-1 gives the share of each image of the batch in each mixed one, (B, B).
            cutmix = v2.CutMix(alpha=protocol.cutmix, num_classes=len(views))
            views, mixing = cutmix(views, torch.arange(len(views), device=views.device))
        inputs = normalize(protocol, views)
        if protocol.dsa:
            inputs = dsa_augment(inputs)
        with self.accelerator.autocast():
            logits = student(inputs)
        logits = logits.float()
        weights = None if self.weights is None else self.weights[index.cpu()].to(logits)
        if weights is not None and mixing is not None:
            weights = mixing @ weights
        if protocol.labels == "hard":
            targets = labels if mixing is None else mixing @ F.one_hot(labels, self.num_classes).to(mixing)
            smoothing = protocol.label_smoothing
            if weights is None:
                return F.cross_entropy(logits, targets, label_smoothing=smoothing)
            losses = F.cross_entropy(logits, targets, label_smoothing=smoothing, reduction="none")
            return (losses * weights).mean()
        if self.teacher is not None:
            with self.accelerator.autocast():
                answers = self.teacher(views)
            wanted = (answers.float() / protocol.temperature).softmax(dim=1)
            return soft_label_loss(logits, wanted, protocol, weights)
        assert self.soft_labels is not None  # checked on construction
        probabilities = self.soft_labels.probabilities(index.cpu(), protocol.temperature).to(logits)
        wanted = probabilities if mixing is None else mixing @ probabilities
        return soft_label_loss(logits, wanted, protocol, weights)


def soft_label_loss(
    logits: torch.Tensor, targets: torch.Tensor, protocol: Protocol, weights: torch.Tensor | None = None
) -> torch.Tensor:
    """Return the KL divergence of a student's logits (B, K) from the teacher's probabilities (B, K).

    Both at the protocol's temperature, averaged over the batch, without the factor of its square; before
    that, times `weights` (B,) if there are some.

    Source: RDED (Sun et al., 2024), D3HR.
    """
    log_probabilities = (logits / protocol.temperature).log_softmax(dim=1)
    if weights is None:
        return F.kl_div(log_probabilities, targets, reduction="batchmean")
    losses = F.kl_div(log_probabilities, targets, reduction="none").sum(dim=1)
    return (losses * weights).mean()


def check_weights(weights: torch.Tensor, count: int) -> None:
    """Check that there is a weight for each of `count` images.

    Raises:
        ConfigError: There is not, or one is negative or not finite.
    """
    if weights.shape != (count,):
        raise ConfigError(
            f"weights has the shape {tuple(weights.shape)}; accepted: one for each of the {count} images, in "
            f"their order, ({count},)"
        )
    if not (weights.isfinite() & (weights >= 0)).all():
        raise ConfigError("weights must be finite numbers of at least 0")
