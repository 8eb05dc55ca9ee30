""""""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Generator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import timm.data
import torch
import typer
from PIL import Image
from torchvision.datasets import FashionMNIST, Imagenette
from torchvision.models import ResNet18_Weights

from d3hr_datasets import (
    D3HRCIFAR10,
    D3HRCIFAR100,
    Artifact,
    D3HRDataset,
    D3HRFashionMNIST,
    D3HRImageNet,
    D3HRTinyImageNet,
)
from d3hr_datasets.classes.class_list import ClassList, packaged_subset
from d3hr_datasets.cli.app import app
from d3hr_datasets.dataset.artifact_registry import REGISTRY
from d3hr_datasets.dataset.image_generator import ImageGenerator
from d3hr_datasets.errors import (
    ArtifactFormatError,
    ArtifactNotFoundError,
    ConfigError,
    ModelFormatError,
)
from tests.support.tampering import change_info
from tests.support.tiny import save_untrained_artifact

TIMM = Path(timm.data.__file__).parent / "_info"


@pytest.fixture
def cifar10(tmp_path: Path) -> Path:
    """Return the folder of an untrained artifact of ten classes that the test may change."""
    save_untrained_artifact(tmp_path / "artifact", "cifar10", ClassList.packaged("cifar10"))
    return tmp_path / "artifact"


def test_imagenet_is_in_the_order_of_the_teachers() -> None:
    found = ClassList.packaged("imagenet")
    assert list(found.names) == ResNet18_Weights.IMAGENET1K_V1.meta["categories"]
    assert list(found.wnids or ()) == (TIMM / "imagenet_synsets.txt").read_text().split()


def test_the_other_class_lists_are_whole() -> None:
    imagenet, tiny = ClassList.packaged("imagenet"), ClassList.packaged("tiny-imagenet")
    assert imagenet.wnids is not None and tiny.wnids is not None
    names = dict(zip(imagenet.wnids, imagenet.names, strict=True))
    assert len(tiny.wnids) == 200 and list(tiny.wnids) == sorted(set(tiny.wnids))
    assert list(tiny.names) == [names[wnid] for wnid in tiny.wnids]
    assert list(ClassList.packaged("fashion-mnist").names) == FashionMNIST.classes
    assert len(ClassList.packaged("cifar10").names) == 10
    cifar100 = ClassList.packaged("cifar100").names
    assert len(cifar100) == 100 and list(cifar100) == sorted(set(cifar100))
    for name in REGISTRY:
        assert len(set(ClassList.packaged(name).names)) == len(ClassList.packaged(name).names)


@pytest.mark.parametrize(("subset", "count"), [("imagenette", 10), ("imagewoof", 10), ("imagenet100", 100)])
def test_subsets_keep_two_label_spaces_apart(subset: str, count: int, imagenet: Path, tmp_path: Path) -> None:
    dataset = D3HRImageNet(tmp_path, 1, artifact=imagenet, subset=subset)
    whole = ClassList.packaged("imagenet")
    assert whole.wnids is not None and len(dataset) == count
    assert dataset.targets == list(range(count))
    assert dataset.wnids == [whole.wnids[label] for label in dataset.class_labels.tolist()]
    assert dataset.wnids == sorted(dataset.wnids)


def test_imagenette_is_torchvisions() -> None:
    assert packaged_subset("imagenet", "imagenette") == list(Imagenette._WNID_TO_CLASS)


def test_imagewoof_is_of_dogs() -> None:
    found = ClassList.packaged("imagenet").labels(packaged_subset("imagenet", "imagewoof"))
    assert all(151 <= label <= 268 or label == 273 for label in found)  # dogs, and the dingo


