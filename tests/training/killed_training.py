"""A training that is killed again and again: `python -m tests.training.killed_training INPUTS OUTPUT KILLS`.

Libraries are imported once, and each attempt is a fork of this process, so that ten kills take seconds.
Prints how many attempts were killed while they trained.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

import accelerate  # noqa: F401
import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiTPipeline, DiTTransformer2DModel  # noqa: F401
from diffusers.training_utils import EMAModel  # noqa: F401

from d3hr_datasets.training.diffusion import train_diffusion
from tests.training.tiny_training import tiny_settings

STEPS = 250


def attempt(inputs: Path, output: Path) -> int:
    """Fork a process that trains, and return its number."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        train_diffusion(tiny_settings(inputs, output, epochs=None, steps=STEPS, samples_per_class=0))
        status = 0
    finally:
        os._exit(status)


def main() -> None:
    inputs, output, kills = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(1)
    moments, killed = random.Random(0), 0
    for number in range(kills):
        before = _version(output / "checkpoint.pt")
        child = attempt(inputs, output)
        if number > 1:  # the first two may die before there is anything; all others have gone on a bit
            while _version(output / "checkpoint.pt") == before and os.waitpid(child, os.WNOHANG)[0] == 0:
                time.sleep(0.002)
        time.sleep(moments.uniform(0, 0.2))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        killed += os.WIFSIGNALED(status)
    _, status = os.waitpid(attempt(inputs, output), 0)
    print(killed)
    sys.exit(os.waitstatus_to_exitcode(status))


def _version(path: Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else 0


if __name__ == "__main__":
    main()
