"""`d3hr list`."""

from __future__ import annotations

import pytest

import d3hr_datasets
from d3hr_datasets.classes.class_list import ClassList
from d3hr_datasets.dataset.artifact_registry import REGISTRY, RegistryRow
from tests.cli.test_cli import d3hr, succeed


def test_every_name_is_listed_with_what_is_known() -> None:
    rows = {row["name"]: row for row in succeed("list")}
    assert list(rows) == sorted(REGISTRY)
    for name, row in rows.items():
        assert row["num_classes"] == len(ClassList.packaged(name).names)
        assert row["num_images"] == REGISTRY[name].num_images
        assert getattr(d3hr_datasets, row["class"]).registry_name == name
    assert rows["fashion-mnist"]["image_size"] == 28 and rows["fashion-mnist"]["ready"] == "embedded"
    assert rows["imagenet"]["image_size"] is None and rows["imagenet"]["ready"] == "not published"


def test_people_get_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    published = RegistryRow("cifar10", None, "org/d3hr-cifar10", "a" * 40, 50_000, sha256="b" * 64)
    monkeypatch.setitem(REGISTRY, "cifar10", published)
    result = d3hr("list")
    assert result.exit_code == 0 and result.stderr == ""
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["name", "classes", "pixels", "stands", "for", "class", "ready"]
    assert lines[1].split()[:3] == ["cifar10", "10", "?"]
    assert lines[1].endswith("org/d3hr-cifar10@" + "a" * 40)
    (fashion,) = [line for line in lines if line.startswith("fashion-mnist")]
    assert fashion.split("  ")[0] == "fashion-mnist" and "28 x 28" in fashion
    assert "60,000 images" in fashion and fashion.endswith("D3HRFashionMNIST  embedded")
    assert len({line.index(cell) for line, cell in zip(lines[1:], ("D3HR",) * 5, strict=True)}) == 1
