"""Train a student by a published protocol and test it on real images.

    python -m recipes.train.student recipes/configs/students/dc/fashion-mnist-ipc10.yaml --set seed=1

Or on several GPUs: `accelerate launch -m recipes.train.student ...`, or in several processes on the CPU:
`ACCELERATE_USE_CPU=true torchrun --nproc_per_node 2 -m recipes.train.student ...`.

Everything of a run is in a folder below `output`, named by its settings: `settings.yaml` (resolved),
`metrics.csv` (an epoch a row), `result.json` (accuracy after the last epoch) and, while it runs,
`checkpoint.pt`, from which it goes on.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import hashlib
import json
import platform
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
import torch
from accelerate import Accelerator
from timm.models import save_for_hf
from tqdm import tqdm

from d3hr_datasets.io.atomic import replace_file, replaced_folder
from d3hr_datasets.io.foreign import file_sha256
from d3hr_datasets.students.evaluation import evaluate, teacher_outputs
from d3hr_datasets.students.labels import SoftLabels, images_digest
from d3hr_datasets.students.protocol import Protocol
from d3hr_datasets.students.teachers import Teacher, load_teacher
from d3hr_datasets.students.training import EpochReport, train_student
from d3hr_datasets.students.views import Images, normalized
from recipes.common.errors import RecipeError
from recipes.common.program import need, need_artifact, program
from recipes.common.run import Run
from recipes.common.settings import load_settings
from recipes.train.training_sets import (
    REAL,
    ImageSet,
    TrainingSet,
    images_to_test_on,
    open_artifact,
    real_images,
    training_set,
)


@dataclass(frozen=True, kw_only=True)
class StudentSettings(Protocol, TrainingSet):
    """Settings of one student: its protocol, its images, and these.

    Args:
        teacher: As `load_teacher` takes it; empty for none. Also chooses images for "herding" and "k_center".
        teacher_weights: A local file of weights; empty for pretrained ones of timm or the Hub.
        teacher_args: Further arguments of the teacher.
        top_k: Classes kept of stored labels; 0 for all.
        storage: Of stored labels, "float16" or "int8".
        output: Folder of all runs.
        export: Folder to write the student to, in timm's layout and half precision; empty for none.
        mixed_precision: "no", "bf16" or "fp16".
        torch_compile: Compile student and teacher; training is faster, and rounds otherwise.
        workers: Processes that read images.
        minutes_between_checkpoints: While training.
    """

    teacher: str = ""
    teacher_weights: str = ""
    teacher_args: dict[str, Any] = field(default_factory=dict)
    top_k: int = 0
    storage: str = "float16"
    output: str = "runs/students"
    export: str = ""
    mixed_precision: str = "no"
    torch_compile: bool = False
    workers: int = 0
    minutes_between_checkpoints: float = 1.0


NOT_OF_THE_RESULT = ("output", "export", "workers", "minutes_between_checkpoints")


def check_inputs(settings: StudentSettings) -> None:
    """Check that what a student needs is there.

    Raises:
        RecipeError: It is not; the message says which command makes it.
    """
    if settings.labels != "hard" and not settings.teacher:
        raise RecipeError(f"labels {settings.labels!r} need a teacher; --set teacher=local-dir:FOLDER, say")
    place = settings.teacher.removeprefix("local-dir:")
    if place != settings.teacher:
        config = "recipes/configs/students/teacher/FILE"
        need(place, f"python -m recipes.train.student {config} --set export={place}")
    if settings.source.startswith("folder:"):
        folder = settings.source.removeprefix("folder:")
        need(folder, f"d3hr export --format image-folder --output {folder}")
    elif settings.source not in REAL or settings.source == "reconstructed":
        need_artifact(settings.artifact)


def fingerprints(settings: StudentSettings) -> dict[str, str]:
    """Return what tells the inputs of a student beside its settings: artifact, teacher, folder of images."""
    found = {}
    if settings.source.startswith("folder:"):
        folder = Path(settings.source.removeprefix("folder:"))
        files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
        listed = [[name, files[name].stat().st_size] for name in sorted(files)]
        found["images"] = hashlib.sha256(json.dumps(listed).encode()).hexdigest()
    elif settings.source not in REAL or settings.source == "reconstructed":
        # Statistics and, where it is inside, the model.
        found["artifact"] = open_artifact(settings, settings.output).artifact.fingerprint
    teacher = settings.teacher_weights or settings.teacher.removeprefix("local-dir:")
    if teacher and Path(teacher).exists():
        path = Path(teacher) / "model.safetensors" if Path(teacher).is_dir() else Path(teacher)
        found["teacher"] = file_sha256(path)
    return found


def run_folder(settings: StudentSettings, inputs: dict[str, str]) -> Path:
    """Return the folder of a run."""
    values = {k: v for k, v in dataclasses.asdict(settings).items() if k not in NOT_OF_THE_RESULT}
    digest = hashlib.sha256(json.dumps([values, inputs], sort_keys=True).encode()).hexdigest()[:12]
    source = Path(settings.source).name.replace(":", "-")
    return (
        Path(settings.output) / f"{settings.student}-{source}-ipc{settings.ipc}-seed{settings.seed}-{digest}"
    )


def make_teacher(settings: StudentSettings, classes: ImageSet, device: torch.device) -> Teacher | None:
    """Return the teacher, which knows the classes of the data set, or None."""
    if not settings.teacher:
        return None
    teacher = load_teacher(
        settings.teacher,
        classes.classes,
        wnids=classes.wnids,
        weights=settings.teacher_weights or None,
        **settings.teacher_args,
    )
    return teacher.to(device)


def stored_labels(settings: StudentSettings, images: ImageSet, teacher: Teacher, folder: Path) -> SoftLabels:
    """Return the soft labels of the plain images, made and written to `soft_labels.safetensors` first."""
    path, digest = folder / "soft_labels.safetensors", images_digest(images.images)
    if not path.exists():
        logits = teacher_outputs(teacher, settings, images.images)
        SoftLabels.from_logits(
            logits,
            images.classes,
            teacher.name,
            digest,
            settings.top_k or None,
            settings.storage,  # type: ignore[arg-type]
        ).save(path)
    labels = SoftLabels.load(path)
    labels.check(images.classes, digest)
    return labels


CARD = """---
library_name: timm
license: apache-2.0
tags: [image-classification, timm]
---

