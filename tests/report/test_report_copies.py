"""What a report and a card say of near copies: planted ones, leave one out, teachers, what is refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from timm.models import save_for_hf
from torchvision.transforms.v2.functional import pil_to_tensor, to_pil_image

from d3hr_datasets import Artifact, D3HRDataset
from d3hr_datasets.artifact.facts import CARD
from d3hr_datasets.classes.class_list import ClassList
from d3hr_datasets.errors import ConfigError, TeacherError, UnreadableImageError
from d3hr_datasets.publish.card import write_card
from d3hr_datasets.report import copying, write_report
from d3hr_datasets.students.models import create_student
from tests.cli.test_cli import d3hr
from tests.support.tiny import CLASSES, IMAGE_SIZE, TinyImages, save_untrained_artifact

FOLDERS = ("ant", "000-Bee_wasp", "cat")
IPC = 4


def save(folder: Path, images: Sequence[Image.Image], labels: Sequence[int]) -> Path:
    """Save images in the folders of their classes."""
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = folder / FOLDERS[label] / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
    return folder


def noise(number: int, seed: int) -> list[Image.Image]:
    generator = torch.Generator().manual_seed(seed)
    shape = (number, 1, IMAGE_SIZE, IMAGE_SIZE)
    pixels = torch.randint(0, 256, shape, generator=generator).to(torch.uint8)
    return [to_pil_image(image) for image in pixels]


@pytest.fixture(scope="module")
def dataset(tiny_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> D3HRDataset:
    return D3HRDataset(tiny_artifact, tmp_path_factory.mktemp("root"), IPC, device="cpu")


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the images that the tiny artifact was built from."""
    images = [TinyImages()[number] for number in range(12)]
    return save(tmp_path_factory.mktemp("training"), [i for i, _ in images], [label for _, label in images])


@pytest.fixture(scope="module")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return five other images of each class."""
    return save(tmp_path_factory.mktemp("held-out"), noise(15, 1), [n % 3 for n in range(15)])


@pytest.fixture(scope="module")
def copied(dataset: D3HRDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return training images among which are all images that the data set generates."""
    images = [dataset[number] for number in range(len(dataset))]
    pixels = [image for image, _ in images] + noise(30, 2)
    return save(
        tmp_path_factory.mktemp("copied"), pixels, [t for _, t in images] + [n % 3 for n in range(30)]
    )


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a teacher that nobody trained, of images of one channel."""
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("teachers") / "tiny-teacher"
    model = create_student("convnet3", 3, 1, IMAGE_SIZE, {"width": 4})
    data = {"input_size": (1, IMAGE_SIZE, IMAGE_SIZE), "mean": (0.4,), "std": (0.2,)}
    save_for_hf(model, str(folder), {"label_names": list(CLASSES)}, safe_serialization=True, data_config=data)
    return folder


def written(folder: Path) -> tuple[Any, str]:
    """Return the numbers of near copies of a report, and its page."""
    numbers = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return numbers["copies"], (folder / "index.html").read_text(encoding="utf-8")


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
        assert found["exceeds"] and found["num_near"] == found["num_images"] == 12
        assert found["expected"] == pytest.approx(12 / 6)  # below the nearest of five, in each class
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
    assert copies["verdict"].startswith("No more near copies than among held-out images")
    assert not any(found["exceeds"] for found in copies["spaces"]["pixels"].values())
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
    assert "No held-out images were given, so training images were compared with the others" in page
    assert "--held-out" in page
    assert "training images, each compared with the others" in copies["verdict"]
    few = save(tmp_path / "few", [TinyImages()[n][0] for n in range(9)], [n % 3 for n in range(9)])
    write_report(dataset, tmp_path / "of-few", few, progress=False)
    assert "built from 12 images: copies of those that were not given" in written(tmp_path / "of-few")[1]
    write_report(dataset, tmp_path / "of-all", training, progress=False)
    assert "that were not given" not in written(tmp_path / "of-all")[1]


def test_others_pass_through_the_same_vae(
    dataset: D3HRDataset, training: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Tensor] = []

    def flat(_: Any, pixels: torch.Tensor) -> torch.Tensor:
        seen.append(pixels)
        return torch.full_like(pixels, 7)

    monkeypatch.setattr(copying, "reconstruct", flat)
    write_report(dataset, tmp_path / "report", training, held_out=training, progress=False)
    medians = written(tmp_path / "report")[0]["spaces"]["pixels"]["distance"]["medians"]
    pixels = torch.stack([pil_to_tensor(TinyImages()[n][0]).flatten() for n in range(12)]).double()
    nearest = (pixels - 7).square().mean(dim=1).sqrt().min()
    assert medians[1] == pytest.approx(float(nearest))
    assert len(seen[0]) == 12


def test_only_some_images_are_compared_with(
    dataset: D3HRDataset, training: Path, held_out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "MAX_REFERENCE", 6)
    monkeypatch.setattr(copying, "BLOCK", 5)
    write_report(dataset, tmp_path / "report", training, held_out=held_out, progress=False)
    copies, _ = written(tmp_path / "report")
    assert (copies["num_reference"], copies["num_training"]) == (6, 12)


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


def test_the_card_says_what_a_report_found(
    dataset: D3HRDataset, artifact_copy: Path, copied: Path, held_out: Path, tmp_path: Path
) -> None:
    folders: dict[str, dict[str, Any]] = {"told": {"images": copied, "held_out": held_out}, "without": {}}
    for name, options in folders.items():
        write_report(dataset, tmp_path / name, progress=False, **options)

    def card(*options: Any) -> Any:
        return d3hr("card", artifact_copy, "org/tiny", "--root", dataset.root, "--device", "cpu", *options)

    assert card().exit_code == 0
    assert "## Near copies" not in (artifact_copy / CARD).read_text(encoding="utf-8")
    done = card("--report", tmp_path / "told" / "report.json")
    assert done.exit_code == 0, done.output
    text = (artifact_copy / CARD).read_text(encoding="utf-8")
    section = text[text.index("## Near copies") : text.index("## Licences")]
    assert "More near copies of training images than among held-out images" in section
    assert "Of a set of 3 classes, 4 images each. 12 generated images and 15 held-out images" in section
    assert "| pixels, ratio | 12 | 12 | 100 | 16.7 |" in section
    assert text.index("## How it was built") < text.index("## Near copies")
    assert card().exit_code == 0
    assert (artifact_copy / CARD).read_text(encoding="utf-8") == text  # what is there is kept
    for path, message in [
        (tmp_path / "without" / "report.json", "without real images"),
        (tmp_path / "none.json", "cannot be read"),
        (artifact_copy / "d3hr.json", "is no report of this version"),
    ]:
        refused = card("--report", path)
        assert refused.exit_code == 1 and message in refused.stderr, refused.output
    numbers = json.loads((tmp_path / "told" / "report.json").read_text(encoding="utf-8"))
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"fingerprint": "0" * 16}, "is a report on the artifact '0000000000000000', not on this one"),
        ({"copies": {**numbers["copies"], "spaces": {"pixels": {}}}}, "is no report of this version"),
    ]
    for changes, message in wrong:
        (tmp_path / "other.json").write_text(json.dumps({**numbers, **changes}))
        with pytest.raises(ConfigError, match=message):
            write_card(
                Artifact.load(artifact_copy),
                "org/tiny",
                report=tmp_path / "other.json",
                root=dataset.root,
                progress=False,
            )
    assert (artifact_copy / CARD).read_text(encoding="utf-8") == text
