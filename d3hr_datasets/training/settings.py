"""Settings of trainings, read from YAML by `runs.settings_files.load_settings`, and checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from d3hr_datasets.config.checks import check_bool, check_choice, check_int, check_number
from d3hr_datasets.diffusion.adapters import MAX_RANK
from d3hr_datasets.errors import ConfigError
from d3hr_datasets.training.batches import steps_per_epoch

MixedPrecision = Literal["no", "bf16", "fp16"]
Start = Literal["scratch", "full", "lora"]
ObjectiveName = Literal["min_snr", "flow"]
SigmaDraw = Literal["logit_normal", "uniform"]
Schedule = Literal["one_cycle", "warmup_stable_decay"]
Split = Literal["train", "held-out", "train+held-out", "test"]

# What may differ from the settings that a run was begun with.
FREE = (
    "output",
    "epochs",
    "steps",
    "minutes_between_checkpoints",
    "minutes_between_samples",
    "samples_per_class",
)
MAX_PARAMETERS = 10**10  # of a new DiT; DiT-XL/2 has 7.5 x 10^8
SIZES = ("patch_size", "num_layers", "num_attention_heads", "attention_head_dim")


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """Settings of every training on real images.

    Args:
        output: The run's folder.
        source: Of the images: a folder with one folder per class, "torchvision:NAME[:ROOT]", "datasets:NAME",
            or "fashion-mnist".
        batch_size: Images a step, in all processes together.
        learning_rate: At its peak.
        ema_decay: Of the average of weights.
        epochs: Passes over the images; may be changed when a run is gone on with.
        steps: Steps, instead of `epochs`.
        split: Which of the images: "train" (without a fixed sixth), "held-out" (that sixth),
            "train+held-out", or "test" where the source has one.
        seed: Of the initial weights, the order of images, and all noise.
        log_every: Steps a row of `metrics.csv`.
        minutes_between_checkpoints: While training.
        mixed_precision: What the network computes in: "no" (float32), "bf16", or "fp16" (on GPUs).
        gradient_accumulation: Parts that a process takes its share of a batch in, one after another.
    """

    output: str
    source: str
    batch_size: int
    learning_rate: float
    ema_decay: float
    epochs: int | None = None
    steps: int | None = None
    split: str = "train+held-out"
    seed: int = 0
    log_every: int = 100
    minutes_between_checkpoints: float = 5.0
    mixed_precision: str = "no"
    gradient_accumulation: int = 1

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.steps is None):
            raise ConfigError(
                f"epochs = {self.epochs!r} and steps = {self.steps!r}: give one of them, how long to train"
            )
        for name in ("epochs", "steps"):
            if getattr(self, name) is not None:
                check_int(name, getattr(self, name), 1)
        for name in ("batch_size", "log_every", "gradient_accumulation"):
            check_int(name, getattr(self, name), 1)
        check_int("seed", self.seed, 0)
        _check_positive("learning_rate", self.learning_rate)
        _check_share("ema_decay", self.ema_decay)
        check_number("minutes_between_checkpoints", self.minutes_between_checkpoints, 0.0)
        check_choice("mixed_precision", self.mixed_precision, MixedPrecision)
        check_choice("split", self.split, Split)

    def total_steps(self, num_images: int) -> int:
        """Return the steps of the whole training.

        Raises:
            ConfigError: There are fewer images than a batch has.
        """
        per_epoch = steps_per_epoch(num_images, self.batch_size)
        return self.steps if self.epochs is None else per_epoch * self.epochs  # type: ignore[return-value]

    def check_device(self, device_type: str) -> None:
        """Raise `ConfigError` where the precision is none of a device's."""
        if self.mixed_precision == "fp16" and device_type == "cpu":
            raise ConfigError("mixed_precision = 'fp16' needs a GPU; on a CPU use 'bf16' or 'no'")

    def rows_of_a_part(self, num_processes: int) -> int:
        """Return the images that a process takes at a time.

        Raises:
            ConfigError: A batch cannot be shared out evenly.
        """
        parts = num_processes * self.gradient_accumulation
        if self.batch_size % parts:
            raise ConfigError(
                f"batch_size = {self.batch_size} cannot be shared out among {num_processes} processes in "
                f"{self.gradient_accumulation} parts each (gradient_accumulation); give a multiple of {parts}"
            )
        return self.batch_size // parts


