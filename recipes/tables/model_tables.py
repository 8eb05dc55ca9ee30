"""Trainings of diffusion models as Markdown: packaged settings and `hub/results/*.json` -> tables."""

from __future__ import annotations

from d3hr_datasets.io.markdown import markdown_table as table
from d3hr_datasets.runs.settings_files import read_yaml
from recipes.tables import result_tables
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


def adaption() -> str:
    """Return how many digits came out right of each way to adapt the embedded model, in equal time."""
    rows = [
        [
            name,
            values["steps"],
            f"{values['minutes']:.1f}",
            f"{values['stored_bytes'] / 1e6:.2f} MB",
            *(f"{values[f'recognised_percent, guidance {scale}']:.1f} %" for scale in (1, 3)),
        ]
        for name, values in result_tables.read("adaption").items()
    ]
    header = ["way", "steps", "minutes", "stored", "right, no guidance", "right, guidance 3"]
    return table(header, rows)


def training_speed() -> str:
    """Return how fast the embedded DiT trains, by what is switched on."""
    found = result_tables.read("training_speed")
    rows = [
        [name, f"{values['images_per_second']:,.0f}", f"{values['ratio']:.2f}"]
        for name, values in found.items()
    ]
    return table(["training of the embedded DiT", "images/s", "ratio"], rows)
