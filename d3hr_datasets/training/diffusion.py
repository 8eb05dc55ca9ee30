"""Training a diffusion model: settings -> a folder with a model in diffusers' layout, or with an adapter.

    OUTPUT/settings.yaml          what was asked for
    OUTPUT/latents/               the images, encoded once
    OUTPUT/checkpoint.pt          where a run goes on
    OUTPUT/metrics.csv            the error of training; validation.csv: of held-out images
    OUTPUT/samples-STEP.png       samples of the averaged weights
    OUTPUT/model/, or adapter/    what it was for

Every process that `accelerate launch` or `torchrun` started calls `train_diffusion`; the first one writes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from filelock import FileLock, Timeout

from d3hr_datasets.build.joined_processes import join_processes
from d3hr_datasets.config.checks import check_compiler
from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from d3hr_datasets.errors import ConfigError
from d3hr_datasets.io.atomic import remove_unfinished
from d3hr_datasets.io.extras import needs_extra
from d3hr_datasets.numerics.allocator import kept_memory
from d3hr_datasets.numerics.torch_settings import neutral
from d3hr_datasets.runs.run_folder import CHECKPOINT, RunFolder
from d3hr_datasets.runs.timer import Every
from d3hr_datasets.training.base_model import BaseModel, Started, open_base, start_network
from d3hr_datasets.training.batches import shuffled_batches
from d3hr_datasets.training.images import open_training_images
from d3hr_datasets.training.latents import Latents, encoded_latents
from d3hr_datasets.training.learning_rates import rate_factor
from d3hr_datasets.training.loop import TrainingLoop
from d3hr_datasets.training.noising import noising_of
from d3hr_datasets.training.objective import Conditions, DiffusionObjective, Predictor
from d3hr_datasets.training.progress import parameters_line, say
from d3hr_datasets.training.run_places import check_run_places, inputs_of
from d3hr_datasets.training.samples import save_samples
from d3hr_datasets.training.saving import save_model, write_adapter
from d3hr_datasets.training.settings import FREE, DiffusionTraining, earlier_settings

if TYPE_CHECKING:
    from accelerate import Accelerator

MODEL, ADAPTER, LATENTS = "model", "adapter", "latents"  # folders of what is made
NAME = "transformer"  # of the network in checkpoints, whatever it is


def training_accelerator() -> Accelerator:
    """Return Accelerate's choice of device, for all processes that were launched.

    Raises:
        MissingExtraError: Accelerate is not installed.
        ConfigError: It does not see the processes that were launched.
    """
    with needs_extra("adapt", "models are trained with Accelerate"):
        from accelerate import Accelerator
    join_processes()
    return Accelerator()


def made_by(settings: DiffusionTraining) -> str:
    """Return the name of the folder of what is trained."""
    return ADAPTER if settings.start == "lora" else MODEL


@neutral(grad=True)
def train_diffusion(
    settings: DiffusionTraining, download: bool = False, accelerator: Accelerator | None = None
) -> Path:
    """Train a diffusion model, or an adapter of one; goes on from the run's last checkpoint.

    Args:
        settings: Of the training.
        download: Let torchvision download images.
        accelerator: Where to compute; by default Accelerate's choice.

    Returns:
        `OUTPUT/model`, or `OUTPUT/adapter`.

    Raises:
        ConfigError: Settings do not fit model, images or machine, or are not those of the run in the folder.
        SourceError: The images cannot be opened.
        ModelNotFoundError: There is no such model; `ModelFormatError`: it cannot be used.
        DivergenceError: The training has come to numbers that are not finite.
        MissingExtraError: Accelerate, peft or what reads prompts is not installed.
    """
    accelerator = training_accelerator() if accelerator is None else accelerator
    settings.rows_of_a_part(accelerator.num_processes)  # before anything takes time
    settings.check_device(accelerator.device.type)
    check_run_places(settings, made_by(settings))
    if settings.torch_compile:
        check_compiler(accelerator.device.type)
    alone = alone_in(Path(settings.output)) if accelerator.is_main_process else contextlib.nullcontext()
    with kept_memory(), alone:
        base = open_base(settings)
        with accelerator.main_process_first():
            run = RunFolder(settings.output, settings, FREE, earlier_settings)
        training = _latents(base, settings, settings.split, download, accelerator)
        validation = None
        if settings.validation_split is not None:
            validation = _latents(base, settings, settings.validation_split, download, accelerator)
        started = start_network(base, settings, training.classes, accelerator.device)
        return DiffusionTrainer(settings, run, base, started, training, validation, accelerator).train()


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold a run's folder, without what a killed process left of a checkpoint.

    A file system without locks cannot be held; the user has to see to it there.

    Raises:
        ConfigError: Another process trains there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock", fallback_to_soft=False)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ConfigError(
            f"another process trains in {folder}; wait for it, or give another output folder"
        ) from error
    except (OSError, NotImplementedError):
        yield
        return
    try:
        remove_unfinished(folder / CHECKPOINT)
        yield
    finally:
        lock.release()


def _latents(
    base: BaseModel, settings: DiffusionTraining, split: str, download: bool, accelerator: Accelerator
) -> Latents:
    vae = base.vae
    with accelerator.main_process_first():  # which downloads
        images = open_training_images(settings.source, split, vae.image_size, vae.channels, download)
    if split == settings.split:
        settings.total_steps(images.num_images)  # says what is wrong before anything is encoded
    return encoded_latents(images, vae, Path(settings.output) / LATENTS, split, accelerator)


class DiffusionTrainer:
    """One training, all of whose parts are there; gone on with from the run's checkpoint.

    Args:
        settings: Of the training.
        run: Its folder.
        base: What it starts from.
        started: The network.
        latents: Of the images.
        validation: Of held-out images, or None.
        accelerator: Accelerate's `Accelerator`.
    """

    def __init__(
        self,
        settings: DiffusionTraining,
        run: RunFolder,
        base: BaseModel,
        started: Started,
        latents: Latents,
        validation: Latents | None,
        accelerator: Accelerator,
    ) -> None:
        self.settings, self.run, self.base, self.started = settings, run, base, started
        self.latents, self.accelerator = latents, accelerator
        device, network = accelerator.device, started.network.to(accelerator.device)
        optimizer = torch.optim.AdamW(
            [parameter for parameter in network.parameters() if parameter.requires_grad],
            settings.learning_rate,
            betas=(0.9, 0.99),
            weight_decay=0.01,
            fused=device.type in ("cpu", "cuda"),
        )
        side = base.vae.image_size + 2 * base.vae.padding
        predictor = Predictor(network, base.kind, side, settings.mixed_precision, settings.torch_compile)
        prepared = accelerator.prepare_model(predictor)
        is_lora = settings.start == "lora"
        inputs = inputs_of(base, started, latents)
        self.loop = TrainingLoop(
            run, settings, NAME, network, optimizer, accelerator, prepared, is_lora, inputs
        )
        say(parameters_line(network, self.loop.step), accelerator.is_main_process)
        noising = noising_of(started.schedule, settings)
        conditions = Conditions(started.conditioning, settings.label_dropout)
        self.objective = DiffusionObjective(prepared, latents, conditions, noising, settings, device)
        self.validation = None
        if validation is not None:
            self.validation = DiffusionObjective(prepared, validation, conditions, noising, settings, device)
        # Of a base model in half precision nothing else can be computed.
        is_half = any(parameter.dtype != torch.float32 for parameter in network.parameters())
        precision = settings.mixed_precision if is_half else "no"
        self._plain = Predictor(network, base.kind, side, precision, torch_compile=False)

    def steps(self) -> Iterator[int]:
        """Make all steps that are left, and yield the number of those made after each."""
        settings, latents = self.settings, self.latents
        mixed = settings.shards_at_once * latents.rows or None
        batches = partial(shuffled_batches, len(latents), settings.batch_size, settings.seed, mixed=mixed)
        factor = rate_factor(settings.schedule, settings.decay_share)
        return self.loop.steps(self.objective, batches, factor, settings.total_steps(len(latents)))

    def train(self) -> Path:
        """Make all steps that are left, and write what the training was for."""
        settings, latents = self.settings, self.latents
        samples = Every(settings.minutes_between_samples)
        for _ in self.steps():
            if self.accelerator.is_main_process and samples.is_due():
                with self.loop.averaged():
                    self.look()
        folder = self.run.path / made_by(settings)
        if self.accelerator.is_main_process:
            with self.loop.averaged():
                self.look()
                if settings.start == "lora":
                    write_adapter(self.base, self.started, latents.classes, self.loop.step, folder)
                else:
                    save_model(self.base, self.started, latents.classes, folder)
        self.accelerator.wait_for_everyone()
        return folder

    def look(self) -> None:
        """Write a grid of samples, and the error on held-out images; of the weights that are there."""
        settings, step, started = self.settings, self.loop.step, self.started
        if settings.samples_per_class:
            model = LatentDiffusion(
                started.network,
                self.base.vae.module,
                started.schedule,
                self.accelerator.device,
                kind=self.base.kind,
                conditioning=started.conditioning,
            )
            save_samples(model, self.run.path / f"samples-{step}.png", settings.samples_per_class)
        if self.validation is not None:
            error = self.validation.mean_error(self._plain)
            epoch = step / (len(self.latents) // settings.batch_size)
            self.run.log(table="validation", step=step, epoch=round(epoch, 2), mse=error)
