"""Where a training starts: the base model and the VAE of its settings -> networks in memory.

In: `DiffusionTraining`. Out: a VAE and, of a base model, its kind, its schedule and its network; then, when
the classes are known, the network that is trained and what it is told of them.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from d3hr_datasets.build.model_facts import image_frame, model_place
from d3hr_datasets.build.prompt_options import PromptOptions
from d3hr_datasets.classes.class_list import ClassList
from d3hr_datasets.config.prompts import Prompts
from d3hr_datasets.dataset.artifact_registry import REGISTRY, embedded_artifact
from d3hr_datasets.diffusion.adapters import add_adapter, renew_classes
from d3hr_datasets.diffusion.conditioning import ClassLabels, Conditioning
from d3hr_datasets.diffusion.kinds.kind import ModelKind
from d3hr_datasets.diffusion.kinds.table import DIT
from d3hr_datasets.diffusion.layout import WEIGHTS
from d3hr_datasets.diffusion.loading import check_parts, load_parts, vae_halvings
from d3hr_datasets.diffusion.model_folder import find_model, read_label_map
from d3hr_datasets.diffusion.noise_schedule import NoiseSchedule, open_schedule
from d3hr_datasets.diffusion.prompts import encode_prompts
from d3hr_datasets.diffusion.untrusted_models import check_config, check_size
from d3hr_datasets.errors import ConfigError, ModelFormatError, ModelNotFoundError
from d3hr_datasets.io.paths import expand_user
from d3hr_datasets.io.untrusted_files import is_file, is_folder
from d3hr_datasets.training.latents import EncodedVAE, vae_digest
from d3hr_datasets.training.objective import DTYPES
from d3hr_datasets.training.settings import DiffusionTraining

logger = logging.getLogger(__name__)

VAES = ("AutoencoderKL", "AutoencoderDC")
# Of a new DiT; DDIM's is as `facebook/DiT-XL-2-256` has it.
BETAS = {
    "_class_name": "DDIMScheduler",
    "num_train_timesteps": 1000,
    "beta_schedule": "linear",
    "clip_sample": False,
    "set_alpha_to_one": True,
}


@dataclass(frozen=True, eq=False)
class BaseModel:
    """What a training starts from.

    Args:
        kind: Of the model.
        vae: Its VAE, and the images that it is given.
        schedule: Its noise schedule; None of a new DiT, which has none yet.
        network: Its network; None of a new DiT.
        folder: Of the base model; None of a new DiT.
        repo_id: Of the base model, where it is from the Hub.
        revision: Its commit.
    """

    kind: ModelKind
    vae: EncodedVAE
    schedule: NoiseSchedule | None = None
    network: Any = None
    folder: Path | None = None
    repo_id: str | None = None
    revision: str | None = None


@dataclass(frozen=True, eq=False)
class Started:
    """A network before its first step.

    Args:
        network: diffusers' network; of a LoRA peft's model of it.
        schedule: Its noise schedule.
        conditioning: What it is told of classes.
        prompts: The texts of that, where it is text.
    """

    network: Any
    schedule: NoiseSchedule
    conditioning: Conditioning
    prompts: Prompts | None = None


def open_base(settings: DiffusionTraining) -> BaseModel:
    """Load what a training starts from.

    Raises:
        ModelNotFoundError: There is no such model, or no such VAE.
        ModelFormatError: It is not what diffusers wrote, or of a kind that is not known.
        ConfigError: Image size and frame do not fit it, or a commit is not pinned.
    """
    if settings.start == "scratch":
        folder = _vae_folder(settings)
        size, padding = settings.image_size, settings.padding or 0
        assert size is not None
        return BaseModel(DIT, EncodedVAE(_load_vae(folder), vae_digest(folder), padding, size))
    assert settings.model is not None
    model = _named(settings.model)
    place, revision = model_place(model)
    with torch.random.fork_rng(devices=[]):  # diffusers draws weights before it reads them
        parts = load_parts(
            place,
            revision=revision,
            torch_dtype=torch.float32,
            local_files_only=False,
            allow_bin=False,
            with_encoders=settings.prompt is not None or settings.prompts is not None,
        )
    check_parts(parts.kind, parts.network, parts.vae)
    side = parts.kind.latent_shape(parts.network)[1] << vae_halvings(parts.vae)
    size = settings.image_size
    if size is None and settings.padding is not None:
        size = side - 2 * settings.padding
    padding, _ = image_frame(model, side, size)
    if settings.padding not in (None, padding):
        raise ConfigError(
            f"image_size = {settings.image_size} with padding = {settings.padding} makes no images of the "
            f"{side} pixels that the model takes; leave one of them out"
        )
    vae = EncodedVAE(parts.vae, vae_digest(parts.folder / "vae"), padding, side - 2 * padding)
    repo_id = None if revision is None else str(place)
    return BaseModel(parts.kind, vae, parts.schedule, parts.network, parts.folder, repo_id, revision)


def start_network(
    base: BaseModel, settings: DiffusionTraining, classes: tuple[str, ...], device: torch.device
) -> Started:
    """Make the network that is trained.

    Args:
        base: What it starts from.
        settings: Of the training; the seed decides new weights.
        classes: Names of the classes.
        device: Where prompts are read.

    Raises:
        ConfigError: Prompts are missing, or given to a model of class labels, or classes are kept and the
            model has others.
        ModelFormatError: The network cannot be adapted.
        MissingExtraError: What reads prompts, or peft, is not installed.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        if settings.start == "scratch":
            return _new_dit(base, settings, len(classes))
        assert base.schedule is not None
        conditioning, prompts = _conditioning(base, settings, classes, device)
        renewed = None if base.kind.takes_prompts else len(classes)
        network = base.network
        if settings.start == "lora":
            half = DTYPES.get(settings.mixed_precision)
            if half is not None and base.kind.takes_prompts:
                torch.nn.Module.to(network, half)  # peft keeps the adapter in float32
            network = add_adapter(network.requires_grad_(False), settings.rank, settings.alpha, renewed)
        else:
            network.requires_grad_(True)
            if settings.keep_classes:
                _check_kept_classes(base, network, classes, settings.model)
            elif renewed is not None:
                renew_classes(network, renewed)
        if settings.gradient_checkpointing:
            base.network.enable_gradient_checkpointing()
    # In training mode blocks of a DiT would drop labels; nothing else in networks depends on the mode.
    return Started(network.eval(), base.schedule, conditioning, prompts)


