"""Students of a table that is there, where training them again would repeat them: a table -> results."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from d3hr_datasets.errors import ArtifactFormatError, ConfigError
from d3hr_datasets.experiments.student_inputs import fingerprints, teacher_file
from d3hr_datasets.experiments.student_settings import NOT_OF_THE_RESULT, StudentSettings
from d3hr_datasets.experiments.table_rows import Row
from d3hr_datasets.experiments.train_table import METRICS, OF_A_ROW, Results
from d3hr_datasets.image_sets.training_set_settings import REAL
from d3hr_datasets.io.untrusted_files import read_json

# What real images know nothing of.
OF_GENERATION = ("timestep", "guidance_scale", "decode", "num_candidates", "mode_spread")
OF_A_STUDENT = {"name", "settings", "inputs", "seconds", *METRICS}  # what a row says at least


def kept_students(table: Path, rows: list[Row], seeds: int) -> Results:
    """Return students of an earlier run that would be the same today, by (name of the row, seed).

    Their row has the same name, settings and inputs (artifact, teacher, real images). The code is taken to be
    the same. Each says the command that made it, as `made_by`, and its settings as they are written now. A
    table that asks for more seeds than before keeps those that it has.

    Args:
        table: JSON file of the table, which need not be there.
        rows: As they are asked for now.
        seeds: Students of each.

    Raises:
        ConfigError: The file is no table, or has students of more seeds, which would be lost.
    """
    if not table.exists():
        return {}
    try:
        document = read_json(table)
    except ArtifactFormatError as error:
        raise _no_table(table) from error
    if not _is_table(document):
        raise _no_table(table)
    earlier = {row["name"]: row for row in document["rows"]}
    kept: Results = {}
    for row in rows:
        found = earlier.get(row.name)
        if found is not None and _is_same(found, row.student(0)):
            there = found["settings"]["seed"]
            if len(there) > seeds:
                raise ConfigError(
                    f"{table} has students of {len(there)} seeds of {row.name!r}, and {seeds} are asked for: "
                    f"some would be lost. Say --seeds {len(there)}, or give another output"
                )
            for seed in there:
                kept[row.name, seed] = _student_of(found, row.student(seed), document["command"])
    return kept


def _no_table(table: Path) -> ConfigError:
    return ConfigError(f"{table} is no table of students: give another output, or do not keep its rows")


def _is_table(document: Any) -> bool:
    """Return whether a file says of each row what `train_table.summarize` says."""
    if not isinstance(document, dict) or not isinstance(document.get("rows"), list):
        return False
    rows = document["rows"]
    return "command" in document and all(
        isinstance(row, dict)
        and row.keys() >= OF_A_STUDENT
        and isinstance(row["settings"], dict)
        and isinstance(row["inputs"], dict)
        and isinstance(row["settings"].get("seed"), list)
        and all(len(row[metric]["values"]) == len(row["settings"]["seed"]) for metric in METRICS)
        for row in rows
    )


def _student_of(row: dict[str, Any], settings: StudentSettings, command: str) -> dict[str, Any]:
    """Return what a row says of one of its students."""
    seeds, made_by = row["settings"]["seed"], row.get("made_by", command)
    result = {key: row.get(key) for key in OF_A_ROW}
    teacher = teacher_file(settings)
    if teacher is not None:
        result["teacher_bytes"] = teacher.stat().st_size
    return {
        **result,
        **{metric: row[metric]["values"][seeds.index(settings.seed)] for metric in METRICS},
        "seconds": row["seconds"] / len(seeds),
        "settings": _as_json(settings),
        "made_by": (made_by if isinstance(made_by, str) else made_by[seeds.index(settings.seed)]) or command,
    }


def _as_json(settings: StudentSettings) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(settings)))
    return values


def _is_same(row: dict[str, Any], settings: StudentSettings) -> bool:
    """Return whether a row says what students of these settings would say."""
    earlier = row["settings"]
    if row["inputs"] != fingerprints(settings):
        return False
    now = _as_json(settings)
    defaults = {
        field.name: field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        for field in dataclasses.fields(settings)
    }
    names = set(now) - {"seed", *NOT_OF_THE_RESULT, *_told_by(row["inputs"], settings)}
    if settings.source in REAL and settings.source != "reconstructed":
        names -= {*OF_GENERATION, "artifact"}
    # What did not exist then was as it is by default.
    return all(earlier.get(name, defaults[name]) == now[name] for name in names)


def _told_by(inputs: dict[str, str], settings: StudentSettings) -> set[str]:
    """Return settings that need not be the same where fingerprints are: of what may lie anywhere.

    A teacher of timm or of the Hub has no fingerprint, so its name tells it. With weights of their own, the
    name is that of their architecture.
    """
    told = {"artifact"} & inputs.keys()
    if "teacher" in inputs:
        told |= {"teacher_weights"} if settings.teacher_weights else {"teacher", "teacher_weights"}
    return told
