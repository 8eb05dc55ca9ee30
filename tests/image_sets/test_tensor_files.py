"""Files of tensors in every layout that is known, and what is refused of others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from d3hr_datasets.errors import SourceError
from d3hr_datasets.image_sets import tensor_files
from d3hr_datasets.image_sets.opening import open_image_set
from tests.image_sets.making import REAL, levels, save_tensors
from tests.support.evil import Evil

IMAGES = torch.tensor([10, 20, 30, 40, 50, 60], dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 4, 4)
LABELS = torch.tensor([2, 0, 1, 2, 0, 1])
IN_FILE = {0: [20, 50], 1: [30, 60], 2: [10, 40]}
BY_CLASS = {0: [10, 20], 1: [30, 40], 2: [50, 60]}
ONE_HOT = torch.nn.functional.one_hot(LABELS, 3)

Make = Callable[[Any], Path]


@pytest.fixture
def saved(tmp_path: Path) -> Make:
    """Return what saves a value as a file of torch."""
    return lambda stored: save_tensors(tmp_path / "set.pt", stored)


@pytest.mark.parametrize(
    "stored",
    [
        *({key: IMAGES, "labels": LABELS} for key in ("images", "image", "data", "x")),
        *({"images": IMAGES, key: LABELS} for key in ("labels", "label", "targets", "y")),
        {"images": IMAGES, "labels": LABELS, "epoch": 3},
        (IMAGES, LABELS),
        [IMAGES, LABELS.to(torch.int32)],
        {"images": IMAGES, "labels": LABELS.tolist()},
        {"images": IMAGES, "labels": ONE_HOT},
        {"images": IMAGES, "labels": ONE_HOT.float()},
        {"images": IMAGES.reshape(3, 2, 1, 4, 4), "labels": LABELS.reshape(3, 2)},
        {"data": [[IMAGES + 1, LABELS], [IMAGES, LABELS]], "accs_all_exps": {"ConvNet": [0.5]}},  # DC's
        {"images": torch.nn.Parameter(IMAGES / 255), "labels": LABELS},
        {"images": (IMAGES / 255).half(), "labels": LABELS},
    ],
)
def test_layouts_with_labels(stored: Any, saved: Make) -> None:
    found = open_image_set(saved(stored), REAL, 1)
    assert levels(found) == IN_FILE
    assert found.classes == list(REAL.names)
    assert any("labels are numbers" in note for note in found.notes)


@pytest.mark.parametrize("images", [IMAGES, IMAGES.reshape(3, 2, 1, 4, 4)])
def test_images_alone_are_assumed_to_be_class_by_class(images: torch.Tensor, saved: Make) -> None:
    found = open_image_set(saved(images), REAL, 1)
    assert levels(found) == BY_CLASS
    assert any("has no labels; assumed: 2 images of each class" in note for note in found.notes)


def test_a_file_of_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "set.safetensors"
    save_file({"images": IMAGES.contiguous(), "labels": LABELS, "other": torch.ones(3)}, path)
    assert levels(open_image_set(path, REAL, 1)) == IN_FILE
    save_file({"pictures": IMAGES.contiguous()}, path)
    with pytest.raises(SourceError, match=r"keys are \['pictures'\]\. Accepted: exactly one of \['images'"):
        open_image_set(path, REAL, 1)
    path.write_bytes(b"no tensors at all")
    with pytest.raises(SourceError, match="cannot be read"):
        open_image_set(path, REAL, 1)


def test_channels_are_converted_as_those_of_files_are(saved: Make) -> None:
    path = saved({"images": IMAGES, "labels": LABELS})
    assert open_image_set(path, REAL, 3).images[0][0].shape == (3, 4, 4)
    coloured = IMAGES.repeat(1, 3, 1, 1)
    assert levels(open_image_set(saved((coloured, LABELS)), REAL, 1)) == IN_FILE
    coloured[4, 1] = 0
    with pytest.raises(ValueError, match=r"image 4 of .*set\.pt is coloured"):
        open_image_set(saved((coloured, LABELS)), REAL, 1)


def test_normalised_images_need_mean_and_std(saved: Make) -> None:
    path = saved({"images": (IMAGES / 255 - 0.5) / 0.25, "labels": LABELS})
    with pytest.raises(SourceError, match=r"float images in \[-1\.8.*mean and std"):
        open_image_set(path, REAL, 1)
    found = open_image_set(path, REAL, 1, normalized=([0.5], [0.25]), image_size=8)
    assert levels(found) == IN_FILE
    assert any("0 of 96 values clamped" in note for note in found.notes)
    assert any("4 x 4" in note for note in found.notes)


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ({"pictures": IMAGES}, r"0 entries that may be the images; its keys are \['pictures'\].*torch\.save"),
        ({"images": IMAGES, "x": IMAGES, "y": LABELS}, "2 entries that may be the images"),
        ({"images": IMAGES}, r"0 entries that may be the labels; .*\['labels', 'label', 'targets', 'y'\]"),
        ({"data": [IMAGES]}, r"'data' is no list of \[images, labels\]"),
        ({"data": []}, "'data' is no list"),
        (7, "holds a int; accepted: a dict"),
        ([IMAGES] * 3, "holds a list; accepted"),
        (([1, 2], LABELS), "the images are a list, not a dense tensor"),
        ((IMAGES, "labels"), "the labels are a str, not a dense tensor"),
        pytest.param(
            (IMAGES.to_sparse(), LABELS),
            "not a dense tensor",
            marks=pytest.mark.filterwarnings("ignore:Validating sparse"),
        ),
        ((IMAGES.to("meta"), LABELS), "not a dense tensor"),
        ((IMAGES[:, 0], LABELS), r"shape \(6, 4, 4\).*images\[:, None\]"),
        ((IMAGES.permute(0, 2, 3, 1), LABELS), r"shape \(6, 4, 4, 1\).*permute\(0, 3, 1, 2\)"),
        ((IMAGES.repeat(1, 4, 1, 1), LABELS), r"shape \(6, 4, 4, 4\); accepted"),
        ((IMAGES[:0], LABELS[:0]), r"shape \(0, 1, 4, 4\).*at least one image"),
        ((IMAGES, LABELS[:5]), r"6 images and labels of the shape \(5,\)"),
        ((IMAGES, LABELS.float()), r"labels \(6,\) of torch.float32; accepted: integers"),
        ((IMAGES, LABELS + 1), r"labels 3 to 3; accepted: 0 to 2"),
        ((IMAGES, LABELS - 1), r"labels -1 to -1; accepted: 0 to 2"),
        ((IMAGES, LABELS.clamp(max=1)), "no image of 1 of 3 classes: 'Ankle boot'"),
        ((IMAGES, torch.full((6, 3), 1 / 3)), r"soft labels \(6, 3\), which are not read.*argmax"),
        ((IMAGES, torch.nn.functional.one_hot(LABELS, 5)), "5 classes by its shape, the real data set has 3"),
        (IMAGES[:5], "5 images without labels for 3 classes"),
        (IMAGES.reshape(2, 3, 1, 4, 4), "2 classes by its shape"),
        ((IMAGES[:1, :, :1, :1].expand(2**40, 1, 1, 1), LABELS), "more than"),
        ((IMAGES / 255 + torch.nan, LABELS), "image 0 has values that are NaN"),
    ],
)
def test_other_files_are_refused(stored: Any, message: str, saved: Make) -> None:
    with pytest.raises(SourceError, match=message):
        open_image_set(saved(stored), REAL, 1)


def test_a_pickle_that_runs_code_is_refused_and_not_run(saved: Make) -> None:
    path = saved({"images": IMAGES, "labels": LABELS, "extra": Evil()})
    with pytest.raises(SourceError, match=r"more than tensors.*nothing of it was run.*torch\.save"):
        open_image_set(path, REAL, 1)
    assert not Path("pwned").exists()


def test_what_torch_has_not_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "set.pth"
    path.write_bytes(b"\x80\x02.")
    with pytest.raises(SourceError, match=r"no file that torch\.save has written"):
        open_image_set(path, REAL, 1)
    save_tensors(path, (IMAGES, LABELS))
    monkeypatch.setattr(tensor_files, "MAX_BYTES", 10)
    with pytest.raises(SourceError, match="accepted: at most 10"):
        open_image_set(path, REAL, 1)


def test_a_subset_has_its_own_numbers(saved: Make) -> None:
    found = open_image_set(saved((IMAGES[:4], LABELS[:4] % 2)), REAL, 1, subset=["Ankle boot", "Dress"])
    assert levels(found) == {0: [10, 20, 40], 1: [30]} and found.classes == ["Ankle boot", "Dress"]
