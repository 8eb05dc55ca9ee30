"""Measure what storing statistics in fewer bits costs: the same groups drawn from each, denoised and decoded.

    python -m recipes.evaluate.storage

Compares with the statistics as the artifact stores them. Groups are moment-matched: over modes, which of them
are joined is a choice that the smallest change may turn, and other images are no worse ones. Writes
`hub/results/storage.json`.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from pathlib import Path

import torch

from d3hr_datasets import Artifact, D3HRDataset, GroupSamplingConfig
from d3hr_datasets.artifact.d3hr_json import STATISTICS
from recipes.common.prerequisites import need_artifact
from recipes.common.program import program
from recipes.common.results import write_results


@program
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--artifact", default="hub/d3hr-fashion-mnist")
    parser.add_argument("--ipc", type=int, default=10)
    parser.add_argument("--output", default="hub/results/storage.json")
    arguments = parser.parse_args()
    need_artifact(arguments.artifact)
    original = Artifact.load(arguments.artifact)
    timesteps = original.info.inversion.timesteps
    modes = {t: original.modes(t) for t in timesteps} if original.info.num_modes > 1 else None
    sampling = GroupSamplingConfig("moment_matched")
    dataset = D3HRDataset(original, ipc=arguments.ipc, sampling=sampling)
    model, labels = dataset.model(), dataset.class_labels.repeat_interleave(arguments.ipc)

    def images(source: D3HRDataset) -> torch.Tensor:
        latents = torch.cat([source.sample_latents(label) for label in range(len(source.classes))])
        return model.decode(model.denoise(latents, labels, source.decode)).cpu()

    expected, results = images(dataset), {}
    for dtype in ("bfloat16", "int8"):
        with tempfile.TemporaryDirectory() as folder:
            info = dataclasses.replace(original.info, dtype=dtype)
            stored = Artifact.save(folder, info, {t: original.gaussians(t) for t in timesteps}, modes)
            num_bytes = (Path(folder) / STATISTICS).stat().st_size
            difference = (
                images(D3HRDataset(stored, ipc=arguments.ipc, sampling=sampling)) - expected
            ) * 127.5
        results[dtype] = {
            "bytes": num_bytes,
            "mean_absolute_difference_of_255": difference.abs().mean().item(),
            "largest_difference_of_255": difference.abs().max().item(),
            "psnr_db": 10 * (255**2 / difference.square().mean()).log10().item(),
        }
        print(dtype, results[dtype])
    settings = {"artifact": original.fingerprint, "stored": original.info.dtype, "ipc": arguments.ipc}
    settings["bytes"] = (original.folder / STATISTICS).stat().st_size
    write_results(arguments.output, settings, results)


if __name__ == "__main__":
    main()
