"""Curating end to end: an artifact and a teacher -> an artifact whose first images are the best ones."""

from __future__ import annotations

import dataclasses
import logging
import shutil
from pathlib import Path

import pytest
import torch
from torchvision.transforms.v2.functional import pil_to_tensor

from d3hr_datasets import Artifact, D3HRDataset, DecodeConfig, GroupSamplingConfig
from d3hr_datasets.curation import curate_artifact
from d3hr_datasets.errors import ConfigError, ExportError, SourceError
from d3hr_datasets.publish.card import write_card
from d3hr_datasets.publish.upload import publish_artifact
from d3hr_datasets.students.teachers import load_teacher
from tests.cli.test_cli import d3hr, fail, succeed
from tests.curation.curating import SETTINGS, curate
from tests.support.curated import save_separate_artifact
from tests.support.hub_server import HubServer
from tests.support.sets import image_digests
from tests.support.tiny import CLASSES
from tests.support.workers import file_digests

CURATED = GroupSamplingConfig("curated")


def test_the_artifact_stays_and_the_copy_has_an_order(artifact: Artifact, curated: Artifact) -> None:
    assert artifact.info.curation is None and Artifact.load(artifact.folder).info == artifact.info
    assert curated.fingerprint == artifact.fingerprint
    described = curated.info.curation
    assert described is not None and dataclasses.replace(curated.info, curation=None) == artifact.info
    assert (described.num_candidates, described.num_kept, described.method) == (16, 8, "facility_location")
    assert (described.mode_spread, described.target, described.decode) == (
        1.0,
        "candidates",
        artifact.info.decode,
    )
    assert described.teacher == "local-dir:tiny-teacher"  # without the folders of this machine
    assert sum(described.recognized) > 40
    curated.verify()


