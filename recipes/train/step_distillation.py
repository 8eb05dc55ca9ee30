"""Distil the steps of decoding: artifact + its model -> the same model, which decodes in one step or two.

    python -m recipes.build.fashion_mnist --select 10000 --output runs/artifacts/select --work WORK
    python -m recipes.train.step_distillation recipes/configs/distilled_steps_fashion_mnist.yaml
    python -m recipes.build.distilled_steps

Latents are sampled from the artifact and decoded as it says, once. From a latent and what became of it
follows the noise that was taken away. The network learns to tell that noise at each time of a walk of fewer
steps, without guidance: its first step is to end where the whole walk ended. Latents, times and classes are
those of the artifact, so the result decodes it and nothing else; it inverts no images.

Goes on from `OUTPUT/checkpoint.pt` where there is one. Writes `OUTPUT/samples-DIGEST.safetensors` and, at
the end, `OUTPUT/model/`.

Source: Luhman and Luhman (2021), "Knowledge distillation in iterative generative models", arXiv 2101.02388;
there from pure noise to one step, here from the time of the statistics.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from d3hr_datasets import Artifact, D3HRDataset, DecodeConfig, GroupSamplingConfig
from d3hr_datasets.artifact.d3hr_json import STATISTICS
from d3hr_datasets.config.checks import check_int
from d3hr_datasets.diffusion.walk_times import decode_times
from d3hr_datasets.runs.run_folder import RunFolder
from d3hr_datasets.runs.settings_files import load_settings
from d3hr_datasets.training.base_model import open_base, start_network
from d3hr_datasets.training.batches import shuffled_batches
from d3hr_datasets.training.diffusion import MODEL, NAME, training_accelerator
from d3hr_datasets.training.latents import Latents
from d3hr_datasets.training.learning_rates import rate_factor
from d3hr_datasets.training.loop import Drawn, TrainingLoop
from d3hr_datasets.training.noising import noising_of
from d3hr_datasets.training.objective import Conditions, DiffusionObjective, Predictor
from d3hr_datasets.training.run_places import check_run_places, inputs_of
from d3hr_datasets.training.saving import save_model
from d3hr_datasets.training.settings import FREE, DiffusionTraining
from recipes.common.prerequisites import need_artifact
from recipes.common.program import program
from recipes.common.settings import settings_parser
from recipes.common.tensor_cache import cached_tensors

SEED = 1000  # of the groups that are learned from: none that students are trained on


@dataclass(frozen=True, kw_only=True)
class StepDistillation(DiffusionTraining):
    """Settings of one distillation; `source` is the artifact, and `model` the folder of its model.

    Args:
        num_steps: Steps of the walk whose times are learned. A single step from the first of them is, too.
        samples_of_class: Sampled latents of each class that are learned from.
        ipc: Images per class whose settings of decoding are learned.
    """

    start: str = "full"
    keep_classes: bool = True
    label_dropout: float = 0.0
    num_steps: int = 2
    samples_of_class: int = 3000
    ipc: int = 50

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("num_steps", "samples_of_class", "ipc"):
            check_int(name, getattr(self, name), 1)


class StepError(DiffusionObjective):
    """The error of the noise that the whole walk takes away, at the times of the shorter walk.

    Args:
        noise: Of each sample, (N, C, H, W).
        times: Of the shorter walk, (T,).
        others: As `DiffusionObjective`.
    """

    def __init__(self, noise: torch.Tensor, times: torch.Tensor, *others: Any) -> None:
        super().__init__(*others)
        self._noise, self._times = noise, times

    def draw(self, count: int, step: int) -> Drawn:
        """Return a time for each sample of a batch, (B,)."""
        generator = torch.Generator().manual_seed(self.settings.seed * 1_000_003 + step)
        return {"times": self._times[torch.randint(len(self._times), (count,), generator=generator)]}

    def loss(self, index: torch.Tensor, drawn: Drawn) -> torch.Tensor:
        """Return the mean over samples `index` (B,)."""
        labels = self.latents.labels[index]
        error = self.errors(self.predictor, index, labels, self._noise[index], drawn["times"])
        self._errors.append(error.detach().mean())
        return error.mean()


def fewer_steps(decode: DecodeConfig, num_steps: int) -> DecodeConfig:
    """Return settings of so many steps from the same time, without guidance, which is learned."""
    counted: dict[str, Any] = {"num_steps": num_steps, "num_inference_steps": None, "spacing": "quadratic"}
    plain: dict[str, Any] = {"solver": "ddim", "guidance_scale": 1.0, "guidance_interval": None}
    return dataclasses.replace(decode, **counted, **plain)


def sampled(dataset: D3HRDataset, decode: DecodeConfig) -> dict[str, torch.Tensor]:
    """Return what the latents of a set become: "mean" and "noise" (N, C, H, W), "labels" (N,)."""
    model, found = dataset.model(), []
    level = model.schedule.level(decode.timestep)
    for label in tqdm(range(len(dataset.classes)), "decoding classes"):
        latents = dataset.sample_latents(label).to(model.device)
        labels = torch.full((len(latents),), label)
        clean = model.denoise(latents, labels, decode)
        noise = (latents - level.signal * clean) / level.noise
        found.append((clean.cpu(), noise.cpu(), labels))
    return dict(zip(("mean", "noise", "labels"), map(torch.cat, zip(*found, strict=True)), strict=True))


def distil(settings: StepDistillation) -> Path:
    """Train, and return the folder of the model."""
    need_artifact(settings.source)
    artifact = Artifact.from_pretrained(settings.source)
    check_run_places(settings, MODEL)
    accelerator = training_accelerator()
    settings.check_device(accelerator.device.type)
    run = RunFolder(settings.output, settings, FREE)
    decode = D3HRDataset(artifact, ipc=settings.ipc).decode
    method = "modes" if artifact.info.num_modes > 1 else "moment_matched"
    sampling = GroupSamplingConfig(method, seed=SEED)  # type: ignore[arg-type]
    dataset = D3HRDataset(artifact, ipc=settings.samples_of_class, sampling=sampling, decode=decode)
    digest = artifact.sha256[STATISTICS][:16]
    path = run.path / f"samples-{digest}.safetensors"
    with accelerator.main_process_first():
        noise = cached_tensors(path, partial(sampled, dataset, decode))["noise"]
    latents = Latents([path], len(noise), (1.0, 0.0), artifact.info.classes)

    base = open_base(settings)
    started = start_network(base, settings, latents.classes, accelerator.device)
    network = started.network.to(accelerator.device)
    optimizer = torch.optim.AdamW(network.parameters(), settings.learning_rate, weight_decay=0.0)
    side = base.vae.image_size + 2 * base.vae.padding
    predictor = Predictor(network, base.kind, side, settings.mixed_precision, settings.torch_compile)
    prepared = accelerator.prepare_model(predictor)
    inputs = inputs_of(base, started, latents) | {"statistics": digest}
    loop = TrainingLoop(run, settings, NAME, network, optimizer, accelerator, prepared, inputs=inputs)
    times = torch.tensor(decode_times(started.schedule, fewer_steps(decode, settings.num_steps))[:-1])
    conditions = Conditions(started.conditioning, settings.label_dropout)
    noising = noising_of(started.schedule, settings)
    objective = StepError(noise, times, prepared, latents, conditions, noising, settings, accelerator.device)
    batches = partial(shuffled_batches, len(latents), settings.batch_size, settings.seed)
    factor = rate_factor(settings.schedule, settings.decay_share)
    for _ in loop.steps(objective, batches, factor, settings.total_steps(len(latents))):
        pass
    if accelerator.is_main_process:
        with loop.averaged():
            save_model(base, started, latents.classes, run.path / MODEL)
    accelerator.wait_for_everyone()
    return run.path / MODEL


@program
def main() -> None:
    parser = settings_parser(StepDistillation, __doc__)
    arguments = parser.parse_args()
    print(distil(load_settings(StepDistillation, arguments.config, arguments.set)))


if __name__ == "__main__":
    main()