def test_classes_by_name_wnid_and_label_may_be_mixed(imagenet: Path, tmp_path: Path) -> None:
    dataset = D3HRImageNet(tmp_path, 1, artifact=imagenet, classes=["golden retriever", "n01440764", 999])
    assert dataset.class_labels.tolist() == [207, 0, 999]
    assert dataset.classes == ["golden retriever", "tench", "toilet tissue"]
    assert dataset.class_to_idx == {"golden retriever": 0, "tench": 1, "toilet tissue": 2}
    assert dataset.wnid_to_idx["n01440764"] == 1


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"classes": ["tench", 0]}, "distinct"),
        ({"classes": ["n00000000"]}, r"n00000000.*WordNet IDs such as n01440764"),
        ({"classes": [1000]}, "1000.*0 to 999"),
        ({"subset": "imagenet-100"}, "imagenet-100.*imagenet100.*imagenette.*imagewoof"),
        ({"subset": "imagenette", "classes": [0]}, "not both"),
    ],
    ids=str,
)
def test_classes_that_are_not_there_are_refused(
    options: dict[str, Any], named: str, imagenet: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=named):
        D3HRImageNet(tmp_path, 1, artifact=imagenet, **options)


def test_sets_without_subsets_say_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cifar10 has no subset 'x'; accepted: none"):
        D3HRCIFAR10(tmp_path, subset="x")


@pytest.mark.parametrize("cls", [D3HRImageNet, D3HRTinyImageNet, D3HRCIFAR10, D3HRCIFAR100])
def test_what_is_not_published_says_how_to_build_it(cls: type[D3HRDataset], tmp_path: Path) -> None:
    with pytest.raises(ArtifactNotFoundError, match=r"(?s)d3hr build .*d3hr publish") as error:
        cls(root=tmp_path)  # type: ignore[call-arg]
    group: Any = typer.main.get_command(app)
    # What is printed is parsed, and not run.
    commands = [line.split() for line in str(error.value).splitlines() if line.startswith("  d3hr ")]
    assert [name for _, name, *_ in commands] == ["build", "card", "publish"]
    parsed = [group.commands[name].make_context(name, rest).params for _, name, *rest in commands]
    build, *others = parsed
    assert (build["name"], build["class_list"]) == (cls.registry_name, cls.registry_name)  # type: ignore[attr-defined]
    for values in others:
        assert values["artifact"] == build["output"] and values["repo_id"] == f"ORG/{build['output']}"
    hours = re.search(r"(\d+\.\d) hours of one H100", str(error.value))
    known = {D3HRImageNet: "1.5", D3HRTinyImageNet: "0.1", D3HRCIFAR10: "0.1", D3HRCIFAR100: "0.1"}
    assert hours is not None and hours[1] == known[cls]
    assert ("1,281,167 training images x 6 model evaluations" in str(error.value)) == (cls is D3HRImageNet)


def test_artifact_overrides_the_registry(imagenet: Path, tmp_path: Path) -> None:
    opened = D3HRImageNet(tmp_path, 1, artifact=str(imagenet))
    assert opened.artifact.folder == imagenet
    assert D3HRImageNet(tmp_path, 1, artifact=Artifact.load(imagenet)).image_folder == opened.image_folder


def test_classes_named_by_wnids_are_the_same_classes(imagenet: Path, tmp_path: Path) -> None:
    whole = ClassList.packaged("imagenet")
    assert whole.wnids is not None
    whole.check_same(ClassList(whole.wnids), "an artifact")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ("swap", "class label 3 of the artifact cifar10 is 'deer', of this data set 'cat'"),
        ("fewer", "9 classes, this data set 10"),
    ],
)
def test_artifact_of_another_order_is_refused(
    changes: str, named: str, cifar10: Path, tmp_path: Path
) -> None:
    names = list(ClassList.packaged("cifar10").names)
    if changes == "swap":
        names[3], names[4] = names[4], names[3]
    else:
        names.pop()
    change_info(cifar10, classes=names, counts=[2] * len(names))
    with pytest.raises(ArtifactFormatError, match=named):
        D3HRCIFAR10(tmp_path / "root", 1, artifact=cifar10)


def test_other_wnids_under_the_same_names_are_refused(imagenet: Path) -> None:
    whole = ClassList.packaged("imagenet")
    assert whole.wnids is not None
    info = Artifact.load(imagenet).info
    other = ClassList(whole.names, (*whole.wnids[:5], "n99999999", *whole.wnids[6:]))
    with pytest.raises(ArtifactFormatError, match=r"class label 5 .*n01496331.*n99999999"):
        other.check_same(info.class_list, "the artifact")