def test_an_order_is_deterministic_at_any_batch_size(
    artifact: Artifact, teacher: str, curated: Artifact, tmp_path: Path
) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    again = curate_artifact(
        artifact.folder, tmp_path / "again", teacher, SETTINGS, batch_size=5, device="cpu", progress=False
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(again.order(), curated.order())
    assert again.info == curated.info
    other = curate(artifact, teacher, tmp_path / "other", method="random", seed=1)
    assert other.info.curation is not None and other.info.curation.seed == 1
    assert not torch.equal(other.order(), curated.order())


def test_first_come_those_that_the_teacher_recognises(
    artifact: Artifact, teacher: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of all candidates, so that those are in the order that it does not recognise."""
    with caplog.at_level(logging.WARNING, "d3hr_datasets.curation"):
        found = curate(artifact, teacher, tmp_path / "all", num_kept=16)
    assert found.info.curation is not None
    recognized = found.info.curation.recognized
    assert min(recognized) < 16, "the teacher knows all of them: nothing is tested"
    assert "fewer than are kept" in caplog.text and f": {min(recognized)}" in caplog.text
    dataset = D3HRDataset(found, tmp_path / "cache", 16, device="cpu", sampling=CURATED)
    pixels = torch.stack([pil_to_tensor(dataset[index][0]) for index in range(len(dataset))]) / 255
    right = load_teacher(teacher, CLASSES)(pixels).argmax(dim=1) == torch.tensor(dataset.targets)
    for label, number in enumerate(recognized):
        assert right.view(3, 16)[label].tolist() == [True] * number + [False] * (16 - number)


def test_images_are_those_that_the_teacher_saw(curated: Artifact, tmp_path: Path) -> None:
    small, large = (
        D3HRDataset(curated, tmp_path, ipc, device="cpu", sampling=CURATED, nested=nested)
        for ipc, nested in ((3, False), (8, True))
    )
    digests = image_digests(large)
    assert image_digests(small) == [digests[8 * label + index] for label in range(3) for index in range(3)]


def test_real_images_are_what_the_order_stands_for(
    artifact: Artifact, teacher: str, curated: Artifact, tmp_path: Path
) -> None:
    dataset = D3HRDataset(artifact, tmp_path / "cache", 4, device="cpu")
    dataset.materialize(progress=False)
    folder = dataset.image_folder
    found = curate(artifact, teacher, tmp_path / "new", images=folder)
    assert found.info.curation is not None and found.info.curation.target == "images"
    assert not torch.equal(found.order(), curated.order())
    shutil.copytree(folder, tmp_path / "fewer")
    shutil.rmtree(next((tmp_path / "fewer").glob("*cat")))
    with pytest.raises(ConfigError, match="class label 2 has 0 images"):
        curate(artifact, teacher, tmp_path / "other", images=tmp_path / "fewer")
    with pytest.raises(SourceError, match="there is no folder"):
        curate(artifact, teacher, tmp_path / "other", images=tmp_path / "nowhere")
    assert not (tmp_path / "other").exists()


def test_an_artifact_without_modes_has_candidates_of_its_gaussians(teacher: str, tmp_path: Path) -> None:
    plain = save_separate_artifact(tmp_path / "plain", num_modes=1)
    decode = DecodeConfig(200, 10, 1.5)
    found = curate(plain, teacher, tmp_path / "new", decode=decode, method="facility_location")
    assert found.info.curation is not None and found.info.curation.mode_spread is None
    dataset = D3HRDataset(found, tmp_path / "cache", 2, device="cpu", sampling=CURATED)
    assert dataset.decode == decode and len(image_digests(dataset)) == 6
    with pytest.raises(ConfigError, match=r"mode_spread = 1\.5 does not go with .* stores no modes"):
        curate(plain, teacher, tmp_path / "other", mode_spread=1.5)


def test_an_order_is_replaced_by_another(curated: Artifact, teacher: str, tmp_path: Path) -> None:
    again = curate(curated, teacher, tmp_path / "new", num_kept=4)
    assert again.order().shape == (3, 4) and again.fingerprint == curated.fingerprint
    assert torch.equal(again.order(), curated.order()[:, :4])


def test_a_card_that_is_copied_is_said_to_be_old(artifact: Artifact, teacher: str, tmp_path: Path) -> None:
    described = artifact.save_pretrained(tmp_path / "described")
    (described.folder / "README.md").write_text("a card")
    Artifact.load(described.folder).write_metadata()
    result = d3hr(
        "curate", described.folder, "--teacher", teacher, "--candidates", 4, "--keep", 2,
        "--device", "cpu", "--output", tmp_path / "new",
    )  # fmt: off
    assert result.exit_code == 0 and f"`d3hr card {tmp_path / 'new'}` writes it anew" in result.stderr


def test_nothing_is_replaced(artifact: Artifact, teacher: str, curated: Artifact) -> None:
    before = file_digests(curated.folder)
    with pytest.raises(ExportError, match="is no empty folder"):
        curate(artifact, teacher, curated.folder)
    assert file_digests(curated.folder) == before


def test_the_command_makes_what_python_makes(
    artifact: Artifact, teacher: str, curated: Artifact, tmp_path: Path
) -> None:
    options = ("--teacher", teacher, "--candidates", 16, "--keep", 8, "--device", "cpu")
    values = succeed("curate", artifact.folder, *options, "--output", tmp_path / "new")
    made = Artifact.load(tmp_path / "new")
    assert made.info == curated.info and torch.equal(made.order(), curated.order())
    assert values["folder"] == str(tmp_path / "new") and values["order"] == made.order_fingerprint
    assert values["fingerprint"] == artifact.fingerprint and values["curation"]["num_kept"] == 8
    line = next(line for line in d3hr("info", made.folder).stdout.splitlines() if line.startswith("curated"))
    assert "8 images per class in order" in line and "local-dir:tiny-teacher" in line
    other = d3hr(
        "curate", artifact.folder, *options, "--output", tmp_path / "other", "--timestep", 200,
        "--guidance-scale", 1.5, "--method", "facility_location", "--seed", 2,
    )  # fmt: off
    assert (other.exit_code, other.stdout) == (0, f"{tmp_path / 'other'}\n"), other.output
    described = Artifact.load(tmp_path / "other").info.curation
    assert described is not None and described.decode == DecodeConfig(200, 10, 1.5)
    assert (described.method, described.seed) == ("facility_location", 2)
    says = "--keep must be at most --candidates = 4, not 8"
    assert says in fail(1, "curate", artifact.folder, *options, "--candidates", 4, "--output", tmp_path / "x")


# Of huggingface_hub, which gives a file to its HTTP library in the old way.
@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
def test_an_order_is_published_and_read_back(hub: HubServer, curated: Artifact, tmp_path: Path) -> None:
    ordered = curated.save_pretrained(tmp_path / "described")
    card = write_card(ordered, "org/curated", root=tmp_path / "cache", device="cpu", progress=False)
    assert "| curated | 8 images per class in order" in card.read_text()
    assert ordered.info == curated.info
    publish_artifact(Artifact.load(ordered.folder), "org/curated", with_model=True)
    found = Artifact.from_pretrained("org/curated")
    assert (found.info, found.order_fingerprint) == (curated.info, curated.order_fingerprint)
    here, there = (
        D3HRDataset(one, tmp_path / "cache", 3, device="cpu", sampling=CURATED) for one in (curated, found)
    )
    assert torch.equal(here.sample_latents(2), there.sample_latents(2))
    assert here.image_folder == there.image_folder
