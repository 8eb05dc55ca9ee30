"""What a diffusion model is trained for: latents and random numbers of a step -> a loss.

In: a network that predicts noise, v, or the velocity of flow matching. Out: the error of its prediction on
noised latents. All numbers are drawn on the CPU by a generator of the step's own, for the whole batch, so
that they are the same on every device and in any number of processes.
"""

from __future__ import annotations

from typing import Any

import torch

from d3hr_datasets.diffusion.conditioning import ClassLabels, Conditioning, PromptEmbeddings
from d3hr_datasets.diffusion.kinds.kind import Inputs, ModelKind
from d3hr_datasets.errors import ConfigError
from d3hr_datasets.training.latents import Latents
from d3hr_datasets.training.loop import Drawn
from d3hr_datasets.training.noising import Noising
from d3hr_datasets.training.settings import DiffusionTraining

VALIDATION_IMAGES = 4096  # enough for three digits of the error
VALIDATION_BATCH = 256
GUIDANCE = 3.5  # told to networks that take it, as diffusers' training scripts do
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Predictor(torch.nn.Module):
    """A network as the objective calls it; what Accelerate prepares, so that several processes share it.

    Args:
        network: diffusers' transformer or UNet, perhaps with an adapter.
        kind: How it is called.
        image_size: Side of its images, with their frame.
        mixed_precision: As the settings have it.
        torch_compile: Whether it is compiled; only here, and not where it generates.
    """

    def __init__(
        self, network: Any, kind: ModelKind, image_size: int, mixed_precision: str, torch_compile: bool
    ) -> None:
        super().__init__()
        self.network = network
        self._kind, self._image_size = kind, image_size
        self._dtype = DTYPES.get(mixed_precision)
        self._predict = torch.compile(self._call) if torch_compile else self._call

    def forward(self, latents: torch.Tensor, times: torch.Tensor, condition: Inputs) -> torch.Tensor:
        """Return the prediction (B, C, H, W) float32; a learned variance is dropped."""
        dtype = self._dtype or torch.float32
        with torch.autocast(latents.device.type, dtype, enabled=self._dtype is not None):
            output = self._predict(latents, times, condition)
        return output[:, : latents.shape[1]].float()

    def _call(self, latents: torch.Tensor, times: torch.Tensor, condition: Inputs) -> torch.Tensor:
        network, size = self.network, self._image_size
        output: torch.Tensor = self._kind.predict(network, latents, times, condition, GUIDANCE, size)
        return output


class Conditions:
    """What the network is told of labels, where that of no class comes after the last one.

    Args:
        conditioning: Of the model.
        label_dropout: Share of labels that are left out.

    Raises:
        ConfigError: Prompts are to be left out, and nothing stands in for them.
    """

    def __init__(self, conditioning: Conditioning, label_dropout: float) -> None:
        self.num_classes = conditioning.num_classes
        self._tables: Inputs | None = None
        if isinstance(conditioning, ClassLabels):
            return
        assert isinstance(conditioning, PromptEmbeddings)
        rows = [conditioning.embeddings[label] for label in range(self.num_classes)]
        if conditioning.negative is None:
            if label_dropout:
                raise ConfigError(
                    "the model has no negative prompt that could stand in for prompts that are left out; "
                    "give label_dropout = 0"
                )
        else:
            rows.append(conditioning.negative)
        self._tables = {name: torch.cat([row[name] for row in rows]) for name in rows[0]}

    def inputs(self, labels: torch.Tensor, device: torch.device) -> Inputs:
        """Return the network's inputs for labels (B,)."""
        if self._tables is None:
            return {"class_labels": labels.to(device)}
        return {name: table[labels].to(device) for name, table in self._tables.items()}


class DiffusionObjective:
    """The error of a network's predictions, weighted by time, and without some labels.

    Args:
        predictor: The network, as Accelerate prepared it.
        latents: Of the images.
        conditions: What it is told of labels.
        noising: How latents are noised.
        settings: Of the training.
        device: Where the network is.
    """

    def __init__(
        self,
        predictor: torch.nn.Module,
        latents: Latents,
        conditions: Conditions,
        noising: Noising,
        settings: DiffusionTraining,
        device: torch.device,
    ) -> None:
        self.predictor, self.latents, self.conditions = predictor, latents, conditions
        self.noising, self.settings, self.device = noising, settings, device
        self._errors: list[torch.Tensor] = []  # since `metrics` was called

    def draw(self, count: int, step: int) -> Drawn:
        """Return noise (B, C, H, W), times (B,), and which labels are left out (B,)."""
        generator = torch.Generator().manual_seed(self.settings.seed * 1_000_003 + step)
        noise = torch.randn((count, *self.latents.shape), generator=generator)
        times = self.noising.draw_times(count, generator)
        # Labels are dropped here: in training mode every block of diffusers' DiT draws its own.
        drop = torch.rand(count, generator=generator) < self.settings.label_dropout
        return {"noise": noise, "times": times, "drop": drop}

    def loss(self, index: torch.Tensor, drawn: Drawn) -> torch.Tensor:
        """Return the mean over images `index` (B,)."""
        labels = torch.where(drawn["drop"], self.conditions.num_classes, self.latents.labels[index])
        error = self.errors(self.predictor, index, labels, drawn["noise"], drawn["times"])
        self._errors.append(error.detach().mean())
        loss: torch.Tensor = (self.noising.weights(drawn["times"]).to(self.device) * error).mean()
        return loss

    def errors(
        self,
        predictor: torch.nn.Module,
        index: torch.Tensor,
        labels: torch.Tensor,
        noise: torch.Tensor,
        times: torch.Tensor,
    ) -> torch.Tensor:
        """Return the mean squared error of each image, (B,), on the device."""
        signal, share = (level.to(self.device) for level in self.noising.level(times))
        latents, noise = self.latents.values(index).to(self.device), noise.to(self.device)
        noisy = signal * latents + share * noise
        condition = self.conditions.inputs(labels, self.device)
        predicted = predictor(noisy, self.noising.model_times(times).to(self.device), condition)
        target = self.noising.target(latents, noise, signal, share)
        error: torch.Tensor = (predicted - target).square().mean(dim=(1, 2, 3))
        return error

    def metrics(self) -> dict[str, torch.Tensor]:
        """Return the mean error since the last call."""
        mean = torch.stack(self._errors).mean()
        self._errors = []
        return {"mse": mean}

    @torch.no_grad()
    def mean_error(self, predictor: torch.nn.Module) -> float:
        """Return the mean error of the first images; the same noise and times in every call."""
        generator = torch.Generator().manual_seed(0)
        total, count = 0.0, min(VALIDATION_IMAGES, len(self.latents))
        for index in torch.arange(count).split(VALIDATION_BATCH):
            noise = torch.randn((len(index), *self.latents.shape), generator=generator)
            times = self.noising.draw_times(len(index), generator)
            labels = self.latents.labels[index]
            total += self.errors(predictor, index, labels, noise, times).sum().item()
        return total / count
