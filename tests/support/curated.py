"""A tiny artifact whose classes a tiny teacher can tell apart, and one with a made-up order."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from timm.models import save_for_hf
from torchvision.transforms.v2.functional import pil_to_tensor

from d3hr_datasets import Artifact, ClassGaussians, ClassModes, Curation, D3HRDataset, GroupSamplingConfig
from d3hr_datasets.artifact.d3hr_json import CURATION
from d3hr_datasets.artifact.order_file import write_order
from d3hr_datasets.config.settings import DecodeConfig, InversionConfig
from d3hr_datasets.students.models import create_student
from tests.support.tiny import CLASSES, IMAGE_SIZE, tiny_info, tiny_pipeline

NUM_MODES, COUNTS = 2, (30, 10)
SHAPE = (3, 4, 4)
MEAN, STD = 0.5, 0.25


def save_separate_artifact(folder: Path, **changes: Any) -> Artifact:
    """Save an artifact, with two modes a class unless `num_modes` says otherwise, of classes far apart."""
    tiny_pipeline().save_pretrained(folder / "model")
    generator = torch.Generator().manual_seed(0)
    centres = 2.0 * torch.randn(3, NUM_MODES, *SHAPE, generator=generator)
    centres[:, 1] = centres[:, 0] + 0.5 * centres[:, 1]
    variance = torch.full((3, *SHAPE), 0.2)
    count = torch.tensor([COUNTS] * 3)
    shares = (count / count.sum(dim=1, keepdim=True))[:, :, None, None, None]
    values: dict[str, Any] = {
        "num_modes": NUM_MODES,
        "counts": (40, 40, 40),
        "inversion": InversionConfig(timesteps=(200, 400), num_inference_steps=10),
    }
    info = tiny_info(**{**values, **changes})
    gaussians = ClassGaussians((shares * centres).sum(dim=1), variance, count.sum(dim=1))
    modes = ClassModes(centres, variance, count)
    times = info.inversion.timesteps
    stored = dict.fromkeys(times, modes) if info.num_modes > 1 else None
    return Artifact.save(folder, info, dict.fromkeys(times, gaussians), stored)


def save_teacher(artifact: Artifact, folder: Path, work: Path, names: tuple[str, ...] = CLASSES) -> Path:
    """Save a teacher as timm keeps it, whose classifier is fitted to images of the artifact.

    Its classes are `names`, the artifact's in their order.
    """
    dataset = D3HRDataset(
        artifact, work, 20, device="cpu", sampling=GroupSamplingConfig("search", num_candidates=1)
    )
    dataset.materialize(progress=False)
    pixels = torch.stack([pil_to_tensor(dataset[index][0]) for index in range(len(dataset))])
    torch.manual_seed(0)
    model: Any = create_student("convnet3", 3, 1, IMAGE_SIZE, {"width": 16}).eval()
    with torch.no_grad():
        views = (pixels / 255 - MEAN) / STD
        features = model.forward_head(model.forward_features(views), pre_logits=True)
        wanted = torch.nn.functional.one_hot(torch.tensor(dataset.targets)) * 20.0
        solved = torch.linalg.lstsq(torch.cat([features, torch.ones(len(features), 1)], dim=1), wanted)
        head = model.get_classifier()
        head.weight.copy_(solved.solution[:-1].T)
        head.bias.copy_(solved.solution[-1])
    data = {"input_size": (1, IMAGE_SIZE, IMAGE_SIZE), "mean": (MEAN,), "std": (STD,)}
    save_for_hf(model, str(folder), {"label_names": list(names)}, safe_serialization=True, data_config=data)
    return folder


def curation(**changes: Any) -> Curation:
    """Return how a made-up order of twelve of thirty candidates was chosen."""
    values: dict[str, Any] = {
        "decode": DecodeConfig(200, 10, 1.5),
        "num_candidates": 30,
        "num_kept": 12,
        "method": "herding",
        "teacher": "nobody",
        "teacher_sha256": "0" * 64,
        "target": "candidates",
        "recognized": (30, 29, 28),
        "mode_spread": 1.3,
    }
    return Curation(**{**values, **changes})


def add_order(folder: Path, order: torch.Tensor | None = None, **changes: Any) -> Artifact:
    """Give an artifact an order: random permutations of its candidates, or the one given."""
    artifact, described = Artifact.load(folder), curation(**changes)
    if order is None:
        generator = torch.Generator().manual_seed(1)
        rows = [torch.randperm(described.num_candidates, generator=generator) for _ in range(3)]
        order = torch.stack(rows)[:, : described.num_kept]
    write_order(folder / CURATION, order)
    Artifact(folder, dataclasses.replace(artifact.info, curation=described), {}).write_metadata()
    return Artifact.load(folder)