# {student} trained on {dataset}

Top-1 {top1:.2f} % on the {tested_on} ({images} images) after the last of {epochs} epochs, seed {seed}, by
`recipes.train.student` of d3hr-datasets. Weights were rounded to half precision after that; classes are in
`config.json`.

    import timm
    import d3hr_datasets.students.models  # registers architectures that timm does not have
    model = timm.create_model("local-dir:FOLDER", pretrained=True)
"""


def export_student(
    model: torch.nn.Module, settings: StudentSettings, classes: list[str], result: dict[str, Any]
) -> None:
    """Write a student as a model that `timm.create_model("local-dir:FOLDER", pretrained=True)` opens."""
    size = [settings.channels, settings.image_size, settings.image_size]
    data = {
        "input_size": tuple(size),
        "mean": tuple(settings.mean),
        "std": tuple(settings.std),
        "interpolation": "bilinear",
        "crop_pct": 1.0,
    }
    values = {**dataclasses.asdict(settings), **result, "images": result["num_test_images"]}
    with replaced_folder(Path(settings.export)) as folder:
        for name in ("config.json", "model.safetensors", "README.md"):
            (folder / name).unlink(missing_ok=True)
        save_for_hf(
            model.half(), str(folder), {"label_names": classes}, safe_serialization=True, data_config=data
        )
        (folder / "README.md").write_text(CARD.format_map(values), encoding="utf-8")


def run_student(
    settings: StudentSettings, accelerator: Accelerator | None = None, progress: bool = True
) -> dict[str, Any]:
    """Train and test a student, or return the result of a run that finished before."""
    accelerator = accelerator or Accelerator(mixed_precision=settings.mixed_precision)
    check_inputs(settings)
    inputs = fingerprints(settings)
    folder = run_folder(settings, inputs)
    finished = folder / "result.json"
    if finished.exists():
        if settings.export and not (Path(settings.export) / "model.safetensors").exists():
            raise RecipeError(
                f"this student was trained before, and its weights were not kept: remove {folder} to train "
                f"it again and export it to {settings.export}"
            )
        result: dict[str, Any] = json.loads(finished.read_text(encoding="utf-8"))
        return result
    with accelerator.main_process_first():
        run = Run(folder, settings, NOT_OF_THE_RESULT)
    cache = Path(settings.output) / "images"
    teacher = None
    if settings.source in {"herding", "k_center"}:  # they choose among all real images
        teacher = make_teacher(settings, real_images(settings, train=True), accelerator.device)

    def features(images: Images) -> torch.Tensor:
        assert teacher is not None
        return teacher_outputs(teacher, settings, images, features=True)

    images = training_set(settings, cache, features if teacher is not None else None)
    testing = images_to_test_on(settings, images)
    teacher = teacher or make_teacher(settings, images, accelerator.device)
    labels = None
    if settings.labels == "stored" and teacher is not None:
        with accelerator.main_process_first():
            labels = stored_labels(settings, images, teacher, folder)

    state = run.load_checkpoint()
    history: list[dict[str, float]] = state["history"] if state else []
    bar = tqdm(
        total=settings.epochs,
        initial=len(history),
        desc=folder.name,
        unit="epoch",
        mininterval=5,
        disable=not (progress and accelerator.is_main_process),
    )
    saved = time.monotonic()

    def on_epoch(report: EpochReport) -> None:
        nonlocal saved
        history.append(
            {name: getattr(report, name) for name in ("epoch", "loss", "learning_rate", "seconds")}
        )
        bar.set_postfix(loss=f"{report.loss:.3g}", refresh=False)
        bar.update()
        last = report.epoch == settings.epochs - 1
        if accelerator.is_main_process and (
            last or time.monotonic() - saved >= 60 * settings.minutes_between_checkpoints
        ):
            run.save_checkpoint({**report.state(), "history": history})
            write_csv(folder / "metrics.csv", history)
            saved = time.monotonic()

    model = train_student(
        settings,
        images.images,
        len(images.classes),
        seed=settings.seed,
        teacher=teacher if settings.labels == "soft" else None,
        soft_labels=labels,
        accelerator=accelerator,
        state=state,
        on_epoch=on_epoch,
        workers=settings.workers,
        torch_compile=settings.torch_compile,
    )
    bar.close()
    scores = evaluate(
        normalized(settings, model), settings, testing.images, accelerator, workers=settings.workers
    )
    result = {
        **scores,
        "tested_on": "held-out training images" if settings.select else "test set",
        "num_test_images": len(testing.images),
        "num_images": len(images.images),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "teacher": teacher.name if teacher is not None and settings.labels != "hard" else None,
        "label_bytes": labels.num_bytes if labels is not None else None,
        "seconds": sum(row["seconds"] for row in history),
        "processes": accelerator.num_processes,
        "device": str(accelerator.device),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "timm": timm.__version__,
        },
        "inputs": inputs,
        "settings": dataclasses.asdict(settings),
    }
    if accelerator.is_main_process:
        if settings.export:
            export_student(model, settings, images.classes, result)
        text = json.dumps(result, indent=2) + "\n"
        replace_file(finished, lambda temporary: temporary.write_text(text, encoding="utf-8"))
        run.checkpoint.unlink(missing_ok=True)
    return result


def write_csv(path: Path, rows: list[dict[str, float]]) -> None:
    """Write rows of the same columns, whole or not at all."""

    def write(temporary: Path) -> None:
        with temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)

    replace_file(path, write)


@program
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a setting")
    arguments = parser.parse_args()
    settings = load_settings(StudentSettings, arguments.config, arguments.set)
    accelerator = Accelerator(mixed_precision=settings.mixed_precision)
    result = run_student(settings, accelerator)
    if accelerator.is_main_process:
        folder = run_folder(settings, result["inputs"])
        print(
            f"top-1 {result['top1']:.2f} %, top-5 {result['top5']:.2f} % on {result['num_test_images']} "
            f"images ({result['tested_on']}), after {settings.epochs} epochs on {result['num_images']} "
            f"images in {result['seconds']:.0f} s: {folder}"
        )


if __name__ == "__main__":
    main()
