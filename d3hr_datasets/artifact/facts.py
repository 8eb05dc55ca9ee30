"""What an artifact is, in words: its facts and licences, for cards, reports and `d3hr info`.

In: an artifact. Out: names and plain texts, which whoever shows them escapes.
"""

from __future__ import annotations

from typing import Any

from d3hr_datasets.artifact.artifact import Artifact
from d3hr_datasets.config.settings import DecodeConfig, InversionConfig
from d3hr_datasets.errors import ArtifactFormatError
from d3hr_datasets.io.text import printable
from d3hr_datasets.io.untrusted_files import is_file, read_file

CARD = "README.md"
MAX_CARD_BYTES = 4 * 2**20
METHODS = {"ddim": "DDIM", "fixed_point": "fixed points of DDIM's steps"}
SHOWN_CLASSES = 10


def artifact_facts(artifact: Artifact) -> dict[str, str]:
    """Return everything that an artifact says of itself, in plain text by name."""
    info = artifact.info
    model = f"{info.model.path}/ inside the artifact"
    if info.model.path is None:
        model = f"{info.model.repo_id} at revision {info.model.revision}"
    source = [str(info.source[key]) for key in ("name", "split") if key in info.source]
    shown = ", ".join(info.classes[:SHOWN_CLASSES]) + (", ..." if len(info.classes) > SHOWN_CLASSES else "")
    per_class = sorted({min(info.counts), max(info.counts)})
    timesteps = ", ".join(map(str, info.inversion.timesteps))
    modes = f", and {info.num_modes} modes" if info.num_modes > 1 else ""
    facts = {
        "name": info.name,
        "fingerprint": artifact.fingerprint,
        "source": ", ".join(source) or "not given",
        "classes": f"{len(info.classes)} ({shown})",
        "built from": f"{sum(info.counts):,} images",
        "images per class": " to ".join(f"{count:,}" for count in per_class),
        "images": f"{info.image_size} x {info.image_size}, {info.image_mode}",
        "frame": f"{info.padding} black pixels, while it is encoded" if info.padding else "none",
        "latents": f"{' x '.join(map(str, info.latent_shape))} at timesteps {timesteps}",
        "model": model,
        **inversion_facts(info.inversion),
        "statistics": f"mean and variance per class{modes}, {info.dtype}",
        "decoding": describe_decoding(info.decode),
        "licence": str(info.source.get("license") or "not given"),
        "source fingerprint": str(info.source.get("fingerprint", "not given")),
        "built by": info.producer or "not given",
    }
    if "imported" in info.source:
        facts["imported"] = f"{info.source['imported']}; its inversion is not checked here"
    return facts


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
