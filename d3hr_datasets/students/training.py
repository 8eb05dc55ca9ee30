"""The training of a student and its evaluation: a protocol and a data set -> a network and its accuracy.

Runs in one process on the CPU or a GPU, or in several under `accelerate launch`. The same seed gives the
same student, whether or not the training was interrupted.
"""

from __future__ import annotations

import contextlib
import functools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Subset
from torchvision.transforms import v2

from d3hr_datasets.config.checks import check_compiler
from d3hr_datasets.errors import ConfigError, DivergenceError
from d3hr_datasets.numerics.ambient import neutral
from d3hr_datasets.students.labels import SoftLabels
from d3hr_datasets.students.models import create_student
from d3hr_datasets.students.protocol import Protocol
from d3hr_datasets.students.teachers import Teacher
from d3hr_datasets.students.views import (
    EpochBatches,
    Images,
    Views,
    dsa_augment,
    evaluation_transform,
    train_transform,
)

if TYPE_CHECKING:
    from accelerate import Accelerator

Network = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class EpochReport:
    """What one epoch did. `state()` is all that is needed to go on after it: `train_student(state=...)`."""

    epoch: int
    loss: float
    learning_rate: float
    seconds: float
    state: Callable[[], dict[str, Any]]


@neutral(grad=True)
def train_student(
    protocol: Protocol,
    images: Images,
    num_classes: int,
    *,
    seed: int = 0,
    teacher: Teacher | None = None,
    soft_labels: SoftLabels | None = None,
    accelerator: Accelerator | None = None,
    state: dict[str, Any] | None = None,
    on_epoch: Callable[[EpochReport], object] | None = None,
    workers: int = 0,
    torch_compile: bool = False,
) -> nn.Module:
    """Train a student, outside the caller's autocast, default dtype, default device and gradient mode.

    Half precision is the accelerator's: `Accelerator(mixed_precision="bf16")`. Leave to use TF32 and
    `torch.use_deterministic_algorithms` stay as the caller has set them.

    Args:
        protocol: The constants.
        images: The training set, as (PIL image or uint8 tensor (C, H, W), label).
        num_classes: Logits of the student.
        seed: Of the network, the order and the views.
        teacher: Gives soft labels of every view, for `labels="soft"`.
        soft_labels: Of the plain images, for `labels="stored"`.
        accelerator: Where to run; by default CUDA if there is one, else the CPU.
        state: Of the `EpochReport` to go on after.
        on_epoch: Called after every epoch, in every process, under the same settings as the training.
        workers: Processes that read images.
        torch_compile: Compile student and teacher for the training; other rounding, fewer seconds.

    Returns:
        The network, which takes normalised images; see `normalized`.

    Raises:
        ConfigError: The labels that the protocol asks for are not given, or compiling needs a C++ compiler
            and there is none.
        DivergenceError: The loss is no number.
    """
    if (protocol.labels == "soft") != (teacher is not None):
        raise ConfigError(f"labels {protocol.labels!r} and teacher {teacher!r:.60} do not go together")
    if (protocol.labels == "stored") != (soft_labels is not None):
        raise ConfigError(f"labels {protocol.labels!r} need soft_labels if, and only if, they are 'stored'")
    accelerator = accelerator or _accelerator()
    device = accelerator.device
    if torch_compile:
        check_compiler(device.type)
    with _seeded(seed, device):
        model = create_student(
            protocol.student, num_classes, protocol.channels, protocol.image_size, protocol.student_args
        )
    first = 0
    if state is not None:
        model.load_state_dict(state["model"])
        first = state["epoch"] + 1
    optimizer = make_optimizer(protocol, model)
    model, optimizer = accelerator.prepare(model, optimizer)
    if state is not None:
        optimizer.load_state_dict(state["optimizer"])
    network = torch.compile(model, dynamic=False) if torch_compile else model
    labeller: Network | None = teacher.to(device) if teacher is not None else None
    if teacher is not None and torch_compile:
        labeller = torch.compile(teacher.forward, dynamic=False)
    batches = EpochBatches(
        len(images), protocol.batch_size, seed, accelerator.process_index, accelerator.num_processes
    )
    # Its own generator, so that the global one is not touched; it seeds workers, whose views do not need it.
    loader: DataLoader[tuple[torch.Tensor, int, int]] = DataLoader(
        Views(images, train_transform(protocol)),
        batch_sampler=batches,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=device.type == "cuda",
        generator=torch.Generator().manual_seed(seed),
    )
    for epoch in range(first, protocol.epochs):
        started = time.monotonic()
        batches.epoch = epoch
        model.train()
        total = torch.zeros(2, device=device)  # of losses, of images
        with _seeded((seed * 100_003 + epoch) * 1009 + accelerator.process_index, device):
            for step, (views, labels, index) in enumerate(loader):
                factor = protocol.learning_rate_factor(epoch + step / len(batches))
                for group in optimizer.param_groups:
                    group["lr"] = protocol.learning_rate * factor
                loss = _loss(
                    protocol,
                    network,
                    views.to(device),
                    labels.to(device),
                    index,
                    num_classes,
                    labeller,
                    soft_labels,
                    accelerator,
                )
                optimizer.zero_grad(set_to_none=True)
                accelerator.backward(loss)
                optimizer.step()
                total += torch.stack([loss.detach() * len(views), loss.new_tensor(len(views))])
        losses, count = accelerator.reduce(total, "sum").tolist()
        loss_of_epoch = losses / count
        if math.isnan(loss_of_epoch):
            raise DivergenceError(
                f"the loss of epoch {epoch} is not a number; lower learning_rate {protocol.learning_rate} or "
                "train in full precision"
            )
        if on_epoch is not None:
            state_of_epoch = functools.partial(_state, accelerator.unwrap_model(model), optimizer, epoch)
            seconds, rate = time.monotonic() - started, protocol.learning_rate * factor
            on_epoch(EpochReport(epoch, loss_of_epoch, rate, seconds, state_of_epoch))
    student: nn.Module = accelerator.unwrap_model(model)
    return student.eval()


