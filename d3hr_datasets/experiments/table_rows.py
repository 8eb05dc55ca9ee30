"""A table of students -> its rows, and the settings of every student.

In: a YAML file, or a `Table`. Out: rows, and for each seed the settings of a student.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from d3hr_datasets.errors import ConfigError
from d3hr_datasets.experiments.protocol_files import PROTOCOLS
from d3hr_datasets.experiments.student_settings import StudentSettings
from d3hr_datasets.runs.settings_files import load_settings, parse_override


@dataclass(frozen=True)
class Table:
    """A table of students.

    Args:
        title: Of the table.
        config: Settings file below the packaged protocols that rows start from; `{ipc}` and other settings
            of a row in it are filled in.
        rows: Each has a `set` of its own, maybe a `grid` of lists whose combinations are a row each, a
            `name` and a `config`.
        output: Where the table is written, without an ending.
        seeds: Students of each row.
        set: Settings of all students.
        scores: LRS and ARS, of rows chosen by their settings.
        plot: `x` and `series`, settings.
        notes: Sentences below the table.
    """

    title: str
    config: str
    rows: list[dict[str, Any]]
    output: str
    seeds: int = 3
    set: dict[str, Any] = field(default_factory=dict)
    scores: list[dict[str, Any]] = field(default_factory=list)
    plot: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Row:
    """A row: its name, what it sets, and the settings file it starts from, below the packaged protocols."""

    name: str
    settings: dict[str, Any]
    config: str

    @property
    def has_images_by_seed(self) -> bool:
        """Whether each student has a folder of images of its own."""
        return "{seed}" in str(self.settings.get("source", ""))

    def student(self, seed: int) -> StudentSettings:
        """Return the settings of one of its students; `{seed}` in its source is filled in."""
        own = {**self.settings}
        if self.has_images_by_seed:
            own["source"] = own["source"].replace("{seed}", str(seed))
        overrides = [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in own.items()]
        return load_settings(StudentSettings, PROTOCOLS / self.config, [*overrides, f"seed={seed}"])


def expand(table: Table) -> list[Row]:
    """Return the rows of a table, every combination of a grid on its own.

    `{ipc}` in the name of a config is replaced by that setting of the row.

    Raises:
        ConfigError: A row has unknown keys, or two have the same name.
    """
    rows = []
    for row in table.rows:
        unknown = sorted(set(row) - {"name", "config", "set", "grid"})
        if unknown:
            raise ConfigError(f"unknown keys {unknown} of a row; accepted: name, config, set, grid")
        grid = row.get("grid", {})
        for values in itertools.product(*grid.values()):
            own = {**row.get("set", {}), **dict(zip(grid, values, strict=True))}
            parts = [row["name"]] if "name" in row else []
            shown = {key: own[key] for key in (grid if parts else own) if key != "torch_compile"}
            shown = dict(sorted(shown.items(), key=lambda item: item[0] != "source"))  # first
            parts += [_shown(key, value) for key, value in shown.items()]
            settings = {**table.set, **own}
            config = row.get("config", table.config).format_map(settings)
            rows.append(Row(", ".join(parts), settings, config))
    names = [row.name for row in rows]
    if len(set(names)) != len(names):
        raise ConfigError(f"rows {sorted({n for n in names if names.count(n) > 1})} have the same name")
    return rows


def _shown(key: str, value: Any) -> str:
    if key == "source":
        return str(value).replace("_", " ")
    if isinstance(value, dict):
        return ", ".join(_shown(inner, what) for inner, what in value.items())
    return str(value) if key in {"student", "labels"} else f"{key.replace('_', ' ')} {value}"


def load_table(
    path: Path, overrides: list[str], seeds: int | None = None, output: Path | None = None
) -> Table:
    """Read a table; `overrides` are settings of all its students."""
    own = [f"seeds={seeds}"] if seeds is not None else []
    own += [f"output={json.dumps(str(output))}"] if output is not None else []
    table = load_settings(Table, path, own)
    for override in overrides:
        key, value = parse_override(override)
        table.set[key] = value
    return table
