"""Run the benchmarks and write what they found, side by side: `hub/results/benchmarks.json`.

    python -m recipes.run_benchmarks

The machine must have nothing else to do: some are measured by a wall clock. Every figure is the images of a
run over its median time, and its ratio is that to the baseline of its group, measured in the same run.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from recipes.common import write_results

BENCHMARKS = Path(__file__).resolve().parent.parent / "tests" / "benchmarks"


def digest(report: dict[str, Any]) -> dict[str, dict[str, dict[str, float]]]:
    """Return images per second and ratios by group and way, of the JSON that pytest-benchmark writes."""
    groups: dict[str, dict[str, dict[str, float]]] = {}
    for entry in report["benchmarks"]:
        info = entry["extra_info"]
        figures = {"images_per_second": info["images"] / entry["stats"]["median"]}
        if "gflop_per_image" in info:
            figures["gflop_per_image"] = info["gflop_per_image"]
        groups.setdefault(entry["group"], {})[info["way"]] = figures
    for entry in report["benchmarks"]:
        ways, info = groups[entry["group"]], entry["extra_info"]
        baseline = ways[info["baseline"]]["images_per_second"]
        ways[info["way"]]["ratio"] = ways[info["way"]]["images_per_second"] / baseline
    return groups


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--benchmarks", type=Path, default=BENCHMARKS, help="a folder, or one of its files")
    parser.add_argument("--output", default="hub/results/benchmarks.json")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pytest", str(arguments.benchmarks), "--benchmark-only", "-q"]
        subprocess.run([*command, f"--benchmark-json={path}"], check=True, cwd=BENCHMARKS.parent.parent)
        report = json.loads(path.read_text(encoding="utf-8"))
    settings = {
        "benchmarks": arguments.benchmarks.name,
        "cpu": report["machine_info"]["cpu"].get("brand_raw"),
    }
    write_results(arguments.output, settings, digest(report))


if __name__ == "__main__":
    main()
