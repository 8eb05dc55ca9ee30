"""Show that the memory of a build does not depend on the number of images.

    python -m recipes.evaluate.build_memory --images 1000 10000 60000

Builds from synthetic images with a small model of random weights, each number in a process of its own, and
writes the peak of each to `hub/results/build_memory.json`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from recipes.common.program import program
from recipes.common.results import write_results

BUILD = """
import json, resource, sys, tempfile, time
from pathlib import Path
import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiTTransformer2DModel
from PIL import Image
from d3hr_datasets import ArtifactInfo, DecodeConfig, InversionConfig, ModelReference
from d3hr_datasets.build import build_artifact
from d3hr_datasets.diffusion import LatentDiffusion

class Images:
    def __len__(self):
        return int(sys.argv[1])
    def __getitem__(self, index):
        return Image.new("L", (16, 16), index % 256), index % 10

torch.set_num_threads(1)
transformer = DiTTransformer2DModel(
    num_attention_heads=1, attention_head_dim=8, in_channels=4, num_layers=1, sample_size=8, patch_size=4,
    num_embeds_ada_norm=10,
)
vae = AutoencoderKL(
    in_channels=1, out_channels=1, latent_channels=4, block_out_channels=(4, 4), norm_num_groups=2,
    down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
)
model = LatentDiffusion(transformer, vae, DDIMScheduler(clip_sample=False), device="cpu")
info = ArtifactInfo(
    name="memory", classes=tuple("0123456789"), image_size=16, image_mode="L", padding=0,
    latent_shape=(4, 8, 8), model=ModelReference(path="model"), counts=(2,) * 10,
    inversion=InversionConfig((200,), num_inference_steps=5), decode=DecodeConfig(200, 5),
)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
begin = time.perf_counter()
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder)
    build_artifact(Images(), model, path / "artifact", info, path / "work", chunk_size=500, progress=False)
print(json.dumps({
    "images": len(Images()), "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    "before_mib": before / 1024, "seconds": time.perf_counter() - begin,
}))
"""


@program
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 10_000, 60_000])
    parser.add_argument("--output", type=Path, default=Path("hub/results/build_memory.json"))
    arguments = parser.parse_args()
    results: dict[str, Any] = {}
    for number in arguments.images:
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(
                [sys.executable, "-c", BUILD, str(number)],
                check=True,
                capture_output=True,
                text=True,
                env=_environment(folder),
            )
        results[f"{number} images"] = json.loads(done.stdout.splitlines()[-1])
        print(results[f"{number} images"])
    write_results(arguments.output, {"images": arguments.images}, results)


def _environment(folder: str) -> dict[str, str]:
    import os

    return {**os.environ, "TMPDIR": folder, "OMP_NUM_THREADS": "1"}


if __name__ == "__main__":
    main()