def _state(model: nn.Module, optimizer: torch.optim.Optimizer, epoch: int) -> dict[str, Any]:
    return {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch}


def _loss(
    protocol: Protocol,
    model: Network,
    views: torch.Tensor,
    labels: torch.Tensor,
    index: torch.Tensor,
    num_classes: int,
    teacher: Network | None,
    soft_labels: SoftLabels | None,
    accelerator: Accelerator,
) -> torch.Tensor:
    """Return the loss of a batch of views (B, C, S, S) in [0, 1]."""
    mixing: torch.Tensor | None = None
    if protocol.cutmix and len(views) > 1:
        # Mixing "labels" 0..B-1 gives the share of each image of the batch in each mixed one, (B, B).
        cutmix = v2.CutMix(alpha=protocol.cutmix, num_classes=len(views))
        views, mixing = cutmix(views, torch.arange(len(views), device=views.device))
    inputs = normalize(protocol, views)
    if protocol.dsa:
        inputs = dsa_augment(inputs)
    with accelerator.autocast():
        logits = model(inputs)
    logits = logits.float()
    if protocol.labels == "hard":
        targets = labels if mixing is None else mixing @ F.one_hot(labels, num_classes).to(mixing)
        return F.cross_entropy(logits, targets, label_smoothing=protocol.label_smoothing)
    if teacher is not None:
        return soft_label_loss(logits, (teacher(views) / protocol.temperature).softmax(dim=1), protocol)
    assert soft_labels is not None  # checked by `train_student`
    probabilities = soft_labels.probabilities(index.cpu(), protocol.temperature).to(logits)
    return soft_label_loss(logits, probabilities if mixing is None else mixing @ probabilities, protocol)


