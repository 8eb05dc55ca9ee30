"""Teachers: a classifier of timm, the Hub or a local file -> logits in the order of the data set's classes.

Where a teacher means other classes by its logits than the data set by its labels, students end at chance
accuracy without a complaint: so its classes are looked up by name, and a teacher that names none is refused.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from torch.nn import functional as F

from d3hr_datasets.classes.class_list import ClassList
from d3hr_datasets.dataset.artifact_registry import embedded_teacher
from d3hr_datasets.dataset.teacher_check import find_outputs, label_names
from d3hr_datasets.errors import TeacherError
from d3hr_datasets.io.extras import needs_extra
from d3hr_datasets.io.untrusted_files import check_file
from d3hr_datasets.numerics.torch_settings import neutral
from d3hr_datasets.students import models  # registers the students, which can be teachers too

with needs_extra("train", "teachers are networks of timm's registry"):
    import timm
    from timm.data import ImageNetInfo, infer_imagenet_subset
    from timm.models import load_state_dict

EMBEDDED = "embedded:"
# What timm and PyTorch raise of files that are not what they should be.
_UNREADABLE = (
    OSError,
    RuntimeError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    EOFError,
    pickle.UnpicklingError,
    SafetensorError,
)

__all__ = ["Teacher", "load_teacher", "models"]


class Teacher(nn.Module):
    """A trained classifier of images in [0, 1], frozen.

    Args:
        model: A model of timm, with `pretrained_cfg`.
        columns: Which of its logits belongs to each label of the data set, (K,) int64.
        name: What the teacher is, for reports.
        image_size: Side that images are resized to first; None leaves them as they are.

    Raises:
        TeacherError: Its normalisation is missing, or does not fit the network.
    """

    @neutral()
    def __init__(
        self, model: nn.Module, columns: Sequence[int], name: str, image_size: int | None = None
    ) -> None:
        super().__init__()
        self.model = model.eval().requires_grad_(False)
        self.name, self.image_size = name, image_size
        mean, std = _normalisation(model, name)
        self.columns: torch.Tensor
        self.mean: torch.Tensor
        self.std: torch.Tensor
        self.register_buffer("columns", torch.tensor(list(columns)))
        self.register_buffer("mean", mean[:, None, None])
        self.register_buffer("std", std[:, None, None])

    __call__ = neutral()(nn.Module.__call__)

    def train(self, mode: bool = True) -> Teacher:
        """Stay in evaluation mode."""
        return super().train(False)

    def _inputs(self, images: torch.Tensor) -> torch.Tensor:
        if self.image_size is not None and images.shape[-1] != self.image_size:
            images = F.interpolate(images, size=self.image_size, mode="bilinear", antialias=True)
        return (images - self.mean) / self.std

    @torch.no_grad()
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits (B, K) of images (B, C, H, W) in [0, 1], in the order of the data set."""
        return self.model(self._inputs(images)).index_select(1, self.columns)  # type: ignore[no-any-return]

    @neutral()
    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Return the features before the classifier (B, D) of images (B, C, H, W) in [0, 1].

        Raises:
            TeacherError: They are not finite.
        """
        maps = self.model.forward_features(self._inputs(images))  # type: ignore[operator]
        found: torch.Tensor = self.model.forward_head(maps, pre_logits=True)  # type: ignore[operator]
        if not found.isfinite().all():
            raise TeacherError(
                f"the features of the teacher {self.name!r} are not finite numbers: its weights are damaged, "
                "or its training diverged; give another teacher"
            )
        return found


def _normalisation(model: nn.Module, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and standard deviation of each channel, (C,) or (1,) float32, which fit the network."""
    cfg: Any = getattr(model, "pretrained_cfg", None)
    try:
        mean, std = (torch.tensor(cfg[key], dtype=torch.float32) for key in ("mean", "std"))
        accepted = mean.dim() == std.dim() == 1 and len(mean) == len(std) > 0
        accepted = accepted and bool(mean.isfinite().all() and std.isfinite().all() and (std > 0).all())
    except (LookupError, TypeError, ValueError, RuntimeError, OverflowError):
        accepted = False
    if not accepted:
        raise TeacherError(
            f"the teacher {name!r} does not tell how its images are normalised; its config needs `mean` and "
            "`std`, one finite number for each channel, those of `std` above 0"
        )
    first = next((part for part in model.modules() if isinstance(part, nn.Conv2d)), None)
    if first is not None and first.in_channels % len(mean):  # some fold pixels into channels first
        raise TeacherError(
            f"the teacher {name!r} normalises images of {len(mean)} channels, and its network takes "
            f"{first.in_channels}; mend `mean` and `std` of its config, or give others by "
            "pretrained_cfg_overlay"
        )
    return mean, std


