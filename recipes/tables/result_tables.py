"""Measurements as Markdown: `hub/results/*.json` -> tables.

Every figure of the README, the cards and docs/ is made here or in `recipes.tables.findings`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from d3hr_datasets import Artifact
from d3hr_datasets.dataset.artifact_registry import embedded_artifact
from d3hr_datasets.experiments.table_files import markdown
from d3hr_datasets.experiments.table_rows import load_table
from d3hr_datasets.io.markdown import format_cell, format_score
from d3hr_datasets.io.markdown import markdown_table as table
from recipes.common.results import read_results

RESULTS = Path("hub/results")
CONFIGS = Path("recipes/configs/tables")
# Tables of students that the README shows.
WHOLE_TABLES = ("hard-labels", "soft-labels", "soft-labels-long", "cross-architecture")
INVERSION_METHODS = {  # columns
    "evaluations": "evaluations",
    "relative_error": "relative error of the round trip",
    "std": "standard deviation",
    "skewness": "mean abs. skewness",
    "excess_kurtosis": "mean abs. excess kurtosis",
    "correlation": "mean abs. correlation",
}


def read(name: str) -> dict[str, Any]:
    """Return the results of one script."""
    results: dict[str, Any] = read_results(RESULTS / f"{name}.json")["results"]
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


def solvers_tables() -> str:
    """Return how far images of few steps are from those of many, a table for each way to guide."""
    tables = []
    for guidance, ways in read("solvers").items():
        counted: dict[str, dict[str, float]] = {}
        others = []
        for name, errors in ways.items():
            way, comma, steps = name.rpartition(", ")
            error = errors["mean_absolute_grey_levels"]
            if steps.endswith(" steps"):
                counted.setdefault(way, {})[steps.removesuffix(" steps")] = error
            else:
                others.append(f"{way}{comma}{steps}: {format_cell(error)}, {errors['forward_passes']} passes")
        numbers = sorted({number for row in counted.values() for number in row}, key=int)
        rows = [[way, *(row.get(number, "") for number in numbers)] for way, row in counted.items()]
        header = [f"{guidance}; steps:", *numbers]
        tables.append(f"{table(header, rows)}\n\n{'; '.join(others)}.")
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


def benchmarks_table() -> str:
    """Return images per second of the benchmarks, side by side."""
    rows = [
        [group, way, values.get("passes", ""), *(values[key] for key in ("images_per_second", "ratio"))]
        for name in sorted(path.stem for path in (RESULTS / "benchmarks").glob("*.json"))
        for group, ways in read(f"benchmarks/{name}").items()
        for way, values in ways.items()
    ]
    return table(["benchmark", "way", "forward passes an image", "images per second", "ratio"], rows)


def memory_table() -> str:
    """Return the peak of a build over the number of images."""
    rows = [[name, values["before_mib"], values["peak_mib"]] for name, values in read("build_memory").items()]
    return table(["build", "MiB before", "MiB at its peak"], rows)


def dit_xl_table() -> str:
    """Return what a model of DiT-XL/2's size costs on a CPU."""
    results = read("dit_xl")
    keys = (
        "parameters",
        "construct_seconds",
        "load_seconds",
        "image_seconds",
        "model_evaluations",
        "threads",
        "peak_memory_gib",
    )
    rows = [[key.replace("_", " "), results[key]] for key in keys]
    return table(["first image of `D3HRImageNet`, random weights of DiT-XL/2's size", ""], rows)


def counts_tables() -> str:
    """Return the counts of the fault campaigns, every promise of which was kept."""
    campaigns: dict[str, Any] = {}
    for name in ("faults", "hostile"):
        campaigns |= read_results(RESULTS / f"{name}.json")
    tables = []
    for name, campaign in campaigns.items():
        rounds = campaign["settings"].get("rounds")
        how = "" if rounds is None else f", `--rounds {rounds}`"
        rows = [list(row) for row in campaign["results"]["counts"].items()]
        tables.append(table([f"faults: {name}{how}", "count"], rows))
    return "\n\n".join(tables)


