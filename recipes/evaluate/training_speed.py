"""Measure how fast the embedded DiT is trained on this machine, and what makes it faster.

    python -m recipes.evaluate.training_speed

Each way trains in processes of its own, on random latents, one way after another in every round, so that
whatever else slows the machine slows all of them. The first, float32 without compiling and with glibc's
allocator, is how the embedded model was trained; the others are compared with it. Writes
`hub/results/training_speed.json`: images a second, the median of the rounds. Needs nothing else to do, g++,
and libjemalloc2 for some of the ways.
"""

from __future__ import annotations

import argparse
import ctypes.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from d3hr_datasets.runs.run_folder import RunFolder
from d3hr_datasets.training.base_model import open_base, start_network
from d3hr_datasets.training.config_files import training_settings
from d3hr_datasets.training.diffusion import DiffusionTrainer, training_accelerator
from d3hr_datasets.training.latents import Latents
from recipes.common.errors import RecipeError
from recipes.common.program import program
from recipes.common.results import write_results
from recipes.evaluate.benchmarks import ALLOCATOR

ROOT = Path(__file__).resolve().parents[2]  # where a process finds the recipes
BASELINE = "float32"
# Settings of the training that a way changes, and its allocator.
WAYS: dict[str, tuple[list[str], str]] = {
    BASELINE: ([], "glibc"),
    "compiled": (["torch_compile=true"], "glibc"),
    "glibc keeps memory": ([], "glibc keeps memory"),
    "jemalloc": ([], "jemalloc"),
    "bf16": (["mixed_precision=bf16"], "glibc"),
    "compiled, jemalloc": (["torch_compile=true"], "jemalloc"),
    "compiled, bf16, jemalloc": (["torch_compile=true", "mixed_precision=bf16"], "jemalloc"),
}
IMAGES = 2048  # whose latents are drawn; their number does not matter


def environment(allocator: str, folder: Path) -> dict[str, str]:
    """Return the environment of a process with an allocator; compiled code is kept in a folder."""
    values = {**os.environ, "PYTHONPATH": str(ROOT), "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor")}
    if allocator == "glibc keeps memory":
        values |= ALLOCATOR
    elif allocator == "jemalloc":
        library = ctypes.util.find_library("jemalloc")
        if library is None:
            raise RecipeError(
                "jemalloc is not installed; `apt-get install libjemalloc2`, or leave it out: --ways"
            )
        values |= {"LD_PRELOAD": library, "MALLOC_CONF": "dirty_decay_ms:-1,muzzy_decay_ms:-1"}
    return values


def measure(way: str, folder: Path, warmup: int, steps: int) -> float:
    """Return images a second of a way, in this process."""
    changes, _ = WAYS[way]
    places = [f"output={folder}", f"steps={warmup + steps + 1}", "epochs=null", "log_every=1000000"]
    settings = training_settings("fashion-mnist", [*places, "minutes_between_checkpoints=1000", *changes])
    accelerator = training_accelerator()
    base = open_base(settings)
    started = start_network(base, settings, tuple("0123456789"), accelerator.device)
    generator = torch.Generator().manual_seed(0)
    shape = base.kind.latent_shape(started.network)
    tensors = {
        "mean": torch.randn(IMAGES, *shape, generator=generator),
        "labels": torch.randint(10, (IMAGES,), generator=generator),
    }
    save_file(tensors, folder / "latents.safetensors")
    latents = Latents([folder / "latents.safetensors"], IMAGES, (1.0, 0.0), tuple("0123456789"))
    run = RunFolder(folder, settings)
    trainer = DiffusionTrainer(settings, run, base, started, latents, None, accelerator)
    begin = 0.0
    for step in trainer.steps():
        if step == warmup:
            begin = time.perf_counter()
        if step == warmup + steps:
            break
    if accelerator.device.type == "cuda":
        torch.cuda.synchronize()
    return steps * settings.batch_size / (time.perf_counter() - begin)


@program
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--warmup", type=int, default=5, help="steps that are not counted; compiling is in them"
    )
    parser.add_argument("--steps", type=int, default=30, help="steps that are")
    parser.add_argument("--output", default="hub/results/training_speed.json")
    parser.add_argument("--once", metavar="WAY", help=argparse.SUPPRESS)  # in a process of its own
    arguments = parser.parse_args()
    if arguments.once:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(measure(arguments.once, Path(folder), arguments.warmup, arguments.steps)))
        return
    rates: dict[str, list[float]] = {way: [] for way in dict.fromkeys([BASELINE, *arguments.ways])}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(arguments.rounds):
            for way, found in rates.items():
                numbers = ["--warmup", str(arguments.warmup), "--steps", str(arguments.steps)]
                done = subprocess.run(
                    [sys.executable, "-m", "recipes.evaluate.training_speed", "--once", way, *numbers],
                    env=environment(WAYS[way][1], Path(folder)),
                    stdout=subprocess.PIPE,
                    text=True,
                    check=True,
                )
                found.append(json.loads(done.stdout.splitlines()[-1]))
                print(f"{way}: {found[-1]:.1f} images a second", flush=True)
    baseline = statistics.median(rates[BASELINE])
    results: dict[str, Any] = {
        way: {
            "images_per_second": statistics.median(found),
            "ratio": statistics.median(found) / baseline,
            "rounds": found,
        }
        for way, found in rates.items()
    }
    settings = {key: value for key, value in vars(arguments).items() if key not in ("once", "output")}
    processor = {"threads": torch.get_num_threads(), "cpu": torch.backends.cpu.get_cpu_capability()}
    write_results(arguments.output, {**settings, **processor}, results)
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