@neutral()
def load_teacher(
    name: str,
    classes: Sequence[str],
    *,
    wnids: Sequence[str] | None = None,
    weights: str | Path | None = None,
    class_names: Sequence[str] | None = None,
    image_size: int | None = None,
    **arguments: Any,
) -> Teacher:
    """Load a teacher and find the data set's classes among its own.

    Args:
        name: A model as `timm.create_model` takes it: an architecture with pretrained weights
            ("resnet18.tv_in1k"), "hf-hub:ORG/NAME", "local-dir:FOLDER"; or with `weights` an architecture; or
            "embedded:fashion-mnist", the teacher that ships with this package.
        classes: Class names of the data set, by label.
        wnids: WordNet IDs of the data set, by label.
        weights: A local file of weights (safetensors, or a checkpoint that PyTorch reads with
            `weights_only`). Where its names are not timm's, tensors are matched in order and by shape.
        class_names: The teacher's class names in its own order, for one that does not tell them itself.
        image_size: Side that images are resized to before they reach the teacher.
        arguments: Further arguments of the architecture, such as `num_classes` and `in_chans`; and of
            `timm.create_model`, such as `pretrained_cfg_overlay`, for another normalisation.

    Raises:
        TeacherError: It cannot be loaded, tells no class names, does not have all classes, or normalises
            images of other channels than it takes.
        ArtifactNotFoundError: The installation lacks the embedded teacher.
    """
    source = name
    if name.startswith(EMBEDDED):
        source = f"local-dir:{embedded_teacher(name.removeprefix(EMBEDDED))}"
    try:
        with torch.random.fork_rng(devices=[]):  # timm draws weights before it reads them
            model: nn.Module = timm.create_model(source, pretrained=weights is None, **arguments)
    except _UNREADABLE as error:
        raise TeacherError(
            f"the teacher {name!r} cannot be made: {type(error).__name__}: {error}. Accepted: an "
            "architecture with pretrained weights of timm, hf-hub:ORG/NAME, local-dir:FOLDER, "
            "embedded:fashion-mnist, or an architecture and a file of weights"
        ) from error
    if weights is not None:
        _load_weights(model, weights)
    names = _label_names(model) if class_names is None else label_names(class_names)[0]
    wanted = ClassList(tuple(classes), None if wnids is None else tuple(wnids))
    return Teacher(model.float(), _columns(name, names, wanted), name, image_size)


def _label_names(model: nn.Module) -> Mapping[int, str]:
    """Return the names of a timm model's classes by output, none if it does not tell them.

    For models of timm's own with ImageNet's number of classes, WordNet IDs in ImageNet's order.
    """
    names, _ = label_names(model)
    subset = None if names else infer_imagenet_subset(model)
    return dict(enumerate(ImageNetInfo(subset).label_names())) if subset else names


def _columns(teacher: str, names: Mapping[int, str], classes: ClassList) -> list[int]:
    if not names:
        raise TeacherError(
            f"the teacher {teacher!r} does not tell its classes, so their order cannot be checked; give "
            "class_names, in the order of its logits"
        )
    found = find_outputs(classes, names)
    missing = [name for name, output in zip(classes.names, found, strict=True) if output is None]
    if missing:
        raise TeacherError(
            f"the teacher {teacher!r} does not know the classes {missing[:5]} ({len(missing)} of "
            f"{len(found)}), or has several of that name; its own: {list(names.values())[:5]} ... "
            f"({len(names)}). Use a teacher of this data set, or give its class_names as the data set spells "
            "them"
        )
    return [output for output in found if output is not None]


def _load_weights(model: nn.Module, path: str | Path) -> None:
    try:
        check_file(Path(path))
        state = load_state_dict(str(path), weights_only=True)
    except _UNREADABLE as error:
        raise TeacherError(f"the teacher's weights {path} cannot be read: {error}") from error
    own = model.state_dict()
    if set(state) != set(own):
        shapes = [tuple(tensor.shape) for tensor in state.values()]
        if shapes != [tuple(tensor.shape) for tensor in own.values()]:
            raise TeacherError(
                f"{path} has {len(state)} tensors that fit the {len(own)} of the architecture neither by "
                "name nor in order and shape; give the architecture they were trained with"
            )
        state = dict(zip(own, state.values(), strict=True))
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise TeacherError(f"{path} does not fit the architecture: {error}") from error
