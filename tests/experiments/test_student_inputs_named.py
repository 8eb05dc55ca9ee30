"""Data sets that are known by name are not folders of that name, and errors reach other processes."""

from __future__ import annotations

import pickle
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from d3hr_datasets.cache.set_json import OtherFormatError
from d3hr_datasets.experiments.student_inputs import fingerprints
from d3hr_datasets.image_sets.real_images import check_splits
from d3hr_datasets.students import accelerator
from tests.support.tiny_students import student


@pytest.mark.parametrize("name", ["fashion-mnist", "cifar10", "cifar100"])
def test_a_folder_of_the_name_of_a_data_set_is_not_looked_at(name: str, real: Path, tmp_path: Path) -> None:
    for part in ("train/a", "val/b"):  # different classes
        Path(name, part).mkdir(parents=True)
    settings = student(real, tmp_path, dataset=name)
    try:
        assert not [key for key in fingerprints(settings) if key.startswith("real")]
        check_splits(name)
    finally:
        for part in ("train/a", "val/b", "train", "val", ""):
            Path(name, part).rmdir()


def test_an_error_of_a_cache_can_be_sent_to_another_process() -> None:
    for sealed in (False, True):
        error = pickle.loads(pickle.dumps(OtherFormatError("a set of format 9", sealed=sealed)))
        assert (str(error), error.sealed) == ("a set of format 9", sealed)


def test_processes_wait_as_long_as_the_slowest_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr("accelerate.Accelerator", lambda **options: given.update(options))
    accelerator.default_accelerator("bf16")
    (patience,) = given["kwargs_handlers"]
    assert given["mixed_precision"] == "bf16" and patience.timeout >= timedelta(days=7)
