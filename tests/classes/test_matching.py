"""Classes of a source become the model's, by lists and maps of them; what is not certain is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from d3hr_datasets.classes.class_list import ClassList
from d3hr_datasets.classes.matching import match_classes, read_class_list, read_class_map
from d3hr_datasets.errors import ConfigError
from tests.support.sources import MODEL, NAMES


def test_classes_match_by_name_or_wnid() -> None:
    named = ClassList(("tench, Tinca tinca", "goldfish", "Great_White shark"), ("n1", "n2", "n3"))
    for source in (
        ("Tench", "great white shark", "goldfish"),
        ("n1", "n3", "n2"),
        ("tinca tinca", "n3", "goldfish"),
    ):
        assert match_classes(source, named, 3) == (named, {0: 0, 1: 2, 2: 1})


@pytest.mark.parametrize(
    ("source", "model", "options", "said"),
    [
        (("ant", "bee", "cat"), MODEL, {}, "1 of 3 classes .* 'bee'.*--class-map"),
        (("ant", "Ant", "cat"), MODEL, {}, "several classes of the source are the model's 'ant'"),
        (("ant", "cat", "dog"), ClassList(("crane", "crane, bird", "cat")), {}, "'ant', 'dog'"),
        (("crane",), ClassList(("crane, bird", "crane, machine")), {}, "2 classes|not certainly"),
        (NAMES, None, {}, "--class-list"),
        (NAMES, ClassList(("a", "b")), {}, "has 2 classes, the model 3"),
        (("cat", "bee_wasp", "ant"), MODEL, {"same_order": True}, "label 0 of the source is 'cat'.*label 2"),
        (("a", "b"), MODEL, {"same_order": True}, "source has 2 classes, the model 3"),
        (None, None, {"same_order": True}, "neither"),
        (NAMES, MODEL, {"class_map": {"ant": 0, "bee_wasp": 1}}, "lacks 'cat'"),
        (NAMES, MODEL, {"class_map": {"ant": 0, "bee_wasp": 1, "cat": 2, "dog": 0}}, "has no 'dog'"),
        (NAMES, MODEL, {"class_map": {"ant": 3, "bee_wasp": 1, "cat": 2}}, "'ant': 3; accepted.*0 to 2"),
        (NAMES, MODEL, {"class_map": {"ant": True, "bee_wasp": 1, "cat": 2}}, "'ant': True"),
        (NAMES, MODEL, {"class_map": {}, "same_order": True}, "not both"),
    ],
)
def test_classes_that_are_not_certain_are_refused(source: Any, model: Any, options: Any, said: str) -> None:
    num_classes = 2 if source == ("crane",) else 3
    with pytest.raises(ConfigError, match=said):
        match_classes(source, model, num_classes, **options)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[", "cannot be read as JSON"),
        ('["a", "a"]', "twice"),
        ('{"0": "a", "2": "b"}', "0 to 1, each once"),
        ("[1]", "list of names"),
        ('{"names": ["a"], "wnids": []}', "wnids"),
        ("3", "list of names"),
    ],
)
def test_class_lists_that_are_none_are_refused(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text(text)
    with pytest.raises(ConfigError, match=said):
        read_class_list(str(tmp_path / "list.json"))


def test_class_lists_and_maps_are_read(tmp_path: Path) -> None:
    path = tmp_path / "list.json"
    for values in (["a", "b"], {"1": "b", "0": "a"}, {"names": ["a", "b"], "wnids": ["n1", "n2"]}):
        path.write_text(json.dumps(values))
        assert read_class_list(str(path)).names == ("a", "b")
    assert len(read_class_list("imagenet").names) == 1000
    with pytest.raises(ConfigError, match=r"accepted:.*cifar10"):
        read_class_list("cifar11")
    with pytest.raises(ConfigError, match="no JSON object"):
        path.write_text("[]")
        read_class_map(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_class_map(tmp_path / "missing.json")