def foreign_table() -> str:
    """Return what came of other people's images."""
    results = read("foreign_data")
    rows = [
        [key.replace("_", " "), *(_line(values[key]) for values in results.values())]
        for key in next(iter(results.values()))
    ]
    return table(["foreign images", *results], rows)


def _line(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return ", ".join(f"{name} {format_cell(part)}" for name, part in value.items())


# Fingerprints of artifacts that shipped earlier, and what tells them from the one that ships.
EARLIER = {
    "91b3e6bd109f0e73": "whose diffusion model was trained for 54 epochs",
    "98b9cfab5233e7e4": (
        "whose diffusion model was trained for 16 epochs, inverted by DDIM and decoded in 22 forward passes"
    ),
}


def is_earlier(rows: list[dict[str, Any]]) -> bool:
    """Return whether distilled images of a table are not those of the embedded artifact as it is."""
    return bool(_others(rows))


def _others(rows: list[dict[str, Any]]) -> set[str]:
    """Return the artifacts of a table that are neither the embedded one nor made for the table."""
    found = {
        row["inputs"]["artifact"]
        for row in rows
        if "artifact" in row["inputs"] and not row["settings"]["artifact"].startswith("runs/")
    }
    return found - {shipped_fingerprint()}


def shipped_fingerprint() -> str:
    """Return the fingerprint of the embedded artifact as it is."""
    return Artifact.load(embedded_artifact("fashion-mnist")).fingerprint


def _notes(rows: list[dict[str, Any]]) -> list[str]:
    """Return a sentence on each earlier artifact that rows are of."""
    several = len({row["inputs"].get("artifact") for row in rows} - {None}) > 1
    which = "Some distilled images" if several else "Distilled images"
    return [
        f"{which} are of an earlier artifact of this package, {EARLIER.get(name, 'of other settings')}."
        for name in sorted(_others(rows))
    ]


def table_texts() -> dict[str, str]:
    """Return the tables of `recipes.tables.students` by name, as it writes them from their JSON."""
    texts = {}
    for path in sorted((RESULTS / "tables").glob("*.json")):
        document = read_results(path)
        if "rows" in document:
            settings = load_table(CONFIGS / f"{path.stem}.yaml", [])
            notes = [*settings.notes, *_notes(document["rows"])]
            seeds = len(document["rows"][0]["settings"]["seed"])  # as many as there were, whatever is asked
            own = dataclasses.replace(settings, title=document["title"], notes=notes, seeds=seeds)
            texts[path.stem] = markdown(own, document["rows"], document["scores"])
    return texts


def students_tables() -> str:
    """Return the measured tables of `recipes.tables.students`: some whole, links to the rest."""
    texts = table_texts()
    shown = [texts.pop(name) for name in WHOLE_TABLES]
    whole = [text.replace("# ", "#### ", 1).rstrip() for text in shown]
    links = [
        f"- [{text.splitlines()[0].removeprefix('# ')}]({RESULTS.as_posix()}/tables/{name}.md)"
        for name, text in sorted(texts.items())
    ]
    return "\n\n".join([*whole, "\n".join(links)]).rstrip()


def hard_labels_table() -> str:
    """Return the table of students that the cards show."""
    return table_texts()["hard-labels"].replace("# ", "### ", 1).rstrip()


def join(*sections: Callable[[], str]) -> str:
    """Return sections, and of those that are not measured yet which file is missing."""
    parts = []
    for section in sections:
        try:
            parts.append(section())
        except FileNotFoundError as error:
            parts.append(f"Not measured yet: `{error.filename}`.")
    return "\n\n".join(parts)


def figures() -> str:
    """Return what was measured of models, inversion and use."""
    return join(
        training_table,
        vae_table,
        precision_table,
        storage_table,
        diffusion_table,
        inversion_tables,
        inversion_methods_table,
        dataset_table,
    )


def systems() -> str:
    """Return what was measured of speed, memory, faults and foreign images."""
    return join(benchmarks_table, memory_table, dit_xl_table, foreign_table, counts_tables)
