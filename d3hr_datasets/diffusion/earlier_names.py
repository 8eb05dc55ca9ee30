"""Names that `LatentDiffusion` had when it knew one kind of model; they warn, and will go."""

from __future__ import annotations

import warnings
from typing import Any

from d3hr_datasets.diffusion.conditioning import ClassLabels, Conditioning
from d3hr_datasets.diffusion.noise_schedule import NoiseSchedule


class EarlierNames:
    """What 0.1 called `network`, `schedule` and `conditioning`; for two minor releases from 0.2 on."""

    network: Any
    schedule: NoiseSchedule
    conditioning: Conditioning

    @property
    def transformer(self) -> Any:
        """The network."""
        _warn("transformer", "network")
        return self.network

    @property
    def scheduler(self) -> Any:
        """Diffusers' scheduler of the schedule."""
        _warn("scheduler", "schedule")
        return getattr(self.schedule, "scheduler", None)

    @property
    def null_class_label(self) -> int:
        """The label of no class, of a model of class labels.

        Raises:
            AttributeError: The model takes prompts.
        """
        _warn("null_class_label", "conditioning.null_class_label")
        if not isinstance(self.conditioning, ClassLabels):
            raise AttributeError("a model of prompts has no label of no class")
        return self.conditioning.null_class_label


def _warn(name: str, instead: str) -> None:
    warnings.warn(
        f"LatentDiffusion.{name} is called {instead} now, and will be gone in 0.4",
        DeprecationWarning,
        stacklevel=3,
    )
