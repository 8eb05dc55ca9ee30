"""Run the benchmarks and write what they found, side by side: `hub/results/benchmarks/NAME.json`.

    python -m recipes.evaluate.benchmarks
    python -m recipes.evaluate.benchmarks build

The machine must have nothing else to do: some are measured by a wall clock. Every figure is the images of a
run over its median time, and its ratio is that to the baseline of its group, measured in the same run. Where
ways ask the model unequally often, there is a ratio of forward passes a second, too.
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

from recipes.common.results import write_results

# Lets glibc keep freed memory; otherwise the pages of large tensors are mapped anew in every operation.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "1000000000", "MALLOC_TRIM_THRESHOLD_": "1000000000"}
BENCHMARKS = Path(__file__).resolve().parents[2] / "tests" / "benchmarks"


def digest(report: dict[str, Any]) -> dict[str, dict[str, dict[str, float]]]:
    """Return images per second and ratios by group and way, of the JSON that pytest-benchmark writes."""
    groups: dict[str, dict[str, dict[str, float]]] = {}
    for entry in report["benchmarks"]:
        info = entry["extra_info"]
        figures = {"images_per_second": info["images"] / entry["stats"]["median"]}
        figures |= {key: info[key] for key in ("gflop_per_image", "passes") if key in info}
        groups.setdefault(entry["group"], {})[info["way"]] = figures
    for entry in report["benchmarks"]:
        ways, info = groups[entry["group"]], entry["extra_info"]
        baseline = ways[info["baseline"]]["images_per_second"]
        found = ways[info["way"]]
        found["ratio"] = found["images_per_second"] / baseline
        if "passes" in info:
            found["ratio_of_passes"] = found["ratio"] * info["passes"] / ways[info["baseline"]]["passes"]
    return groups


def main(argv: list[str] | None = None) -> None:
    accepted = sorted(path.stem.removeprefix("test_") for path in BENCHMARKS.glob("test_*.py"))
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(accepted)}; all by default")
    parser.add_argument("--output", type=Path, default=Path("hub/results/benchmarks"), help="a folder")
    arguments = parser.parse_args(argv)
    unknown = sorted(set(arguments.names) - set(accepted))
    if unknown:
        parser.error(f"unknown benchmarks {unknown}; accepted: {', '.join(accepted)}")
    for name in arguments.names or accepted:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "report.json"
            file = str(BENCHMARKS / f"test_{name}.py")
            command = [sys.executable, "-m", "pytest", file, "--benchmark-only", "-q"]
            command.append(f"--benchmark-json={path}")
            subprocess.run(command, check=True, cwd=BENCHMARKS.parent.parent, env={**os.environ, **ALLOCATOR})
            report = json.loads(path.read_text(encoding="utf-8"))
        settings = {"cpu": report["machine_info"]["cpu"].get("brand_raw"), "environment": ALLOCATOR}
        write_results(arguments.output / f"{name}.json", settings, digest(report))


if __name__ == "__main__":
    main()
