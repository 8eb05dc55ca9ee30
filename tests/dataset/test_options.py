"""The options that are given by name: the same for every class, and no other."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest

from d3hr_datasets import D3HRDataset, D3HRFashionMNIST, D3HRImageNet
from d3hr_datasets.dataset.fresh_groups import FreshGroups
from d3hr_datasets.dataset.images_on_demand import ImagesOnDemand
from d3hr_datasets.dataset.options import SetOptions


def test_the_options_are_those_that_are_taken() -> None:
    kinds = (ImagesOnDemand, FreshGroups)
    parameters = [p for kind in kinds for p in inspect.signature(kind.__init__).parameters.values()]
    taken = {parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}
    assert taken == set(SetOptions.__optional_keys__)
    assert all(f"        {name}: " in str(D3HRDataset.__doc__) for name in taken)


@pytest.mark.parametrize("kind", [D3HRFashionMNIST, D3HRImageNet])
def test_an_unknown_option_is_named_before_anything_is_looked_up(kind: Any, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=rf"{kind.__name__} got an unexpected keyword argument 'guidance'"):
        kind(tmp_path, guidance=3.0)
    with pytest.raises(TypeError, match="unexpected keyword argument 'guidance'"):
        D3HRDataset(tmp_path / "nowhere", guidance=3.0)  # type: ignore[call-arg]
