"""Summarise the trainings: run folders -> `hub/results/training.json`, for the model's card.

    python -m recipes.tables.trainings

What the file says of a run whose folder is not there stays.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from typing import Any

import yaml

from recipes.common.prerequisites import need, training_of
from recipes.common.program import program
from recipes.common.results import read_results, write_results


def summarize(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the settings of a run and what its `metrics.csv` says.

    Logged rates are averages since the process started, so the minutes are approximate.
    """
    settings: dict[str, Any] = yaml.safe_load((folder / "settings.yaml").read_text(encoding="utf-8"))
    with (folder / "metrics.csv").open(newline="", encoding="utf-8") as file:
        rows = {int(row["step"]): row for row in csv.DictReader(file)}  # a resumed run repeats some steps
    images = settings["log_every"] * settings["batch_size"]
    last = [rows[step] for step in sorted(rows)[-5:]]
    return settings, {
        "steps": max(rows),
        "minutes, about": sum(images / float(row["images_per_second"]) for row in rows.values()) / 60,
        "last_mse": sum(float(row["mse"]) for row in last) / len(last),
    }


@program
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--vae", type=Path, default=Path("runs/vae-fashion-mnist"))
    parser.add_argument("--decoder", type=Path, default=Path("runs/decoder-fashion-mnist"))
    parser.add_argument("--dit", type=Path, default=Path("runs/dit-fashion-mnist"))
    parser.add_argument("--long", type=Path, default=Path("runs/dit-fashion-mnist-long"))
    parser.add_argument("--longer", type=Path, default=Path("runs/dit-fashion-mnist-longer"))
    parser.add_argument("--output", default="hub/results/training.json")
    arguments = parser.parse_args()
    runs: dict[Path, tuple[str, str]] = {
        arguments.vae: ("VAE", "train.vae"),
        arguments.decoder: ("decoder", "train.vae"),
        arguments.dit: ("DiT", "train.diffusion"),
        arguments.long: ("DiT, trained on", "train.diffusion"),
        arguments.longer: ("DiT, trained on further", "train.diffusion"),
    }
    before = read_results(arguments.output) if Path(arguments.output).exists() else {}
    if not any(folder.exists() for folder in runs):
        need(arguments.vae, training_of(arguments.vae, "train.vae"))
    settings: dict[str, Any] = {}
    results: dict[str, Any] = {}
    of_another_day = {name for folder, (name, _) in runs.items() if not folder.exists()}
    of_another_day &= set(before.get("results", {}))
    for folder, (name, recipe) in runs.items():
        for part in ("settings.yaml", "metrics.csv") if name not in of_another_day else ():
            need(folder / part, training_of(folder, recipe))
    for folder, (name, _) in runs.items():
        if name in of_another_day:
            settings[name], results[name] = before["settings"][name], before["results"][name]
        else:
            settings[name], results[name] = summarize(folder)
    write_results(arguments.output, settings, results)
    print(results)


if __name__ == "__main__":
    main()
