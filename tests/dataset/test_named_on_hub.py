"""Named data sets whose artifacts are on the Hub: what is fetched, pinned and checked."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from pathlib import Path

import pytest
from huggingface_hub import constants

from d3hr_datasets import (
    Artifact,
    D3HRDataset,
    D3HRImageNet,
)
from d3hr_datasets.dataset.artifact_registry import REGISTRY, RegistryRow
from d3hr_datasets.errors import (
    ArtifactIntegrityError,
    ArtifactNotFoundError,
    ConfigError,
)

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_repositories_come_from_the_hubs_cache(
    imagenet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    sha256 = hashlib.sha256((imagenet / "d3hr.json").read_bytes()).hexdigest()
    row = RegistryRow("imagenet", None, "org/sets", COMMIT, sha256=sha256)
    monkeypatch.setitem(REGISTRY, "imagenet", row)
    repository = tmp_path / "hub" / "datasets--org--sets"
    (repository / "snapshots").mkdir(parents=True)
    shutil.copytree(imagenet, repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    for dataset in (
        D3HRDataset("org/sets", tmp_path, 1),
        D3HRDataset(f"org/sets@{COMMIT}", tmp_path, 1),
        D3HRImageNet(tmp_path, 1, artifact="org/sets"),
        D3HRImageNet(tmp_path, 1),
    ):
        assert len(dataset) == 1000 and dataset.artifact.folder.name == COMMIT
    monkeypatch.setitem(REGISTRY, "imagenet", dataclasses.replace(row, sha256="0" * 64))
    with pytest.raises(ArtifactIntegrityError, match=f"{sha256}, not the expected 0000"):
        D3HRImageNet(tmp_path, 1)


@pytest.mark.parametrize(("revision", "sha256"), [("main", "0" * 64), (None, "0" * 64), (COMMIT, None)])
def test_a_row_of_the_hub_is_pinned(revision: str | None, sha256: str | None) -> None:
    with pytest.raises(ConfigError, match=r"needs a revision.*and the SHA-256"):
        RegistryRow("imagenet", None, "org/sets", revision, sha256=sha256)


@pytest.mark.parametrize("artifact", ["org/nothing", "org/nothing@v1", "nothing", "a/b/c"])
def test_artifacts_that_are_nowhere_are_named(artifact: str, tmp_path: Path) -> None:
    with pytest.raises(ArtifactNotFoundError, match=artifact):
        D3HRDataset(artifact, tmp_path)


def test_only_a_folder_with_an_artifact_wins_over_the_hub(
    imagenet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org" / "empty").mkdir(parents=True)
    (tmp_path / "org" / "full").symlink_to(imagenet)
    with pytest.raises(ArtifactNotFoundError, match="the Hub does not give org/empty"):
        D3HRDataset("org/empty", tmp_path)
    assert len(D3HRDataset("org/full", tmp_path, 1)) == 1000


def test_download_brings_what_generating_images_needs(
    imagenet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Path(shutil.copytree(imagenet, tmp_path / "source"))
    (source / "grid [0].png").write_bytes(b"a picture")
    Artifact.load(source).write_metadata()
    (source / "unlisted.bin").write_bytes(b"more")
    commit, asked = tmp_path / ("c" * 40), []

    def fetch_file(repo_id: str, name: str, _: int, *, repo_type: str, revision: str, **__: object) -> Path:
        asked.append((repo_id, repo_type, revision))
        (commit / name).parent.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copy(source / name, commit / name))

    monkeypatch.setattr("d3hr_datasets.io.hub.fetch_file", fetch_file)
    dataset = D3HRDataset("org/name@main", tmp_path / "cache", 1)
    dataset.artifact.verify()
    assert asked[0] == ("org/name", "dataset", "main")
    assert set(asked[1:]) == {("org/name", "dataset", "c" * 40)}
    assert not (commit / "grid [0].png").exists() and not (commit / "unlisted.bin").exists()
