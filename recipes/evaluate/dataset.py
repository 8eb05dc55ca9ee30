"""Measure what a user waits for: first and second use of the embedded set, generating, both group samplers.

    python -m recipes.evaluate.dataset

Each use is a new process, and so is each way to generate; of these one runs after another in every round.
Writes `hub/results/dataset.json`. Needs nothing else to do.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

import torch

from d3hr_datasets import GroupSamplingConfig, group_score, sample_group
from recipes.common.program import program
from recipes.common.results import write_results
from recipes.evaluate import first_use, materialize_once
from recipes.evaluate.materialize_once import AS_IT_IS, WAYS


def use(root: str) -> dict[str, Any]:
    """Read all images of the embedded set in a new process."""
    command = [sys.executable, "-m", first_use.__name__, root]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    values: dict[str, Any] = json.loads(result.stdout)
    return values


def generate(rounds: int) -> dict[str, dict[str, float]]:
    """Generate the embedded set in each way, and return medians of all rounds."""
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        for way, (_, _, changes) in WAYS.items():
            command = [sys.executable, "-m", materialize_once.__name__, way]
            kept = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
            done = subprocess.run(
                command, env={**kept, **changes}, stdout=subprocess.PIPE, text=True, check=True
            )
            found[way].append(json.loads(done.stdout))
    medians = {
        way: {name: statistics.median(once[name] for once in each) for name in each[0]}
        for way, each in found.items()
    }
    for values in medians.values():
        values["ratio"] = values["images_per_second"] / medians[AS_IT_IS]["images_per_second"]
    return medians


def sampler(config: GroupSamplingConfig, repetitions: int) -> dict[str, float]:
    """Sample unit Gaussians of 4096 elements at IPC 10."""
    mean, variance = torch.zeros(4, 32, 32), torch.ones(4, 32, 32)
    sample_group(mean, variance, 10, 0, config)
    started = time.perf_counter()
    for _ in range(repetitions):
        group = sample_group(mean, variance, 10, 0, config)
    seconds = (time.perf_counter() - started) / repetitions
    return {
        "seconds": seconds,
        "loss": float(group_score(group, mean, variance, config)),
        "max_mean_error": group.mean(dim=0).abs().max().item(),
        "max_std_error": (group.std(dim=0) - 1).abs().max().item(),
    }


@program
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--candidates", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3, help="of all ways to generate")
    parser.add_argument("--output", default="hub/results/dataset.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as first_root, tempfile.TemporaryDirectory() as other_root:
        uses = {"first use": use(first_root), "second use": use(first_root), "elsewhere": use(other_root)}
    results: dict[str, Any] = dict(uses)
    results["identical_pixels"] = len({values["sha256_of_pixels"] for values in uses.values()}) == 1
    results["100 images generated"] = generate(arguments.rounds)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    results["moment_matched, d = 4096, ipc 10"] = sampler(GroupSamplingConfig(skewness_weight=0.0), 20)
    search = GroupSamplingConfig("search", num_candidates=arguments.candidates, skewness_weight=0.0)
    results["search, d = 4096, ipc 10"] = sampler(search, 1)
    results["sampling_peak_memory_mib"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    write_results(arguments.output, vars(arguments), results)
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
