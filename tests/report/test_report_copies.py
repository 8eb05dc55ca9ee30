"""What a report says of near copies: planted ones, leave one out, teachers, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from timm.models import save_for_hf
from torchvision.transforms.v2.functional import pil_to_tensor

from d3hr_datasets import D3HRDataset
from d3hr_datasets.classes.class_list import ClassList
from d3hr_datasets.errors import ConfigError, TeacherError, UnreadableImageError
from d3hr_datasets.report import copying, write_report
from d3hr_datasets.students.models import create_student
from tests.cli.test_cli import d3hr
from tests.support.copied_images import FOLDERS, IPC, noise, save, written
from tests.support.tiny import CLASSES, IMAGE_SIZE, TinyImages, save_untrained_artifact


def test_the_command_tells_copies(
    dataset: D3HRDataset, copied: Path, held_out: Path, teacher: Path, tmp_path: Path
) -> None:
    output = tmp_path / "report"
    command = ["report", dataset.artifact.folder, "--output", output, "--root", dataset.root, "--ipc", IPC]
    command += ["--device", "cpu", "--images", copied, "--held-out", held_out]
    done = d3hr(*command, "--teacher", f"local-dir:{teacher}", "--json")
    assert done.exit_code == 0, done.output
    copies, page = written(output)
    assert json.loads(done.stdout)["copies"] == copies
    assert copies["verdict"].startswith("More near copies of training images than among held-out images")
    assert copies["verdict"] in page and "<strong>More near copies" in page
    assert (copies["reference"], copies["num_training"], copies["num_reference"]) == ("held out", 42, 15)
    assert copies["teacher"] == "tiny-teacher"  # and no folder of this machine
    assert str(teacher) not in page
    for space in ("pixels", "features"):
        found = copies["spaces"][space]["ratio"]
        assert found["odds"]["exceeds"] and found["num_near"] == found["num_images"] == 12
        assert found["odds"]["expected"] == pytest.approx(12 / 6)  # below the nearest of five, in each class
        assert found["odds"]["shares"] == pytest.approx([1 / 6, 1 / 6])
        pairs = copies["pairs"][space]
        assert [pair["ratio"] for pair in pairs] == pytest.approx([0.0] * 10, abs=1e-5)
        for pair in pairs:
            number = int(Path(pair["training"]).stem)
            assert number == pair["generated"], "the training image is the copied one"
            assert pair["class_name"] == CLASSES[number // IPC]
            assert Path(pair["training"]).parent.name == FOLDERS[number // IPC]
        with Image.open(output / f"copies-{space}.png") as sheet:
            assert sheet.size == (5 * (2 * IMAGE_SIZE + 7) + 4, 2 * (IMAGE_SIZE + 6) + 4)
    assert (output / "copies.png").is_file()
    assert "by chance 17 % of images are" in page
    assert page.count('class="missing"') == 0
    assert "No held-out images were given" not in page


def test_an_honest_set_is_not_called_a_copier(
    dataset: D3HRDataset, training: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Held out are images of the same artifact and another seed: nothing tells the two apart."""
    other = D3HRDataset(dataset.artifact, dataset.root, 20, seed=7, device="cpu")
    images = [other[number] for number in range(len(other))]
    held_out = save(tmp_path / "held-out", [i for i, _ in images], [label for _, label in images])
    monkeypatch.setattr(copying, "reconstruct", lambda _, pixels: pixels)  # of the decoder as they are
    write_report(dataset, tmp_path / "report", training, held_out=held_out, progress=False)
    copies, page = written(tmp_path / "report")
    assert copies["verdict"].startswith(
        "Not more near images than chance can explain, beside held-out images"
    )
    assert not any(found["odds"]["exceeds"] for found in copies["spaces"]["pixels"].values())
    assert copies["teacher"] is None and list(copies["spaces"]) == ["pixels"]
    assert "in pixels only, as no teacher was given" in page


