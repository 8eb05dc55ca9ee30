"""A network and real images -> its accuracy; a teacher and images -> its outputs. Nothing is trained here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision.transforms import v2

from d3hr_datasets.numerics.torch_settings import neutral
from d3hr_datasets.students.accelerator import default_accelerator
from d3hr_datasets.students.protocol import Protocol
from d3hr_datasets.students.teachers import Teacher
from d3hr_datasets.students.views import Images, Network, evaluation_transform

if TYPE_CHECKING:
    from accelerate import Accelerator


@neutral()
def evaluate(
    network: Network,
    protocol: Protocol,
    images: Images,
    accelerator: Accelerator | None = None,
    batch_size: int = 500,
    workers: int = 0,
) -> dict[str, float]:
    """Return "top1" and "top5" in percent on a test set, each image counted once, over all processes.

    Args:
        network: Images (B, C, S, S) in [0, 1] to logits (B, K), in evaluation mode.
        protocol: Says how test images are resized and cropped.
        images: The test set.
        accelerator: Where to run, as for `train_student`.
        batch_size: Images at a time.
        workers: Processes that read images.
    """
    accelerator = accelerator or default_accelerator()
    mine = range(accelerator.process_index, len(images), accelerator.num_processes)
    transformed = _Transformed(images, evaluation_transform(protocol))
    loader: DataLoader[tuple[torch.Tensor, int]] = DataLoader(
        Subset(transformed, mine), batch_size, num_workers=workers, generator=torch.Generator()
    )
    right = torch.zeros(2, device=accelerator.device)
    for views, labels in loader:
        logits = network(views.to(accelerator.device))
        ranks = logits.topk(min(5, logits.shape[1])).indices == labels.to(accelerator.device)[:, None]
        right += torch.stack([ranks[:, 0].sum(), ranks.any(dim=1).sum()])
    top1, top5 = (100 * accelerator.reduce(right, "sum") / len(images)).tolist()
    return {"top1": top1, "top5": top5}


class _Transformed(Dataset[tuple[torch.Tensor, int]]):
    def __init__(self, images: Images, transform: v2.Compose) -> None:
        self.images, self.transform = images, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image, label = self.images[index]
        return self.transform(image), int(label)


@neutral()
def teacher_outputs(
    teacher: Teacher, protocol: Protocol, images: Images, *, features: bool = False, batch_size: int = 500
) -> torch.Tensor:
    """Return the teacher's logits (N, K), or its features (N, D), of the plain images, on the CPU."""
    loader: DataLoader[tuple[torch.Tensor, int]] = DataLoader(
        _Transformed(images, evaluation_transform(protocol)), batch_size, generator=torch.Generator()
    )
    compute = teacher.features if features else teacher
    return torch.cat([compute(views.to(teacher.mean.device)).cpu() for views, _ in loader])
