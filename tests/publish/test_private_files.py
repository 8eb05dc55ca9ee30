"""Which images are behind an artifact is never published, whatever the file is called."""

from __future__ import annotations

from pathlib import Path

import pytest

from d3hr_datasets import Artifact
from d3hr_datasets.artifact import copy_without_moments
from d3hr_datasets.artifact.membership import Member, count_members, open_key, write_membership
from d3hr_datasets.build import KeptSums
from d3hr_datasets.errors import ConfigError, ExportError, PublishError
from d3hr_datasets.publish.upload import moments_notice, plan_artifact, publish_artifact
from tests.cli.test_cli import d3hr
from tests.support.combining import build
from tests.support.hub_server import HubServer

# of httpx, which the client of the Hub uses
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


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