def test_without_held_out_images_training_images_are_left_out_one_by_one(
    dataset: D3HRDataset, copied: Path, training: Path, tmp_path: Path
) -> None:
    write_report(dataset, tmp_path / "report", copied, progress=False)
    copies, page = written(tmp_path / "report")
    assert (copies["reference"], copies["num_training"], copies["num_reference"]) == ("leave one out", 42, 42)
    assert copies["num_neighbours"] == 41
    assert copies["spaces"]["pixels"]["ratio"]["num_near"] == 12
    assert copies["spaces"]["pixels"]["ratio"]["odds"] is None
    assert copies["verdict"].startswith("No verdict") and "<strong>No verdict" in page
    assert "No held-out images were given, so training images were compared with the others" in page
    assert "--held-out" in page and "not told" in page
    assert "training images, each compared with the others" in copies["verdict"]
    few = save(tmp_path / "few", [TinyImages()[n][0] for n in range(9)], [n % 3 for n in range(9)])
    write_report(dataset, tmp_path / "of-few", few, progress=False)
    assert "built from 12 images: copies of those that were not given" in written(tmp_path / "of-few")[1]
    write_report(dataset, tmp_path / "of-all", training, progress=False)
    assert "that were not given" not in written(tmp_path / "of-all")[1]


def test_others_pass_through_the_same_vae(
    dataset: D3HRDataset, training: Path, held_out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Tensor] = []

    def flat(_: Any, pixels: torch.Tensor) -> torch.Tensor:
        seen.append(pixels)
        return torch.full_like(pixels, 7)

    monkeypatch.setattr(copying, "reconstruct", flat)
    write_report(dataset, tmp_path / "report", training, held_out=held_out, progress=False)
    medians = written(tmp_path / "report")[0]["spaces"]["pixels"]["distance"]["medians"]
    pixels = torch.stack([pil_to_tensor(TinyImages()[n][0]).flatten() for n in range(12)]).double()
    nearest = (pixels - 7).square().mean(dim=1).sqrt().min()
    assert medians[1] == pytest.approx(float(nearest))
    assert len(seen[0]) == 15


def test_what_cannot_be_compared_is_refused(
    dataset: D3HRDataset, training: Path, held_out: Path, teacher: Path, tmp_path: Path
) -> None:
    def report(images: Any, **options: Any) -> None:
        write_report(dataset, tmp_path / "report", images, progress=False, **options)

    two = save(tmp_path / "two", noise(4, 1), [0, 0, 1, 1])
    with pytest.raises(ConfigError, match="there is no held-out image of the class 'cat'"):
        report(training, held_out=two)
    for options in ({"held_out": held_out}, {"teacher": "embedded:fashion-mnist"}):
        with pytest.raises(ConfigError, match="no images are given"):
            report(None, **options)
    with pytest.raises(TeacherError, match="does not know the classes"):
        report(training, teacher="embedded:fashion-mnist")
    damaged = save(tmp_path / "damaged", noise(6, 1), [n % 3 for n in range(6)])
    path = damaged / "cat" / "02.png"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(UnreadableImageError, match=r"cat.02\.png"):
        report(training, held_out=damaged)
    with pytest.raises(ConfigError, match="no class of the images is one of the artifact"):
        report(training, held_out=save_other(tmp_path / "other"))
    assert not (tmp_path / "report").exists()


def save_other(folder: Path) -> Path:
    (folder / "cow").mkdir(parents=True)
    noise(1, 1)[0].save(folder / "cow" / "0.png")
    return folder


def test_a_teacher_of_other_channels_is_refused_or_gets_them(
    dataset: D3HRDataset, training: Path, teacher: Path, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    model = create_student("convnet3", 3, 3, IMAGE_SIZE, {"width": 4})
    data = {"input_size": (3, IMAGE_SIZE, IMAGE_SIZE), "mean": (0.4,) * 3, "std": (0.2,) * 3}
    names = {"label_names": list(CLASSES)}
    save_for_hf(model, str(tmp_path / "colour"), names, safe_serialization=True, data_config=data)
    of_colour = f"local-dir:{tmp_path / 'colour'}"
    write_report(dataset, tmp_path / "report", training, teacher=of_colour, progress=False)
    assert written(tmp_path / "report")[0]["teacher"] == "colour"
    colour = save_untrained_artifact(tmp_path / "artifact", "tiny", ClassList(CLASSES))
    of_grey = D3HRDataset(colour, tmp_path / "root", 2, device="cpu")
    with pytest.raises(ConfigError, match=r"takes images of 1 channel\(s\), the artifact's have 3"):
        write_report(of_grey, tmp_path / "no", training, teacher=f"local-dir:{teacher}", progress=False)
