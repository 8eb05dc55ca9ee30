"""What the measurements say, in sentences and small tables: `hub/results/*.json` -> Markdown.

A sentence with a figure in it is made here, so that it changes with the figure.
"""

from __future__ import annotations

import json
from typing import Any

from d3hr_datasets.copies.comparisons import Comparison
from d3hr_datasets.copies.findings import CopyFindings
from d3hr_datasets.experiments.kept_rows import OF_GENERATION
from d3hr_datasets.io.markdown import markdown_table as table
from recipes.common.errors import RecipeError
from recipes.common.results import read_results
from recipes.tables import result_tables

# Tables in which students of modes and of random real images differ in nothing else.
COMPARED = (
    "hard-labels",
    "hard-labels-50",
    "soft-labels",
    "soft-labels-long",
    "soft-labels-d3hr",
    "stored-labels",
    "cross-architecture",
    "curve",
    "scores",
)
# What stands for the artifact: what it does by default where that is not modes, else modes.
DISTILLED = ("default", "modes")
# Settings that belong to the way images are got, and not to the training.
OF_THE_SOURCE = ("source", *OF_GENERATION)


def comparisons() -> str:
    """Return students of distilled images beside those of equally many random real ones."""
    rows = []
    for name in COMPARED:
        document = read_results(result_tables.RESULTS / "tables" / f"{name}.json")
        title = f"[{document['title']}]({(result_tables.RESULTS / 'tables').as_posix()}/{name}.md)"
        if result_tables.is_earlier(document["rows"]):
            title += ", of an earlier artifact"
        distilled = {
            key: row
            for source in reversed(DISTILLED)
            for key, row in _by_training(document["rows"], source).items()
        }
        for key, real in _by_training(document["rows"], "random_real").items():
            if key in distilled:
                rows.append([title, *_compared(real, distilled[key])])
                title = ""
    header = ["students", "images", "distilled", "random real", "difference", "both spreads together"]
    return table(header, rows)


# What the README shows of `comparisons`: a table, its images per class, and what students saw beside them.
HEADLINE = {
    "hard-labels": ("hard", (1, 10)),
    "hard-labels-50": ("hard", (50,)),
    "soft-labels": ("soft", (1, 10, 50)),
}


def headline() -> str:
    """Return at most eight rows: students of distilled images, of random real ones, and of all real ones."""
    rows = []
    for name, (labels, wanted) in HEADLINE.items():
        found = read_results(result_tables.RESULTS / "tables" / f"{name}.json")["rows"]
        for ipc in wanted:
            pair = [_only(found, sources, ipc) for sources in (DISTILLED, ("random_real",))]
            difference = pair[0]["mean"] - pair[1]["mean"]
            rows.append([labels, ipc, *map(_score, pair), f"{difference:+.1f}"])
    whole = _only(read_results(result_tables.RESULTS / "tables" / "hard-labels.json")["rows"], ("whole",), 0)
    rows.append(["hard", "all", "", _score(whole), ""])
    return table(["labels", "images per class", "distilled", "random real", "difference"], rows)


def _only(rows: list[dict[str, Any]], sources: tuple[str, ...], ipc: int) -> dict[str, Any]:
    """Return the accuracy of the only row with so many images per class of the first source that has one.

    Rows of fresh groups are left out: they have more images.
    """
    plain = [row for row in rows if not row["settings"].get("resample_every")]
    for source in sources:
        found = [row for row in plain if (row["settings"]["source"], row["settings"]["ipc"]) == (source, ipc)]
        if len(found) > 1:
            raise RecipeError(f"several rows of {source} have {ipc} images per class")
        if found:
            accuracy: dict[str, Any] = found[0]["top1"]
            return accuracy
    raise RecipeError(f"no row of {sources} has {ipc} images per class")


def _score(accuracy: dict[str, Any]) -> str:
    return f"{accuracy['mean']:.1f} ± {accuracy['std']:.1f}"


