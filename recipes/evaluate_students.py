"""Train students on distilled, random real and raw generated images under one recipe.

    python -m recipes.evaluate_students

ConvNet-3 on hard labels (DC's recipe, no augmentation), accuracy on the real test set after the last
epoch, mean and std over seeds, which are those of the images and of the training alike. Students train
side by side, one thread each. Every finished one is kept in the results file, so an interrupted table
goes on. Writes `hub/results/students.json`; with `--select`, which tests on held-out training images,
`hub/results/selection.json`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import os
import tempfile
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch

from d3hr_datasets import D3HRDataset, DecodeConfig, GroupSamplingConfig
from d3hr_datasets.config import GroupSamplingMethod
from d3hr_datasets.generation import load_model
from d3hr_datasets.students.selection import random_per_class
from recipes.common import write_results
from recipes.data import load_images
from recipes.evaluation import dataset_tensors, mean_std, raw_samples, reconstruct
from recipes.students import StudentSettings, accuracy, train_student

CANDIDATES = 2000  # of "search"
METHODS: tuple[GroupSamplingMethod, ...] = get_args(GroupSamplingMethod)
SOURCES = ("random real", "reconstructed random real", "raw diffusion", *METHODS)


@dataclass(frozen=True)
class Task:
    """One student: what it is trained on, and what it is tested on."""

    source: str
    ipc: int
    seed: int
    artifact: str
    decode: DecodeConfig
    student: StudentSettings
    mode_spread: float
    select: bool

    @property
    def key(self) -> str:
        """Name the row of the table."""
        key = f"{self.source}, ipc {self.ipc}, {self.student.epochs} epochs, width {self.student.width}"
        if "real" in self.source:
            return key
        start = "" if self.source == "raw diffusion" else f"t = {self.decode.timestep}, "
        end = f", spread {self.mode_spread:g}" if self.source == "modes" else ""
        return f"{key}, {start}guidance {self.decode.guidance_scale:g}{end}"


def make_images(task: Task) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the training images of a student and their labels."""
    sampling = None
    if task.source in METHODS:
        sampling = GroupSamplingConfig(task.source, num_candidates=CANDIDATES, mode_spread=task.mode_spread)
    with tempfile.TemporaryDirectory() as root:
        dataset = D3HRDataset(
            task.artifact, root, task.ipc, task.seed, sampling=sampling, decode=task.decode, device="cpu"
        )
        if task.source in METHODS:
            return dataset_tensors(dataset)
        model = load_model(dataset.artifact, "cpu")
        if task.source == "raw diffusion":
            return raw_samples(dataset, model, task.ipc, task.seed, task.decode.guidance_scale)
    images, labels, _ = load_images("fashion-mnist", "train" if task.select else "train+held-out", 28, 1)
    index = random_per_class(labels, task.ipc, task.seed)
    images, labels = images[index], labels[index]
    if task.source == "reconstructed random real":
        images = reconstruct(model, images)
    return images, labels


def run(task: Task) -> float:
    """Train one student and return its accuracy in percent."""
    torch.set_num_threads(1)
    real, labels, _ = load_images("fashion-mnist", "held-out" if task.select else "test", 28, 1)
    return accuracy(train_student(*make_images(task), task.seed, task.student), real, labels)


def resume(path: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Return the results already in a file, which must be of the same settings.

    Of another artifact's results those of random real images, which do not depend on it, are kept.
    """
    if not path.exists():
        return {}
    document = json.loads(path.read_text(encoding="utf-8"))
    if {**document["settings"], "artifact": settings["artifact"]} == settings:
        same = document["settings"]["artifact"] == settings["artifact"]
        return {key: row for key, row in document["results"].items() if same or key.startswith("random real")}
    raise SystemExit(
        f"{path} holds results of other settings: {document['settings']}, not {settings}. "
        "Give another --output, or remove that file"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--artifact", default="hub/d3hr-fashion-mnist")
    parser.add_argument("--ipc", type=int, nargs="+", default=[10, 50])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sources", nargs="+", choices=SOURCES, default=list(SOURCES))
    parser.add_argument("--timestep", type=int, help="the artifact's default otherwise")
    parser.add_argument("--guidance-scale", type=float, help="the artifact's default otherwise")
    parser.add_argument("--mode-spread", type=float, default=GroupSamplingConfig.mode_spread)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--select", action="store_true", help="test on held-out images")
    parser.add_argument("--output", type=Path, help="hub/results/students.json, with --select selection.json")
    arguments = parser.parse_args()
    student = StudentSettings(width=arguments.width, epochs=arguments.epochs)
    base = D3HRDataset(arguments.artifact)
    timestep = base.decode.timestep if arguments.timestep is None else arguments.timestep
    scale = base.decode.guidance_scale if arguments.guidance_scale is None else arguments.guidance_scale
    decode = dataclasses.replace(base.decode, timestep=timestep, guidance_scale=scale)
    path = arguments.output or Path("hub/results") / (
        "selection.json" if arguments.select else "students.json"
    )
    settings = {
        "artifact": base.artifact.fingerprint,
        "tested_on": "held-out training images" if arguments.select else "test set",
        "search_candidates": CANDIDATES,
        "student": {k: v for k, v in dataclasses.asdict(student).items() if k not in {"width", "epochs"}},
    }
    results = resume(path, settings)
    tasks = [
        Task(source, ipc, seed, arguments.artifact, decode, student, arguments.mode_spread, arguments.select)
        for ipc in arguments.ipc
        for seed in range(arguments.seeds)
        for source in arguments.sources
    ]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), context) as pool:
        todo = [task for task in tasks if str(task.seed) not in results.get(task.key, {}).get("by_seed", {})]
        futures = {pool.submit(run, task): task for task in todo}
        for future in as_completed(futures):
            task = futures[future]
            by_seed = {**results.get(task.key, {}).get("by_seed", {}), str(task.seed): future.result()}
            results[task.key] = {**mean_std(list(by_seed.values())), "by_seed": by_seed}
            print(f"{task.key}, seed {task.seed}: {by_seed[str(task.seed)]:.2f}", flush=True)
            write_results(path, settings, results)


if __name__ == "__main__":
    main()
