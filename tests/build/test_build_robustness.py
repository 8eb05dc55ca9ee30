"""Builds where images cannot be read or memory runs out, and the files of finished chunks."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torchvision.datasets import ImageFolder

from d3hr_datasets import Artifact
from d3hr_datasets.build.build import build_artifact
from d3hr_datasets.build.chunks import load_tensors
from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from d3hr_datasets.errors import ConfigError, StatisticsError, UnreadableImageError
from tests.support.tampering import flip_byte
from tests.support.tiny import TinyImages, tiny_info, tiny_model


@pytest.fixture(scope="module")
def model() -> LatentDiffusion:
    return tiny_model()


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Return a folder of the tiny images, of which two cannot be read."""
    for index in range(12):
        image, label = TinyImages()[index]
        (tmp_path / "images" / str(label)).mkdir(parents=True, exist_ok=True)
        image.save(tmp_path / "images" / str(label) / f"{index:02d}.png")
    for name in ("0/06.png", "2/11.png"):
        (tmp_path / "images" / name).write_bytes(b"no image")
    return tmp_path / "images"


def _build(model: LatentDiffusion, images: Path, **options: Any) -> Artifact:
    options = {"batch_size": 3, "chunk_size": 4, "progress": False, **options}
    source = options.pop("source", None) or ImageFolder(str(images))
    folder = images.parent
    return build_artifact(
        source, model, folder / "artifact", tiny_info(dtype="float32"), folder / "work", **options
    )


def test_unreadable_images_are_left_out_on_record(model: LatentDiffusion, images: Path) -> None:
    with pytest.raises(UnreadableImageError, match=r"image 2 .*06\.png\) cannot be read: Unidentified"):
        _build(model, images)
    with pytest.raises(UnreadableImageError, match=r"more than 1 .*11\.png"):
        _build(model, images, skip_unreadable=1)
    assert not (images.parent / "artifact").exists()
    artifact = _build(model, images, skip_unreadable=2)
    reason = "UnidentifiedImageError: cannot identify image file"
    expected = [{"image": "0/06.png", "reason": reason}, {"image": "2/11.png", "reason": reason}]
    assert artifact.info.source["unreadable"] == expected and artifact.info.counts == (3, 4, 3)
    again = _build(model, images, skip_unreadable=5)
    assert again.sha256 == artifact.sha256 and again.info == artifact.info
    with pytest.raises(UnreadableImageError, match=r"06\.png"):  # the finished chunk does not hide it
        _build(model, images)


def test_mended_image_is_read(model: LatentDiffusion, images: Path) -> None:
    assert _build(model, images, skip_unreadable=2).info.counts == (3, 4, 3)
    for index, name in ((6, "0/06.png"), (11, "2/11.png")):
        TinyImages()[index][0].save(images / name)
    artifact = _build(model, images, skip_unreadable=2)
    assert artifact.info.counts == (4, 4, 4) and "unreadable" not in artifact.info.source


def test_replaced_image_makes_its_chunk_anew(model: LatentDiffusion, images: Path) -> None:
    before = _build(model, images, skip_unreadable=2)
    TinyImages()[11][0].resize((20, 20)).save(images / "1" / "04.png")
    after = _build(model, images, skip_unreadable=2)
    assert before.info.source["fingerprint"] != after.info.source["fingerprint"]


