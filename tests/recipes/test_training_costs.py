"""Packaged settings of trainings say what they cost, as it is computed from their sizes."""

from __future__ import annotations

import re

import pytest

from recipes.tables.training_costs import (
    CONFIGS,
    IMAGES,
    Operations,
    cost_lines,
    count_operations,
    with_costs,
)

NAMES = sorted(path.name for path in CONFIGS.glob("*.yaml"))


@pytest.fixture(scope="module")
def operations() -> dict[str, Operations]:
    return count_operations()


def test_a_pass_is_that_of_the_paper_of_dit(operations: dict[str, Operations]) -> None:
    assert operations["labels"].forward / 2 == pytest.approx(
        118.6e9, rel=0.01
    )  # it counts a multiply-add as one


@pytest.mark.parametrize("name", NAMES)
def test_headers_are_up_to_date(name: str, operations: dict[str, Operations]) -> None:
    assert (CONFIGS / name).read_text(encoding="utf-8") == with_costs(CONFIGS / name, operations)


def test_hours_follow_from_the_sizes(operations: dict[str, Operations]) -> None:
    text = cost_lines(CONFIGS / "cifar10.yaml", operations)
    found = re.search(r"([0-9.]+) hours", text)
    assert found is not None
    one = operations["labels"]
    training = 50_000 * (400 * 3 * one.forward + one.encode)
    assert float(found[1]) == pytest.approx(training / (0.4 * 989e12) / 3600, rel=0.05)


def test_every_header_says_source_and_command() -> None:
    for name in NAMES:
        head = (CONFIGS / name).read_text(encoding="utf-8").split("\n\n")[0]
        assert "# Source:" in head or "base:" in head, name
        assert "train diffusion" in head or "Shared by" in head, name
    assert set(IMAGES) == {
        "torchvision:CIFAR10",
        "torchvision:CIFAR100",
        "tiny-imagenet-200/train",
        "images",
        "fashion-mnist",
    }