def _check_kept_classes(base: BaseModel, network: Any, classes: tuple[str, ...], model: str | None) -> None:
    """Check that a model's own classes are those of the images, in their order, as far as it names them."""
    known = network.config.get("num_embeds_ada_norm")
    if known != len(classes):
        raise ConfigError(
            f"keep_classes: the model {model} knows {known} classes, and the images have {len(classes)}; "
            "leave keep_classes out to train new ones"
        )
    assert base.folder is not None
    names = read_label_map(base.folder, None)
    if not all(str(label) in names for label in range(len(classes))):
        logger.warning(
            "keep_classes: the model %s does not name its classes (id2label), so that it is not checked "
            "whether those of the images are the same in the same order: %s",
            model,
            ", ".join(classes[:10]),
        )
        return
    imagenet = ClassList.packaged("imagenet")
    of_wnid = dict(zip(imagenet.wnids or (), imagenet.names, strict=True))
    for label, name in enumerate(classes):
        own = str(names[str(label)])
        if ClassList((own,)).find_folder(of_wnid.get(name, name)) is None:
            raise ConfigError(
                f"keep_classes: class label {label} of the images is {name!r}, of the model {model} {own!r}; "
                "its embeddings are gone on with in its order. Name the folders of the images as the model "
                "does, in its order (003-NAME), or leave keep_classes out to train new ones"
            )


