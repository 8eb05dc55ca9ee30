"""Put the measured figures into the README and the cards: `hub/results/*.json` -> Markdown.

    python -m recipes.write_cards

Replaces what stands between `<!-- NAME -->` and `<!-- end of NAME -->` in each file: "figures" in the README
and the cards of the artifact, "tables" (of students) in the README. Writes `hub/results/SYSTEMS.md`, and the
checksums of the artifact anew, since its cards are part of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from d3hr_datasets import Artifact
from d3hr_datasets.card import format_cell, format_score
from d3hr_datasets.card import markdown_table as table
from d3hr_datasets.folders import replaced_folder
from recipes.common import write_text

RESULTS = Path("hub/results")
ARTIFACT = Path("hub/d3hr-fashion-mnist")
README = Path("README.md")
CARDS = (ARTIFACT / "README.md", ARTIFACT / "model" / "README.md")
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
        [group, way, values["images_per_second"], values["ratio"]]
        for name in sorted(path.stem for path in (RESULTS / "benchmarks").glob("*.json"))
        for group, ways in read(f"benchmarks/{name}").items()
        for way, values in ways.items()
    ]
    return table(["benchmark", "way", "images per second", "ratio"], rows)


def memory_table() -> str:
    """Return the peak of a build over the number of images."""
    rows = [[name, values["before_mib"], values["peak_mib"]] for name, values in read("build_memory").items()]
    return table(["build", "MiB before", "MiB at its peak"], rows)


def dit_xl_table() -> str:
    """Return what a model of DiT-XL/2's size costs on a CPU."""
    results = read("dit_xl")
    keys = (
        "parameters", "construct_seconds", "load_seconds", "image_seconds", "model_evaluations", "threads",
        "peak_memory_gib",
    )  # fmt: skip
    rows = [[key.replace("_", " "), results[key]] for key in keys]
    return table(["first image of `D3HRImageNet`, random weights of DiT-XL/2's size", ""], rows)


def counts_tables() -> str:
    """Return the counts of the fault campaigns, every promise of which was kept."""
    campaigns = json.loads((RESULTS / "faults.json").read_text(encoding="utf-8"))
    return "\n\n".join(
        table(
            [f"faults: {name}, `--rounds {campaign['settings']['rounds']}`", "count"],
            [list(row) for row in campaign["results"]["counts"].items()],
        )
        for name, campaign in campaigns.items()
    )


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


def students_tables() -> str:
    """Return the measured tables of `recipes.evaluate_table`: some whole, links to the rest."""
    texts = {path.stem: path.read_text(encoding="utf-8") for path in (RESULTS / "tables").glob("*.md")}
    shown = [texts.pop(name) for name in WHOLE_TABLES]
    whole = [text.replace("# ", "#### ", 1).rstrip() for text in shown]
    links = [
        f"- [{text.splitlines()[0].removeprefix('# ')}]({RESULTS.as_posix()}/tables/{name}.md)"
        for name, text in sorted(texts.items())
    ]
    return "\n\n".join([*whole, "\n".join(links)]).rstrip()


SYSTEMS = """# Speed, memory, faults, foreign images

Written by `python -m recipes.write_cards` from the JSON files beside it, which hold settings, machine and
date. Two CPU cores, which other machines share: rates of the same thing differ by a third from run to run.
Each ratio is that to the way whose ratio is 1, in the same run. `matmul` is the rate at which this CPU
multiplies large matrices, in images of as many operations: no way of generating can be faster. Where a file
has `environment`, the machine was idle and glibc was told to keep freed memory; the others were
measured before that.
"""


def _join(*sections: Callable[[], str]) -> str:
    parts = []
    for section in sections:
        try:
            parts.append(section())
        except FileNotFoundError as error:
            parts.append(f"Not measured yet: `{error.filename}`.")
    return "\n\n".join(parts)


def filled(document: str, name: str, text: str, where: Path) -> str:
    """Return a document with another text between the marks of `name`."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    before, found, rest = document.partition(begin)
    _, found_end, after = rest.partition(end)
    if not found or not found_end:
        raise SystemExit(f"{where} has no {begin} ... {end}")
    return f"{before}{begin}\n\n{text}\n\n{end}{after}"


def main() -> None:
    figures = _join(
        training_table, vae_table, precision_table, storage_table, diffusion_table, inversion_tables,
        inversion_methods_table, dataset_table,
    )  # fmt: skip
    artifact = Artifact.load(ARTIFACT)
    for name in artifact.sha256:
        if not name.endswith(".md"):
            artifact.check(name)  # only cards may have changed
    students = (RESULTS / "tables" / "hard-labels.md").read_text(encoding="utf-8").replace("# ", "### ", 1)
    systems = _join(benchmarks_table, memory_table, dit_xl_table, foreign_table, counts_tables)
    readme = filled(README.read_text(encoding="utf-8"), "figures", figures, README)
    texts = {
        README: filled(readme, "tables", students_tables(), README),
        RESULTS / "SYSTEMS.md": f"{SYSTEMS}\n{systems}\n",
    }
    text = f"{figures}\n\n{students.rstrip()}"
    cards = {path: filled(path.read_text(encoding="utf-8"), "figures", text, path) for path in CARDS}
    # What is missing has stopped this before anything is written.
    with replaced_folder(ARTIFACT) as folder:
        for path, text in cards.items():
            write_text(folder / path.relative_to(ARTIFACT), text)
        Artifact(folder, artifact.info, {}).write_metadata()
    for path, text in texts.items():
        write_text(path, text)


if __name__ == "__main__":
    main()
