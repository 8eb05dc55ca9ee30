"""A teacher that looks at images of any size and channels, and who asks it: reports and curation, one way."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from timm.models import save_for_hf
from torch.nn import functional as F
from torchvision.transforms.v2.functional import to_pil_image

from d3hr_datasets import Artifact, D3HRDataset
from d3hr_datasets.artifact.model import load_model
from d3hr_datasets.classes.class_list import ClassList
from d3hr_datasets.config.settings import InversionConfig
from d3hr_datasets.curation.candidates import CandidateMaker, judge_real
from d3hr_datasets.errors import ConfigError
from d3hr_datasets.image_sets.generated_images import reconstruct
from d3hr_datasets.image_sets.judge import load_judge
from d3hr_datasets.report.copying import measure_copies
from d3hr_datasets.sources.matched_images import MatchedImages
from d3hr_datasets.students.models import create_student
from tests.support.curated import save_separate_artifact
from tests.support.tiny import CLASSES, save_untrained_artifact

CPU = torch.device("cpu")
NAMES = list(CLASSES)


def save_teacher(folder: Path, side: int, channels: int = 1) -> str:
    """Save a teacher of images of this side."""
    torch.manual_seed(0)
    model = create_student("convnet3", 3, channels, side, {"width": 4})
    data = {"input_size": (channels, side, side), "mean": (0.5,) * channels, "std": (0.25,) * channels}
    save_for_hf(model, str(folder), {"label_names": NAMES}, safe_serialization=True, data_config=data)
    return f"local-dir:{folder}"


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    """Return an artifact whose source images were resized in another way than is usual."""
    inversion = InversionConfig(timesteps=(200, 400), num_inference_steps=10, resizing="bilinear")
    return save_separate_artifact(tmp_path / "artifact", inversion=inversion)


@pytest.fixture
def images(tmp_path: Path) -> MatchedImages:
    """Return four real images of each class, larger than those of the artifact."""
    return save_images(tmp_path / "images", noise(12, side=28))


def save_images(folder: Path, images: torch.Tensor) -> MatchedImages:
    """Save images of the three classes in turn."""
    for number, pixels in enumerate(images):
        path = folder / ("ant", "001-Bee_wasp", "cat")[number % 3] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        to_pil_image(pixels).save(path)
    return MatchedImages(folder, ClassList(CLASSES))


def noise(number: int, channels: int = 1, side: int = 14) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (number, channels, side, side), generator=generator).to(torch.uint8)


def test_images_come_to_the_teacher_as_it_was_trained(artifact: Artifact, tmp_path: Path) -> None:
    judge = load_judge(save_teacher(tmp_path / "teacher", 28, 3), artifact.info, CPU)
    found, grey = judge.features(noise(70)), noise(70).float() / 255
    large = F.interpolate(grey, size=28, mode="bilinear", antialias=True).clamp(0, 1)
    expected = judge.teacher.features(large.expand(-1, 3, -1, -1))
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(judge.logits(list(noise(70))), judge.teacher(large.expand(-1, 3, -1, -1)))
    assert judge.channels == 3 and not found.requires_grad


def test_a_teacher_of_grey_images_is_not_asked_of_coloured_ones(tmp_path: Path) -> None:
    coloured = save_untrained_artifact(tmp_path / "artifact", "tiny", ClassList(CLASSES))
    with pytest.raises(ConfigError, match=r"takes images of 1 channel\(s\), the artifact's have 3"):
        load_judge(save_teacher(tmp_path / "teacher", 14), coloured.info, CPU)


def test_a_report_shows_the_teacher_what_curation_shows_it(
    artifact: Artifact, images: MatchedImages, tmp_path: Path
) -> None:
    teacher = save_teacher(tmp_path / "teacher", 28)
    dataset = D3HRDataset(artifact, tmp_path / "root", 2, device="cpu")
    held_out = save_images(tmp_path / "held-out", 255 - noise(12, side=28))
    found = measure_copies(dataset, images, held_out, teacher, progress=False)
    judge, model = load_judge(teacher, artifact.info, CPU), dataset.model()
    pixels = images.pixels(images.numbers(), 14, "L", "bilinear")
    numbers = [number for label in range(3) for number in held_out.chosen(label, 4)]
    others = judge.features(reconstruct(model, held_out.pixels(numbers, 14, "L", "bilinear")))
    ours, theirs = [F.normalize(values.double()) for values in (others, judge.features(pixels))]
    expected = torch.cdist(ours, theirs).min(dim=1).values
    torch.testing.assert_close(found.others["features"].distance, expected, rtol=1e-3, atol=1e-5)


def test_real_images_are_prepared_as_those_behind_the_artifact_and_pass_through_its_vae(
    artifact: Artifact, images: MatchedImages, tmp_path: Path
) -> None:
    judge = load_judge(save_teacher(tmp_path / "teacher", 14), artifact.info, CPU)
    model = load_model(artifact, "cpu")
    maker = CandidateMaker(artifact, model, artifact.info.decode, 0, 1.15, 3)
    found = judge_real(maker, images, judge, 1).features
    chosen = images.chosen(1, 100)
    pixels = {how: images.pixels(chosen, 14, "L", how) for how in ("bicubic", "bilinear")}
    assert not torch.equal(pixels["bicubic"], pixels["bilinear"])
    torch.testing.assert_close(found, judge.features(reconstruct(model, pixels["bilinear"])))
    for other in (reconstruct(model, pixels["bicubic"]), pixels["bilinear"]):
        assert not torch.allclose(found, judge.features(other), atol=1e-4)