def _by_training(rows: list[dict[str, Any]], source: str) -> dict[str, dict[str, Any]]:
    """Return the rows of a source by what they were trained with."""
    found = {}
    for row in rows:
        if row["settings"]["source"] == source:
            rest = {key: value for key, value in row["settings"].items() if key not in OF_THE_SOURCE}
            found[json.dumps(rest, sort_keys=True)] = row
    return found


def _compared(real: dict[str, Any], distilled: dict[str, Any]) -> list[str]:
    (a, b), ipc = (row["top1"] for row in (distilled, real)), real["settings"]["ipc"]
    what = ", ".join(part for part in real["name"].split(", ") if part not in {"random real", f"ipc {ipc}"})
    per_class = f"{ipc} per class"
    return [
        f"{per_class}, {what}" if what else per_class,
        *(f"{score['mean']:.1f} ± {score['std']:.1f}" for score in (a, b)),
        f"{a['mean'] - b['mean']:+.1f}",
        f"{a['std'] + b['std']:.1f}",
    ]


def inversion_methods() -> str:
    """Return how close inversions of equal cost come to being undone."""
    document = read_results(result_tables.RESULTS / "inversion_methods.json")
    results, settings = document["results"], document["settings"]
    steps = settings["num_inference_steps"]
    fixed = results[f"fixed_point, {steps} steps x 1"]
    error = fixed["relative_error"]
    asked = {"ddim": "where a step starts", "ddim at the target": "where it ends, as in D3HR's code"}
    others = []
    for name, where in asked.items():
        other = results[f"{name}, {steps} steps"]["relative_error"]
        others.append(f"{other:.3g} with the model asked {where}, {other / error:.1f} times as much")
    return (
        f"Inverted in {fixed['evaluations']} evaluations to timestep {settings['timestep']} and denoised "
        f"without guidance, latents come back to a relative error of {error:.3g} by fixed points; by plain "
        f"DDIM of {steps} steps, at the same cost, of {', and of '.join(others)}."
    )


def ranks() -> str:
    """Return how well small sets rank architectures as the whole set does."""
    found = read_results(result_tables.RESULTS / "tables" / "architectures-ranks.json")
    rows = [
        [name.replace("_", " "), values["architectures"], values["spearman"], values["kendall"]]
        for name, values in found.items()
    ]
    return table(["ten images per class", "architectures", "Spearman's correlation", "Kendall's"], rows)


def copies() -> str:
    """Return whether sets of the embedded artifact have near copies of training images."""
    document = read_results(result_tables.RESULTS / "copies.json")
    of = document["settings"]["fingerprint"]
    earlier = [f"Of an earlier artifact, {of}."] if of != result_tables.shipped_fingerprint() else []
    seeds, rows, verdicts, columns = document["settings"]["seeds"], [], [], []
    for name, values in document["results"].items():
        found = CopyFindings.from_dict(values)
        comparisons = {
            f"{measure}, {space}": comparison
            for space, measures in found.spaces.items()
            for measure, comparison in measures.items()
        }
        columns = list(comparisons)
        first = next(iter(comparisons.values()))
        if first.odds is None:
            raise ValueError(f"{name}: chance is known of held-out images only, not of {found.reference!r}")
        expected = f"{100 * first.odds.expected / first.num_images:.1f}"
        rows.append([name, first.num_images, expected, *map(_share, comparisons.values())])
        if name.startswith("ipc"):
            verdicts.append(f"- **{name}, {seeds} seeds.** {found.verdict()}")
    header = ["images", "number", "near by chance, %", *(f"near by {column}, %" for column in columns)]
    what = (
        "p: chance of at least so many. Too many: more than chance explains, all tests of a row considered."
    )
    return "\n\n".join([*earlier, table(header, rows), what, "\n".join(verdicts)])


def _share(found: Comparison) -> str:
    share = 100 * found.num_near / found.num_images
    if found.odds is None:
        return f"{share:.1f}"
    return f"{share:.1f} (p = {found.odds.p_value:.2g}){', too many' if found.odds.exceeds else ''}"
