"""Artifacts from the Hub, over HTTP from the server of `hub_server`, by the unmodified client."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest

from d3hr_datasets import Artifact, D3HRDataset, __version__
from d3hr_datasets.artifact.d3hr_json import METADATA, STATISTICS
from d3hr_datasets.errors import ArtifactIntegrityError, ArtifactNotFoundError, ConfigError
from tests.support.hub_answers import TOKEN
from tests.support.hub_server import HubServer
from tests.support.hub_state import Fault
from tests.support.tampering import flip_byte
from tests.support.workers import file_digests

NEEDED = {METADATA, STATISTICS}

# Of huggingface_hub, which gives a file to its HTTP library in the old way.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def commit(hub: HubServer, tiny_artifact: Path) -> str:
    """Return the commit of the tiny artifact as org/tiny."""
    return hub.add_folder("org/tiny", tiny_artifact)


def cached_blobs(home: Path) -> dict[str, str]:
    """Return the blobs of the Hub's cache with their names, which are the SHA-256 of large files."""
    digests = file_digests(home / "home" / "hub" / "datasets--org--tiny" / "blobs")
    return {name: digest for name, digest in digests.items() if len(name) == 64}


def test_from_pretrained_records_the_commit(hub: HubServer, commit: str, tmp_path: Path) -> None:
    for name, revision in (
        ("org/tiny", None),
        (f"org/tiny@{commit}", None),
        ("org/tiny", commit),
        ("org/tiny", "main"),
    ):
        artifact = Artifact.from_pretrained(name, revision=revision)
        assert (artifact.repo_id, artifact.revision) == ("org/tiny", commit)
    artifact.verify()
    dataset = D3HRDataset("org/tiny", tmp_path / "root", 1, device="cpu")
    assert dataset.cache.settings["artifact_revision"] == commit
    agents = {agent for _, path, agent in hub.requests if path.startswith(("/api/datasets/", "/datasets/"))}
    assert all(f"d3hr-datasets/{__version__}; hf_hub/" in agent for agent in agents), agents


def test_only_what_generating_needs_is_downloaded(
    hub: HubServer, artifact_copy: Path, tmp_path: Path
) -> None:
    (artifact_copy / "README.md").write_text("# Card\n")
    (artifact_copy / "model" / "README.md").write_text("# Card of the model\n")
    (artifact_copy / "contact-sheet.png").write_bytes(b"a picture")
    saved = Artifact.load(artifact_copy)
    saved.write_metadata()
    (artifact_copy / "not-listed.safetensors").write_bytes(b"tensors")
    hub.add_folder("org/tiny", artifact_copy)
    artifact = Artifact.from_pretrained("org/tiny")
    assert artifact.fingerprint == saved.fingerprint
    names = set(file_digests(artifact.folder))
    assert names >= NEEDED and all(name in NEEDED or name.startswith("model/") for name in names)
    assert not any(name.endswith(".md") for name in names)
    artifact.verify()
    with pytest.raises(ArtifactIntegrityError, match=r"contact-sheet\.png is missing|README\.md is missing"):
        artifact.push_to_hub("org/incomplete")
    copy = artifact.save_pretrained(tmp_path / "copy")
    assert set(copy.sha256) == names - {METADATA} and copy.fingerprint == saved.fingerprint
    Artifact.from_pretrained(tmp_path / "copy").verify()


def test_commit_stays_when_the_branch_moves(hub: HubServer, commit: str, artifact_copy: Path) -> None:
    flip_byte(artifact_copy / "model" / "model_index.json", 3)
    Artifact.load(artifact_copy).write_metadata()
    newer = hub.add_folder("org/tiny", artifact_copy)
    pinned, newest = Artifact.from_pretrained(f"org/tiny@{commit}"), Artifact.from_pretrained("org/tiny")
    assert (pinned.revision, newest.revision) == (commit, newer)
    assert pinned.fingerprint != newest.fingerprint


def test_a_description_that_was_cached_wrong_is_brought_again(hub: HubServer, commit: str) -> None:
    """Nothing of the artifact lists the checksum of `d3hr.json`, but the Hub's cache names the file by it."""
    path = Artifact.from_pretrained(f"org/tiny@{commit}").folder / METADATA
    right = path.read_bytes()
    path.resolve().write_bytes(right + b"\n")
    Artifact.from_pretrained(f"org/tiny@{commit}")
    assert path.read_bytes() == right


def test_warm_cache_needs_no_hub(hub: HubServer, commit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    online = Artifact.from_pretrained("org/tiny")
    hub.faults.append(Fault(503, ".", times=1000))
    for revision in (None, commit):
        local = Artifact.from_pretrained("org/tiny", revision=revision, local_files_only=True)
        assert local.folder == online.folder
    assert Artifact.from_pretrained("org/tiny").folder == online.folder  # the Hub is down
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert Artifact.from_pretrained("org/tiny").folder == online.folder
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(online.folder / "elsewhere"))
    with pytest.raises(ArtifactNotFoundError, match="HF_HUB_OFFLINE"):
        Artifact.from_pretrained("org/tiny")


def test_cache_dir_is_used(hub: HubServer, commit: str, tmp_path: Path) -> None:
    artifact = Artifact.from_pretrained("org/tiny", cache_dir=tmp_path / "mine")
    assert artifact.folder.is_relative_to(tmp_path / "mine") and not (tmp_path / "home").exists()


