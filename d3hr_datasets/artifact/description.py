"""What an artifact is, in words: its facts and licences, for cards, reports and `d3hr info`.

In: an artifact. Out: names and texts, as Markdown where that is said.
"""

from __future__ import annotations

from typing import Any

from d3hr_datasets.artifact.artifact import Artifact
from d3hr_datasets.config.settings import DecodeConfig, InversionConfig
from d3hr_datasets.errors import ArtifactFormatError
from d3hr_datasets.io.foreign import is_file, read_file
from d3hr_datasets.io.markdown import code, markdown
from d3hr_datasets.io.text import printable

CARD = "README.md"


METHODS = {"ddim": "DDIM", "fixed_point": "fixed points of DDIM's steps"}


def artifact_facts(artifact: Artifact) -> list[list[Any]]:
    """Return the rows of a table that says how an artifact was built."""
    info = artifact.info
    model = info.model
    where = f"{code(f'{model.path}/')} in this repository"
    if model.path is None:
        where = f"{model.repo_id}, commit `{model.revision}`"
    frame = f", in a black frame of {info.padding}" if info.padding else ""
    modes = f", and {info.num_modes} modes" if info.num_modes > 1 else ""
    source = [str(info.source[key]) for key in ("name", "split") if key in info.source]
    latents, side = " x ".join(map(str, info.latent_shape)), info.image_size
    rows = {
        "source": markdown(", ".join(source)) or "not given",
        "images per class": " to ".join(
            f"{count:,}" for count in sorted({min(info.counts), max(info.counts)})
        ),
        "diffusion model": where,
        "latents": f"{latents} of {side} x {side} images{frame}",
        **inversion_facts(info.inversion),
        "statistics": f"mean and variance per class{modes}, {info.dtype}",
        "decoding by default": describe_decoding(info.decode),
        "source fingerprint": code(info.source.get("fingerprint", "not given")),
        "built by": markdown(info.producer) or "not given",
    }
    if "imported" in info.source:
        rows["imported"] = f"{markdown(info.source['imported'])}; its inversion is not checked here"
    return [[key, value] for key, value in rows.items()]


def inversion_facts(inversion: InversionConfig) -> dict[str, str]:
    """Return everything that an `InversionConfig` says, but for what is at its default and means nothing."""
    asked = "timestep a step goes to"
    if inversion.method == "ddim" and inversion.noise_timestep == "source":
        asked = "timestep a step comes from"
    latent = "mean of the VAE's posterior"
    if inversion.latent == "sample":
        latent = f"sample of the VAE's posterior, seed {inversion.seed}"
    first = (
        "as without noise" if inversion.first_timestep < 0 else f"as at timestep {inversion.first_timestep}"
    )
    return {
        "inversion": METHODS[inversion.method],
        "inverted latents": f"{latent}, taken {first} and carried to timesteps "
        f"{', '.join(map(str, inversion.timesteps))}",
        "grid of inversion": f"{inversion.num_inference_steps} steps of "
        f"{inversion.num_train_timesteps:,} timesteps, guidance {inversion.guidance_scale:g}",
        "model evaluations": f"{inversion.evaluations_per_step} per step, at the {asked}",
        "resizing of images": f"{inversion.resizing}, where they had another size",
    }


def describe_decoding(decode: DecodeConfig) -> str:
    """Return how latents become images, in words."""
    above = ", starting one step above it as D3HR's code does" if decode.reference_off_by_one else ""
    last = ", ending at timestep 1 as D3HR's code does" if decode.reference_last_step else ""
    return (
        f"from timestep {decode.timestep}{above}, {decode.num_inference_steps} steps{last}, "
        f"guidance {decode.guidance_scale:g}"
    )


def license_of_data(artifact: Artifact) -> str:
    """Return the licence of the images behind an artifact, "unknown" where it does not say."""
    return str(artifact.info.source.get("license") or "unknown")


def license_of_model(artifact: Artifact) -> str:
    """Return the licence of its diffusion model, which the card of a model inside names.

    Raises:
        ArtifactFormatError: That card has no head that can be read.
    """
    from huggingface_hub import ModelCard

    model = artifact.info.model
    if model.path is None:
        return f"that of {model.repo_id}"
    card = artifact.folder / model.path / CARD
    found = None
    if is_file(card):
        try:
            data: Any = ModelCard(read_file(card, MAX_CARD_BYTES).decode("utf-8")).data
            found = data.license
        except Exception as error:  # of YAML, of what the card says in it, of reading it
            raise ArtifactFormatError(
                f"{card} has no head in YAML, which names the licence: {printable(error)}; mend or remove it"
            ) from error
    return str(found or artifact.info.source.get("model_license") or "not given")


MAX_CARD_BYTES = 4 * 2**20
