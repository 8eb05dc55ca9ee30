"""Which images are behind an artifact is never published, whatever the file is called."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import HfApi

from d3hr_datasets import Artifact
from d3hr_datasets.artifact import copy_without_moments
from d3hr_datasets.artifact.membership import Member, count_members, open_key, write_membership
from d3hr_datasets.build import KeptSums
from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from d3hr_datasets.errors import ConfigError, ExportError, PublishError
from d3hr_datasets.publish.upload import moments_notice, plan_artifact, publish_artifact
from tests.cli.test_cli import d3hr
from tests.support.combining import build
from tests.support.hub_server import HubServer
from tests.support.private_builds import build_private
from tests.support.tampering import change_info
from tests.support.tiny import tiny_pipeline

# of httpx, which the client of the Hub uses
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


def test_sums_that_were_published_before_are_taken_down(tmp_path: Path, hub: HubServer) -> None:
    kept = build(tmp_path / "kept", range(30), sums=KeptSums())
    (kept.folder / "README.md").write_text(
        "---\nlicense: mit\n---\n\n| | |\n| --- | --- |\n"
        "| sums | stored, 0.1 MB: merges exactly |\n| x | y |\n"
    )
    kept.write_metadata()
    assert d3hr("publish", kept.folder, "org/name", "--with-model").exit_code == 0
    assert "moments.safetensors" in HfApi().list_repo_files("org/name", repo_type="dataset")
    result = d3hr("publish", kept.folder, "org/name", "--with-model", "--no-moments")
    assert result.exit_code == 0 and "earlier commits still have them" in result.stderr
    files = HfApi().list_repo_files("org/name", repo_type="dataset")
    assert "moments.safetensors" not in files and "README.md" in files
    card = (Artifact.from_pretrained("org/name").folder / "d3hr.json").read_text()
    assert "moments" not in card
    copy = copy_without_moments(kept, tmp_path / "copy")
    copy.verify()
    assert "| sums |" not in (copy.folder / "README.md").read_text()
    assert "| x | y |" in (copy.folder / "README.md").read_text()


def test_what_is_wrong_without_sums_is_said_of_the_artifact_itself(tmp_path: Path) -> None:
    kept = build(tmp_path / "kept", range(30), sums=KeptSums())
    result = d3hr("publish", kept.folder, "org/name", "--with-model", "--no-moments")
    assert result.exit_code == 1 and f"`d3hr card {kept.folder}`" in result.stderr


def test_a_promise_that_its_noise_does_not_keep_is_not_published(tmp_path: Path, hub: HubServer) -> None:
    tiny_pipeline().save_pretrained(tmp_path / "artifact" / "model")
    model = LatentDiffusion.from_pretrained(tmp_path / "artifact" / "model", device="cpu")
    artifact = build_private(model, tmp_path / "artifact")
    (artifact.folder / "README.md").write_text("---\nlicense: mit\n---\n")
    artifact.write_metadata()
    plan_artifact(Artifact.load(artifact.folder), with_model=True)
    privacy = {**artifact.info.to_dict()["privacy"], "epsilon": 0.001}
    change_info(artifact.folder, privacy=privacy)
    with pytest.raises(PublishError, match=r"does not keep what it promises: .*and 0\.001 is promised"):
        publish_artifact(Artifact.load(artifact.folder), "org/name", with_model=True)
    assert hub.requests == []


@pytest.mark.parametrize("name", ["chunks/0.safetensors", "model/notes.bin"])
def test_chunks_of_a_private_build_do_not_go_up_with_it(name: str, tmp_path: Path, hub: HubServer) -> None:
    tiny_pipeline().save_pretrained(tmp_path / "artifact" / "model")
    model = LatentDiffusion.from_pretrained(tmp_path / "artifact" / "model", device="cpu")
    artifact = build_private(model, tmp_path / "artifact")
    (artifact.folder / name).parent.mkdir(exist_ok=True)
    next((tmp_path / "artifact.chunks").glob("*.safetensors")).rename(artifact.folder / name)
    (artifact.folder / "README.md").write_text("---\nlicense: mit\n---\n")
    artifact.write_metadata()
    found = Artifact.load(artifact.folder)
    with pytest.raises(PublishError, match=rf"'{name}'\] in .* are no part of a private artifact; finished"):
        plan_artifact(found, with_model=True)
    with pytest.raises(PublishError, match="exact sums of the images"):
        found.push_to_hub("org/name")
    assert hub.requests == []


@pytest.mark.parametrize("name", ["members.bin", "notes/README.key", "model/vae/config.json"])
@pytest.mark.parametrize("is_key", [True, False])
def test_which_images_are_behind_an_artifact_never_goes_up(
    is_key: bool, name: str, artifact_copy: Path, hub: HubServer
) -> None:
    (artifact_copy / name).unlink(missing_ok=True)
    if is_key:
        open_key(artifact_copy / name, make=True)
    else:
        write_membership(artifact_copy / name, count_members([Member(b"0" * 32, 0, 0)], "0" * 64, b"key"))
    Artifact.load(artifact_copy).write_metadata()  # as if it belonged there
    artifact = Artifact.load(artifact_copy)
    said = rf"\['{name}'\] in .* tell which images .* never published"
    with pytest.raises(PublishError, match=said):
        plan_artifact(artifact, with_model=True)
    with pytest.raises(PublishError, match=said):
        publish_artifact(artifact, "org/name", with_model=True)
    with pytest.raises(PublishError, match=said):
        artifact.push_to_hub("org/name")
    assert hub.requests == []


def test_it_is_said_that_sums_go_up(tmp_path: Path) -> None:
    kept = build(tmp_path / "kept", range(30), sums=KeptSums())
    plain = build(tmp_path / "plain", range(30))
    assert moments_notice(plain) is None
    assert "latent of a single image can be found" in str(moments_notice(kept))
    for artifact in (kept, plain):
        (artifact.folder / "README.md").write_text("---\nlicense: mit\n---\n")
        artifact.write_metadata()
        result = d3hr("publish", artifact.folder, "org/name", "--with-model", "--dry-run")
        assert result.exit_code == 0, result.output
        assert ("moments.safetensors goes up, too" in result.stderr) == (artifact is kept)
        without = d3hr("publish", artifact.folder, "org/name", "--with-model", "--dry-run", "--no-moments")
        assert without.exit_code == 0 and "moments" not in without.output
        assert without.stdout == result.stdout or artifact is kept
    assert "moments.safetensors" in kept.sha256


def test_a_copy_without_sums_is_published_in_place_of_an_artifact(tmp_path: Path, hub: HubServer) -> None:
    kept = build(tmp_path / "kept", range(30), sums=KeptSums())
    (kept.folder / "README.md").write_text("---\nlicense: mit\n---\n")
    kept.write_metadata()
    result = d3hr("publish", kept.folder, "org/name", "--with-model", "--no-moments")
    assert result.exit_code == 0, result.output
    found = Artifact.from_pretrained("org/name", with_moments=True)
    assert set(Artifact.load(kept.folder).sha256) - set(found.sha256) == {"moments.safetensors"}
    assert found.info == kept.info and found.fingerprint == kept.fingerprint
    assert not any("moments" in request for request in map(str, hub.requests))
    copy = copy_without_moments(kept, tmp_path / "copy")
    copy.verify()
    with pytest.raises(ConfigError, match="stores no sums"):
        copy.sums()
    with pytest.raises(ExportError):
        copy_without_moments(kept, tmp_path / "copy")
