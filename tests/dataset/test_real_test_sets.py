"""Real test sets: torchvision's own, with the labels of the distilled set. No network, tiny files."""

from __future__ import annotations

import hashlib
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import CIFAR10, CIFAR100, FashionMNIST, ImageNet
from torchvision.transforms import v2

import d3hr_datasets
from d3hr_datasets import D3HRFashionMNIST, D3HRImageNet
from d3hr_datasets.classes.class_list import ClassList, packaged_subset
from d3hr_datasets.errors import ConfigError, D3HRError, RealTestSetError

real_test_set: Any = d3hr_datasets.real_test_set  # torchvision's base class has no `targets`


def save_fashion_mnist(root: Path, labels: list[int]) -> None:
    """Write the four files of Fashion-MNIST: test images whose pixels are all 10 x label + number."""
    folder = root / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    pixels = np.repeat([10 * label + number for number, label in enumerate(labels)], 784).astype(np.uint8)
    header = struct.pack(">iiii", 0x803, len(labels), 28, 28)
    (folder / "t10k-images-idx3-ubyte").write_bytes(header + pixels.tobytes())
    (folder / "t10k-labels-idx1-ubyte").write_bytes(struct.pack(">ii", 0x801, len(labels)) + bytes(labels))
    for name in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"):
        (folder / name).touch()


