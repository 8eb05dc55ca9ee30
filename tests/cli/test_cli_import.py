"""`d3hr import`: statistics that the reference code saved -> an artifact."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from d3hr_datasets import Artifact
from d3hr_datasets.build.reference_import import TIMESTEPS
from tests.cli.test_cli import fail, succeed
from tests.support.tiny import tiny_pipeline


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with `model` and a JSON object that is no number of images."""
    folder = tmp_path_factory.mktemp("cli-import")
    tiny_pipeline().save_pretrained(folder / "model")
    (folder / "map.json").write_text(json.dumps({"ant": "Ant", "bee_wasp": 1, "cat": "cat"}))
    return folder


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    """Return a folder of statistics in the reference's format."""
    generator = torch.Generator().manual_seed(0)
    for name in ("n1", "n2", "n3"):
        (tmp_path / "statistics").mkdir(exist_ok=True)
        shape = (15, 48)
        values = {
            "mean": torch.randn(shape, generator=generator).half(),
            "variance": torch.rand(shape, generator=generator).half(),
        }
        torch.save(values, tmp_path / "statistics" / f"{name}.pt")
    (tmp_path / "list.json").write_text(json.dumps({"names": ["a", "b", "c"], "wnids": ["n1", "n2", "n3"]}))
    return tmp_path / "statistics"


def _import(scene: Path, folder: Path, *more: Any) -> list[Any]:
    output, classes = folder.parent / "out", folder.parent / "list.json"
    return [
        "import",
        folder,
        "--model",
        scene / "model",
        "--output",
        output,
        "--class-list",
        classes,
        "--counts",
        "1300",
        *more,
    ]


def test_import_takes_the_statistics_of_the_reference(scene: Path, reference: Path) -> None:
    succeed(*_import(scene, reference, "--timestep", 500, "--timestep", 600))
    artifact = Artifact.load(reference.parent / "out")
    artifact.verify()
    inversion = artifact.info.inversion
    assert (inversion.guidance_scale, inversion.noise_timestep, inversion.latent) == (4, "target", "sample")
    assert artifact.info.counts == (1300,) * 3 and artifact.info.wnids == ("n1", "n2", "n3")
    for label, name in enumerate(("n1", "n2", "n3")):
        stored = torch.load(reference / f"{name}.pt", weights_only=True)
        for timestep in (500, 600):
            found, place = artifact.gaussians(timestep, label), TIMESTEPS.index(timestep)
            assert torch.equal(found.mean.flatten(), stored["mean"][place].float())
            assert torch.equal(found.variance.flatten(), stored["variance"][place].float())


def test_import_refuses_what_is_no_such_file(scene: Path, reference: Path) -> None:
    class Run:
        def __reduce__(self) -> Any:
            return print, ("code was run",)

    torch.save({"mean": Run()}, reference / "n2.pt")
    line = fail(1, *_import(scene, reference))
    assert "n2.pt is damaged, or is no file of tensors alone" in line and "code was run" not in line
    (reference / "n2.pt").unlink()
    assert "n2.pt is missing" in fail(1, *_import(scene, reference))
    assert "timestep 400 is not in these" in fail(1, *_import(scene, reference, "--timestep", 400))
    assert "no entry 'n1' or 'a'" in fail(1, *_import(scene, reference, "--counts", scene / "map.json"))
