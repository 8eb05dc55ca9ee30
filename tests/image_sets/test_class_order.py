"""Names of folders and labels -> real labels: what is certain, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from d3hr_datasets.classes.class_list import ClassList
from d3hr_datasets.errors import ConfigError, SourceError
from d3hr_datasets.image_sets.opening import open_image_set
from tests.image_sets.making import REAL, levels, save_folder

IN_ORDER = {0: [10], 1: [20], 2: [30]}


@pytest.mark.parametrize(
    "names",
    [
        ["T-shirt_top", "Dress", "Ankle boot"],  # sorted: Ankle boot, Dress, T-shirt
        ["000-T_shirt_top", "001-Dress", "002-Ankle_boot"],
        ["t-shirt_top", "dress", "ankle_boot"],
        ["0", "1", "2"],
        ["00000", "00001", "00002"],
        ["new000", "new001", "new002"],
        ["class_0", "class_1", "class_2"],
    ],
)
def test_folders_are_named_by_real_classes_or_real_labels(names: list[str], tmp_path: Path) -> None:
    found = open_image_set(save_folder(tmp_path / "set", names), REAL, 1)
    assert levels(found) == IN_ORDER
    assert found.classes == list(REAL.names) and found.wnids is None


def test_numbers_are_read_as_numbers(tmp_path: Path) -> None:
    """Sorted as text, "10" comes before "2"."""
    real = ClassList(tuple(f"thing {letter}" for letter in "abcdefghijkl"))
    found = open_image_set(save_folder(tmp_path / "set", [str(label) for label in range(12)]), real, 1)
    assert levels(found) == {label: [10 * (label + 1)] for label in range(12)}


def test_wordnet_ids_are_names(tmp_path: Path) -> None:
    real = ClassList(("tench", "cat", "bee"), ("n01440764", "n02123045", "n02206856"))
    found = open_image_set(save_folder(tmp_path / "set", ["n02206856", "n01440764", "n02123045"]), real, 1)
    assert levels(found) == {2: [10], 0: [20], 1: [30]}
    assert found.wnids == ["n01440764", "n02123045", "n02206856"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["shirt", "Dress", "Ankle boot"], r"1 of 3 classes are not certainly.*'shirt'.*class_order='same'"),
        (["1", "2", "3"], r"not certainly.*class_order='same'"),
        (["a0", "b1", "a2"], "not certainly"),
        (["0", "1", "Ankle boot"], "not certainly"),
        (["9" * 50, "1", "0"], "not certainly"),
        (["0", "00", "1", "2"], "are all 'T-shirt/top'"),
        (["Dress", "dress", "T-shirt_top", "Ankle boot"], "'Dress', 'dress' are all 'Dress'"),
        (["0", "2"], r"no image of 1 of 3 classes: 'Dress'.*subset"),
    ],
)
def test_what_is_not_certain_is_refused(names: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=message):
        open_image_set(save_folder(tmp_path / "set", names), REAL, 1)


def test_names_and_numbers_that_differ_are_refused(tmp_path: Path) -> None:
    real = ClassList(("1", "2", "other"))  # label 0 is called "1"
    with pytest.raises(SourceError, match="not certainly"):
        open_image_set(save_folder(tmp_path / "set", ["0", "1", "2"]), real, 1)


def test_the_user_can_say_that_the_order_is_the_same(tmp_path: Path) -> None:
    folder = save_folder(tmp_path / "set", ["c_first", "d_second", "e_third"])
    assert levels(open_image_set(folder, REAL, 1, class_order="same")) == IN_ORDER


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["Ankle boot", "a", "b"], "'Ankle boot' label 0, but it is the name of label 2"),
        (["a", "b"], "2 classes, the real data set 3"),
        (["8", "9", "10"], "another one by number"),
    ],
)
def test_the_user_is_told_where_the_order_is_not_the_same(
    names: list[str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(SourceError, match=message):
        open_image_set(save_folder(tmp_path / "set", names), REAL, 1, class_order="same")


def test_a_subset_has_labels_of_its_own(tmp_path: Path) -> None:
    folder = save_folder(tmp_path / "set", ["T-shirt_top", "Dress", "Ankle boot"])
    found = open_image_set(folder, REAL, 1, subset=["Ankle boot", "T-shirt/top"])
    assert levels(found) == {0: [30], 1: [10]}
    assert found.classes == ["Ankle boot", "T-shirt/top"]
    assert "1 images of classes that are not in the subset are left out" in "\n".join(found.notes)


def test_a_set_of_fewer_classes_is_opened_as_that_subset(tmp_path: Path) -> None:
    folder = save_folder(tmp_path / "set", ["Dress", "Ankle boot"])
    assert levels(open_image_set(folder, REAL, 1, subset=["Dress", 2])) == {0: [10], 1: [20]}


@pytest.mark.parametrize(("option", "value"), [("channels", 2), ("class_order", "other")])
def test_options_are_checked(option: str, value: object, tmp_path: Path) -> None:
    folder = save_folder(tmp_path / "set", ["0", "1", "2"])
    options: dict[str, object] = {"channels": 1, option: value}
    with pytest.raises(ConfigError, match=f"{option} must be one of"):
        open_image_set(folder, REAL, **options)  # type: ignore[arg-type]
