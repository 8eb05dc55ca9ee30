"""The folder of a training: settings, metrics, and a checkpoint to go on from."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from d3hr_datasets.io.atomic import replace_file
from recipes.common.errors import RecipeError
from recipes.common.results import write_text


class Run:
    """A folder of one run: resolved settings, `metrics.csv` and one checkpoint, replaced atomically.

    Args:
        folder: The folder.
        settings: A dataclass.
        free: Settings that may differ from those of the run that is gone on with.

    Raises:
        RecipeError: The folder holds a run with other settings.
    """

    def __init__(self, folder: str | Path, settings: Any, free: Sequence[str] = ("epochs",)) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        resolved = dataclasses.asdict(settings)
        target = self.folder / "settings.yaml"
        before = yaml.safe_load(target.read_text(encoding="utf-8")) if target.exists() else None
        if before is not None:
            changed = [key for key in resolved if key not in free and resolved[key] != before.get(key)]
            if changed:
                raise RecipeError(
                    f"{self.folder} holds a run with other settings of {changed} (what may change: "
                    f"{', '.join(free)}); give another --set output=FOLDER, or delete that folder to start "
                    "again"
                )
        if before != resolved:  # of several processes only the first writes
            text = yaml.safe_dump(resolved, sort_keys=False)
            write_text(target, text)

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.pt"

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        replace_file(self.checkpoint, lambda temporary: torch.save(state, temporary))

    def load_checkpoint(self) -> dict[str, Any] | None:
        """Return the newest checkpoint, or None where the run is new."""
        if not self.checkpoint.exists():
            return None
        state: dict[str, Any] = torch.load(self.checkpoint, weights_only=True)
        return state

    def log(self, table: str = "metrics", **metrics: Any) -> None:
        """Append a row to `TABLE.csv`; the first row fixes the columns."""
        path = self.folder / f"{table}.csv"
        new = not path.exists()
        with path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(metrics))
            if new:
                writer.writeheader()
            writer.writerow(metrics)
