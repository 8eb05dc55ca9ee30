"""A training that may stop at any step, killed or not, and goes on from its last checkpoint.

In: a module, what it is to minimise, and the order of images. Out: the trained module, the average of its
weights, and in the run's folder a checkpoint and `metrics.csv`. All processes that Accelerate knows share
each batch; whatever is random depends on the seed, the step and the place in the batch alone, so that their
number does not matter.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch

from d3hr_datasets.errors import ConfigError, DivergenceError
from d3hr_datasets.runs.run_folder import RunFolder
from d3hr_datasets.runs.timer import Every
from d3hr_datasets.training.learning_rates import RateFactor
from d3hr_datasets.training.progress import progress_bar
from d3hr_datasets.training.settings import TrainingSettings
from d3hr_datasets.training.weight_average import averaged_weights, restore_average, weight_average

# Random numbers of a step by name, a row for each image of the batch.
Drawn = dict[str, torch.Tensor]


class Objective(Protocol):
    """What a training minimises."""

    def draw(self, count: int, step: int) -> Drawn:
        """Return the random numbers of a step, for a whole batch of `count` images."""

    def loss(self, index: torch.Tensor, drawn: Drawn) -> torch.Tensor:
        """Return the mean loss of the images `index`, which are some of a batch."""

    def metrics(self) -> dict[str, torch.Tensor]:
        """Return what `metrics.csv` is to have of the steps since the last call; means over images."""


class TrainingLoop:
    """A module in training, gone on with from the folder's checkpoint where there is one.

    Args:
        run: Its folder.
        settings: Of the training.
        name: Of the module, in the checkpoint.
        module: What is trained.
        optimizer: Of its parameters.
        accelerator: Accelerate's `Accelerator`.
        prepared: The module that the objective calls, as `Accelerator.prepare_model` returned it.
        trained_only: Keep the parameters that are trained, and leave the others out of checkpoints.
        inputs: What the run is made of beside its settings: name -> what tells it from others.

    Raises:
        ConfigError: The checkpoint is of other inputs.
    """

    def __init__(
        self,
        run: RunFolder,
        settings: TrainingSettings,
        name: str,
        module: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        accelerator: Any,
        prepared: torch.nn.Module | None = None,
        trained_only: bool = False,
        inputs: dict[str, str] | None = None,
    ) -> None:
        self.run, self.settings, self.name = run, settings, name
        self.module, self.optimizer = module, optimizer
        self.accelerator = accelerator
        self._prepared = module if prepared is None else prepared
        self._trained_only, self._inputs = trained_only, inputs or {}
        self._rows = settings.rows_of_a_part(accelerator.num_processes)
        device = accelerator.device.type
        settings.check_device(device)
        self._scaler = torch.amp.GradScaler(device, enabled=settings.mixed_precision == "fp16")
        self.parameters = {
            key: parameter
            for key, parameter in module.named_parameters()
            if parameter.requires_grad or not trained_only
        }
        self.average = weight_average(self.parameters, settings.ema_decay)
        self.step = 0
        state = run.load_checkpoint()
        if state is not None:
            self._load(state)

    def _check_inputs(self, before: dict[str, str]) -> None:
        changed = [name for name, value in self._inputs.items() if before.get(name, value) != value]
        if changed:
            raise ConfigError(
                f"the run in {self.run.path} was begun with {' and '.join(changed)} that have changed since; "
                "bring them back to go on with it, or give another output folder"
            )

    def _load(self, state: dict[str, Any]) -> None:
        self._check_inputs(state.get("inputs", {}))
        if self._trained_only:
            with torch.no_grad():
                for key, parameter in self.parameters.items():
                    parameter.copy_(state[self.name][key])
        else:
            self.module.load_state_dict(state[self.name])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]
        restore_average(self.average, self.parameters, state["average"], self.step)
        if state.get("scaler"):
            self._scaler.load_state_dict(state["scaler"])
        if self.accelerator.is_main_process:
            for table in ("metrics", "validation"):
                self.run.forget_after(self.step, table)

    def averaged_weights(self) -> dict[str, torch.Tensor]:
        """Return the averages of the module's parameters by name."""
        return averaged_weights(self.average, self.parameters)

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Have the averaged weights in the module, ready to generate, and then again those in training."""
        parameters = list(self.parameters.values())
        wanted = {parameter: parameter.requires_grad for parameter in self.module.parameters()}
        kept = [parameter.detach().clone() for parameter in parameters]
        self.average.copy_to(parameters)
        try:
            yield
        finally:
            with torch.no_grad():
                for parameter, value in zip(parameters, kept, strict=True):
                    parameter.copy_(value)
            for parameter, flag in wanted.items():
                parameter.requires_grad_(flag)

    def save_checkpoint(self) -> None:
        """Replace the checkpoint, on the first process."""
        if not self.accelerator.is_main_process:
            return
        state = {key: value.detach() for key, value in self.parameters.items()}
        self.run.save_checkpoint(
            {
                self.name: state if self._trained_only else self.module.state_dict(),
                "step": self.step,
                **({"inputs": self._inputs} if self._inputs else {}),
                "optimizer": self.optimizer.state_dict(),
                "average": self.averaged_weights(),
                **({"scaler": self._scaler.state_dict()} if self._scaler.is_enabled() else {}),
            }
        )

    def steps(
        self,
        objective: Objective,
        batches: Callable[[int], Iterator[torch.Tensor]],
        rate_factor: RateFactor,
        total: int,
    ) -> Iterator[int]:
        """Train until all steps are made, and yield their number after each.

        Args:
            objective: What is minimised.
            batches: Step to the batches from it on, each of indices (B,).
            rate_factor: Step and number of all steps to the factor of the learning rate.
            total: Steps in all.

        Raises:
            DivergenceError: The loss, or its gradient, is no number any more.
        """
        settings, first, started = self.settings, self.step, time.monotonic()
        checkpoint = Every(settings.minutes_between_checkpoints)
        with progress_bar(self.name, total, first, self.accelerator.is_main_process) as progress:
            for index in batches(first):
                if self.step >= total:
                    break
                rate = settings.learning_rate * rate_factor(self.step, total)
                norm = self._update(objective, index, rate)
                progress.update()
                if self.step % settings.log_every == 0:
                    speed = (self.step - first) * settings.batch_size / (time.monotonic() - started)
                    self._log(objective.metrics(), norm, rate, speed)
                if checkpoint.is_due():
                    self._check_weights()
                    self.save_checkpoint()
                yield self.step
        if self.step > first:
            self._check_weights()
            self.save_checkpoint()

    def _update(self, objective: Objective, index: torch.Tensor, rate: float) -> torch.Tensor:
        """Make a step, and return the norm of the gradient before it was clipped to 1."""
        drawn = objective.draw(len(index), self.step)
        accelerator, number = self.accelerator, self.settings.gradient_accumulation
        self.optimizer.zero_grad(set_to_none=True)
        for part in range(number):
            start = (accelerator.process_index * number + part) * self._rows
            rows = slice(start, start + self._rows)
            is_last = part == number - 1
            with contextlib.nullcontext() if is_last else accelerator.no_sync(self._prepared):
                loss = objective.loss(index[rows], {key: value[rows] for key, value in drawn.items()})
                loss = loss if number == 1 else loss / number
                self._scaler.scale(loss).backward()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self._scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self.module.parameters(), 1.0)
        self._scaler.step(self.optimizer)
        self._scaler.update()
        self.average.step(self.parameters.values())
        self.step += 1
        return norm

    def _log(self, metrics: dict[str, torch.Tensor], norm: torch.Tensor, rate: float, speed: float) -> None:
        values = torch.stack([value.detach().float().reshape(()) for value in metrics.values()])
        values = self.accelerator.reduce(values, "mean")
        self._check_finite(values)
        self._check_finite(norm)
        if self.accelerator.is_main_process:
            named: dict[str, Any] = dict(zip(metrics, values.tolist(), strict=True))
            row = {"step": self.step, **named, "gradient_norm": norm.item()}
            self.run.log(**row, learning_rate=rate, images_per_second=round(speed, 1))

    def _check_weights(self) -> None:
        trained = [parameter for parameter in self.parameters.values() if parameter.requires_grad]
        self._check_finite(torch.stack([parameter.detach().float().abs().max() for parameter in trained]))

    def _check_finite(self, values: torch.Tensor) -> None:
        if self._scaler.is_enabled() and values.ndim == 0:
            return  # the scaler passes over steps whose gradients overflow
        if not bool(values.isfinite().all()):
            raise DivergenceError(
                f"the training of {self.run.path} has come to numbers that are not finite at step "
                f"{self.step}; lower learning_rate ({self.settings.learning_rate}), or use mixed_precision = "
                "'no' or 'bf16'; the last checkpoint is from before"
            )
