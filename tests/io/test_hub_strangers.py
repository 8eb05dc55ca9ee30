"""A server that is no sound Hub: nothing outside the cache of its repository is written, read or removed."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from d3hr_datasets import Artifact
from d3hr_datasets.artifact.d3hr_json import METADATA, STATISTICS
from d3hr_datasets.errors import ArtifactIntegrityError, D3HRError
from tests.support.hub_server import HubServer
from tests.support.hub_state import Fault
from tests.support.workers import file_digests

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """Return a folder of files that are no business of the Hub's client."""
    folder = tmp_path / "mine"
    folder.mkdir()
    for name in ("diary.txt", "x", "x.incomplete"):
        (folder / name).write_text("mine")
    return folder


ETAGS = [
    "{mine}/diary.txt",
    "{mine}/new",
    "{mine}",
    "..",
    ".",
    "../..",
    "../../x",
    "../../../../mine/diary.txt",
    "a/b",
    "a" * 5000,
    "-",
    "~root",
    "a b",
    "/",
]


@pytest.mark.parametrize("header", ["ETag", "X_Linked_ETag"])
@pytest.mark.parametrize("etag", ETAGS)
def test_an_etag_that_is_a_path_leads_nowhere(
    etag: str, header: str, hub: HubServer, tiny_artifact: Path, mine: Path, tmp_path: Path
) -> None:
    hub.add_folder("org/tiny", tiny_artifact)
    hub.told = {header: f'"{etag.format(mine=mine)}"'}
    before, begin = file_digests(mine), time.monotonic()
    with pytest.raises(ArtifactIntegrityError, match=r"the Hub calls a file.*HF_ENDPOINT"):
        Artifact.from_pretrained("org/tiny")
    assert file_digests(mine) == before and time.monotonic() - begin < 10
    assert {path.name for path in tmp_path.iterdir()} <= {"home", "mine", "working-directory"}
    hub.told = {}
    Artifact.from_pretrained("org/tiny").verify()


@pytest.mark.parametrize("etag", ["", '"', 'W/""'])
def test_an_empty_etag_is_an_error(etag: str, hub: HubServer, tiny_artifact: Path) -> None:
    hub.add_folder("org/tiny", tiny_artifact)
    hub.told = {"ETag": etag, "X_Linked_ETag": etag}
    with pytest.raises(D3HRError):
        Artifact.from_pretrained("org/tiny")


@pytest.mark.parametrize("commit", ["../../../../mine", "/tmp", "..", "main", "A" * 40])
def test_a_commit_that_is_none_is_refused(
    commit: str, hub: HubServer, tiny_artifact: Path, mine: Path
) -> None:
    sha = hub.add_folder("org/tiny", tiny_artifact)
    hub.told = {"X_Repo_Commit": commit}
    with pytest.raises(ArtifactIntegrityError, match="the Hub calls a file"):
        Artifact.from_pretrained("org/tiny")
    hub.told = {}
    repository = hub.repository("org/tiny")
    repository.trees[commit] = repository.trees[sha]
    repository.refs["main"] = commit
    before = file_digests(mine)
    with pytest.raises(ArtifactIntegrityError, match="the Hub calls a file"):
        Artifact.from_pretrained("org/tiny")
    assert file_digests(mine) == before


def test_a_wrong_file_that_is_a_link_elsewhere_is_unlinked(
    hub: HubServer, tiny_artifact: Path, mine: Path
) -> None:
    """As an older version, or another program, may have left the cache."""
    commit = hub.add_folder("org/tiny", tiny_artifact)
    snapshot = Artifact.from_pretrained("org/tiny").folder
    os.mkfifo(mine / "fifo")
    for target in (mine / "diary.txt", mine / "fifo", mine):
        (snapshot / METADATA).unlink()
        (snapshot / METADATA).symlink_to(target)
        assert Artifact.from_pretrained(f"org/tiny@{commit}").revision == commit
        assert (snapshot / METADATA).resolve().parent.name == "blobs"
        assert (mine / "diary.txt").read_text() == "mine" and (mine / "fifo").is_fifo()


def test_files_of_a_folder_that_a_snapshot_is_a_link_to_stay(
    hub: HubServer, tiny_artifact: Path, mine: Path
) -> None:
    commit = hub.add_folder("org/tiny", tiny_artifact)
    snapshot = Artifact.from_pretrained("org/tiny").folder
    shutil.rmtree(snapshot)
    (mine / METADATA).write_text("mine")
    snapshot.symlink_to(mine)
    before = file_digests(mine), (mine / METADATA).read_text()
    with pytest.raises(D3HRError):
        Artifact.from_pretrained(f"org/tiny@{commit}")
    assert (file_digests(mine), (mine / METADATA).read_text()) == before


def test_a_wrong_file_goes_with_its_blob_and_no_other(hub: HubServer, tiny_artifact: Path) -> None:
    hub.add_folder("org/tiny", tiny_artifact)
    hub.faults.append(Fault("corrupt", r"/lfs/", times=1000))
    with pytest.raises(ArtifactIntegrityError, match="twice"):
        Artifact.from_pretrained("org/tiny")
    hub.faults.clear()
    artifact = Artifact.from_pretrained("org/tiny")
    artifact.verify()
    blobs = artifact.folder.parent.parent / "blobs"
    assert all(
        (blobs / path.resolve().name).is_file() for path in artifact.folder.rglob("*") if path.is_file()
    )
    assert (artifact.folder / STATISTICS).is_symlink()
