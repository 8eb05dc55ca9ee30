"""A protocol and a data set -> a trained student.

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
from torch.utils.data import DataLoader

from d3hr_datasets.config.checks import check_compiler
from d3hr_datasets.errors import DivergenceError
from d3hr_datasets.numerics.allocator import kept_memory
from d3hr_datasets.numerics.torch_settings import neutral
from d3hr_datasets.students.accelerator import default_accelerator
from d3hr_datasets.students.losses import StudentLoss, check_weights
from d3hr_datasets.students.models import create_student
from d3hr_datasets.students.protocol import Protocol
from d3hr_datasets.students.soft_labels import SoftLabels
from d3hr_datasets.students.teachers import Teacher
from d3hr_datasets.students.views import (
    EpochBatches,
    Images,
    Network,
    Views,
    set_epoch,
    train_transform,
)

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True)
class EpochReport:
    """What one epoch did. `state()` is all that is needed to go on after it: `train_student(state=...)`."""

    epoch: int
    loss: float
    learning_rate: float
    seconds: float
    state: Callable[[], dict[str, Any]]


@neutral(grad=True)
@kept_memory()
def train_student(
    protocol: Protocol,
    images: Images,
    num_classes: int,
    *,
    seed: int = 0,
    teacher: Teacher | None = None,
    soft_labels: SoftLabels | None = None,
    weights: torch.Tensor | None = None,
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
        images: The training set, as (PIL image or uint8 tensor (C, H, W), label). Before each epoch, its
            `set_epoch` is called if it has one.
        num_classes: Logits of the student.
        seed: Of the network, the order and the views.
        teacher: Gives soft labels of every view, for `labels="soft"`.
        soft_labels: Of the plain images, for `labels="stored"`.
        weights: (N,), of each image in the loss, as `D3HRDataset.weights`; see `StudentLoss`. All alike if
            there are none.
        accelerator: Where to run; by default CUDA or MPS if there is one, else the CPU.
        state: Of the `EpochReport` to go on after.
        on_epoch: Called after every epoch, in every process, under the same settings as the training.
        workers: Processes that read images.
        torch_compile: Compile student and teacher for the training; other rounding, fewer seconds.

    Returns:
        The network, which takes normalised images; see `normalized`.

    Raises:
        ConfigError: The labels that the protocol asks for are not given, or compiling needs a C++ compiler
            and there is none; or `weights` are not one finite number of at least 0 for each image.
        DivergenceError: The loss is no number.
    """
    accelerator = accelerator or default_accelerator()
    if weights is not None:
        check_weights(weights, len(images))
    loss = StudentLoss(protocol, num_classes, teacher, soft_labels, accelerator, torch_compile, weights)
    training = _Training(protocol, images, loss, seed, state, workers, torch_compile)
    for epoch in range(training.first_epoch, protocol.epochs):
        report = training.run_epoch(epoch)
        if on_epoch is not None:
            on_epoch(report)
    student: nn.Module = accelerator.unwrap_model(training.model)
    return student.eval()


class _Training:
    """A student, its optimizer and its views: what an epoch changes, and what it goes through."""

    def __init__(
        self,
        protocol: Protocol,
        images: Images,
        loss: StudentLoss,
        seed: int,
        state: dict[str, Any] | None,
        workers: int,
        torch_compile: bool,
    ) -> None:
        self.protocol, self.loss, self.seed, self.accelerator = protocol, loss, seed, loss.accelerator
        self.images = images
        device = self.accelerator.device
        if torch_compile:
            check_compiler(device.type)
        with _seeded(seed, device):
            model = create_student(
                protocol.student,
                loss.num_classes,
                protocol.channels,
                protocol.image_size,
                protocol.student_args,
            )
        self.first_epoch = 0
        if state is not None:
            model.load_state_dict(state["model"])
            self.first_epoch = state["epoch"] + 1
        self.model, self.optimizer = self.accelerator.prepare(model, make_optimizer(protocol, model))
        if state is not None:
            self.optimizer.load_state_dict(state["optimizer"])
        self.network: Network = torch.compile(self.model, dynamic=False) if torch_compile else self.model
        self.batches = EpochBatches(
            len(images),
            protocol.batch_size,
            seed,
            self.accelerator.process_index,
            self.accelerator.num_processes,
        )
        # Its own generator, so that the global one is not touched. It seeds workers, whose views do without.
        self.loader: DataLoader[tuple[torch.Tensor, int, int]] = DataLoader(
            Views(images, train_transform(protocol)),
            batch_sampler=self.batches,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=device.type == "cuda",
            generator=torch.Generator().manual_seed(seed),
        )

    def run_epoch(self, epoch: int) -> EpochReport:
        """Go through all views of an epoch once."""
        started = time.monotonic()
        self.batches.epoch = epoch
        set_epoch(self.images, epoch)
        self.model.train()
        device = self.accelerator.device
        total = torch.zeros(2, device=device)  # of losses, of images
        with _seeded((self.seed * 100_003 + epoch) * 1009 + self.accelerator.process_index, device):
            for step, (views, labels, index) in enumerate(self.loader):
                rate = self._set_learning_rate(epoch + step / len(self.batches))
                loss = self.loss(self.network, views.to(device), labels.to(device), index)
                self.optimizer.zero_grad(set_to_none=True)
                self.accelerator.backward(loss)
                self.optimizer.step()
                total += torch.stack([loss.detach() * len(views), loss.new_tensor(len(views))])
        losses, count = self.accelerator.reduce(total, "sum").tolist()
        if math.isnan(losses / count):
            raise DivergenceError(
                f"the loss of epoch {epoch} is not a number; lower learning_rate "
                f"{self.protocol.learning_rate} or train in full precision"
            )
        state = functools.partial(self._state, epoch)
        return EpochReport(epoch, losses / count, rate, time.monotonic() - started, state)

    def _set_learning_rate(self, epoch: float) -> float:
        rate = self.protocol.learning_rate * self.protocol.learning_rate_factor(epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        return rate

    def _state(self, epoch: int) -> dict[str, Any]:
        model = self.accelerator.unwrap_model(self.model)
        return {"model": model.state_dict(), "optimizer": self.optimizer.state_dict(), "epoch": epoch}


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


@contextlib.contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the global generators, and restore them."""
    on_mps = torch.mps.get_rng_state() if device.type == "mps" else None  # `fork_rng` does not know it
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        try:
            yield
        finally:
            if on_mps is not None:
                torch.mps.set_rng_state(on_mps)
