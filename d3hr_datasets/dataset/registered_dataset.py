"""What all named data sets have in common: the registry's artifact, its classes, and what belongs to them.

In: a name of the registry. Out: its distilled images, its real test set, the preprocessing of its numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Unpack

from PIL import Image
from torchvision.datasets import VisionDataset
from torchvision.transforms import v2

from d3hr_datasets.artifact.artifact import Artifact
from d3hr_datasets.classes.class_list import ClassList
from d3hr_datasets.dataset.artifact_registry import REGISTRY, registered_artifact
from d3hr_datasets.dataset.dataset import D3HRDataset
from d3hr_datasets.dataset.options import SetOptions, check_options, chosen_classes
from d3hr_datasets.dataset.real_test_sets import open_test_set
from d3hr_datasets.dataset.recommendations import Recommendation, recommendation


class NamedDataset(D3HRDataset):
    """A data set of the registry: its artifact is looked up, and its class order checked.

    Args:
        root: As in `D3HRDataset`, like all that is not listed here.
        ipc: Images per class.
        seed: Seed of the latents.
        transform: Applied to the PIL image.
        target_transform: Applied to the int label.
        artifact: Folder, "ORG/NAME" or "ORG/NAME@REVISION" to use instead of the registry's.
        subset: Name of a usual subset of the classes to keep.
        options: `classes`, `sampling`, `decode`, `device`, `torch_dtype`, `nested`, `in_memory`,
            `cpu_offload`, `resample`, `keep_epochs`.

    Raises:
        ArtifactNotFoundError: There is no artifact at `artifact`, or, without it, none is published yet.
        ArtifactFormatError: The artifact has other classes, or another order.
        ConfigError: `classes` and `subset` are both given or unknown, or as in `D3HRDataset`.
    """

    registry_name: ClassVar[str]

    def __init__(
        self,
        root: str | Path | None = None,
        ipc: int = 10,
        seed: int = 0,
        transform: Callable[[Image.Image], Any] | None = None,
        target_transform: Callable[[int], Any] | None = None,
        *,
        artifact: str | Path | Artifact | None = None,
        subset: str | None = None,
        **options: Unpack[SetOptions],
    ) -> None:
        check_options(type(self), options)
        options["classes"] = chosen_classes(self.registry_name, options.get("classes"), subset)
        found = self.find_artifact(artifact)
        super().__init__(found, root, ipc, seed, transform, target_transform, **options)

    @classmethod
    def find_artifact(cls, artifact: str | Path | Artifact | None = None) -> Artifact:
        """Open the registry's artifact, or another one of the same classes.

        Raises:
            ArtifactNotFoundError: There is no artifact at `artifact`, or, without it, none is published yet.
            ArtifactFormatError: The artifact has other classes, or another order.
        """
        if artifact is None:
            row = REGISTRY[cls.registry_name]
            artifact = Artifact.from_pretrained(registered_artifact(row.name), sha256=row.sha256)
        elif not isinstance(artifact, Artifact):
            artifact = Artifact.from_pretrained(artifact)
        classes = ClassList.packaged(cls.registry_name)
        classes.check_same(artifact.info.class_list, f"the artifact {artifact.info.name}")
        return artifact

    @property
    def class_list(self) -> ClassList:
        """Every class of the model by class label: those of the package."""
        return ClassList.packaged(self.registry_name)

    @classmethod
    def recommended(cls) -> Recommendation:
        """Return the student, the teacher and the preprocessing that this set's numbers rest on.

        Raises:
            ConfigError: Nothing is known, as of a data set of your own.
        """
        return recommendation(cls.registry_name)

    @classmethod
    def recommended_transforms(cls, train: bool) -> v2.Compose:
        """Return the preprocessing of `recommended`: PIL image -> normalised float tensor (C, S, S).

        Args:
            train: Whether the images are trained on, and randomly cropped and flipped; else tested on.

        Raises:
            ConfigError: Nothing is known, as of a data set of your own.
        """
        return recommendation(cls.registry_name).transforms(train)

    def test_set(
        self,
        root: str | Path = "data",
        transform: Callable[[Any], Any] | None = None,
        target_transform: Callable[[int], Any] | None = None,
        download: bool = False,
    ) -> VisionDataset[Any]:
        """Open the real test set with the classes and labels of this set. Nothing is generated for it.

        `real_test_set` says which it is, what it raises, and opens it without a distilled set.

        Args:
            root: Folder of the real images, as torchvision's data set takes it.
            transform: Applied to the PIL image.
            target_transform: Applied to the int label; by default this set's own, so that both agree.
            download: Have torchvision download what is missing.
        """
        return open_test_set(
            self.registry_name,
            self.class_list,
            self.class_labels.tolist(),
            root,
            transform,
            self.target_transform if target_transform is None else target_transform,
            download,
        )
