"""The folder of a training: settings, metrics, and a checkpoint to go on from.

In: the settings of a training, and what it measures. Out: files, each whole or not there.
"""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from d3hr_datasets.errors import ConfigError
from d3hr_datasets.io.atomic import replace_file, replace_text
from d3hr_datasets.io.extras import needs_extra
from d3hr_datasets.io.untrusted_files import check_file

with needs_extra("train", "folders of runs need PyYAML"):
    import yaml


class RunFolder:
    """A folder of one run: resolved settings, `metrics.csv` and one checkpoint, replaced atomically.

    Args:
        folder: The folder.
        settings: A dataclass.
        free: Settings that may differ from those of the run that is gone on with.

    Raises:
        ConfigError: The folder holds a run with other settings.
    """

    def __init__(self, folder: str | Path, settings: Any, free: Sequence[str] = ("output", "epochs")) -> None:
        self.path = Path(folder)
        self.path.mkdir(parents=True, exist_ok=True)
        resolved = dataclasses.asdict(settings)
        target = self.path / "settings.yaml"
        before = yaml.safe_load(target.read_text(encoding="utf-8")) if target.exists() else None
        if before is not None:
            changed = [key for key in resolved if key not in free and resolved[key] != before.get(key)]
            if changed:
                raise ConfigError(
                    f"{self.path} holds a run with other settings of {changed} (what may change: "
                    f"{', '.join(free)}); give another output folder, or delete that folder to start "
                    "again"
                )
        if before != resolved:  # of several processes only the first writes
            replace_text(target, yaml.safe_dump(resolved, sort_keys=False))

    @property
    def checkpoint(self) -> Path:
        """The file that a run goes on from."""
        return self.path / "checkpoint.pt"

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        """Replace the checkpoint by one of tensors and plain values."""
        replace_file(self.checkpoint, lambda temporary: torch.save(state, temporary))

    def load_checkpoint(self) -> dict[str, Any] | None:
        """Return the newest checkpoint, or None where the run is new."""
        if not self.checkpoint.exists():
            return None
        check_file(self.checkpoint)
        state: dict[str, Any] = torch.load(self.checkpoint, weights_only=True)
        return state

    def log(self, table: str = "metrics", **metrics: Any) -> None:
        """Append a row to `TABLE.csv`; the first row fixes the columns."""
        path = self.path / f"{table}.csv"
        new = not path.exists()
        with path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(metrics))
            if new:
                writer.writeheader()
            writer.writerow(metrics)

    def replace_metrics(self, rows: list[dict[str, Any]]) -> None:
        """Write `metrics.csv` anew, of rows with the same columns."""

        def write(temporary: Path) -> None:
            with temporary.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, fieldnames=list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)

        replace_file(self.path / "metrics.csv", write)
