"""Models and trainings as Markdown: packaged settings and `hub/results/*.json` -> tables."""

from __future__ import annotations

from d3hr_datasets.io.markdown import format_score
from d3hr_datasets.io.markdown import markdown_table as table
from d3hr_datasets.runs.settings_files import read_yaml
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
