"""Students of curated images, chosen or by a rule: another order makes another run."""

from __future__ import annotations

from pathlib import Path

import torch

from d3hr_datasets import Budget, GroupSamplingConfig
from d3hr_datasets.artifact import copy_with_budgets
from d3hr_datasets.experiments.student_inputs import fingerprints, run_folder
from tests.support.curated import add_order, save_separate_artifact
from tests.support.tiny_students import student


def test_another_order_makes_another_run_of_those_that_see_it(tmp_path: Path) -> None:
    rule = Budget(2, sampling=GroupSamplingConfig("curated"))
    folder = save_separate_artifact(tmp_path / "artifact").folder
    ruled = copy_with_budgets(add_order(folder), [rule], tmp_path / "ruled").folder

    def runs() -> dict[tuple[str, int], Path]:
        found = {}
        for source, ipc in (("default", 2), ("default", 3), ("curated", 3), ("raw_diffusion", 2)):
            settings = student(Path("x"), tmp_path, source=source, ipc=ipc, seed=5, artifact=str(ruled))
            found[source, ipc] = run_folder(settings, fingerprints(settings))
        return found

    before = runs()
    add_order(ruled, torch.arange(12).repeat(3, 1))
    after = runs()
    same = [key for key in before if before[key] == after[key]]
    assert same == [("default", 3), ("raw_diffusion", 2)]
