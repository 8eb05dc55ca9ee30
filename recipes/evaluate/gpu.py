"""Measure generation, a build, an adapter's training and a student's training on the GPU that is there.

    python -m recipes.evaluate.gpu

Writes a model of random weights in the layout of `facebook/DiT-XL-2-256` to `--work` (1.7 GB) and removes it
again; what is measured does not depend on what weights were trained for. Inversion and decoding are those of
`d3hr build` by default. All in bfloat16 and, but for the
adapter, compiled and not; in the two smaller batches also with CUDA graphs, which spare what the host does.
Utilisation is the share of the rate at which this GPU multiplies large matrices, in the same run. The set is
what a user waits for: the model is loaded, batches are found by themselves, files are on the disk. It is also
made in small batches by a model that is there: one after the other, each decoded on a second stream while the
next is denoised, and with parts that take turns on the GPU. To take less than 8 minutes. Writes
`hub/results/gpu.json`.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from d3hr_datasets import Artifact, D3HRDataset
from d3hr_datasets.build.build_settings import BuildSettings
from d3hr_datasets.dataset.options import SetOptions
from d3hr_datasets.diffusion.inversion import inversion_passes
from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from d3hr_datasets.experiments.protocol_files import choose_protocol
from d3hr_datasets.numerics.second_stream import SecondStream
from d3hr_datasets.students.accelerator import default_accelerator
from d3hr_datasets.students.models import create_student
from d3hr_datasets.students.protocol import Protocol
from d3hr_datasets.students.training import EpochReport, train_student
from d3hr_datasets.students.views import TensorImages
from recipes.common.errors import RecipeError
from recipes.common.program import program
from recipes.common.results import write_results
from recipes.evaluate.dit_xl import ROOT, STATISTICS_TIMESTEP, make_transformer, make_vae, write_artifact

SETTINGS = BuildSettings((STATISTICS_TIMESTEP,))  # the defaults of `d3hr build`
SECONDS, MATRIX = 3.0, 8192  # that each thing is repeated for; side of the matrices of the bound
CLASSES = 4  # of the images that an adapter and a student learn


def matmul_rate(device: torch.device, side: int = MATRIX) -> float:
    """Return the operations a second of multiplying bfloat16 matrices."""
    one = torch.randn(side, side, device=device, dtype=torch.bfloat16)
    return 2 * side**3 / seconds_of(lambda: one @ one, device)


def seconds_of(work: Callable[[], object], device: torch.device, seconds: float = SECONDS) -> float:
    """Return the median time of some work, after it was done once."""
    work()
    times: list[float] = []
    while not times or sum(times) < seconds:
        _wait_for(device)
        started = time.perf_counter()
        work()
        _wait_for(device)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def count_operations(work: Callable[[], object]) -> float:
    """Return the operations of some work; an addition and a multiplication are two."""
    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


def _report(images: int, seconds: float, operations: float, bound: float) -> dict[str, float]:
    """Return images a second, and the share of the bound that their operations are."""
    return {"images_per_second": images / seconds, "utilisation": operations / seconds / bound}


def generation(model: LatentDiffusion, batch_sizes: list[int], bound: float) -> dict[str, Any]:
    """Return how fast a model makes images of inverted latents, by batch size."""
    decode = SETTINGS.decode(SETTINGS.inversion(model.schedule))
    found: dict[str, Any] = {}
    for size in batch_sizes:
        latents = torch.randn(size, *model.latent_shape, device=model.device)
        labels = torch.arange(size, device=model.device) % model.num_classes

        def generate(latents: torch.Tensor = latents, labels: torch.Tensor = labels) -> torch.Tensor:
            return model.decode(model.denoise(latents, labels, decode, batch_size=len(latents)))

        operations = _operations(model, size * model.forward_passes(decode), images_decoded=size)
        found[f"{size} at a time"] = _report(size, seconds_of(generate, model.device), operations, bound)
    return found


def inverting(model: LatentDiffusion, batch_sizes: list[int], bound: float) -> dict[str, Any]:
    """Return how fast a model encodes and inverts images, by batch size."""
    inversion = SETTINGS.inversion(model.schedule)
    evaluations = inversion_passes(model.denoiser, inversion)
    found: dict[str, Any] = {}
    for size in batch_sizes:
        shape = (size, model.image_channels, model.sample_size, model.sample_size)
        images = torch.rand(shape, device=model.device) * 2 - 1
        labels = torch.arange(size, device=model.device) % model.num_classes

        def invert(images: torch.Tensor = images, labels: torch.Tensor = labels) -> object:
            return model.invert(model.encode(images), labels, inversion)

        operations = _operations(model, size * evaluations, images_encoded=size)
        found[f"{size} at a time"] = _report(size, seconds_of(invert, model.device), operations, bound)
    return found


def _operations(
    model: LatentDiffusion, evaluations: int, images_decoded: int = 0, images_encoded: int = 0
) -> float:
    """Return the operations of evaluations of the network for one latent each, and of the VAE."""
    side = model.sample_size
    with torch.device("meta"):
        network = type(model.network).from_config(model.network.config)
        vae = type(model.vae).from_config(model.vae.config)
        latent, label = torch.zeros(1, *model.latent_shape), torch.zeros(1, dtype=torch.int64)
        image = torch.zeros(1, model.image_channels, side, side)
    total = evaluations * count_operations(lambda: network(latent, timestep=label, class_labels=label))
    total += images_decoded * count_operations(lambda: vae.decode(latent))
    return total + images_encoded * count_operations(lambda: vae.encode(image))


def adapter_training(model: Path, work: Path, steps: int, batch_size: int, image_size: int) -> float:
    """Return images a second of training an adapter, which is not compiled, from the second half of steps."""
    source = work / "images"
    for label in range(CLASSES):
        folder = source / f"class {label}"
        folder.mkdir(parents=True)
        for number in range(max(2, batch_size // CLASSES)):
            colour = (60 * label, 255 - number % 256, 128)
            Image.new("RGB", (image_size, image_size), colour).save(folder / f"{number}.png")
    settings: dict[str, Any] = {
        "output": str(work / "adapter"),
        "source": str(source),
        "start": "lora",
        "model": str(model),
        "steps": steps,
        "batch_size": batch_size,
        "learning_rate": 1e-4,
        "ema_decay": 0.99,
        "mixed_precision": "bf16",
        "samples_per_class": 0,
        "log_every": max(1, steps // 4),
        "minutes_between_checkpoints": 60.0,
    }
    config = work / "adapter.yaml"
    config.write_text(json.dumps(settings), encoding="utf-8")
    # In a process of its own: Accelerate keeps one precision for all trainings of a process.
    command = [sys.executable, "-m", "d3hr_datasets.cli", "train", "diffusion", str(config)]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    with (work / "adapter" / "metrics.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    half, last = rows[len(rows) // 2 - 1], rows[-1]
    counts = [int(row["step"]) * batch_size for row in (half, last)]
    seconds = [
        count / float(row["images_per_second"]) for count, row in zip(counts, (half, last), strict=True)
    ]
    return (counts[1] - counts[0]) / (seconds[1] - seconds[0])


def student_training(protocol: Protocol, number: int, torch_compile: bool) -> float:
    """Return images a second of training a student on images in memory, from its last epoch."""
    shape = (number, protocol.channels, protocol.image_size, protocol.image_size)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8)
    images = TensorImages(pixels, torch.arange(number) % CLASSES, [str(label) for label in range(CLASSES)])
    reports: list[EpochReport] = []
    how: dict[str, Any] = {"accelerator": default_accelerator("bf16"), "torch_compile": torch_compile}
    train_student(protocol, images, CLASSES, on_epoch=reports.append, **how)
    return number / reports[-1].seconds


def student_operations(protocol: Protocol) -> float:
    """Return the operations of training a student on one view: a backward pass costs two forward ones."""
    size, channels = protocol.image_size, protocol.channels
    student = create_student(protocol.student, CLASSES, channels, size, protocol.student_args)
    return 3 * count_operations(lambda: student(torch.zeros(1, channels, size, size)))


def whole_set(artifact: Path, root: Path, ipc: int, classes: int, torch_compile: bool) -> float:
    """Return images a second of having a set on the disk, from loading the model on."""
    names = Artifact.load(artifact).info.classes[:classes]
    dataset = D3HRDataset(artifact, root, ipc, classes=names, torch_dtype=torch.bfloat16)
    started = time.perf_counter()
    dataset.materialize(torch_compile=torch_compile)
    return len(dataset) / (time.perf_counter() - started)


def ways_to_make_a_set(
    artifact: Path, root: Path, ipc: int, classes: int, batch_size: int
) -> dict[str, dict[str, float]]:
    """Return images a second of having a set on the disk, and GiB of the GPU; the model is loaded before."""
    names = Artifact.load(artifact).info.classes[:classes]
    found: dict[str, dict[str, float]] = {}
    for way in ("one after the other", "decoded on a second stream", "parts take turns"):
        options: SetOptions = {"classes": names, "torch_dtype": torch.bfloat16}
        options["cpu_offload"] = way == "parts take turns"
        dataset = D3HRDataset(artifact, root / way, ipc, **options)
        model = dataset.model()
        if way == "one after the other":
            model.second_stream = SecondStream(None)
        if model.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(model.device)
        started = time.perf_counter()
        dataset.materialize(batch_size)
        found[way] = {"images_per_second": len(dataset) / (time.perf_counter() - started)}
        if model.device.type == "cuda":
            found[way]["peak_memory_gibibytes"] = torch.cuda.max_memory_allocated(model.device) / 2**30
    return found


def measure(artifact: Path, work: Path, device: torch.device, batch_sizes: list[int]) -> dict[str, Any]:
    """Return everything that is measured of a model of DiT-XL/2's layout."""
    bound = matmul_rate(device)
    results: dict[str, Any] = {"matmul_teraflops": bound / 1e12}
    model = LatentDiffusion.from_pretrained(artifact / "model", device=device, torch_dtype=torch.bfloat16)
    for way in ("plain", "compiled", "CUDA graphs"):
        sizes = sorted(batch_sizes)[:2] if way == "CUDA graphs" else batch_sizes
        if way != "plain":
            torch.compiler.reset()
            model.compile(cuda_graphs=way == "CUDA graphs")
        results[f"generation, {way}"] = generation(model, sizes, bound)
        results[f"build, {way}"] = inverting(model, sizes, bound)
    if device.type == "cuda":
        results["peak_memory_gibibytes"] = torch.cuda.max_memory_allocated(device) / 2**30
    side, once = model.sample_size, _operations(model, 1)
    del model
    results["set, 10 images of 10 classes"] = {
        "images_per_second": whole_set(artifact, work / "cache", 10, 10, torch_compile=False)
    }

    small = min(batch_sizes)
    results[f"set in batches of {small}"] = ways_to_make_a_set(artifact, work / "ways", 10, 10, small)

    def rated(rate: float, operations: float) -> dict[str, float]:
        return {"images_per_second": rate, "utilisation": rate * operations / bound}

    rate = adapter_training(artifact / "model", work, 40, min(64, max(batch_sizes)), side)
    results["adapter training"] = rated(rate, 2 * once)  # gradients of frozen weights are not computed
    changes = {"labels": "hard", "epochs": 3, "cutmix": 0.0}
    protocol = choose_protocol("rded", "imagenet", 10, changes).settings()
    for way in ("plain", "compiled"):
        rate = student_training(protocol, 20 * max(batch_sizes), way == "compiled")
        results[f"student training, {way}"] = rated(rate, student_operations(protocol))
    return results


@program
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("runs/gpu"), help="with 4 GB of free space")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[16, 64, 256])
    parser.add_argument("--output", type=Path, default=Path("hub/results/gpu.json"))
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        raise RecipeError(
            "PyTorch finds no GPU here (torch.cuda.is_available() is False); run it where one is"
        )
    started = time.monotonic()
    arguments.work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=arguments.work) as temporary:
        folder = Path(temporary)
        write_artifact(folder / "artifact", make_transformer(), make_vae())
        results = measure(folder / "artifact", folder, torch.device("cuda"), arguments.batch_sizes)
    name = torch.cuda.get_device_name()
    minutes = math.ceil((time.monotonic() - started) / 60)
    write_results(
        arguments.output,
        {"batch_sizes": arguments.batch_sizes, "gpu": name, "minutes": minutes},
        results,
    )
    print(results)


if __name__ == "__main__":
    main()
