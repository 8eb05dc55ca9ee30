"""Private builds: what one image changes in sums, which classes there are, and what a kill leaves behind."""

from __future__ import annotations

import shutil
import stat
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from safetensors.torch import load_file
from torchvision.datasets import ImageFolder
from torchvision.transforms.functional import pil_to_tensor

from d3hr_datasets import Artifact
from d3hr_datasets.artifact.units import SQUARE_UNIT
from d3hr_datasets.build import BuildSettings, ClassOptions, ModelOptions, PromptOptions, plan_build
from d3hr_datasets.build.exact_moments import ExactMoments
from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from d3hr_datasets.diffusion.pixel_range import to_model_range
from d3hr_datasets.errors import ConfigError, SourceError
from d3hr_datasets.privacy import PrivacySettings
from d3hr_datasets.privacy.settings import whole_bounds
from tests.support.combining import Pictures, picture, save_pictures
from tests.support.private_builds import SETTINGS, SPENDING, build_private, class_list_options, private_info
from tests.support.tiny import CLASSES, tiny_pipeline
from tests.support.tiny_kinds import save_kind


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("private") / "model"
    tiny_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def model(saved: Path) -> LatentDiffusion:
    return LatentDiffusion.from_pretrained(saved, device="cpu")


def test_one_image_changes_the_sums_in_chunks_by_no_more_than_the_bounds(
    model: LatentDiffusion, tmp_path: Path
) -> None:
    privacy = PrivacySettings(5.0, 1e-5, clip_norm=1.0)
    info, label = private_info(privacy), 1
    assert info.privacy is not None
    found = []
    for numbers in ([0, 1, 2, 3, 5], [0, 1, 2, 3, 4, 5]):
        images = Pictures(numbers)
        work = tmp_path / f"work-{len(numbers)}"
        build_private(model, tmp_path / f"out-{len(numbers)}", info, images, work=work)
        total = ExactMoments(3, info.latent_shape)
        for path in work.glob("*.safetensors"):
            chunk = load_file(path)
            part = {name: chunk[f"400.{name}"] for name in ExactMoments.PARTS}
            total.merge(ExactMoments.from_state_dict(part), chunk["rows"])
        found.append(total)
    pixels = to_model_range(pil_to_tensor(picture(4))[None], info.padding)
    inverted = model.invert(model.encode(pixels), torch.tensor([label]), info.inversion)[400]
    assert inverted.norm() > 2 * info.privacy.clip_norm  # so that there is something to clip
    without, with_it = found
    differences = {name: getattr(with_it, name) - getattr(without, name) for name in ExactMoments.PARTS}
    differences["squares"][label] -= round(info.privacy.spread / SQUARE_UNIT)
    bounds = whole_bounds(info.privacy.clip_norm, info.privacy.clip_squares, 48)
    for name, bound in zip(("sums", "squares", "count"), bounds, strict=True):
        norms = differences[name].double().reshape(3, -1).norm(dim=1)
        assert norms[[0, 2]].eq(0).all() and 0 < float(norms[label]) <= bound, name
    assert float(differences["sums"].double().norm()) > 0.9 * bounds[0]


def test_a_build_that_ends_while_it_writes_leaves_nothing_or_what_the_next_one_finds(
    saved: Path, model: LatentDiffusion, tmp_path: Path
) -> None:
    shutil.copytree(saved, tmp_path / "out" / "model")
    with (
        mock.patch.object(Artifact, "write_metadata", side_effect=KeyboardInterrupt),
        pytest.raises(KeyboardInterrupt),
    ):
        build_private(model, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["model"]
    assert not list(tmp_path.glob(".out*"))
    assert stat.S_IMODE((tmp_path / "out.chunks").stat().st_mode) == 0o700
    left = tmp_path / f".out.{'0' * 32}.tmp"  # of a process that was killed
    (left / "model").mkdir(parents=True)
    (left / "statistics.safetensors").touch()
    with pytest.raises(
        ConfigError, match=r"was to hold, .*\.tmp/statistics\.safetensors, .* spends the budget"
    ):
        build_private(model, tmp_path / "out")
    (left / "statistics.safetensors").unlink()
    build_private(model, tmp_path / "out").verify()


def test_a_class_folder_may_be_empty_and_classes_are_not_those_that_occur(
    saved: Path, tmp_path: Path
) -> None:
    images, model = save_pictures(tmp_path / "images", [0, 1, 3, 4]), saved
    (images / "cat").mkdir()
    options = {**class_list_options(tmp_path), "privacy": SPENDING}
    built = plan_build(images, model, tmp_path / "out", SETTINGS, **options).run(progress=False)
    assert built.info.classes == CLASSES and min(built.info.counts) >= 2
    options["class_options"] = ClassOptions(same_order=True)
    for source in (images, ImageFolder(str(images), allow_empty=True)):
        with pytest.raises(ConfigError, match="one image more may add one; give --class-list"):
            plan_build(source, model, tmp_path / "no", SETTINGS, **options)
    del options["privacy"]
    with pytest.raises(SourceError, match="cat"):
        plan_build(images, model, tmp_path / "no", SETTINGS, **options)


def test_classes_of_prompts_are_not_those_that_occur(tmp_path: Path) -> None:
    save_kind("sd-1", tmp_path / "model")
    settings = BuildSettings((400,), num_inference_steps=10)
    images = save_pictures(tmp_path / "images", range(12))
    options: dict[str, Any] = {"privacy": SPENDING, "model_options": ModelOptions("cpu")}
    options["prompt_options"] = PromptOptions("a {name}")
    with pytest.raises(ConfigError, match="one image more may add one; give --class-list"):
        plan_build(images, tmp_path / "model", tmp_path / "no", settings, **options)
    options |= {"class_options": class_list_options(tmp_path)["class_options"]}
    assert plan_build(images, tmp_path / "model", tmp_path / "out", settings, **options).info.privacy
