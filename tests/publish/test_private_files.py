"""Which images are behind an artifact is never published, whatever the file is called."""

from __future__ import annotations

from pathlib import Path

import pytest

from d3hr_datasets import Artifact
from d3hr_datasets.artifact.membership import Member, count_members, open_key, write_membership
from d3hr_datasets.errors import PublishError
from d3hr_datasets.publish.upload import plan_artifact, publish_artifact
from tests.support.hub_server import HubServer


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
