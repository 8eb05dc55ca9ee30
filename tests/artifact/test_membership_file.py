"""A file of a membership that is damaged is refused by what is wrong with it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from d3hr_datasets.artifact.membership import Member, count_members, read_membership, write_membership
from d3hr_datasets.errors import ConfigError


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: {"membership.label": t["membership.label"].double()}, "label is torch.float64"),
        (lambda t: {"membership.label": t["membership.label"] - 5}, "label has -5"),
        (lambda t: {"membership.mode": t["membership.mode"] - 1}, "mode has -1"),
        (lambda t: {"membership.copies": t["membership.copies"] * 0}, "copies has 0"),
        (lambda t: {"membership.digest": t["membership.digest"].flip(0)}, "rows are not ascending"),
        (lambda t: {name: t[name][[0, 0, 1]] for name in t if "forg" not in name}, "rows are not ascending"),
        (lambda t: {"membership.forgotten": t["membership.digest"].flip(0)}, "forgotten digests are not"),
    ],
)
def test_a_membership_that_is_damaged_is_refused(change: Any, said: str, tmp_path: Path) -> None:
    path = tmp_path / "m"
    members = [Member(bytes([number]) * 32, number % 3, 0) for number in range(5)]
    write_membership(path, count_members(members, "0" * 64, b"key"))
    with safe_open(path, framework="pt") as file:
        notes = file.metadata()
    tensors = load_file(path)
    assert len(read_membership(path).members) == 5
    path.unlink()
    save_file({name: one.contiguous() for name, one in {**tensors, **change(tensors)}.items()}, path, notes)
    with pytest.raises(ConfigError, match=f"no file of a membership.*{said}"):
        read_membership(path)


@pytest.mark.parametrize(
    "notes",
    ["[" * 200_000, "[]", '{"moments": "0", "key": "0"}'],
)
def test_notes_of_a_membership_that_are_damaged_are_refused(notes: str, tmp_path: Path) -> None:
    path = tmp_path / "m"
    write_membership(path, count_members([Member(b"0" * 32, 0, 0)], "0" * 64, b"key"))
    tensors = load_file(path)
    path.unlink()
    save_file(tensors, path, {"d3hr": notes})
    with pytest.raises(ConfigError, match="no file of a membership"):
        read_membership(path)


@pytest.mark.parametrize("change", [{"torch_dtype": "int8"}, {"torch_dtype": 1}, {"shrinkage": 2}])
def test_how_a_build_was_noted_is_checked(change: dict[str, Any], tmp_path: Path) -> None:
    found = count_members([Member(b"0" * 32, 0, 0)], "0" * 64, b"key")
    write_membership(tmp_path / "m", dataclasses.replace(found, **change))
    with pytest.raises(ConfigError, match=f"no file of a membership.*{next(iter(change))} is"):
        read_membership(tmp_path / "m")