def _new_dit(base: BaseModel, settings: DiffusionTraining, num_classes: int) -> Started:
    from diffusers import DiTTransformer2DModel

    config = base.vae.module.config
    side = base.vae.image_size + 2 * base.vae.padding
    halvings = vae_halvings(base.vae.module)
    assert settings.patch_size is not None
    multiple = settings.patch_size << halvings
    if side % multiple:
        raise ConfigError(
            f"images of {settings.image_size} pixels with a frame of {base.vae.padding} have {side}, which "
            f"is no multiple of {multiple} (the VAE halves {halvings} times, tokens have patch_size = "
            f"{settings.patch_size}); give another padding or image_size"
        )
    network = DiTTransformer2DModel(
        num_attention_heads=settings.num_attention_heads,
        attention_head_dim=settings.attention_head_dim,
        in_channels=config.latent_channels,
        out_channels=config.latent_channels,
        num_layers=settings.num_layers,
        sample_size=side >> halvings,
        patch_size=settings.patch_size,
        num_embeds_ada_norm=num_classes,
    )
    if settings.gradient_checkpointing:
        network.enable_gradient_checkpointing()
    scheduler: dict[str, Any] = BETAS
    if settings.objective == "flow":
        scheduler = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": settings.shift}
    return Started(network.eval(), open_schedule(scheduler), ClassLabels(num_classes))


def _conditioning(
    base: BaseModel, settings: DiffusionTraining, classes: tuple[str, ...], device: torch.device
) -> tuple[Conditioning, Prompts | None]:
    said = settings.prompt is not None or settings.prompts is not None
    if not base.kind.takes_prompts:
        if said or settings.negative_prompt is not None:
            raise ConfigError(
                f"the diffusion model {settings.model} is of the kind {base.kind.name}, which takes class "
                "labels; leave out the prompts"
            )
        return ClassLabels(len(classes)), None
    if not said:
        raise ConfigError(
            f"a model of {base.kind.name} takes a prompt for each class; give prompt, a template such as 'a "
            "photo of a {name}', or prompts, a JSON file of class -> prompt"
        )
    of_file = None if settings.prompts is None else expand_user(settings.prompts)
    options = PromptOptions(settings.prompt, of_file, settings.negative_prompt)
    prompts = options.for_classes(classes)
    assert base.folder is not None
    texts = dict(enumerate(prompts.per_class))
    found = encode_prompts(base.kind, base.folder, texts, prompts.negative, len(classes), device)
    return found, prompts


def _named(model: str) -> str:
    """Return a model's name as `model_place` takes it; of an artifact that ships here, its folder."""
    if model in REGISTRY and not is_folder(expand_user(model)):
        return str(embedded_artifact(model) / "model")
    return model


def _vae_folder(settings: DiffusionTraining) -> Path:
    if settings.vae is not None:
        return expand_user(settings.vae)
    assert settings.model is not None
    place, revision = model_place(_named(settings.model))
    return (place if isinstance(place, Path) else find_model(place, revision)) / "vae"


def _load_vae(folder: Path) -> Any:
    import diffusers

    for name in ("config.json", f"{WEIGHTS}.safetensors"):
        if not is_file(folder / name):
            raise ModelNotFoundError(
                f"{folder / name} is missing: vae must be a folder as `AutoencoderKL.save_pretrained` writes "
                "one"
            )
    kind = check_config(folder / "config.json").get("_class_name", VAES[0])
    if kind not in VAES:
        raise ModelFormatError(f"{folder} holds a {kind!r:.80}; accepted: {', '.join(VAES)}")
    check_size(getattr(diffusers, kind), folder)
    with torch.random.fork_rng(devices=[]):
        return getattr(diffusers, kind).from_pretrained(
            str(folder), local_files_only=True, use_safetensors=True, low_cpu_mem_usage=False
        )
