"""Builds with models of flow matching, whose times are sigmas, to the Hub and back."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from d3hr_datasets import D3HRDataset
from d3hr_datasets.artifact.facts import artifact_facts
from d3hr_datasets.image_sets.training_set_settings import TrainingSet
from d3hr_datasets.image_sets.training_sets import training_set
from tests.cli.test_cli import d3hr, fail, succeed
from tests.support.hub_server import HubServer
from tests.support.own_photos import assert_same_from_the_hub, build, pixels, save_models
from tests.support.tampering import read_document

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # of the Hub's client


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with models: `text`, `flow` and `dit`."""
    return save_models(tmp_path_factory.mktemp("models"))


def test_a_flow_model_keeps_statistics_at_a_sigma(
    models: Path, image_folder: Path, tmp_path: Path, hub: HubServer
) -> None:
    commit = hub.add_folder("org/base", models / "flow", "models")
    options = ("--class-order", "same", "--timestep", 0.6, "--timestep", 0.35, "--timestep", -1)
    artifact = build(image_folder, f"org/base@{commit}", tmp_path / "set", *options, "--decode-timestep", 0.6)
    info = artifact.info
    assert info.inversion.timesteps == (0.6, 0.35, -1) and info.decode.timestep == 0.6
    assert (info.inversion.grid, info.inversion.shift, info.decode.grid) == ("flow", 1.0, "flow")
    assert len(list((tmp_path / "set.chunks").glob("*.safetensors"))) == 1
    facts = artifact_facts(artifact)
    assert facts["latents"] == "4 x 8 x 8 at sigmas 0.6, 0.35, -1 (flow matching, shift 1)"
    assert facts["decoding"].startswith("from sigma 0.6, 10 steps")
    local = D3HRDataset(artifact.folder, tmp_path / "cache", ipc=2, device="cpu")
    assert "Sigma 0.6" in repr(local)
    assert_same_from_the_hub(artifact, tmp_path, pixels(local))
    default = build(image_folder, models / "flow", tmp_path / "default", "--class-order", "same")
    assert default.info.inversion.timesteps == (0.6,) and read_document(default.folder)["format"] == 2
    report = d3hr(
        "report",
        artifact.folder,
        "--output",
        tmp_path / "report",
        "--images",
        image_folder,
        "--ipc",
        2,
        "--root",
        tmp_path / "cache",
        "--device",
        "cpu",
    )
    assert report.exit_code == 0, report.output
    page = (tmp_path / "report" / "index.html").read_text()
    assert "t = 0.6" in page and "sigmas 0.6, 0.35, -1" in page


@pytest.mark.parametrize(
    ("model", "time", "said"),
    [
        (
            "flow",
            600,
            r"--timestep 600 is none of the model's times, which are sigmas.*between 0 and 1, such as 0.6",
        ),
        ("flow", 1.0, r"--timestep 1.0 is none of the model's times, which are sigmas"),
        (
            "dit",
            0.6,
            r"--timestep 0.6 is none of the model's times, which are timesteps.*from -1 .*to 999, such as",
        ),
    ],
)
def test_a_time_of_another_kind_of_model_is_refused(
    model: str, time: float, said: str, models: Path, image_folder: Path, tmp_path: Path
) -> None:
    given = ("--class-order", "same", "--steps", 10, "--device", "cpu", "--output", tmp_path / "out")
    line = fail(1, "build", image_folder, "--model", models / model, *given, "--timestep", time)
    assert re.search(said, line), line
    later = ("--timestep", "400" if model == "dit" else "0.5", "--decode-timestep", time)
    line = fail(1, "build", image_folder, "--model", models / model, *given, *later)
    assert re.search(rf"--decode-timestep ({time} is none of the model's times|must be a timestep)", line), (
        line
    )
    assert fail(2, "build", image_folder, "--model", models / model, *given, "--timestep", "late")
    assert not (tmp_path / "out").exists()
    if model == "flow":
        reference = ("--class-order", "same", "--device", "cpu", "--output", tmp_path / "out", "--reference")
        line = fail(1, "build", image_folder, "--model", models / model, *reference)
        assert "the model is one of flow matching" in line


@pytest.mark.parametrize("model", ["flow", "text"])
def test_sets_of_any_kind_train_students(
    model: str, models: Path, image_folder: Path, tmp_path: Path
) -> None:
    times = (
        ("--timestep", -1, "--timestep", 0.35) if model == "flow" else ("--timestep", -1, "--timestep", 401)
    )
    words = ("--class-order", "same") if model == "flow" else ("--prompt", "a photo of a {name}")
    artifact = build(image_folder, models / model, tmp_path / "set", *times, *words)
    for source in ("raw_diffusion", "vae_gaussians", "default"):
        settings = TrainingSet(dataset="none", source=source, ipc=1, artifact=str(artifact.folder))
        made = training_set(settings, tmp_path / "cache")
        assert [tuple(made.images[index][0].shape) for index in range(3)] == [(3, 16, 16)] * 3
    given = ("--artifact", artifact.folder, "--ipc", 1, "--root", tmp_path / "made", "--device", "cpu")
    values = succeed("materialize", *given, "--timestep", times[3])
    assert values["num_images"] == 3
    assert "is not stored" in fail(1, "materialize", *given, "--timestep", 0.4 if model == "flow" else 600)