@pytest.mark.parametrize("swapped", [False, True])
def test_label_map_of_the_model_is_compared(swapped: bool, cifar10: Path, tmp_path: Path) -> None:
    names = [
        f"{name.upper()}, thing {label}" for label, name in enumerate(ClassList.packaged("cifar10").names)
    ]
    if swapped:
        names[0], names[9] = names[9], names[0]
    path = cifar10 / "model" / "model_index.json"
    index = json.loads(path.read_text())
    path.write_text(json.dumps({**index, "id2label": {str(i): name for i, name in enumerate(names)}}))
    Artifact.load(cifar10).write_metadata()
    dataset = D3HRCIFAR10(tmp_path / "root", 1, artifact=cifar10, device="cpu")
    if swapped:
        with pytest.raises(ModelFormatError, match=r"class label 0 'TRUCK.*class label 9 \('truck'\)"):
            dataset[0]
    else:
        dataset[0]


def test_label_map_with_synonyms_agrees_with_imagenet() -> None:
    lines = (TIMM / "imagenet_synset_to_lemma.txt").read_text().splitlines()
    lemmas = dict(line.split("\t", 1) for line in lines)
    whole = ClassList.packaged("imagenet")
    label_map = {str(label): lemmas[wnid] for label, wnid in enumerate(whole.wnids or ())}
    whole.check_label_map(label_map, "the model")
    label_map["7"], label_map["8"] = label_map["8"], label_map["7"]
    with pytest.raises(ModelFormatError, match="the model calls class label 7 'hen'"):
        whole.check_label_map(label_map, "the model")


def test_fashion_mnist_takes_class_labels(tmp_path: Path) -> None:
    dataset = D3HRFashionMNIST(tmp_path, 1, classes=[9, "Bag"])
    assert dataset.classes == ["Ankle boot", "Bag"] and torch.equal(
        dataset.class_labels, torch.tensor([9, 8])
    )


def test_hundreds_of_classes_fit_into_one_batch(
    imagenet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def generate(
        self: ImageGenerator, model: object, labels: Iterator[int], *_: object
    ) -> Generator[tuple[int, list[Image.Image]], None, None]:
        for label in labels:
            calls.append(label)
            yield label, [Image.new("RGB", (14, 14))]

    model = SimpleNamespace(device=torch.device("cpu"), placement=SimpleNamespace(is_offloaded=False))
    monkeypatch.setattr(D3HRDataset, "model", lambda self: model)
    monkeypatch.setattr(ImageGenerator, "generate", generate)
    dataset = D3HRDataset(imagenet, tmp_path, 1, classes=list(range(450)))
    dataset.materialize(batch_size=1000, progress=False)
    assert calls == list(range(450)) and dataset.cache.is_complete(449)


def test_label_map_is_compared_with_the_names_of_the_data_set(imagenet: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(imagenet, tmp_path / "artifact"))
    whole = ClassList.packaged("imagenet")
    change_info(folder, classes=whole.wnids)
    index = folder / "model" / "model_index.json"
    swapped = {"0": whole.names[1], "1": whole.names[0]}
    index.write_text(json.dumps({**json.loads(index.read_text()), "id2label": swapped}))
    Artifact.load(folder).write_metadata()
    dataset = D3HRImageNet(tmp_path / "cache", 1, artifact=folder, device="cpu")
    with pytest.raises(ModelFormatError, match="orders differ"):
        dataset.model()


def test_numbers_in_words_are_class_labels(imagenet: Path, tmp_path: Path) -> None:
    dataset = D3HRImageNet(tmp_path, 1, artifact=imagenet, classes=["207", "n01440764"])
    assert dataset.class_labels.tolist() == [207, 0]
    with pytest.raises(ConfigError, match=r"unknown classes \[1\.0\]"):
        D3HRImageNet(tmp_path, 1, artifact=imagenet, classes=[1.0])  # type: ignore[list-item]
