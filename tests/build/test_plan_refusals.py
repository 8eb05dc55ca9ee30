"""What a plan notices until it is run, and data sets and options that are not what they should be."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, Subset

from d3hr_datasets.build import BuildPlan, BuildSettings, ClassOptions, ModelOptions, plan_build
from d3hr_datasets.errors import ConfigError
from tests.support.tiny import CLASSES, TinyImages, tiny_pipeline

SETTINGS = BuildSettings((400,), num_inference_steps=10, image_size=14, num_modes=1)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "model"
    tiny_pipeline().save_pretrained(folder)
    (folder.parent / "list.json").write_text(json.dumps(CLASSES))
    return folder


def _plan(model: Path, source: Any, output: Path, **options: Any) -> BuildPlan:
    values: dict[str, Any] = {
        "settings": SETTINGS,
        "class_options": ClassOptions(str(model.parent / "list.json"), same_order=True),
        "model_options": ModelOptions("cpu"),
        **options,
    }
    return plan_build(source, model, output, **values)


class Labelled(TinyImages):
    """The tiny images with labels that are known before."""

    def __init__(self, targets: Any) -> None:
        self.targets = targets


class Inverted(TinyImages):
    """The tiny images in negative, by the name of the others."""

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        image, label = super().__getitem__(index)
        return image.point(lambda value: 255 - value), label


Inverted.__name__ = "TinyImages"


def test_other_images_of_the_same_kind_get_their_own_statistics(model: Path, tmp_path: Path) -> None:
    class Twice(TinyImages, Dataset[tuple[Image.Image, int]]):
        def __len__(self) -> int:
            return 24

        def __getitem__(self, index: int) -> tuple[Image.Image, int]:
            image, label = super().__getitem__(index % 12)
            return image.rotate(90) if index >= 12 else image, label

    found = set()
    for source in (TinyImages(), Inverted(), *(Subset(Twice(), range(k, k + 12)) for k in (0, 12))):
        found.add(_plan(model, source, tmp_path / "out").run(progress=False).info.source["fingerprint"])
    assert len(found) == 3  # the first half of `Twice` is `TinyImages`


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ([-1, *[0, 1, 2] * 3, 0, 1], "image 0 has class label -1; accepted: 0 to 2"),
        ([5, *[0, 1, 2] * 3, 0, 1], "image 0 has class label 5; accepted: 0 to 2"),
        ([2**70, *[0, 1, 2] * 3, 0, 1], "`targets` of Labelled has 1180591620717411303424"),
        ([None, *[0, 1, 2] * 3, 0, 1], "`targets` of Labelled has None, which is no class label"),
        ([0, 1, 2], "`targets` of Labelled has 3 labels for 12 images"),
        (5, "`targets` of Labelled is no list of labels"),
    ],
)
def test_labels_that_are_none_are_named(targets: Any, message: str, model: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        _plan(model, Labelled(targets), tmp_path / "out", settings=BuildSettings((400,), image_size=14))
    assert not list(tmp_path.glob("out*"))


def test_names_of_classes_may_be_an_array(model: Path, tmp_path: Path) -> None:
    images = Labelled([index % 3 for index in range(12)])
    images.classes = np.array([CLASSES[2], CLASSES[0], CLASSES[1]])  # type: ignore[attr-defined]
    plan = _plan(model, images, tmp_path / "out", class_options=ClassOptions(str(model.parent / "list.json")))
    assert plan.images.labels == [(index + 2) % 3 for index in range(12)]


def test_a_model_that_has_changed_since_is_noticed(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("here", "there"):
        shutil.copytree(model, tmp_path / name / "model")
    monkeypatch.chdir(tmp_path / "here")
    options = ClassOptions(str(model.parent / "list.json"), same_order=True)
    plan = _plan(Path("model"), TinyImages(), tmp_path / "out", class_options=options)
    monkeypatch.chdir(tmp_path / "there")
    assert plan.model == str(tmp_path / "here" / "model")
    weights = next((tmp_path / "here" / "model" / "vae").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes())
    with pytest.raises(ConfigError, match="has changed since the build was planned"):
        plan.run(progress=False)
    with pytest.raises(ConfigError, match="plan anew to build with another model"):
        dataclasses.replace(plan, model=f"org/x@{'0' * 40}")
    assert not (tmp_path / "out").exists()


def test_what_came_into_the_output_meanwhile_stays(model: Path, tmp_path: Path) -> None:
    plan = _plan(model, TinyImages(), tmp_path / "out")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"has other files in it \(\['thesis.txt'\]\)"):
        plan.run(progress=False)
    with pytest.raises(ConfigError, match="batch_size must be"):
        _plan(model, TinyImages(), tmp_path / "new").run(batch_size=0)
    assert not list(tmp_path.glob("new*")) and not (tmp_path / "out.chunks").exists()
    assert (tmp_path / "out" / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize("name", ["optimizer.bin", "vae/diffusion_pytorch_model.safetensors"])
def test_a_model_of_the_users_in_the_output_is_not_replaced(name: str, model: Path, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "out" / "model")
    (tmp_path / "out" / "model" / name).write_bytes(b"weeks of training")
    with pytest.raises(ConfigError, match="no copy of the model"):
        _plan(model, TinyImages(), tmp_path / "out")
    assert (tmp_path / "out" / "model" / name).read_bytes() == b"weeks of training"
    inner = Path(shutil.copytree(model, tmp_path / "other" / "model" / "best"))
    with pytest.raises(ConfigError, match="which its copy replaces"):
        plan_build(TinyImages(), inner, tmp_path / "other", SETTINGS)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ModelOptions(torch_dtype="bfloat16"), "torch_dtype must be one such as torch.float32"),  # type: ignore[arg-type]
        (lambda: ModelOptions(torch_dtype=torch.int8), "torch_dtype must be"),
        (lambda: ClassOptions(same_order="False"), "same_order must be a bool"),  # type: ignore[arg-type]
        (lambda: ClassOptions(class_list=3), "class_list must name"),  # type: ignore[arg-type]
        (lambda: ClassOptions(class_map=[1]), "class_map must be"),  # type: ignore[arg-type]
        (lambda: BuildSettings(image_size=True), "image_size must be"),
    ],
)
def test_options_of_another_kind_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def test_options_stand_where_they_belong(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no BuildSettings"):
        _plan(model, TinyImages(), tmp_path / "out", settings={})
    with pytest.raises(ConfigError, match="is no ClassOptions"):
        _plan(model, TinyImages(), tmp_path / "out", class_options={"same_order": True})


def test_output_in_the_folder_of_the_images_is_noticed_however_it_is_named(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "imgs" / "ant").mkdir(parents=True)
    TinyImages()[0][0].save(tmp_path / "imgs" / "ant" / "0.png")
    for source in ("~/imgs", f"torchvision:ImageFolder:{tmp_path / 'imgs'}", f"datasets:{tmp_path / 'imgs'}"):
        with pytest.raises(ConfigError, match="is in the folder of the images"):
            _plan(model, source, tmp_path / "imgs" / "out")
