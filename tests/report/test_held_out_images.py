"""Images that stand out by themselves, and the held-out images they are compared with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision.transforms.v2.functional import pil_to_tensor, to_pil_image

from d3hr_datasets import D3HRDataset
from d3hr_datasets.errors import ConfigError
from d3hr_datasets.report import copying, write_report
from tests.support.copied_images import IPC, noise, save, written
from tests.support.tiny import TinyImages


def test_a_copy_is_named_and_shown_first(
    dataset: D3HRDataset, held_out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of twelve is no more than chance gives, and not to be missed."""
    monkeypatch.setattr(copying, "reconstruct", lambda _, pixels: pixels)
    copied = save(tmp_path / "copied", [dataset[5][0], *noise(30, 2)], [1] + [n % 3 for n in range(30)])
    write_report(dataset, tmp_path / "report", copied, held_out=held_out, progress=False)
    copies, _ = written(tmp_path / "report")
    assert 5 in copies["spaces"]["pixels"]["distance"]["nearest"] and copies["within_vae"] == [5]
    assert copies["pairs"]["pixels"][0]["generated"] == 5
    assert "pixel by pixel" not in copies["verdict"]


def test_named_images_are_shown_before_others(
    dataset: D3HRDataset, training: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever their ratio: the images beside them are those of another seed, and stand out as seldom."""
    monkeypatch.setattr(copying, "reconstruct", lambda _, pixels: pixels)
    monkeypatch.setattr(copying, "SHOWN_PAIRS", 6)
    other = D3HRDataset(dataset.artifact, dataset.root, 20, seed=7, device="cpu")
    images = [other[number] for number in range(len(other))]
    held_out = save(tmp_path / "held-out", [image for image, _ in images], [label for _, label in images])

    def shown(name: str) -> list[int]:
        write_report(dataset, tmp_path / name, training, held_out=held_out, progress=False)
        return [pair["generated"] for pair in written(tmp_path / name)[0]["pairs"]["pixels"]]

    first = shown("first")
    last = min(set(range(3 * IPC)) - set(first))
    monkeypatch.setattr(copying, "within_vae", lambda *_: (last,))
    assert last in shown("named")


def test_what_is_as_near_as_the_vae_allows_is_named(
    dataset: D3HRDataset, held_out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A set whose images are what the VAE makes of training images has them by heart."""

    def by_three(_: Any, pixels: torch.Tensor) -> torch.Tensor:
        return pixels + (2 * (pixels < 128) - 1).to(torch.uint8) * 3

    monkeypatch.setattr(copying, "reconstruct", by_three)
    real, images = noise(30, 2), [dataset[n][0] for n in range(12)]
    near = by_three(None, torch.stack([pil_to_tensor(image) for image in images]))
    for name, others in (("near", near), ("far", near // 2)):
        source = save(
            tmp_path / name,
            [*map(to_pil_image, others), *real],
            [n // IPC for n in range(12)] + [n % 3 for n in range(30)],
        )
        write_report(dataset, tmp_path / f"report-{name}", source, held_out=held_out, progress=False)
    assert len(written(tmp_path / "report-near")[0]["within_vae"]) > 6  # those that come back by 3
    assert written(tmp_path / "report-far")[0]["within_vae"] == []


def test_held_out_images_among_the_training_images_are_counted_or_refused(
    dataset: D3HRDataset, training: Path, held_out: Path, tmp_path: Path
) -> None:
    def report(name: str, images: Any, others: Any) -> Any:
        write_report(dataset, tmp_path / name, images, held_out=others, progress=False)
        return written(tmp_path / name)[0]

    same = TinyImages()
    for images, others in (
        (training, str(training)),
        (str(training), training / ".." / training.name),
        (same, same),
    ):
        with pytest.raises(ConfigError, match="the held-out images are the training images"):
            report("refused", images, others)
    other_place = save(
        tmp_path / "copy",
        [TinyImages()[n][0] for n in range(12)] + noise(6, 5),
        [TinyImages()[n][1] for n in range(12)] + [n % 3 for n in range(6)],
    )
    with pytest.raises(ConfigError, match=r"12 or more of 18 held-out images are training images"):
        report("refused", training, other_place)
    assert not (tmp_path / "refused").exists()
    some = save(tmp_path / "some", noise(13, 1) + noise(2, 2), [n % 3 for n in range(15)])
    real = save(tmp_path / "real", noise(30, 2), [n % 3 for n in range(30)])
    copies = report("some-report", real, some)
    assert copies["num_shared"] == 2
    assert "2 of the 15 held-out images are training images, pixel by pixel" in copies["verdict"]


def test_only_some_images_are_compared_with(
    dataset: D3HRDataset, training: Path, held_out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "BLOCK", 5)
    for enough, of_class, most, expected in [(6, 1, 99, 6), (3, 4, 99, 12), (3, 4, 9, 9), (0, 0, 0, 3)]:
        monkeypatch.setattr(copying, "ENOUGH", enough)
        monkeypatch.setattr(copying, "ENOUGH_OF_CLASS", of_class)
        monkeypatch.setattr(copying, "MAX_REFERENCE", most)
        output = tmp_path / f"report-{expected}"
        write_report(dataset, output, training, held_out=held_out, progress=False)
        copies, _ = written(output)
        assert (copies["num_reference"], copies["num_training"]) == (expected, 12)
