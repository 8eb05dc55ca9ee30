"""What `d3hr build` and `d3hr import` do where nobody says: the frame of the images, modes, the timestep."""

from __future__ import annotations

import json
import logging
import random
from pathlib import Path

import pytest
import torch
from diffusers import DiTPipeline
from PIL import Image

from d3hr_datasets import Artifact
from d3hr_datasets.build.mode_count import choose_num_modes
from d3hr_datasets.build.model_facts import image_frame
from d3hr_datasets.errors import ModelFormatError
from d3hr_datasets.sources.user_datasets import as_images
from tests.cli.test_cli import d3hr, fail
from tests.support.tiny import tiny_info, tiny_pipeline

PER_CLASS = 100


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with models of a frame and of none, and images, `PER_CLASS` of each class."""
    folder = tmp_path_factory.mktemp("defaults")
    for name in ("model", "framed"):
        tiny_pipeline().save_pretrained(folder / name)
    _say_padding(folder / "framed", 1)
    generator = random.Random(0)
    for name in ("ant", "bee", "cat"):
        (folder / "images" / name).mkdir(parents=True)
        for index in range(PER_CLASS):
            image = Image.frombytes("L", (4, 4), generator.randbytes(16)).resize((14, 14))
            image.save(folder / "images" / name / f"{index:03d}.png")
    return folder


def _say_padding(model: Path, padding: object) -> None:
    index = json.loads((model / "model_index.json").read_text())
    (model / "model_index.json").write_text(json.dumps({**index, "_padding": padding}))


def _build(scene: Path, output: Path, *more: object, model: str = "framed") -> tuple[Artifact, str]:
    """Build, and return the artifact and what was said of it."""
    result = d3hr(*_arguments(scene, output, *more, model=model))
    assert result.exit_code == 0, result.output
    lines = [line for line in result.stderr.splitlines() if line.startswith("d3hr: ")]
    return Artifact.load(output), "\n".join(lines)


def _arguments(scene: Path, output: Path, *more: object, model: str = "framed") -> list[object]:
    return [
        "build",
        scene / "images",
        "--model",
        scene / model,
        "--output",
        output,
        "--class-order",
        "same",
        "--timestep",
        0,
        "--steps",
        10,
        "--device",
        "cpu",
        *more,
    ]


def test_image_size_and_frame_are_those_of_the_model(scene: Path, tmp_path: Path) -> None:
    artifact, said = _build(scene, tmp_path / "framed", "--modes", 1)
    assert (artifact.info.image_size, artifact.info.padding, said) == (14, 1, "")
    index = json.loads((tmp_path / "framed" / "model" / "model_index.json").read_text())
    assert index["_padding"] == 1  # the copy says so, too
    artifact, said = _build(scene, tmp_path / "same", "--modes", 1, "--image-size", 14)
    assert (artifact.info.image_size, artifact.info.padding, said) == (14, 1, "")
    artifact, said = _build(scene, tmp_path / "plain", "--modes", 1, model="model")
    assert (artifact.info.image_size, artifact.info.padding, said) == (16, 0, "")


def test_an_explicit_size_wins_and_a_disagreement_is_said(scene: Path, tmp_path: Path) -> None:
    artifact, said = _build(scene, tmp_path / "out", "--modes", 1, "--image-size", 16)
    assert (artifact.info.image_size, artifact.info.padding) == (16, 0)
    assert "--image-size 16 makes a frame of 0 pixels" in said and "trained with one of 1" in said
    assert "images of 14 pixels" in said


@pytest.mark.parametrize("padding", [-1, 8, 1.5, True, "1", [1], 10**30])
def test_a_frame_that_leaves_no_image_is_refused(padding: object, tmp_path: Path) -> None:
    tiny_pipeline().save_pretrained(tmp_path / "model")
    _say_padding(tmp_path / "model", padding)
    with pytest.raises(ModelFormatError, match=r"_padding is .*accepted: the pixels of a frame"):
        image_frame(str(tmp_path / "model"), 16)


def test_diffusers_loads_a_model_that_says_its_frame_without_a_word(scene: Path) -> None:
    said: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    listener, logger = Listener(), logging.getLogger("diffusers")
    logger.addHandler(listener)
    try:
        DiTPipeline.from_pretrained(scene / "framed")
    finally:
        logger.removeHandler(listener)
    assert not [line for line in said if "padding" in line]


def test_modes_are_stored_by_default_and_it_is_said(scene: Path, tmp_path: Path) -> None:
    artifact, said = _build(scene, tmp_path / "out")
    assert artifact.info.num_modes == PER_CLASS // 20 == 5
    assert "5 modes per class are stored: the smallest class, 'ant', has 100 images" in said
    assert "--modes 1 stores none" in said and " MB" in said
    artifact, said = _build(scene, tmp_path / "none", "--modes", 1)
    assert (artifact.info.num_modes, said) == (1, "")
    artifact, said = _build(scene, tmp_path / "two", "--modes", 2)
    assert (artifact.info.num_modes, said) == (2, "")


def test_a_class_of_few_images_stores_none_and_it_is_said(scene: Path, tmp_path: Path) -> None:
    for index in range(PER_CLASS - 1):
        for name in ("ant", "bee", "cat"):
            (tmp_path / "images" / name).mkdir(parents=True, exist_ok=True)
            (tmp_path / "images" / name / f"{index:03d}.png").symlink_to(
                scene / "images" / name / f"{index:03d}.png"
            )
    command = _arguments(scene, tmp_path / "out")
    command[1] = tmp_path / "images"
    result = d3hr(*command)
    assert result.exit_code == 0 and Artifact.load(tmp_path / "out").info.num_modes == 1
    assert "no modes are stored: the smallest class, 'ant', has 99 images" in result.stderr


def test_a_stream_stores_those_that_are_asked_for(scene: Path, tmp_path: Path) -> None:
    import datasets

    labels = datasets.ClassLabel(names=["ant", "bee", "cat"])
    features = datasets.Features({"image": datasets.Image(), "label": labels})
    rows = [
        {"image": {"bytes": path.read_bytes(), "path": None}, "label": label}
        for label, name in enumerate(("ant", "bee", "cat"))
        for path in sorted((scene / "images" / name).iterdir())[:4]
    ]
    table = datasets.Dataset.from_list(rows, features=features)
    table.to_parquet(str(tmp_path / "images.parquet"))
    command = _arguments(scene, tmp_path / "out", "--streaming")
    command[1] = f"datasets:{tmp_path / 'images.parquet'}"
    result = d3hr(*command)
    assert result.exit_code == 0 and Artifact.load(tmp_path / "out").info.num_modes == 1, result.output
    assert "no modes are stored: labels are known only when images are read" in result.stderr
    result = d3hr(*command[:5], tmp_path / "two", *command[6:], "--modes", 2)
    assert result.exit_code == 0 and Artifact.load(tmp_path / "two").info.num_modes == 2, result.output
    line = fail(1, *command[:5], tmp_path / "other", *command[6:], "--modes", 5)
    assert "has 4 images" in line and "to find 5 modes in" in line and "(--modes 1 stores none)" in line


class Labelled:
    """What is known of images before they are read."""

    def __init__(self, counts: tuple[int, ...] | None) -> None:
        self._length = sum(counts or (12,))
        if counts is not None:
            labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
            self.targets = labels[
                torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
            ].tolist()

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        raise AssertionError("no image is read to choose a number")


@pytest.mark.parametrize(
    ("counts", "modes"),
    [
        ((6000, 6000, 6000), 50),
        ((1000, 1000, 1000), 50),
        ((999, 1000, 1000), 49),
        ((100, 100, 100), 5),
        ((100, 100_000, 100_000), 5),
        ((99, 1000, 1000), 1),
        ((1000, 1000, 0), 1),
        (None, 1),
    ],
)
def test_the_number_of_modes_fits_the_smallest_class(counts: tuple[int, ...] | None, modes: int) -> None:
    number, why = choose_num_modes(as_images(Labelled(counts)), tiny_info())
    assert number == modes, why
    assert why.startswith("no modes are stored: " if modes == 1 else f"{modes} modes per class are stored: ")


def test_with_a_tolerance_no_modes_are_stored() -> None:
    number, why = choose_num_modes(as_images(Labelled((6000, 6000, 6000))), tiny_info(), 0.03)
    assert number == 1 and "take up to ten times the images" in why and "--modes 10" in why


def test_import_takes_the_timestep_to_decode_from(scene: Path, tmp_path: Path) -> None:
    (tmp_path / "statistics").mkdir()
    for name in ("ant", "bee_wasp", "cat"):
        values = {"mean": torch.zeros(15, 48), "variance": torch.ones(15, 48)}
        torch.save(values, tmp_path / "statistics" / f"{name}.pt")
    (tmp_path / "list.json").write_text(json.dumps(["ant", "bee/wasp", "cat"]))
    command = [
        "import",
        tmp_path / "statistics",
        "--model",
        scene / "framed",
        "--output",
        tmp_path / "out",
        "--class-list",
        tmp_path / "list.json",
        "--counts",
        "1300",
        "--timestep",
        500,
        "--timestep",
        600,
    ]
    line = fail(1, *command, "--decode-timestep", 520)
    assert "--decode-timestep 520 is not stored; stored: [500, 600]" in line
    for more, timestep in (((), 600), (("--decode-timestep", 500), 500)):
        assert d3hr(*command, *more).exit_code == 0
        info = Artifact.load(tmp_path / "out").info
        assert (info.decode.timestep, info.inversion.timesteps) == (timestep, (500, 600))
        assert (info.image_size, info.padding) == (14, 1)


@pytest.mark.parametrize(
    ("output", "work", "said"),
    [
        ("images/art", None, "is in the folder of the images"),
        ("out", "images/chunks", "give another --work"),
        ("out", "out/chunks", "is in the artifact"),
    ],
)
def test_nothing_is_written_where_it_would_be_taken_for_something_else(
    output: str, work: str | None, said: str, scene: Path
) -> None:
    more = () if work is None else ("--work", scene / work)
    before = sorted(scene.rglob("*"))
    assert said in fail(1, *_arguments(scene, scene / output, *more))
    assert sorted(scene.rglob("*")) == before