def test_an_image_of_the_same_size_makes_its_chunk_anew(
    model: LatentDiffusion, images: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good = TinyImages()[6][0]
    good.save(images / "0/06.png")
    restored = (images / "0/06.png").read_bytes()
    (images / "0/06.png").write_bytes(b"?" + restored[1:])
    assert _build(model, images, skip_unreadable=2).info.counts == (3, 4, 3)
    (images / "0/06.png").write_bytes(restored)
    os.utime(images / "0/06.png", ns=(1, 1))  # file systems count time coarsely
    artifact = _build(model, images, skip_unreadable=2)
    assert [entry["image"] for entry in artifact.info.source["unreadable"]] == ["2/11.png"]
    assert artifact.info.counts == (4, 4, 3) and "files that have changed since" in caplog.text


@pytest.mark.parametrize("error", [RuntimeError, NotImplementedError, AttributeError])
def test_whatever_a_plug_in_raises_is_an_unreadable_image(
    error: type[Exception], model: LatentDiffusion, images: Path
) -> None:
    class Damaged(TinyImages):
        def __getitem__(self, index: int) -> Any:
            if index == 7:
                raise error("of a decoder")
            return super().__getitem__(index)

    with pytest.raises(
        UnreadableImageError, match=rf"image 7 cannot be read: {error.__name__}: of a decoder"
    ):
        _build(model, images, source=Damaged())
    artifact = _build(model, images, source=Damaged(), skip_unreadable=1)
    assert artifact.info.counts == (4, 3, 4)


def test_a_work_folder_that_cannot_be_made_is_refused(model: LatentDiffusion, images: Path) -> None:
    (images.parent / "work").write_text("a file")
    with pytest.raises(ConfigError, match="work for finished chunks cannot be made"):
        _build(model, images, source=TinyImages())


def test_batches_are_halved_while_modes_are_sought(
    model: LatentDiffusion, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = model.encode

    def small(batch: torch.Tensor, *rest: Any) -> torch.Tensor:
        if len(batch) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")
        return encode(batch, *rest)

    monkeypatch.setattr(model, "encode", small)
    info = tiny_info(dtype="float32", num_modes=2)
    folder = images.parent
    artifact = build_artifact(
        TinyImages(), model, folder / "artifact", info, folder / "work", batch_size=8, progress=False
    )
    assert artifact.info.counts == (4, 4, 4) and artifact.info.num_modes == 2


def test_classes_of_one_image_are_refused_before_any_is_read(model: LatentDiffusion, images: Path) -> None:
    class Few(TinyImages):
        targets = [0] * 6 + [1] * 5 + [2]

        def __getitem__(self, index: int) -> Any:
            raise AssertionError("read")

    with pytest.raises(StatisticsError, match=r"class labels \[2\] \(cat\) have fewer than two"):
        _build(model, images, source=Few())
    Few.targets = [0] * 11 + [7]
    with pytest.raises(ConfigError, match="image 11 has class label 7; accepted: 0 to 2"):
        _build(model, images, source=Few())


@pytest.mark.parametrize(("most", "batches"), [(2, [4, 2, 2, 2, 2, 2, 2]), (0, [4, 2, 1])])
def test_batches_are_halved_when_memory_runs_out(
    most: int, batches: list[int], model: LatentDiffusion, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    encode = model.encode

    def small(images: torch.Tensor, *rest: Any) -> torch.Tensor:
        sizes.append(len(images))
        if len(images) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")
        return encode(images, *rest)

    monkeypatch.setattr(model, "encode", small)
    options: dict[str, Any] = {"source": TinyImages(), "batch_size": 4}
    if most:
        assert _build(model, images, **options).info.counts == (4, 4, 4)
    else:
        with pytest.raises(ConfigError, match="not even one image"):
            _build(model, images, **options)
    assert sizes == batches


def test_chunk_with_a_changed_byte_is_made_again(model: LatentDiffusion, images: Path) -> None:
    expected = _build(model, images, source=TinyImages())
    for path in (images.parent / "work").glob("*.safetensors"):
        flip_byte(path, -9)
    assert _build(model, images, source=TinyImages()).sha256 == expected.sha256


def test_centroids_with_a_changed_byte_are_sought_again(model: LatentDiffusion, images: Path) -> None:
    folder = images.parent
    info = tiny_info(dtype="float32", num_modes=2)

    def build() -> dict[str, str]:
        work = folder / "work"
        return build_artifact(TinyImages(), model, folder / "artifact", info, work, progress=False).sha256

    expected = build()
    (path,) = (folder / "work").glob("*-modes.safetensors")
    copy = Path(shutil.copy(path, folder / "sound.safetensors"))
    flip_byte(path)
    assert load_tensors(path) is None
    for chunk in (folder / "work").glob("*[0-9].safetensors"):
        chunk.unlink()
    assert build() == expected
    again, sound = load_tensors(path), load_tensors(copy)
    assert again is not None and sound is not None
    # Not the bytes of the files: safetensors writes its notes in any order.
    assert again[1] == sound[1] and torch.equal(again[0]["centroids"], sound[0]["centroids"])


def test_chunks_store_only_the_classes_they_have(model: LatentDiffusion, images: Path) -> None:
    class Sorted(TinyImages):
        def __getitem__(self, index: int) -> Any:
            return super().__getitem__(index % 4 * 3 + index // 4)

    _build(model, images, source=Sorted())
    rows = []
    for path in sorted((images.parent / "work").glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            rows.append(file.get_tensor("rows").tolist())
            assert file.get_slice("400.mean").get_shape() == [1, 3, 4, 4]
            assert json.loads(file.metadata()["d3hr"])["unreadable"] == []
    assert rows == [[0], [1], [2]]


def test_images_that_are_no_images_are_refused(model: LatentDiffusion, images: Path) -> None:
    class Tensors(TinyImages):
        def __getitem__(self, index: int) -> Any:
            return torch.zeros(1, 14, 14), index % 3

    with pytest.raises(ConfigError, match="image 0 is a Tensor; accepted: PIL images"):
        _build(model, images, source=Tensors())
