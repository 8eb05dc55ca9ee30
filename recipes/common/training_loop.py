"""A training that may stop at any step and go on from its last checkpoint: `train.vae`, `train.diffusion`.

In: a module, what it is to minimise, and how many images there are. Out: the trained module, the average of
its weights, and in the run's folder a checkpoint and `metrics.csv`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from tqdm import tqdm

from d3hr_datasets.runs.run_folder import RunFolder
from d3hr_datasets.runs.timer import Every
from recipes.common.batches import shuffled_batches
from recipes.common.ema import averaged_weights, restore_average, weight_average


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """Settings of every training on real images.

    Args:
        output: The run's folder.
        source: Of the images, as `load_images` takes it, as are `split` and `image_size`.
        image_size: Side of the images.
        padding: Pixels of black frame around them, which makes the side divisible by what the model asks for.
        epochs: Passes over the images; may be changed when a run is gone on with.
        batch_size: Images a step.
        learning_rate: At its peak.
        ema_decay: Of the average of weights.
        split: Which of the images.
        seed: Of the initial weights, the order of images, and all noise.
        log_every: Steps a row of `metrics.csv`.
        minutes_between_checkpoints: While training.
    """

    output: str
    source: str
    image_size: int
    padding: int
    epochs: int
    batch_size: int
    learning_rate: float
    ema_decay: float
    split: str = "train+held-out"
    seed: int = 0
    log_every: int = 100
    minutes_between_checkpoints: float = 5.0


class Objective(Protocol):
    """What a training minimises."""

    def loss(self, index: torch.Tensor, step: int) -> torch.Tensor:
        """Return the loss of the images `index`; whatever is random depends on the step alone."""

    def metrics(self) -> dict[str, float]:
        """Return what `metrics.csv` is to have of the steps since the last call."""


class TrainingLoop:
    """A module in training, gone on with from the folder's checkpoint where there is one.

    Args:
        run: Its folder.
        settings: Of the training.
        name: Of the module, in the checkpoint.
        module: What is trained.
        optimizer: Of its parameters.
    """

    def __init__(
        self,
        run: RunFolder,
        settings: TrainingSettings,
        name: str,
        module: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
    ) -> None:
        self.run, self.settings, self.name = run, settings, name
        self.module, self.optimizer = module, optimizer
        self.average = weight_average(module, settings.ema_decay)
        self.step = 0
        state = run.load_checkpoint()
        if state is not None:
            module.load_state_dict(state[name])
            optimizer.load_state_dict(state["optimizer"])
            self.step = state["step"]
            restore_average(self.average, module, state["average"], self.step)

    def averaged_weights(self) -> dict[str, torch.Tensor]:
        """Return the state of the module with averaged weights."""
        return averaged_weights(self.average, self.module)

    def save_checkpoint(self) -> None:
        self.run.save_checkpoint(
            {
                self.name: self.module.state_dict(),
                "step": self.step,
                "optimizer": self.optimizer.state_dict(),
                "average": self.averaged_weights(),
            }
        )

    def steps(
        self, objective: Objective, num_images: int, rate_factor: Callable[[int, int], float]
    ) -> Iterator[int]:
        """Train until all epochs are over, and yield the number of steps after each.

        Args:
            objective: What is minimised.
            num_images: Of the training set.
            rate_factor: Step and number of all steps to the factor of the learning rate.
        """
        settings, first, started = self.settings, self.step, time.monotonic()
        total = num_images // settings.batch_size * settings.epochs
        checkpoint = Every(settings.minutes_between_checkpoints)
        parameters = sum(parameter.numel() for parameter in self.module.parameters())
        print(f"{parameters:,} parameters, from step {first}", flush=True)
        progress = tqdm(total=total, initial=first, mininterval=20)
        for index in shuffled_batches(num_images, settings.batch_size, settings.seed, first):
            if self.step >= total:
                break
            rate = settings.learning_rate * rate_factor(self.step, total)
            norm = self._update(objective.loss(index, self.step), rate)
            progress.update()
            if self.step % settings.log_every == 0:
                speed = (self.step - first) * settings.batch_size / (time.monotonic() - started)
                metrics: dict[str, Any] = {"step": self.step, **objective.metrics(), "gradient_norm": norm}
                self.run.log(**metrics, learning_rate=rate, images_per_second=round(speed, 1))
            if checkpoint.is_due():
                self.save_checkpoint()
            yield self.step
        progress.close()

    def _update(self, loss: torch.Tensor, rate: float) -> float:
        """Make a step, and return the norm of the gradient before it was clipped to 1."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.module.parameters(), 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.average.step(self.module.parameters())
        self.step += 1
        return norm.item()
