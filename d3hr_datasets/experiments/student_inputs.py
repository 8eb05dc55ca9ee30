"""What a student needs: its settings -> images to train and to test on, a teacher, stored labels.

Also what tells one student from another: fingerprints of its inputs, and with them the folder of its run.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from d3hr_datasets.config.json_settings import without_defaults
from d3hr_datasets.dataset.artifact_registry import embedded_teacher
from d3hr_datasets.errors import ConfigError
from d3hr_datasets.experiments.own_images import PREFIX, own_images
from d3hr_datasets.experiments.student_settings import NOT_OF_THE_RESULT, StudentSettings
from d3hr_datasets.image_sets.channels import with_channels
from d3hr_datasets.image_sets.distilled_sets import open_artifact
from d3hr_datasets.image_sets.image_set import ImageSet
from d3hr_datasets.image_sets.real_images import check_splits, is_own_folder
from d3hr_datasets.image_sets.training_set_settings import GROUPS, REAL, check_groups
from d3hr_datasets.image_sets.training_sets import (
    check_real_images,
    images_to_test_on,
    real_images,
    training_set,
)
from d3hr_datasets.io.untrusted_files import file_sha256
from d3hr_datasets.students.evaluation import teacher_outputs
from d3hr_datasets.students.selection import BY_FEATURES
from d3hr_datasets.students.soft_labels import SoftLabels, images_digest
from d3hr_datasets.students.teachers import Teacher, load_teacher

if TYPE_CHECKING:
    from accelerate import Accelerator


LOCAL = "local-dir:"


def check_inputs(settings: StudentSettings) -> None:
    """Check that what a student needs is there, and that its settings go together.

    Raises:
        ConfigError: They do not, or something is not there; the message says which command makes it.
    """
    if settings.labels != "hard" and not settings.teacher:
        raise ConfigError(
            f"labels {settings.labels!r} need a teacher and none is given; give one as teacher=NAME: "
            "embedded:fashion-mnist, local-dir:FOLDER, hf-hub:ORG/NAME, or a model of timm"
        )
    check_groups(settings)
    if settings.resample_every and settings.labels == "stored":
        raise ConfigError(
            f"resample_every = {settings.resample_every} takes other images every few passes, and labels "
            "'stored' are those of one set of images; set labels to 'soft', which asks the teacher for every "
            "view, or to 'hard', or resample_every to 0"
        )
    place = settings.teacher.removeprefix(LOCAL)
    if place != settings.teacher and not Path(place).exists():
        raise ConfigError(
            f"the teacher {place} is missing; this makes it: `d3hr train student teacher --dataset "
            f"{settings.dataset} --export {place}`"
        )
    check_real_images(settings)
    check_splits(settings.dataset)


def fingerprints(settings: StudentSettings) -> dict[str, str]:
    """Return what tells the inputs of a student beside its settings: artifact, teacher, folder of images."""
    found = {}
    if is_own_folder(settings.dataset):
        for train in (False, True) if settings.source in REAL else (False,):
            images = real_images(settings, train).images
            found["real train" if train else "real test"] = images.identity()  # type: ignore[attr-defined]
    if settings.source.startswith(PREFIX):
        found["images"] = images_digest(own_images(settings).images)
    elif settings.source not in REAL or settings.source == "reconstructed":
        # Statistics and, where it is inside, the model.
        dataset = open_artifact(settings, settings.output)
        found["artifact"] = dataset.artifact.fingerprint
        if settings.source in GROUPS and dataset.sampling.method == "curated":  # chosen, or by a rule
            found["order"] = str(dataset.artifact.order_fingerprint)
    weights = teacher_file(settings)
    if weights is not None:
        found["teacher"] = file_sha256(weights)
        described = weights.with_name("config.json")  # how images are normalised, and which class is which
        if settings.teacher.startswith(LOCAL) and not settings.teacher_weights and described.exists():
            found["teacher config"] = file_sha256(described)
    return found


def teacher_file(settings: StudentSettings) -> Path | None:
    """Return the file of the teacher's weights, where it is one of this machine."""
    name = settings.teacher.removeprefix("embedded:")
    shipped = embedded_teacher(name) if name != settings.teacher else None
    place = shipped or Path(settings.teacher_weights or settings.teacher.removeprefix(LOCAL))
    if place == Path() or not place.exists():
        return None
    return place / "model.safetensors" if place.is_dir() else place


def run_folder(settings: StudentSettings, inputs: dict[str, str]) -> Path:
    """Return the folder of a run."""
    values = {k: v for k, v in dataclasses.asdict(settings).items() if k not in NOT_OF_THE_RESULT}
    # Runs of before there was a choice keep their names.
    values = without_defaults(values, weights=False, resample_every=0, decode={})
    digest = hashlib.sha256(json.dumps([values, inputs], sort_keys=True).encode()).hexdigest()[:12]
    source = Path(settings.source).name.replace(":", "-")
    return (
        Path(settings.output) / f"{settings.student}-{source}-ipc{settings.ipc}-seed{settings.seed}-{digest}"
    )


@dataclass(frozen=True)
class StudentInputs:
    """All that a student is trained and tested with.

    Args:
        images: The training set.
        testing: The test set, in the labels of the training set.
        teacher: Of soft labels, or of features to choose images by.
        soft_labels: Stored ones of the training set, where the protocol asks for them.
    """

    images: ImageSet
    testing: ImageSet
    teacher: Teacher | None
    soft_labels: SoftLabels | None


def gather_inputs(settings: StudentSettings, folder: Path, accelerator: Accelerator) -> StudentInputs:
    """Return the inputs of a student, generated and labelled where they are not there yet.

    Args:
        settings: Of the student.
        folder: Of its run, for stored labels.
        accelerator: Where the teacher runs, and which process makes stored labels.
    """
    teacher, features = None, None
    if settings.source in BY_FEATURES:  # they choose among all real images
        teacher = make_teacher(settings, real_images(settings, train=True), accelerator.device)
        if teacher is not None:
            features = partial(teacher_outputs, teacher, settings, features=True)
    images: ImageSet
    if settings.source.startswith(PREFIX):
        images = own_images(settings)
    else:
        images = training_set(settings, Path(settings.output) / "images", features, settings.epochs)
    testing = with_channels(images_to_test_on(settings, images), settings.channels)
    images = with_channels(images, settings.channels)
    teacher = teacher or make_teacher(settings, images, accelerator.device)
    labels = None
    if settings.labels == "stored" and teacher is not None:
        with accelerator.main_process_first():
            labels = stored_labels(settings, images, teacher, folder)
    return StudentInputs(images, testing, teacher, labels)


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
