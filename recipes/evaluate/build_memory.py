"""Show that the memory of a build does not depend on the number of images.

    python -m recipes.evaluate.build_memory --images 1000 10000 60000

Builds from synthetic images with a small model of random weights, each number in a process of its own, and
writes the peak of each to `hub/results/build_memory.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from recipes.common.program import program
from recipes.common.results import write_results

ROOT = Path(__file__).resolve().parents[2]  # where a process finds the recipes


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
                [sys.executable, "-m", "recipes.evaluate.build_once", str(number)],
                check=True,
                capture_output=True,
                text=True,
                env=_environment(folder),
            )
        results[f"{number} images"] = json.loads(done.stdout.splitlines()[-1])
        print(results[f"{number} images"])
    write_results(arguments.output, {"images": arguments.images}, results)


def _environment(folder: str) -> dict[str, str]:
    return {**os.environ, "TMPDIR": folder, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


if __name__ == "__main__":
    main()
