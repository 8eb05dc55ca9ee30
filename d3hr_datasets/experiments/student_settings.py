"""The settings of a student: how it is trained, on what, and where its results go."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from d3hr_datasets.image_sets.class_order import ClassOrder
from d3hr_datasets.image_sets.training_set_settings import TrainingSet
from d3hr_datasets.students.protocol import Protocol


@dataclass(frozen=True, kw_only=True)
class StudentSettings(Protocol, TrainingSet):
    """Settings of one student: its protocol, its images, and these.

    Args:
        class_order: Of images of anybody's (`source="images:SET"`), as `open_image_set` takes it.
        normalized: Their tensors were normalised by `mean` and `std`.
        teacher: As `load_teacher` takes it; empty for none. Also chooses images for "herding", "k_center",
            "medoids".
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

    class_order: ClassOrder = "name"
    normalized: bool = False
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


NOT_OF_THE_RESULT = ("output", "export", "workers", "minutes_between_checkpoints", "keep_epochs")