def test_private_repositories_need_the_token(
    hub: HubServer, commit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repository("org/tiny").private = True
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(ArtifactNotFoundError, match="HF_TOKEN"):
        Artifact.from_pretrained("org/tiny")
    assert Artifact.from_pretrained("org/tiny", token=TOKEN).revision == commit


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("org/nothing", "RepositoryNotFound"),
        ("org/tiny@v2", "RevisionNotFound"),
        (f"org/tiny@{'0' * 40}", "Revision"),
    ],
)
def test_what_is_not_there_is_named(hub: HubServer, commit: str, name: str, reason: str) -> None:
    with pytest.raises(ArtifactNotFoundError, match=rf"{name.split('@', maxsplit=1)[0]}.*{reason}"):
        Artifact.from_pretrained(name)


def test_repository_without_artifact_is_named(hub: HubServer, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "data.csv").write_text("1,2")
    hub.add_folder("org/other", tmp_path / "other")
    with pytest.raises(ArtifactNotFoundError, match=METADATA):
        Artifact.from_pretrained("org/other")


@pytest.mark.parametrize("name", ["org/tiny@main", "no repository", "a/b/c"])
def test_revision_goes_with_a_repository(name: str, tiny_artifact: Path) -> None:
    for where in (name, tiny_artifact, str(tiny_artifact)):
        with pytest.raises(ConfigError, match="revision"):
            Artifact.from_pretrained(where, revision="main")


@pytest.mark.parametrize("kind", ["reset", "cut", "slow", "corrupt", "truncate", 500])
def test_download_recovers_from_one_fault(kind: str, hub: HubServer, commit: str, tmp_path: Path) -> None:
    logging.getLogger("d3hr_datasets.io.hub").setLevel(logging.ERROR)
    hub.faults.append(Fault(kind, "^/lfs/"))  # type: ignore[arg-type]
    Artifact.from_pretrained("org/tiny").verify()
    assert all(name == digest for name, digest in cached_blobs(tmp_path).items())
    assert hub.faults[0].times == 0


def test_wrong_description_is_downloaded_again(hub: HubServer, commit: str) -> None:
    hub.faults.append(Fault("corrupt", f"/{METADATA}$"))
    assert Artifact.from_pretrained("org/tiny").revision == commit
    assert hub.faults[0].times == 0


@pytest.mark.parametrize("kind", ["truncate", 401, 403, 404, 412, 500])
def test_faults_are_clear_errors_and_gone_the_next_time(
    kind: str, hub: HubServer, commit: str, tmp_path: Path
) -> None:
    hub.faults.append(Fault(kind, "^/lfs/", times=100))  # type: ignore[arg-type]
    with pytest.raises(ArtifactNotFoundError, match="the Hub does not give org/tiny"):
        Artifact.from_pretrained("org/tiny")
    assert cached_blobs(tmp_path) == {}
    hub.faults.clear()
    Artifact.from_pretrained("org/tiny").verify()


def test_files_that_are_always_wrong_do_not_stay(hub: HubServer, commit: str, tmp_path: Path) -> None:
    hub.faults.append(Fault("corrupt", "^/lfs/", times=100))
    with pytest.raises(ArtifactIntegrityError, match="twice"):
        Artifact.from_pretrained("org/tiny")
    assert cached_blobs(tmp_path) == {}
    hub.faults.clear()
    Artifact.from_pretrained("org/tiny").verify()


def test_repository_whose_list_is_wrong_is_refused(
    hub: HubServer, artifact_copy: Path, tmp_path: Path
) -> None:
    flip_byte(artifact_copy / STATISTICS)  # what its d3hr.json does not list, and its commit holds
    hub.add_folder("org/tiny", artifact_copy)
    with pytest.raises(ArtifactIntegrityError, match=STATISTICS):
        Artifact.from_pretrained("org/tiny")


def test_damage_in_the_hubs_cache_names_the_file_to_remove(hub: HubServer, commit: str) -> None:
    artifact = Artifact.from_pretrained("org/tiny")
    blob = (artifact.folder / STATISTICS).resolve()
    blob.chmod(0o644)
    flip_byte(blob)
    damaged = Artifact.from_pretrained("org/tiny")
    with pytest.raises(ArtifactIntegrityError, match=f"remove {blob}"):
        damaged.gaussians(400)
    blob.unlink()
    Artifact.from_pretrained("org/tiny").verify()


def test_push_to_hub_and_back(hub: HubServer, artifact_copy: Path, tmp_path: Path) -> None:
    artifact = Artifact.load(artifact_copy)
    published = artifact.push_to_hub("org/new", private=True)
    assert published.changed and hub.repository("org/new").private
    again = Artifact.from_pretrained("org/new")
    assert (again.revision, again.fingerprint) == (published.revision, artifact.fingerprint)
    repeated = artifact.push_to_hub("org/new")
    assert not repeated.changed and repeated.revision == published.revision
    assert len(hub.repository("org/new").trees) == 2  # the Hub's own first commit, and ours
    sent = hub.repository("org/new").trees[published.revision]
    expected = {name: (artifact_copy / name).read_bytes() for name in [METADATA, *artifact.sha256]}
    assert {name: file.data for name, file in sent.items() if name != ".gitattributes"} == expected
    shutil.rmtree(artifact_copy)
