"""Models and trainings as Markdown: packaged settings and `hub/results/*.json` -> tables."""

from __future__ import annotations

from d3hr_datasets.io.markdown import format_score
from d3hr_datasets.io.markdown import markdown_table as table
from d3hr_datasets.runs.settings_files import read_yaml
from recipes.common.results import read_results
from recipes.tables import result_tables
from recipes.tables.result_tables import read
from recipes.tables.training_costs import CONFIGS, COST, HOURS

STARTS = {"scratch": "a new DiT", "full": "all weights of a DiT", "lora": "an adapter"}


def configurations() -> str:
    """Return the packaged settings of trainings: what each trains, and what it costs."""
    rows = []
    for path in sorted(CONFIGS.glob("*.yaml")):
        settings = read_yaml(path)
        cost = COST.search(path.read_text(encoding="utf-8"))
        if cost is None:  # shared by others
            continue
        hours = HOURS.search(cost[0])
        assert hours is not None
        model = "a model of prompts" if "prompt" in settings else STARTS[settings["start"]]
        what = f"an adapter of {model}" if "prompt" in settings else model
        rows.append([f"`{path.stem}`", settings["source"], what, settings["epochs"], hours[1]])
    header = ["CONFIG", "images", "trains", "epochs", "hours of one H100, computed"]
    return table(header, rows)


def training_speed() -> str:
    """Return what makes the training of the embedded model faster."""
    rows = [
        [way, found["ratio"], found["images_per_second"]] for way, found in read("training_speed").items()
    ]
    return table(["training of the embedded model", "ratio", "images a second"], rows)


def adaption() -> str:
    """Return what three ways of equal time make of data that the embedded model has not seen."""
    rows = [
        [
            way,
            f"{found['recognised_percent, guidance 1']:.1f}",
            f"{found['recognised_percent, guidance 3']:.1f}",
            found["steps"],
            f"{found['minutes']:.1f}",
            f"{found['stored_bytes'] / 1e6:.1f} MB",
        ]
        for way, found in read("adaption").items()
    ]
    header = [
        "way",
        "recognised without guidance, %",
        "with guidance 3, %",
        "steps",
        "minutes",
        "to store, without VAE",
    ]
    return table(header, rows)


def few_images() -> str:
    """Return what artifacts of few images train, beside those images."""
    rows: dict[str, list[str]] = {}
    for name, found in read("few_images").items():
        number, _, _ = name.partition(" images, ")
        rows.setdefault(number, [number]).append(format_score(found["top1"]))
    header = [
        "real images of each class",
        *(name.partition(", ")[2] for name in list(read("few_images"))[:4]),
    ]
    return table(header, list(rows.values()))


def scale_plans() -> str:
    """Return what builds of large data sets ask for."""
    found = read("scale")
    keys = next(iter(found.values()))["plan"]
    rows = [[key.replace("_", " "), *(values["plan"][key] for values in found.values())] for key in keys]
    return table(["computed", *found], rows)


def scale_efficiency() -> str:
    """Return what share of all workers' hours simulated builds spend on images."""
    rows = []
    for name, values in read("scale").items():
        for way, row in values["workers"].items():
            found = [outcome.get("efficiency") for outcome in row.values()]
            cells = ["does not end" if share is None else f"{100 * share:.0f} %" for share in found]
            rows.append([name, way, *cells])
    return table(["images", "build", *(f"{number} workers" for number in row)], rows)


def inversion_steps() -> str:
    """Return how far statistics are off over the evaluations of the model that they took."""
    rows = [
        [name, *(values[key] for key in ("evaluations", "means", "variances", "spreads, relative"))]
        for name, values in sorted(read("inversion_steps").items(), key=lambda row: row[1]["evaluations"])
    ]
    errors = ["means, standard errors", "variances, standard errors", "standard deviations, relative"]
    return table(["inversion", "evaluations", *errors], rows)


def continual() -> str:
    """Return what a student keeps of classes that arrive in steps, by what is stored of the earlier ones."""
    rows = [
        [
            way,
            f"{found['images_of_a_class']:.0f}",
            f"{found['bytes_of_a_class'] / 1000:.1f} KB",
            *(format_score(found[key]) for key in ("last", "average", "forgetting")),
        ]
        for way, found in read("continual").items()
    ]
    header = [
        "kept of earlier classes",
        "images of a class",
        "bytes of a class",
        "after all",
        "over the steps",
        "forgetting",
    ]
    model = read_results(result_tables.RESULTS / "continual.json")["settings"]["model_bytes"]
    return f"{table(header, rows)}\n\nThe diffusion model takes {model / 1e6:.1f} MB, once."


def privacy() -> str:
    """Return what private artifacts are worth, and what an attack finds out of them beside what it could."""
    document = read_results(result_tables.RESULTS / "privacy.json")
    sizes, rows = [f"ipc {ipc}" for ipc in document["settings"]["ipc"]], []
    for name, found in document["results"].items():
        images, _, epsilon = name.partition(" images, epsilon ")
        cells = [format_score(found["students"][size]["top1"]) for size in sizes]
        for one in found["attack"].values():
            mean = sum(one["advantage"]) / len(one["advantage"])
            cells.append("1, by construction" if one["by_construction"] else f"{mean:.2f}")
        first = next(iter(found["attack"].values()))
        rows.append([images, epsilon, *cells, f"{first['error']:.2f}", f"{first['bound']:.2f}"])
    top1 = [f"top-1, {size.replace('ipc', 'IPC')}" for size in sizes]
    attacks = ["advantage, others unknown", "others known", "blind guesses reach", "no attack exceeds"]
    text = table(["private images of a class", "epsilon", *top1, *attacks], rows)
    choice = document["settings"]["choice"]
    said = f"Chosen on public images: timestep {choice['timestep']}, guidance {choice['guidance_scale']:g}."
    return f"{text}\n\n{said}"


def federated() -> str:
    """Return what merged artifacts of many parties are worth, beside one of all their images."""
    found = read("federated")
    alone = found["parties alone"]
    rows = [[f"images of the {name} artifact", format_score(found[name])] for name in ("merged", "pooled")]
    rows += [[f"of one party's artifact, {name}", f"{alone[name]:.1f}"] for name in ("worst", "mean", "best")]
    differences = "; ".join(f"{name}: {value:.1e}" for name, value in found["merged and pooled"].items())
    text = table(["student trained on", "top-1 accuracy, %"], rows)
    return f"{text}\n\nLargest difference between merged and pooled statistics: {differences}."


def accuracy_by_bytes() -> str:
    """Return what sets cost to store, beside what students reach with them."""
    rows = [
        [
            title if first else "",
            point["ipc"] or "all",
            point["stored"],
            f"{point['bytes']:,}",
            format_score(point),
        ]
        for title, points in read("accuracy_by_bytes").items()
        for first, point in zip([True, *[False] * len(points)], points, strict=False)
    ]
    return table(["students", "images per class", "stored", "bytes", "top-1, %"], rows)
