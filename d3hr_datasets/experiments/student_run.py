"""A student: its settings -> its accuracy on real images, in a folder of its own.

The folder lies below `output` and is named by what decides the result: `settings.yaml` (resolved),
`metrics.csv` (an epoch a row), `result.json` (accuracy after the last epoch) and, while it runs,
`checkpoint.pt`, from which it goes on.
"""

from __future__ import annotations

import dataclasses
import json
import platform
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tqdm import tqdm

from d3hr_datasets.errors import ConfigError
from d3hr_datasets.experiments.student_export import export_student, is_exported
from d3hr_datasets.experiments.student_inputs import (
    StudentInputs,
    check_inputs,
    fingerprints,
    gather_inputs,
    run_folder,
    teacher_file,
)
from d3hr_datasets.experiments.student_settings import NOT_OF_THE_RESULT, StudentSettings
from d3hr_datasets.image_sets.image_set import close_images
from d3hr_datasets.io.atomic import replace_text
from d3hr_datasets.runs.run_folder import RunFolder
from d3hr_datasets.runs.timer import Every
from d3hr_datasets.students.accelerator import default_accelerator
from d3hr_datasets.students.evaluation import evaluate
from d3hr_datasets.students.training import EpochReport, train_student
from d3hr_datasets.students.views import normalized

if TYPE_CHECKING:
    from accelerate import Accelerator

RESULT = "result.json"
OnEpoch = Callable[[EpochReport], object]


def run_student(
    settings: StudentSettings,
    accelerator: Accelerator | None = None,
    progress: bool = True,
    on_epoch: OnEpoch | None = None,
) -> dict[str, Any]:
    """Train and test a student, or return the result of a run that finished before.

    Args:
        settings: Of the student.
        accelerator: Where to run; by default a GPU if there is one, else the CPU.
        progress: Show a progress bar on stderr.
        on_epoch: Called after every epoch.

    Returns:
        "top1" and "top5" in percent after the last epoch, what the student was, and its settings.

    Raises:
        ConfigError: Something that it needs is missing, or settings do not go together.
    """
    accelerator = accelerator or default_accelerator(settings.mixed_precision)
    check_inputs(settings)
    found = fingerprints(settings)
    folder = run_folder(settings, found)
    if (folder / RESULT).exists():
        return _finished(settings, folder)
    with accelerator.main_process_first():
        run = RunFolder(folder, settings, NOT_OF_THE_RESULT)
    inputs = gather_inputs(settings, folder, accelerator)
    model, history = _train(settings, inputs, run, accelerator, progress, on_epoch)
    network = normalized(settings, model)
    scores = evaluate(network, settings, inputs.testing.images, accelerator, workers=settings.workers)
    result = {
        **scores,
        **_description(settings, inputs, model),
        "seconds": sum(row["seconds"] for row in history),
        "processes": accelerator.num_processes,
        "device": str(accelerator.device),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "timm": version("timm"),
        },
        "inputs": found,
        "settings": dataclasses.asdict(settings),
    }
    if accelerator.is_main_process:
        if settings.export:
            export_student(model, settings, inputs.images.classes, result)
        replace_text(folder / RESULT, json.dumps(result, indent=2) + "\n")
        run.checkpoint.unlink(missing_ok=True)
    close_images(inputs.images.images)
    return result


def _finished(settings: StudentSettings, folder: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    if settings.export and not is_exported(settings, result):
        raise ConfigError(
            f"this student was trained before, and its weights were not kept: remove {folder} to train "
            f"it again and export it to {settings.export}"
        )
    return result


def _train(
    settings: StudentSettings,
    inputs: StudentInputs,
    run: RunFolder,
    accelerator: Accelerator,
    progress: bool,
    listener: OnEpoch | None,
) -> tuple[torch.nn.Module, list[dict[str, float]]]:
    """Return the trained student and a row for every epoch, those before an interruption too."""
    state = run.load_checkpoint()
    history: list[dict[str, float]] = state["history"] if state else []
    checkpoint = Every(settings.minutes_between_checkpoints)
    bar = tqdm(
        total=settings.epochs,
        initial=len(history),
        desc=run.path.name,
        unit="epoch",
        mininterval=5,
        disable=not (progress and accelerator.is_main_process),
    )

    def on_epoch(report: EpochReport) -> None:
        history.append(
            {name: getattr(report, name) for name in ("epoch", "loss", "learning_rate", "seconds")}
        )
        bar.set_postfix(loss=f"{report.loss:.3g}", refresh=False)
        bar.update()
        if listener is not None:
            listener(report)
        due = checkpoint.is_due() or report.epoch == settings.epochs - 1
        if accelerator.is_main_process and due:
            run.save_checkpoint({**report.state(), "history": history})
            run.replace_metrics(history)

    model = train_student(
        settings,
        inputs.images.images,
        len(inputs.images.classes),
        seed=settings.seed,
        teacher=inputs.teacher if settings.labels == "soft" else None,
        soft_labels=inputs.soft_labels,
        weights=inputs.images.weights,
        accelerator=accelerator,
        state=state,
        on_epoch=on_epoch,
        workers=settings.workers,
        torch_compile=settings.torch_compile,
    )
    bar.close()
    return model, history


def _description(settings: StudentSettings, inputs: StudentInputs, model: torch.nn.Module) -> dict[str, Any]:
    """Return what a result says of student, images and labels."""
    teacher, labels, weights = inputs.teacher, inputs.soft_labels, teacher_file(settings)
    return {
        "tested_on": "held-out training images" if settings.select else "test set",
        "num_test_images": len(inputs.testing.images),
        "num_images": len(inputs.images.images),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "teacher": teacher.name if teacher is not None and settings.labels != "hard" else None,
        "teacher_bytes": weights.stat().st_size if weights is not None else None,
        "label_bytes": labels.num_bytes if labels is not None else None,
    }
