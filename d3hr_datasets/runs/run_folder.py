"""The folder of a training: settings, metrics, and a checkpoint to go on from.

In: the settings of a training, and what it measures. Out: files, each whole or not there.
"""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from d3hr_datasets.errors import ConfigError
from d3hr_datasets.io.atomic import replace_file, replace_text
from d3hr_datasets.io.extras import needs_extra
from d3hr_datasets.io.untrusted_files import check_file

with needs_extra("train", "folders of runs need PyYAML"):
    import yaml

CHECKPOINT = "checkpoint.pt"


class RunFolder:
    """A folder of one run: resolved settings, `metrics.csv` and one checkpoint, replaced atomically.

    Args:
        folder: The folder.
        settings: A dataclass.
        free: Settings that may differ from those of the run that is gone on with.
        earlier: Turns the settings of a run of an earlier version into those of today. What such a run did
            not say had the value that is the default today.

    Raises:
        ConfigError: The folder holds a run with other settings.
    """

    def __init__(
        self,
        folder: str | Path,
        settings: Any,
        free: Sequence[str] = ("output", "epochs"),
        earlier: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
    ) -> None:
        self.path = Path(folder)
        self.path.mkdir(parents=True, exist_ok=True)
        resolved = dataclasses.asdict(settings)
        target = self.path / "settings.yaml"
        before = _read_settings(target) if target.exists() else None
        if before is not None:
            if earlier is not None:
                before = earlier(before)
            defaults = {field.name: _default(field) for field in dataclasses.fields(settings)}
            said = {**defaults, **before}
            changed = [key for key in resolved if key not in free and resolved[key] != said.get(key)]
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
        return self.path / CHECKPOINT

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        """Replace the checkpoint by one of tensors and plain values.

        Raises:
            OSError: It cannot be written; the one before is kept.
        """

        def write(temporary: Path) -> None:
            try:
                torch.save(state, temporary)
            except RuntimeError as error:  # of torch's writer, where the disk is full
                raise OSError(f"the checkpoint {self.checkpoint} could not be written: {error}") from error

        replace_file(self.checkpoint, write)

    def load_checkpoint(self) -> dict[str, Any] | None:
        """Return the newest checkpoint, or None where the run is new.

        Raises:
            ConfigError: It is damaged.
        """
        if not self.checkpoint.exists():
            return None
        check_file(self.checkpoint)
        try:
            state: dict[str, Any] = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
        except OSError:
            raise
        except Exception as error:  # whatever the bytes make torch's reader do
            raise ConfigError(
                f"the checkpoint {self.checkpoint} is damaged ({type(error).__name__}); delete it to start "
                "this run again, or bring it back from a copy"
            ) from error
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

    def replace_metrics(self, rows: list[dict[str, Any]], table: str = "metrics") -> None:
        """Write `TABLE.csv` anew, of rows with the same columns."""

        def write(temporary: Path) -> None:
            with temporary.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, fieldnames=list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)

        replace_file(self.path / f"{table}.csv", write)

    def forget_after(self, step: int, table: str = "metrics") -> None:
        """Take the rows of later steps, which will be made again, out of `TABLE.csv`; and half ones."""
        path = self.path / f"{table}.csv"
        if not path.exists():
            return
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        kept = [row for row in rows if None not in row.values() and int(row["step"]) <= step]
        if kept and len(kept) < len(rows):
            self.replace_metrics(kept, table)
        elif not kept:
            path.unlink()


def _read_settings(path: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path} is no YAML, so it is not known what run is there; give another output folder"
        ) from error
    if not isinstance(found, dict):
        raise ConfigError(f"{path} holds no settings of a run, but {found!r:.80}; give another output folder")
    return found


def _default(field: dataclasses.Field[Any]) -> Any:
    """Return what a field is where it is not given; what equals nothing where it must be given."""
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
