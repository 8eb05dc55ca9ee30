"""What a card says of an artifact: its facts, the size of a Parquet file, and what an earlier card said.

In: an artifact, files. Out: rows of tables, numbers, Markdown that is kept.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from d3hr_datasets.artifact import Artifact
from d3hr_datasets.config import DecodeConfig, InversionConfig
from d3hr_datasets.text import code, markdown

ACCURACY = "## Accuracy"
METHODS = {"ddim": "DDIM", "fixed_point": "fixed points of DDIM's steps"}


@dataclass(frozen=True)
class ImageFiles:
    """What `datasets` wants to know of Parquet files of images.

    Args:
        num_images: Rows.
        num_bytes: Bytes of the rows in memory, as Arrow holds them.
        download_size: Bytes of the files.
    """

    num_images: int
    num_bytes: int
    download_size: int

    @classmethod
    def of(cls, paths: Sequence[Path]) -> ImageFiles:
        """Read the files; one group of rows is in memory at a time."""
        from pyarrow import parquet

        num_images = num_bytes = 0
        for path in paths:
            with parquet.ParquetFile(path) as file:
                num_images += file.metadata.num_rows
                num_bytes += sum(file.read_row_group(i).nbytes for i in range(file.num_row_groups))
        return cls(num_images, num_bytes, sum(path.stat().st_size for path in paths))

    def dataset_info(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the field `dataset_info` of a card."""
        split = {"name": "train", "num_bytes": self.num_bytes, "num_examples": self.num_images}
        return {
            "features": features,
            "splits": [split],
            "download_size": self.download_size,
            "dataset_size": self.num_bytes,
        }


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


def kept_accuracies(text: str) -> str | None:
    """Return the section of accuracies of an earlier card (without the author's notes), or None."""
    found = re.search(rf"^{ACCURACY}\n.*?(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    return None if found is None else found[0].strip()


def preview_ipc_of(path: Path, num_classes: int) -> int | None:
    """Return the images per class of an earlier preview; None where there is none that can be read."""
    from pyarrow import ArrowException, parquet

    try:
        num_images = int(parquet.read_metadata(path).num_rows)
    except (OSError, ArrowException):
        return None
    return num_images // num_classes or None
