"""Trainings of diffusion models as Markdown: packaged settings -> a table."""

from __future__ import annotations

from d3hr_datasets.io.markdown import markdown_table as table
from d3hr_datasets.runs.settings_files import read_yaml
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
