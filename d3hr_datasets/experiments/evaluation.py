"""What a set of images is worth: students trained on it beside students of random real images.

In: a distilled set of anybody's, and the real data set that it stands for. Out: a table of students as JSON,
Markdown and a plot, with LRS and ARS where their parts are there. Source: DD-Ranking (arXiv 2505.13300) for
what is compared.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

from d3hr_datasets.errors import ConfigError
from d3hr_datasets.experiments.evaluated_set import EvaluatedSet
from d3hr_datasets.experiments.protocol_files import choose_protocol
from d3hr_datasets.experiments.table_files import write_table
from d3hr_datasets.experiments.table_rows import Row, Table
from d3hr_datasets.experiments.train_table import students_at_a_time, summarize, train_all
from d3hr_datasets.image_sets.training_set_settings import TrainingSet
from d3hr_datasets.image_sets.training_sets import real_images

# What a protocol may do to images before a student sees them, and what undoes it.
PLAIN: dict[str, Any] = {
    "flip": False,
    "cutmix": 0.0,
    "dsa": False,
    "crop_scale": [],
    "random_crop": 0,
    "color_jitter": 0.0,
    "lighting": 0.0,
    "shuffle_patches": 1,
}
# Settings that say which images a student sees, and what they are of real images, which have neither.
OF_DISTILLED: dict[str, Any] = {"weights": False, "resample_every": 0}
WEIGHTED = (
    "distilled images are weighted in the loss by the real ones that they stand for, real images are not"
)
FRESH = "distilled images are drawn anew every few passes (resample_every), real images are not"


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """How a set is evaluated.

    Args:
        protocol: A packaged protocol, by which all students are trained.
        students: Models; that of the protocol if empty.
        labels: "hard", "soft" and "stored", of which each is a row of its own; that of the protocol if empty.
        seeds: Students of each row, and random choices of real images.
        whole: Train a student on the whole real set, too.
        whole_epochs: Passes over the whole set; by default so many that a student sees as many views as of
            the distilled set, at least one.
        plain: Train students without augmentation, too.
        changes: Settings of all students to change, as fields of `StudentSettings`.
    """

    protocol: str = "dc"
    students: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    seeds: int = 3
    whole: bool = False
    whole_epochs: int | None = None
    plain: bool = False
    changes: dict[str, Any] = field(default_factory=dict)


def evaluation_table(images: EvaluatedSet, how: EvaluationSettings, output: str) -> tuple[Table, list[Row]]:
    """Return the table of an evaluation, and its rows. Nothing is trained.

    Raises:
        ConfigError: Settings do not go together, change what the set is, or there is no such protocol or
            data set.
    """
    _check_changes(images, how)
    chosen = choose_protocol(how.protocol, images.dataset, images.ipc, how.changes)
    default = chosen.settings()
    students = tuple(dict.fromkeys(how.students or (default.student,)))
    labels = tuple(dict.fromkeys(how.labels or (default.labels,)))
    name = images.name if images.name not in {"random real", "whole real set"} else f"set {images.name!r}"
    if how.plain and all(getattr(default, name) == value for name, value in PLAIN.items()):
        raise ConfigError(
            f"protocol {how.protocol!r} augments no images, so that plain has nothing to leave out; choose "
            "another protocol, or leave plain away"
        )
    of_real = {key: none for key, none in OF_DISTILLED.items() if getattr(default, key) != none}
    rows, scores = [], []

    def add(title: str, settings: dict[str, Any]) -> dict[str, str]:
        rows.append(Row(title, {**chosen.changes, **settings}, str(chosen.path)))
        return {"name": title}

    for student in students:
        found: dict[tuple[str, str, bool], dict[str, str]] = {}
        changes = {**how.changes, "student": student}
        chosen = choose_protocol(how.protocol, images.dataset, images.ipc, changes)
        for kind, plain in itertools.product(labels, (False, True) if how.plain else (False,)):
            end = f", {student}, {kind} labels" + (", plain images" if plain else "")
            what = {"labels": kind, **(PLAIN if plain else {})}
            found["distilled", kind, plain] = add(f"{name}{end}", {**what, **images.settings})
            found["random", kind, plain] = add(
                f"random real{end}", {**what, **of_real, "source": "random_real"}
            )
        if how.whole:
            epochs = how.whole_epochs or _epochs_of_whole(default.epochs, images, default)
            kind = "hard" if "hard" in labels else labels[0]
            found["whole", kind, False] = add(
                f"whole real set, {student}, {kind} labels, epochs {epochs}",
                {"labels": kind, "source": "whole", "ipc": 0, "epochs": epochs, **of_real},
            )
        scores += _scores(student, labels, found)
    title = f"{images.name} against {images.dataset}, {images.ipc} images per class, protocol {how.protocol}"
    notes = [f"{part}: {number:,} bytes" for part, number in images.num_bytes.items()]
    notes += [note for key, note in (("weights", WEIGHTED), ("resample_every", FRESH)) if key in of_real]
    notes += [*images.notes, *chosen.notes, *_missing_scores(scores, how, labels)]
    return Table(title, "", [], output, how.seeds, scores=scores, notes=notes), rows


def _check_changes(images: EvaluatedSet, how: EvaluationSettings) -> None:
    """Raise `ConfigError` where settings of students say otherwise what the distilled images are."""
    for key, value in images.settings.items():
        if how.changes.get(key, value) != value:
            raise ConfigError(
                f"changes has {key} = {how.changes[key]!r}, and the set that is evaluated has {value!r}; "
                "leave it out. Of an artifact --source, or `source` of `artifact_to_evaluate`, says how it "
                "makes images"
            )


def _epochs_of_whole(epochs: int, images: EvaluatedSet, settings: TrainingSet) -> int:
    real = real_images(settings, train=True)
    return max(1, round(epochs * images.ipc * len(real.classes) / len(real.images)))


def _scores(
    student: str, labels: tuple[str, ...], found: dict[tuple[str, str, bool], dict[str, str]]
) -> list[dict[str, Any]]:
    """Return the scores whose parts are among the rows."""
    scores: list[dict[str, Any]] = []
    for kind in labels:
        if kind != "hard" and ("whole", "hard", False) in found:
            parts = {
                "real_hard": found["whole", "hard", False],
                "random_any": found["random", kind, False],
                "distilled_hard": found["distilled", "hard", False],
                "distilled_any": found["distilled", kind, False],
            }
            scores.append({"name": f"{student}, {kind} labels", "kind": "lrs", **parts})
        if ("distilled", kind, True) in found:
            parts = {
                f"{name}_{how}": found[name, kind, how == "plain"]
                for name in ("distilled", "random")
                for how in ("augmented", "plain")
            }
            scores.append({"name": f"{student}, {kind} labels", "kind": "ars", **parts})
    return scores


def _missing_scores(
    scores: list[dict[str, Any]], how: EvaluationSettings, labels: tuple[str, ...]
) -> list[str]:
    """Return sentences that say what LRS and ARS would need."""
    kinds, notes = {score["kind"] for score in scores}, []
    if "lrs" not in kinds and (how.whole or len(labels) > 1):
        notes.append("LRS needs hard labels, soft or stored ones, and the whole real set (--whole)")
    return notes


def evaluate_set(
    images: EvaluatedSet,
    how: EvaluationSettings,
    output: str,
    command: str,
    *,
    jobs: int | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Train the students of an evaluation and write `OUTPUT/evaluation.json`, `.md` and `.png`.

    Students that were trained before, with the same settings and the same images, are not trained again.

    Args:
        images: The set.
        how: How it is evaluated.
        output: Folder of the table, and of a folder `students` with a run for each of them.
        command: What the files name as the command that writes them.
        jobs: Students at a time; by default one on a GPU, else one for each core.
        progress: Show a progress bar on stderr, with the time that is left.

    Returns:
        What `evaluation.json` says: `rows` with mean, standard deviation and values of `top1` and `top5` in
        percent, `scores`, `bytes` and `notes`.

    Raises:
        ConfigError: Settings do not go together, or something that a student needs is missing.
    """
    table, rows = evaluation_table(images, how, f"{output}/evaluation")
    results = train_all(rows, how.seeds, jobs or students_at_a_time(), progress)
    summaries = [summarize(row, how.seeds, results) for row in rows]
    return write_table(table, summaries, command, {"bytes": images.num_bytes})
