"""A data set of three classes with a model of every kind: built, published, used from the Hub."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from d3hr_datasets import Artifact, D3HRDataset
from d3hr_datasets.diffusion.kinds.flux import Flux
from d3hr_datasets.publish.card import write_card
from d3hr_datasets.publish.upload import publish_artifact
from tests.cli.test_cli import succeed
from tests.support.hub_server import HubServer
from tests.support.tiny_kinds import FLUX_SIDE, PIPELINES, save_kind

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # of the Hub's client
REPO = "org/my-set"


# The latents of "pixart-alpha" have 65,536 numbers: a minute, for the kind of "pixart-sigma".
@pytest.mark.parametrize("name", [name for name in PIPELINES if name != "pixart-alpha"])
def test_images_become_a_data_set_on_the_hub(
    name: str, image_folder: Path, tmp_path: Path, hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Flux, "side", FLUX_SIDE)
    commit = hub.add_folder("org/base", save_kind(name, tmp_path / "model"), "models")
    classes = ("--class-order", "same") if name.startswith("dit") else ("--prompt", "a photo of a {name}")
    given = ("--steps", 4, "--modes", 1, "--batch-size", 8, "--device", "cpu", *classes)
    output = tmp_path / "set"
    succeed("build", image_folder, "--model", f"org/base@{commit}", "--output", output, *given)
    artifact = Artifact.load(output)
    assert (artifact.info.prompts is None) == name.startswith("dit")
    write_card(artifact, REPO, root=tmp_path / "cards", device="cpu", progress=False)
    revision = publish_artifact(Artifact.load(output), REPO, with_model=False).revision
    datasets = [
        D3HRDataset(source, tmp_path / root, ipc=1, device="cpu")
        for source, root in ((output, "here"), (f"{REPO}@{revision}", "from-hub"))
    ]
    here, from_hub = ([np.asarray(dataset[i][0]) for i in range(3)] for dataset in datasets)
    assert [datasets[1][i][1] for i in range(3)] == [0, 1, 2]
    assert np.array_equal(here, from_hub) and len(np.unique(here, axis=0)) == 3
    assert np.ptp(here) > 10
