"""Put the measured figures into the README and the cards: `hub/results/*.json` -> Markdown.

    python -m recipes.write_cards

Replaces what stands between `<!-- figures -->` and `<!-- end of figures -->` in each file, and writes
the checksums of the artifact anew, since its cards are part of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from d3hr_datasets import Artifact
from d3hr_datasets.card import format_cell, format_score
from d3hr_datasets.card import markdown_table as table

RESULTS = Path("hub/results")
ARTIFACT = Path("hub/d3hr-fashion-mnist")
FILES = (Path("README.md"), ARTIFACT / "README.md", ARTIFACT / "model" / "README.md")
INVERSION_METHODS = {  # columns
    "evaluations": "evaluations",
    "relative_error": "relative error of the round trip",
    "std": "standard deviation",
    "skewness": "mean abs. skewness",
    "excess_kurtosis": "mean abs. excess kurtosis",
    "correlation": "mean abs. correlation",
}
BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"


def read(name: str) -> dict[str, Any]:
    """Return the results of one script."""
    results: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))["results"]
    return results


def training_table() -> str:
    """Return how long the models were trained."""
    rows = [[name, *values.values()] for name, values in read("training").items()]
    return table(["training", "steps", "minutes", "mean squared error at the end"], rows)


def vae_table() -> str:
    """Return the VAE's figures."""
    results = read("vae")
    rows = [
        [name.replace("_", " "), format_score(v) if isinstance(v, dict) else v] for name, v in results.items()
    ]
    return table(["VAE, test set", ""], rows)


def precision_table() -> str:
    """Return what storing weights in half precision costs."""
    rows = [[name.replace("_", " "), value] for name, value in read("precision").items()]
    return table(["weights in half instead of single precision", ""], rows)


def storage_table() -> str:
    """Return what storing statistics in fewer bits costs."""
    rows = [[name, *values.values()] for name, values in read("storage").items()]
    header = ["statistics as", "bytes", "mean difference of 255", "largest difference of 255", "PSNR, dB"]
    return table(header, rows)


def diffusion_table() -> str:
    """Return recognition and diversity of generated images."""
    rows = [[name, *values.values()] for name, values in read("diffusion").items()]
    return table(["1,000 images", "recognised, %", "Fréchet distance", "recall", "coverage"], rows)


def inversion_tables() -> str:
    """Return round trips and normality over timesteps."""
    results = read("inversion")
    trips = table(
        ["round trip", "relative error"], [list(row) for row in results["round_trip_relative_error"].items()]
    )
    rows = [[name, *values.values()] for name, values in results["normality"].items()]
    header = [
        "latents at",
        "mean abs. skewness",
        "mean abs. excess kurtosis",
        "pass normality test",
        "mean abs. correlation",
    ]
    return f"{trips}\n\n{table(header, rows)}"


def inversion_methods_table() -> str:
    """Return the ways to invert at equal numbers of evaluations."""
    rows = [
        [name, *(values.get(key, "") for key in INVERSION_METHODS)]
        for name, values in read("inversion_methods").items()
    ]
    return table(["inversion, held-out images", *INVERSION_METHODS.values()], rows)


def students_table() -> str:
    """Return the accuracies of students: those that chose the settings, then those of the test set."""
    tables = []
    for name, tested_on in (("selection", "held-out training images"), ("students", "the real test set")):
        rows = [[key, format_score(score)] for key, score in sorted(read(name).items())]
        tables.append(table(["student's training set", f"accuracy on {tested_on}, %"], rows))
    return "\n\n".join(tables)


def dataset_table() -> str:
    """Return what a user waits for."""
    rows = []
    for name, values in read("dataset").items():
        parts = values.items() if isinstance(values, dict) else [("", values)]
        rows.append(
            [name, ", ".join(f"{key} {format_cell(value)}" for key, value in parts if "sha256" not in key)]
        )
    return table(["embedded set, ipc 10", ""], rows)


def _section(section: Callable[[], str]) -> str:
    try:
        return section()
    except FileNotFoundError as error:
        return f"Not measured yet: `{error.filename}`."


def main() -> None:
    sections = [
        training_table, vae_table, precision_table, storage_table, diffusion_table, inversion_tables,
        inversion_methods_table, students_table, dataset_table,
    ]  # fmt: skip
    figures = "\n\n".join(_section(section) for section in sections)
    artifact = Artifact.load(ARTIFACT)
    for name in artifact.sha256:
        if not name.endswith(".md"):
            artifact.check(name)  # only cards may have changed
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        before, begin, rest = text.partition(BEGIN)
        _, end, after = rest.partition(END)
        if not begin or not end:
            raise SystemExit(f"{path} has no {BEGIN} ... {END}")
        path.write_text(f"{before}{BEGIN}\n\n{figures}\n\n{END}{after}", encoding="utf-8")
    artifact.write_metadata()


if __name__ == "__main__":
    main()