def save_cifar(root: Path, kind: Any, names: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Write a test set of CIFAR with two images of each class, and let torchvision expect its checksums."""
    folder = root / kind.base_folder
    folder.mkdir(parents=True)
    key = kind.meta["key"]
    labels = [*range(len(names)), *reversed(range(len(names)))]
    images = np.repeat(np.array(labels, np.uint8)[:, None], 3072, axis=1)
    field = "fine_labels" if kind is CIFAR100 else "labels"
    digests = {}
    for file, value in (
        ("test", {"data": images, field: labels}),
        (kind.meta["filename"], {key: names}),
    ):
        data = pickle.dumps(value)
        (folder / file).write_bytes(data)
        digests[file] = hashlib.md5(data).hexdigest()
    monkeypatch.setattr(kind, "train_list", [])
    monkeypatch.setattr(kind, "test_list", [["test", digests["test"]]])
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": digests[kind.meta["filename"]]})


def save_images(folder: Path, names: list[str]) -> None:
    folder.mkdir(parents=True)
    for number, name in enumerate(names):
        Image.new("RGB", (2, 2), (number % 256, number // 256, 7)).save(folder / name)


@pytest.fixture
def fashion_mnist(tmp_path: Path) -> Path:
    save_fashion_mnist(tmp_path / "real", [9, 0, *range(10), 9, 5])
    return tmp_path / "real"


def test_the_whole_test_set_is_torchvisions(fashion_mnist: Path, tmp_path: Path) -> None:
    dataset = D3HRFashionMNIST(tmp_path / "cache", ipc=1)
    found, own = dataset.test_set(fashion_mnist), FashionMNIST(fashion_mnist, train=False)
    assert isinstance(found, FashionMNIST) and isinstance(found.targets, torch.Tensor)
    assert torch.equal(found.data, own.data) and torch.equal(found.targets, own.targets)
    assert [found[i] for i in range(len(own))] == [own[i] for i in range(len(own))]
    assert found.classes == dataset.classes and found.class_to_idx == dataset.class_to_idx
    assert not (tmp_path / "cache").exists()  # nothing was generated for it


def test_kept_classes_are_relabelled_in_their_order(fashion_mnist: Path, tmp_path: Path) -> None:
    dataset = D3HRFashionMNIST(
        tmp_path / "cache", ipc=1, classes=[9, "T-shirt/top", 5], target_transform=lambda label: -label
    )
    found: Any = dataset.test_set(str(fashion_mnist), v2.PILToTensor())
    assert [(int(image.max()), label) for image, label in found] == [
        (90, 0),
        (1, -1),
        (2, -1),
        (57, -2),
        (101, 0),  # 90 + 11
        (102, 0),
        (63, -2),
    ]
    assert found.classes == ["Ankle boot", "T-shirt/top", "Sandal"] == dataset.classes
    assert found.class_to_idx == dataset.class_to_idx
    strings: Any = dataset.test_set(fashion_mnist, target_transform=str)
    assert [label for _, label in strings] == ["0", "1", "1", "2", "0", "0", "2"]
    by_name = real_test_set("fashion-mnist", fashion_mnist, classes=["Ankle boot", 0, "Sandal"])
    assert torch.equal(by_name.targets, found.targets)


@pytest.mark.parametrize(("kind", "name"), [(CIFAR10, "cifar10"), (CIFAR100, "cifar100")])
def test_cifar_is_torchvisions(kind: Any, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = list(ClassList.packaged(name).names)
    save_cifar(tmp_path, kind, names, monkeypatch)
    found = real_test_set(name, tmp_path, classes=[7, names[2]])
    assert isinstance(found, kind)
    assert [(np.asarray(image).max(), label) for image, label in found] == [(2, 1), (7, 0), (7, 0), (2, 1)]
    assert found.targets == [1, 0, 0, 1] and found.class_to_idx == {names[7]: 0, names[2]: 1}
    assert len(real_test_set(name, tmp_path)) == 2 * len(names)


def test_another_order_of_classes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = list(ClassList.packaged("cifar10").names)
    save_cifar(tmp_path, CIFAR10, [*names[:3], names[4], names[3], *names[5:]], monkeypatch)
    with pytest.raises(
        RealTestSetError, match=r"label 3 of the test set of cifar10 in .* is 'deer', .*'cat'"
    ):
        real_test_set("cifar10", tmp_path)


@pytest.fixture(scope="module")
def imagenet_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder as torchvision's ImageNet leaves it, with one image for each class."""
    root, whole = tmp_path_factory.mktemp("real"), ClassList.packaged("imagenet")
    assert whole.wnids is not None
    for wnid in whole.wnids:
        save_images(root / "val" / wnid, [f"{wnid}.png"])
    torch.save(({wnid: (wnid.upper(), "a synonym") for wnid in whole.wnids}, []), root / "meta.bin")
    return root


def test_imagenet_is_matched_by_wordnet_ids(imagenet: Path, imagenet_folder: Path, tmp_path: Path) -> None:
    dataset = D3HRImageNet(tmp_path, 1, artifact=imagenet, subset="imagewoof")
    for found in (
        dataset.test_set(imagenet_folder),
        real_test_set("imagenet", imagenet_folder, subset="imagewoof"),
    ):
        assert isinstance(found, ImageNet) and len(found) == 10
        assert found.wnids == packaged_subset("imagenet", "imagewoof") == dataset.wnids
        assert found.targets == list(range(10)) and found.wnid_to_idx == dataset.wnid_to_idx
        assert (found.classes, found.class_to_idx) == (dataset.classes, dataset.class_to_idx)
        assert [Path(path).parent.name for path, _ in found.samples] == found.wnids
        assert found.imgs == found.samples and found[3][1] == 3
    assert len(real_test_set("imagenet", imagenet_folder)) == 1000


def test_a_part_of_imagenet_is_refused(tmp_path: Path) -> None:
    save_images(tmp_path / "val" / "n01440764", ["a.png"])
    torch.save(({"n01440764": ("tench",)}, []), tmp_path / "meta.bin")
    with pytest.raises(
        RealTestSetError, match=r"has 1 classes, the distilled set 1000; .*classes=\[\.\.\.\]"
    ):
        real_test_set("imagenet", tmp_path, classes=["tench"])


@pytest.mark.parametrize("inner", ["", "tiny-imagenet-200"])
def test_tiny_imagenet_is_read_as_its_archive_unpacks(inner: str, tmp_path: Path) -> None:
    wnids = list(ClassList.packaged("tiny-imagenet").wnids or ())
    folder = tmp_path / inner / "val"
    order = [*reversed(wnids), wnids[5]]
    save_images(folder / "images", [f"val_{number}.JPEG" for number in range(201)])
    lines = [f"val_{number}.JPEG\t{wnid}\t0\t0\t9\t9\n" for number, wnid in enumerate(order)]
    (folder / "val_annotations.txt").write_text("".join(lines))
    whole = real_test_set("tiny-imagenet", tmp_path)
    assert whole.targets == [*reversed(range(200)), 5] and whole[0][0].mode == "RGB"
    found = real_test_set("tiny-imagenet", tmp_path, classes=[wnids[5], 0])
    assert [(Path(path).name, label) for path, label in found.samples] == [
        ("val_194.JPEG", 0),
        ("val_199.JPEG", 1),
        ("val_200.JPEG", 0),
    ]
    for bad, named in (
        (lines[:199], r"are missing"),
        ([*lines, "val_0.JPEG\tn99999999\n"], "it also has .*n99999999"),
        ([*lines, "val_201.JPEG\tn01443537\n"], "names val_201.JPEG, which is not in"),
        ([*lines, "../secret\tn01443537\n"], "accepted: NAME, WNID"),
        ([*lines, "val_0.JPEG\n"], "val_annotations.txt:202 is"),
    ):
        (folder / "val_annotations.txt").write_text("".join(bad))
        with pytest.raises(RealTestSetError, match=named):
            real_test_set("tiny-imagenet", tmp_path)


def test_tiny_imagenet_is_read_from_class_folders(tmp_path: Path) -> None:
    wnids = list(ClassList.packaged("tiny-imagenet").wnids or ())
    for wnid in wnids[1:]:
        save_images(tmp_path / "val" / wnid / "images", [f"{wnid}.JPEG"])
    with pytest.raises(RealTestSetError, match=rf"{wnids[0]}.*are missing"):
        real_test_set("tiny-imagenet", tmp_path)
    save_images(tmp_path / "val" / wnids[0], ["first.png"])
    assert real_test_set("tiny-imagenet", tmp_path).targets == list(range(200))


@pytest.mark.parametrize(
    ("name", "mend"),
    [
        ("fashion-mnist", "download=True"),
        ("cifar10", "download=True"),
        ("imagenet", "ILSVRC2012_img_val.tar"),
        ("tiny-imagenet", "unpack tiny-imagenet-200.zip .*root=FOLDER.*ImageFolder"),
    ],
)
def test_what_is_missing_is_named_with_what_brings_it(name: str, mend: str, tmp_path: Path) -> None:
    with pytest.raises(
        RuntimeError, match=rf"(?s)the test set of {name} .*{tmp_path.name}.*{mend}"
    ) as caught:
        real_test_set(name, tmp_path)
    assert isinstance(caught.value, RealTestSetError) and isinstance(caught.value, D3HRError)


@pytest.mark.parametrize(
    ("name", "options", "named"),
    [
        ("imagenet", {"download": True}, "download=True: .*cannot download it"),
        ("tiny-imagenet", {"download": True}, "download=True: .*no such data set"),
        ("fashion-mnist", {"download": "yes"}, "download must be a bool, not 'yes'"),
        ("svhn", {}, r"no real test set of 'svhn' is known; known: \['cifar10'"),
        ("fashion-mnist", {"classes": ["cat"]}, r"unknown classes \['cat'\]"),
        ("imagenet", {"classes": [0], "subset": "imagenette"}, "classes or subset, not both"),
    ],
)
def test_what_cannot_be_opened_is_refused(
    name: str, options: dict[str, Any], named: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=named):
        real_test_set(name, tmp_path, **options)


def test_a_class_without_images_is_refused(tmp_path: Path) -> None:
    save_fashion_mnist(tmp_path, list(range(9)))
    with pytest.raises(RealTestSetError, match=r"no image of 1 classes: \['Ankle boot'\]"):
        real_test_set("fashion-mnist", tmp_path)
    assert len(real_test_set("fashion-mnist", tmp_path, classes=[3])) == 1


def test_a_set_of_your_own_has_none(tmp_path: Path) -> None:
    class Own(D3HRFashionMNIST):
        class_list = ClassList.packaged("fashion-mnist")

    dataset = Own(tmp_path, ipc=1)
    dataset.registry_name = "mine"  # type: ignore[misc]
    with pytest.raises(ConfigError, match="no real test set of 'mine'"):
        dataset.test_set(tmp_path)
