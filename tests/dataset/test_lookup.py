"""Named data sets by their names, and what their numbers rest on."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image

import d3hr_datasets
from d3hr_datasets import D3HRCIFAR10, D3HRFashionMNIST, D3HRImageNet, get_dataset, list_datasets
from d3hr_datasets.dataset.artifact_registry import REGISTRY
from d3hr_datasets.dataset.named_datasets import named_dataset
from d3hr_datasets.dataset.registered_dataset import NamedDataset
from d3hr_datasets.errors import ArtifactNotFoundError, ConfigError
from d3hr_datasets.students.protocol import Protocol
from d3hr_datasets.students.views import evaluation_transform, normalize, train_transform

ROOT = Path(__file__).resolve().parents[2]
# Settings of students, one folder for each protocol: the first of these that is there.
PROTOCOLS = (ROOT / "d3hr_datasets" / "experiments" / "protocols", ROOT / "recipes" / "configs" / "students")


def settings_files(protocol: str, name: str) -> list[Path]:
    (folder, *_) = [folder for folder in PROTOCOLS if folder.is_dir()]
    return sorted((folder / protocol).glob(f"{name}-ipc*.yaml"))


def settings(path: Path) -> dict[str, Any]:
    """Return the values of a file over those of its base."""
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    base = values.pop("base", None)
    return {**(settings(path.parent / base) if base else {}), **values}


def test_names_are_those_of_the_registry() -> None:
    assert set(list_datasets()) >= set(REGISTRY) and list_datasets() == sorted(list_datasets())


def test_a_name_gives_the_instance(tmp_path: Path) -> None:
    dataset = get_dataset("fashion-mnist", root=tmp_path, ipc=3, classes=["Bag"])
    assert type(dataset) is D3HRFashionMNIST and (len(dataset), dataset.classes) == (3, ["Bag"])
    with pytest.raises(ArtifactNotFoundError, match="no artifact of imagenet is published yet"):
        get_dataset("imagenet", root=tmp_path)
    with pytest.raises(TypeError, match="unexpected keyword argument 'icp'"):
        get_dataset("fashion-mnist", root=tmp_path, icp=3)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("FashionMNIST", "did you mean 'fashion-mnist'"),
        ("fashion_mnist", "did you mean 'fashion-mnist'"),
        ("D3HRImageNet", "did you mean 'imagenet'"),
        ("cifar-10", "did you mean 'cifar10'"),
        ("svhn-of-nobody", r"'tiny-imagenet'\]$"),
    ],
)
def test_unknown_names_are_refused_with_what_is_near(name: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=rf"no data set is named '{name}'; known: \['cifar10'.*{meant}"):
        get_dataset(name)


def test_own_classes_are_found_by_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Own(D3HRFashionMNIST):
        registry_name = "own-of-a-test"

    assert named_dataset("own-of-a-test") is Own and "own-of-a-test" in list_datasets()
    with pytest.raises(ConfigError, match=r"recommended for 'own-of-a-test'; known: \['cifar10'"):
        Own.recommended()
    del Own.registry_name  # other tests list the names, too
    assert "own-of-a-test" not in list_datasets()


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_what_is_recommended_is_what_the_settings_say(name: str) -> None:
    found = named_dataset(name).recommended()
    files = settings_files(found.protocol, name)
    assert files
    for path in files:
        values = settings(path)
        protocol = Protocol(
            **{f.name: values[f.name] for f in dataclasses.fields(Protocol) if f.name in values}
        )
        assert (found.student, dict(found.student_args)) == (protocol.student, protocol.student_args), path
        assert (found.image_size, found.channels, found.resize) == (
            protocol.image_size,
            protocol.channels,
            protocol.resize,
        )
        assert (list(found.mean), list(found.std)) == (protocol.mean, protocol.std)
        assert list(found.crop_scale or ()) == protocol.crop_scale
        shipped = values["teacher"] in {"local-dir:hub/fashion-mnist-teacher", "embedded:fashion-mnist"}
        assert found.teacher == ("embedded:fashion-mnist" if shipped else values["teacher"])
        _check_transforms(named_dataset(name), protocol)
    assert found.results is None or (ROOT / found.results).is_file()


def _check_transforms(kind: type[NamedDataset], protocol: Protocol) -> None:
    generator = torch.Generator().manual_seed(3)
    shape = (protocol.image_size + 9, protocol.image_size + 4, 3)
    pixels = torch.randint(256, shape, dtype=torch.uint8, generator=generator).numpy()
    image = Image.fromarray(pixels).convert("L" if protocol.channels == 1 else "RGB")
    for train in (True, False):
        expected = train_transform(protocol) if train else evaluation_transform(protocol)
        for seed in range(4):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                found = kind.recommended_transforms(train)(image)
                torch.manual_seed(seed)
                wanted = normalize(protocol, expected(image))
            assert type(found) is torch.Tensor and found.dtype == torch.float32
            assert found.shape == (protocol.channels, protocol.image_size, protocol.image_size)
            torch.testing.assert_close(found, wanted)


def test_what_is_recommended_says_what_it_is() -> None:
    fashion, imagenet = D3HRFashionMNIST.recommended(), D3HRImageNet.recommended()
    assert (fashion.protocol, fashion.student, fashion.teacher) == (
        "soft",
        "convnet3",
        "embedded:fashion-mnist",
    )
    assert (imagenet.teacher, imagenet.results) == ("resnet18.tv_in1k", None)
    assert (fashion.channels, D3HRCIFAR10.recommended().channels) == (1, 3)
    with pytest.raises(dataclasses.FrozenInstanceError):
        fashion.student = "vgg11"  # type: ignore[misc]


def test_public_names_are_at_the_top() -> None:
    assert {"list_datasets", "get_dataset", "real_test_set"} <= set(vars(d3hr_datasets)["__all__"])
