"""Teachers: which output of a classifier stands for which label of a data set.

In: classes and a teacher that carries its label names. Out: the teacher's output of each label, or an error:
soft labels of other classes give chance accuracy, and no complaint.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from d3hr_datasets.classes.class_list import ClassList
from d3hr_datasets.dataset.dataset import D3HRDataset
from d3hr_datasets.errors import TeacherError
from d3hr_datasets.numerics.torch_settings import neutral

logger = logging.getLogger(__name__)


@neutral()
def check_teacher(dataset: D3HRDataset, teacher: Any) -> torch.Tensor:
    """Return the output of a teacher for each label of a data set, after comparing their classes.

    A teacher has an output either for each class that the data set keeps, in its order, or for each class of
    the diffusion model, of which the data set's are selected. Names are compared as those of models are:
    without regard to case and "_", by any of their synonyms, and by WordNet ID. A teacher without names is
    only counted, and a warning in the log says so.

    Args:
        dataset: The data set.
        teacher: A timm model (`pretrained_cfg`), a torchvision weights enum (`meta`), a transformers model
            (`config.id2label`), or the names: a sequence, or a mapping of output -> name.

    Returns:
        (K,) int64: `teacher(images)[:, outputs]` are the logits of labels 0..K-1.

    Raises:
        TeacherError: It has another number of classes, other classes, or another order.

    Example:
        >>> check_teacher(D3HRImageNet(artifact=..., subset="imagenette"), ResNet18_Weights.IMAGENET1K_V1)
    """
    names, count = label_names(teacher)
    whole, kept = dataset.class_list, dataset.class_labels
    shown = repr(teacher) if isinstance(teacher, (str, Sequence, Mapping)) else type(teacher).__name__
    owner = f"the teacher {shown:.60}"
    if count is not None and count not in (len(whole.names), len(kept)):
        raise TeacherError(
            f"{owner} has {count} classes, the data set keeps {len(kept)} of {len(whole.names)}; use a "
            "teacher of either, or keep the teacher's classes with classes=[...]"
        )
    subset = ClassList(tuple(dataset.classes), tuple(dataset.wnids) or None)
    spaces = [(whole, kept), (subset, torch.arange(len(kept)))]
    if not names:
        logger.warning("%s carries no label names: that its classes are in order is not checked", owner)
        return next(outputs for space, outputs in spaces if count in (None, len(space.names)))
    errors = []
    for space, outputs in spaces:
        if len(space.names) == count:
            error = _difference(space, names, owner)
            if error is None:
                return outputs
            errors.append(error)
    raise errors[0]


def find_outputs(classes: ClassList, names: Mapping[int, str]) -> list[int | None]:
    """Return the output of a teacher that each class is, by WordNet ID or by name (`ClassList.find`).

    Args:
        classes: The classes.
        names: The teacher's, by output.

    Returns:
        An output for each class; None where no name, or more than one, is that of the class.
    """
    outputs, teacher = list(names), ClassList(tuple(names.values()))
    found: list[int | None] = []
    for label, name in enumerate(classes.names):
        keys = [name] if classes.wnids is None else [classes.wnids[label], name]
        place = next((place for place in map(teacher.find, keys) if place is not None), None)
        found.append(None if place is None else outputs[place])
    return found


def _difference(space: ClassList, names: Mapping[int, str], owner: str) -> TeacherError | None:
    """Return what is wrong with a teacher whose outputs should be the classes in their order."""
    found = find_outputs(space, names)
    if all(output is None for output in found):
        return TeacherError(
            f"{owner} knows other classes, such as {next(iter(names.values()))!r}; the data set has "
            f"{list(space.names[:5])}. Use a teacher of these"
        )
    wrong = [(o, label) for label, o in enumerate(found) if o is not None and o != label]
    if wrong:
        output, label = min(wrong)
        return TeacherError(
            f"{owner} calls class label {output} {names[output]!r}, here that is class label {label} "
            f"({space.names[label]!r}); their orders differ, and labels would mean other classes: use a "
            "teacher of this order, or `students.teachers.load_teacher`, which puts outputs in order"
        )
    return None


def label_names(teacher: Any) -> tuple[dict[int, str], int | None]:
    """Return the names by output, none if the teacher carries none, and the number of outputs, if known.

    Args:
        teacher: As `check_teacher` takes it.
    """
    meta = getattr(teacher, "meta", None)
    id2label = getattr(getattr(teacher, "config", None), "id2label", None)
    found: Any = None
    count = getattr(teacher, "num_classes", None)
    if isinstance(teacher, (Mapping, Sequence)) and not isinstance(teacher, str):
        found = teacher
    elif isinstance(meta, Mapping) and "categories" in meta:
        found = meta["categories"]
    elif id2label:
        found = id2label
    elif isinstance(getattr(teacher, "pretrained_cfg", None), Mapping):
        found = teacher.pretrained_cfg.get("label_names")
        if found is not None and len(found) != count:  # those of the weights it was fine-tuned from
            found = None
    if found is None:
        return {}, count
    pairs = found.items() if isinstance(found, Mapping) else enumerate(found)
    names = {int(label): str(name) for label, name in pairs}
    # transformers calls the classes of a model that was told no names so
    placeholders = all(re.fullmatch(r"LABEL_\d+", name) for name in names.values())
    return ({} if placeholders else names), len(names)
