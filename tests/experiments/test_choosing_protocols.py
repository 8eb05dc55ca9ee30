"""A protocol, a data set and a number of images per class give the settings of a student."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from d3hr_datasets.errors import ConfigError, SourceError, UnreadableImageError
from d3hr_datasets.experiments.protocol_files import choose_protocol, protocol_names
from d3hr_datasets.image_sets.own_data_sets import measure_images


def test_packaged_protocols_are_found_by_name() -> None:
    assert protocol_names() == ["d3hr", "dc", "dsa", "igd", "minimax", "rded", "soft", "teacher"]
    chosen = choose_protocol("dc", "fashion-mnist", 10, {"seed": 3, "milestones": [0.25]})
    settings = chosen.settings()
    assert chosen.notes == ()
    assert (settings.ipc, settings.seed, settings.epochs, settings.milestones) == (10, 3, 300, [0.25])
    teacher = choose_protocol("teacher", "fashion-mnist", 10, {}).settings()
    assert (teacher.source, teacher.ipc) == ("whole", 0)


@pytest.mark.parametrize(("ipc", "epochs"), [(1, 2000), (9, 2000), (20, 400), (500, 80)])
def test_other_numbers_of_images_take_the_next_smaller_settings(ipc: int, epochs: int) -> None:
    chosen = choose_protocol("soft", "fashion-mnist", ipc, {})
    assert (chosen.settings().ipc, chosen.settings().epochs) == (ipc, epochs)
    assert len(chosen.notes) == (0 if ipc == 1 else 1)
    assert all(f"for {ipc} images per class" in note for note in chosen.notes)


def test_what_is_not_known_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'rded'"):
        choose_protocol("rdde", "cifar10", 10, {})
    with pytest.raises(ConfigError, match="no settings for 'mnist'; accepted: cifar10, fashion-mnist, or"):
        choose_protocol("dc", "mnist", 10, {})
    with pytest.raises(ConfigError, match="unknown settings"):
        choose_protocol("dc", "cifar10", 10, {"epoch": 1}).settings()
    with pytest.raises(SourceError, match="has no folder train"):
        choose_protocol("dc", str(tmp_path), 10, {})


def test_own_images_are_measured(real: Path, tmp_path: Path) -> None:
    chosen = choose_protocol("soft", str(real), 2, {})
    settings = chosen.settings()
    assert (settings.image_size, settings.channels, settings.dataset) == (12, 3, str(real))
    assert settings.teacher == "" and "settings of fashion-mnist" in chosen.notes[0]
    # A third of the pixels of a channel is 255, the others 40, 60, 80, 100.
    values = np.array([255, 255, 255, 255, *[40, 60, 80, 100] * 2]) / 255
    assert settings.mean == [round(values.mean(), 4)] * 3
    assert settings.std == [round(values.std(), 4)] * 3
    for name in ("a", "b"):
        (tmp_path / "train" / name).mkdir(parents=True)
        Image.new("L", (40, 33), 51).save(tmp_path / "train" / name / "0.png")
    assert measure_images(tmp_path) == {"image_size": 33, "channels": 1, "mean": [0.2], "std": [1e-4]}


def test_test_images_of_own_data_are_resized_as_the_protocol_does(real: Path) -> None:
    settings = choose_protocol("d3hr", str(real), 10, {"image_size": 224}).settings()
    assert (settings.image_size, settings.resize) == (224, 256)
    teacher = choose_protocol("teacher", str(real), 0, {}).settings()
    assert teacher.export == f"runs/teachers/{real.name}"


def test_another_student_has_arguments_of_its_own() -> None:
    plain = choose_protocol("dc", "fashion-mnist", 10, {}).settings()
    assert plain.student_args == {"first_padding": 3}
    assert choose_protocol("dc", "fashion-mnist", 10, {"student": "resnet18"}).settings().student_args == {}
    given = {"student": "convnet4", "student_args": {"width": 8}}
    assert choose_protocol("dc", "fashion-mnist", 10, given).settings().student_args == {"width": 8}


def test_more_than_eight_bits_are_refused(tmp_path: Path) -> None:
    (tmp_path / "train" / "a").mkdir(parents=True)
    Image.fromarray(np.full((8, 8), 40000, np.uint16)).save(tmp_path / "train" / "a" / "0.png")
    with pytest.raises(UnreadableImageError, match=r"a/0\.png.*more than 8 bits"):
        measure_images(tmp_path)