def soft_label_loss(logits: torch.Tensor, targets: torch.Tensor, protocol: Protocol) -> torch.Tensor:
    """Return the KL divergence of a student's logits (B, K) from the teacher's probabilities (B, K).

    Both at the protocol's temperature, averaged over the batch, without the factor of its square.

    Source: RDED (Sun et al., 2024), D3HR.
    """
    log_probabilities = (logits / protocol.temperature).log_softmax(dim=1)
    return F.kl_div(log_probabilities, targets, reduction="batchmean")


def make_optimizer(protocol: Protocol, model: nn.Module) -> torch.optim.Optimizer:
    """Return the optimizer of a protocol, with weight decay on the parameters it names."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    matrices = [p for p in parameters if p.dim() > 1 or protocol.decayed == "all"]
    rest = [p for p in parameters if p.dim() <= 1 and protocol.decayed == "matrices"]
    groups = [
        {"params": matrices, "weight_decay": protocol.weight_decay},
        *([{"params": rest, "weight_decay": 0.0}] if rest else []),
    ]
    if protocol.optimizer == "sgd":
        return torch.optim.SGD(groups, protocol.learning_rate, momentum=protocol.momentum)
    return torch.optim.AdamW(groups, protocol.learning_rate, betas=(0.9, 0.999))


def normalize(protocol: Protocol, images: torch.Tensor) -> torch.Tensor:
    """Return images (B, C, H, W) in [0, 1] as the student takes them."""
    mean, std = (torch.tensor(values).to(images)[:, None, None] for values in (protocol.mean, protocol.std))
    return (images - mean) / std


def normalized(protocol: Protocol, model: nn.Module) -> Network:
    """Return a student as a function of images in [0, 1]."""
    return lambda images: model(normalize(protocol, images))


@neutral()
def evaluate(
    network: Network,
    protocol: Protocol,
    images: Images,
    accelerator: Accelerator | None = None,
    batch_size: int = 500,
    workers: int = 0,
) -> dict[str, float]:
    """Return "top1" and "top5" in percent on a test set, each image counted once, over all processes.

    Args:
        network: Images (B, C, S, S) in [0, 1] to logits (B, K), in evaluation mode.
        protocol: Says how test images are resized and cropped.
        images: The test set.
        accelerator: Where to run, as for `train_student`.
        batch_size: Images at a time.
        workers: Processes that read images.
    """
    accelerator = accelerator or _accelerator()
    mine = range(accelerator.process_index, len(images), accelerator.num_processes)
    transformed = _Transformed(images, evaluation_transform(protocol))
    loader: DataLoader[tuple[torch.Tensor, int]] = DataLoader(
        Subset(transformed, mine), batch_size, num_workers=workers, generator=torch.Generator()
    )
    right = torch.zeros(2, device=accelerator.device)
    for views, labels in loader:
        logits = network(views.to(accelerator.device))
        ranks = logits.topk(min(5, logits.shape[1])).indices == labels.to(accelerator.device)[:, None]
        right += torch.stack([ranks[:, 0].sum(), ranks.any(dim=1).sum()])
    top1, top5 = (100 * accelerator.reduce(right, "sum") / len(images)).tolist()
    return {"top1": top1, "top5": top5}


class _Transformed(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
    def __init__(self, images: Images, transform: v2.Compose) -> None:
        self.images, self.transform = images, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image, label = self.images[index]
        return self.transform(image), int(label)


@neutral()
def teacher_outputs(
    teacher: Teacher, protocol: Protocol, images: Images, *, features: bool = False, batch_size: int = 500
) -> torch.Tensor:
    """Return the teacher's logits (N, K), or its features (N, D), of the plain images, on the CPU."""
    loader: DataLoader[tuple[torch.Tensor, int]] = DataLoader(
        _Transformed(images, evaluation_transform(protocol)), batch_size, generator=torch.Generator()
    )
    compute = teacher.features if features else teacher
    return torch.cat([compute(views.to(teacher.mean.device)).cpu() for views, _ in loader])


def _accelerator() -> Accelerator:
    from accelerate import Accelerator

    return Accelerator()


@contextlib.contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the global generators, and restore them."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