@dataclass(frozen=True, kw_only=True)
class DiffusionTraining(TrainingSettings):
    """Settings of one training, or adaption, of a diffusion model.

    The learning rate rises, and falls over the whole run in a half cosine ("one_cycle"); or it stays until
    `decay_share` of the run is left and then falls to 0 along a line ("warmup_stable_decay"). Such a run may
    be told its end late: up to the fall it is the same for any number of epochs.

    Args:
        start: "scratch", a new DiT; "full", all weights of `model`, with new embeddings of classes where it
            has some; "lora", small weights beside those of `model`.
        model: Base model: a folder in diffusers' layout, "ORG/NAME@COMMIT", or the name of a data set whose
            artifact ships with this package.
        keep_classes: Of "full": go on with the model's own embeddings of classes. They must be those of
            the images, in their order: where the model names its classes, names are compared.
        vae: Folder of the VAE; by default that of `model`.
        image_size: Side of the images; by default what `model` was trained on.
        padding: Pixels of black frame around them, likewise.
        patch_size: Side of a token of a new DiT, in latents.
        num_layers: Its blocks.
        num_attention_heads: Of each block.
        attention_head_dim: Of each head.
        objective: "min_snr", the error of what the schedule of betas asks for (noise or v), timesteps of a
            larger ratio of signal to noise counting less (arXiv 2303.09556); or "flow", that of the velocity
            of flow matching. By default that of `model`, and "min_snr" of a new DiT.
        snr_gamma: Of "min_snr".
        sigmas: How "flow" draws shares of noise: "logit_normal" (arXiv 2403.03206) or "uniform"; they are
            shifted as the model's schedule is.
        shift: Of the schedule of a new DiT of "flow"; 1 is none.
        prompt: Template for a model of prompts, such as "a photo of a {name}".
        prompts: JSON file, class -> prompt, instead.
        negative_prompt: What guidance leads away from; stands in for prompts that are left out.
        rank: Of "lora".
        alpha: Of "lora"; by default the rank.
        label_dropout: Share of images whose label or prompt is left out, for guidance.
        schedule: Of the learning rate; see above.
        decay_share: See above.
        gradient_checkpointing: Compute activations twice instead of keeping them.
        torch_compile: Compile the network.
        validation_split: Of the images; it must share none with `split`. The error on it, of the averaged
            weights, goes to `validation.csv` with every sample grid.
        minutes_between_samples: While training.
        samples_per_class: Of a sample grid, of the first ten classes each; 0 makes none.
        shards_at_once: Files of latents whose images are mixed among each other; 0 mixes all. For hard disks
            and network file systems, which are slow at reading here and there.
    """

    start: str = "scratch"
    model: str | None = None
    keep_classes: bool = False
    vae: str | None = None
    image_size: int | None = None
    padding: int | None = None
    patch_size: int | None = None
    num_layers: int | None = None
    num_attention_heads: int | None = None
    attention_head_dim: int | None = None
    objective: str | None = None
    snr_gamma: float = 5.0
    sigmas: str = "logit_normal"
    shift: float = 1.0
    prompt: str | None = None
    prompts: str | None = None
    negative_prompt: str | None = None
    rank: int = 16
    alpha: float | None = None
    label_dropout: float = 0.1
    schedule: str = "one_cycle"
    decay_share: float = 0.2
    gradient_checkpointing: bool = False
    torch_compile: bool = False
    validation_split: str | None = None
    minutes_between_samples: float = 15.0
    samples_per_class: int = 10
    shards_at_once: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("start", self.start, Start)
        check_choice("sigmas", self.sigmas, SigmaDraw)
        check_choice("schedule", self.schedule, Schedule)
        if self.objective is not None:
            check_choice("objective", self.objective, ObjectiveName)
        self._check_start()
        for name, least in (("image_size", 1), ("padding", 0)):
            if getattr(self, name) is not None:
                check_int(name, getattr(self, name), least, 65_536)
        _check_positive("snr_gamma", self.snr_gamma)
        _check_positive("shift", self.shift)
        if self.alpha is not None:
            _check_positive("alpha", self.alpha)
        check_int("rank", self.rank, 1, MAX_RANK)
        _check_share("label_dropout", self.label_dropout)
        _check_share("decay_share", self.decay_share)
        check_number("minutes_between_samples", self.minutes_between_samples, 0.0)
        check_int("samples_per_class", self.samples_per_class, 0, 100)
        check_int("shards_at_once", self.shards_at_once, 0)
        self._check_splits()
        if self.prompt is not None and self.prompts is not None:
            raise ConfigError(
                f"prompt = {self.prompt!r:.80} and prompts = {self.prompts!r:.80}: give one of them"
            )

    def _check_start(self) -> None:
        for name in ("keep_classes", "gradient_checkpointing", "torch_compile"):
            check_bool(name, getattr(self, name))
        if self.keep_classes and (self.start != "full" or self.prompt or self.prompts):
            raise ConfigError(
                "keep_classes is of start = 'full' and a model of class labels; leave it out of start = "
                f"{self.start!r}"
            )
        given = [name for name in SIZES if getattr(self, name) is not None]
        if self.start == "scratch":
            missing = [name for name in (*SIZES, "image_size") if getattr(self, name) is None]
            if missing:
                raise ConfigError(f"start = 'scratch' makes a new DiT, and needs {missing}")
            for name in SIZES:
                check_int(name, getattr(self, name), 1, 65_536)
            self._check_parameters()
            if self.vae is None and self.model is None:
                raise ConfigError(
                    "start = 'scratch' needs a VAE: give vae, its folder, or model, whose VAE is taken"
                )
            if self.prompt or self.prompts or self.negative_prompt:
                raise ConfigError(
                    "a new DiT takes class labels; leave out prompt, prompts and negative_prompt"
                )
            return
        if self.model is None:
            raise ConfigError(
                f"start = {self.start!r} needs model, what is trained on: a folder in diffusers' layout, or "
                "ORG/NAME@COMMIT"
            )
        if given or self.vae is not None:
            raise ConfigError(
                f"{[*given, *(['vae'] if self.vae else [])]} are of start = 'scratch'; {self.start!r} takes "
                "what the model has: leave them out"
            )

    def _check_parameters(self) -> None:
        """Check that a new DiT is of a size that DiTs have; a block has about 18 squares of its width."""
        assert self.num_layers and self.num_attention_heads and self.attention_head_dim
        number = 18 * self.num_layers * (self.num_attention_heads * self.attention_head_dim) ** 2
        if number > MAX_PARAMETERS:
            raise ConfigError(
                f"num_layers = {self.num_layers}, num_attention_heads = {self.num_attention_heads} "
                f"and attention_head_dim = {self.attention_head_dim} make a DiT of about {number:.1e} "
                f"parameters; accepted: up to {MAX_PARAMETERS:.0e}"
            )

    def _check_splits(self) -> None:
        if self.validation_split is None:
            return
        check_choice("validation_split", self.validation_split, Split)
        overlaps = {self.split, self.validation_split} in (
            {"train", "train+held-out"},
            {"held-out", "train+held-out"},
        )
        if overlaps or self.split == self.validation_split:
            raise ConfigError(
                f"validation_split = {self.validation_split!r} shares images with split = {self.split!r}; "
                "give split = 'train' and validation_split = 'held-out', say"
            )


def earlier_settings(values: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a run of an earlier version by today's names."""
    values = dict(values)
    if "bf16" in values:
        values["mixed_precision"] = "bf16" if values.pop("bf16") else "no"
    if "schedule" not in values and "decay_share" in values:
        if values["decay_share"] is None:
            del values["decay_share"]
        else:
            values["schedule"] = "warmup_stable_decay"
    return values


def _check_positive(name: str, value: Any) -> None:
    if check_number(name, value, 0.0) == 0:
        raise ConfigError(f"{name} must be more than 0, not {value!r}")


def _check_share(name: str, value: Any) -> None:
    if check_number(name, value, 0.0) > 1:
        raise ConfigError(f"{name} must be from 0 to 1, not {value!r}")
