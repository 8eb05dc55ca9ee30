"""timm's own way: its data sets and loader on exports."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from d3hr_datasets import D3HRDataset
from d3hr_datasets.dataset.export import export_image_folder, export_parquet
from recipes.common.errors import RecipeError
from recipes.train.with_timm import train


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # timm's
@pytest.mark.parametrize("form", ["folder", "hfds"])
def test_timm_trains_on_exports(form: str, tiny_artifact: Path, tmp_path: Path) -> None:
    dataset = D3HRDataset(tiny_artifact, tmp_path / "root", 4, device="cpu")
    export = export_image_folder if form == "folder" else export_parquet
    folder = export(dataset, tmp_path / "exported", progress=False)
    name = str(folder) if form == "folder" else f"hfds/{folder}"
    state = torch.random.get_rng_state()
    network, losses = train(name, "convnet3", 14, 1, epochs=8, batch_size=6, root=str(tmp_path / "hf"))
    torch.random.set_rng_state(state)
    assert len(losses) == 8 and losses[-1] < losses[0]
    assert network(torch.zeros(1, 1, 14, 14)).shape == (1, 3)
    with pytest.raises(RecipeError, match=r"a batch of 13 is larger than the 12 images.*nothing would be"):
        train(name, "convnet3", 14, 1, batch_size=13, root=str(tmp_path / "hf"))
