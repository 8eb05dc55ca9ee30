"""`d3hr.json`: what it may say, and what is refused of it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from d3hr_datasets import (
    Artifact,
    ArtifactInfo,
    DecodeConfig,
    InversionConfig,
)
from d3hr_datasets.errors import (
    ArtifactFormatError,
    ArtifactNotFoundError,
    ConfigError,
)
from tests.support.tampering import (
    METADATA,
    STATISTICS,
    change_info,
    read_document,
    truncate,
    write_document,
)
from tests.support.tiny import CLASSES, tiny_info

DIGEST = "0" * 64


def test_folder_without_artifact_is_named(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ArtifactNotFoundError, match=f"{folder.name}.*{METADATA}") as caught:
            Artifact.load(folder)
        assert isinstance(caught.value, FileNotFoundError)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b'{"format": 1, "info": {',
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b'"text"',
        b"[]",
        b"null",
        b"{}",
    ],
    ids=lambda text: str(text[:12]),
)
def test_description_that_is_no_json_object_is_refused(text: bytes, artifact_copy: Path) -> None:
    (artifact_copy / METADATA).write_bytes(text)
    with pytest.raises(ArtifactFormatError, match=METADATA):
        Artifact.load(artifact_copy)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_truncated_description_is_refused(share: float, artifact_copy: Path) -> None:
    truncate(artifact_copy / METADATA, share)
    with pytest.raises(ArtifactFormatError, match=METADATA):
        Artifact.load(artifact_copy)


@pytest.mark.parametrize("version", [0, 3, "1", None, True])
def test_other_formats_are_refused(version: Any, artifact_copy: Path) -> None:
    write_document(artifact_copy, {**read_document(artifact_copy), "format": version})
    with pytest.raises(ArtifactFormatError, match=r"format = .*accepted: \[1, 2\].*upgrade"):
        Artifact.load(artifact_copy)


@pytest.mark.parametrize("key", ["info", "sha256"])
@pytest.mark.parametrize("value", [None, [], "text"])
def test_parts_that_are_no_objects_are_refused(key: str, value: Any, artifact_copy: Path) -> None:
    write_document(artifact_copy, {**read_document(artifact_copy), key: value})
    with pytest.raises(ArtifactFormatError, match=key):
        Artifact.load(artifact_copy)


def _inversion(**changes: Any) -> dict[str, Any]:
    return {**tiny_info().inversion.to_dict(), **changes}


def _decode(**changes: Any) -> dict[str, Any]:
    return {**tiny_info().decode.to_dict(), **changes}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"colour": "red"}, "colour"),
        ({"inversion": _inversion(order=2)}, "order"),
        ({"decode": _decode(eta=0.0)}, "eta"),
        ({"model": {"path": "model", "token": "x"}}, "token"),
        ({"name": ...}, "name"),
        ({"model": ...}, "model"),
        ({"name": "Tiny"}, "name"),
        ({"name": "../tiny"}, "name"),
        ({"name": ".."}, "name"),
        ({"name": "a/b"}, "name"),
        ({"name": ""}, "name"),
        ({"name": 5}, None),
        ({"name": ["t"]}, "name"),
        ({"classes": []}, "classes"),
        ({"classes": "abc"}, "classes"),
        ({"classes": ["a", "b", ""]}, "classes"),
        ({"classes": ["a", "b", 3]}, "classes"),
        ({"classes": ["a", "b", "b"]}, "duplicates"),
        ({"classes": ["a", "b"]}, "counts"),
        ({"image_size": 0}, "image_size"),
        ({"image_size": 14.0}, "image_size"),
        ({"image_size": 10**9}, "image_size"),
        ({"image_mode": "CMYK"}, "image_mode"),
        ({"padding": -1}, "padding"),
        ({"latent_shape": [3, 4]}, "latent_shape"),
        ({"latent_shape": [3, 4, -4]}, "latent_shape"),
        ({"latent_shape": 3}, "latent_shape"),
        ({"counts": [4, 4, 1]}, "counts"),
        ({"counts": [4, 4, 0]}, "counts"),
        ({"counts": [4, 4]}, "counts"),
        ({"counts": [4, 4, 4.0]}, "counts"),
        ({"counts": None}, None),
        ({"wnids": ["n1"]}, "wnids"),
        ({"wnids": [1, 2, 3]}, "wnids"),
        ({"source": ["somewhere"]}, "source"),
        ({"producer": 5}, "producer"),
        ({"dtype": "float64"}, "dtype"),
        ({"dtype": None}, "dtype"),
        ({"inversion": None}, "InversionConfig"),
        ({"inversion": _inversion(timesteps=[])}, "timesteps"),
        ({"inversion": _inversion(timesteps=[450])}, "450"),
        ({"inversion": _inversion(timesteps=[-1, 200])}, "400"),
        ({"inversion": _inversion(guidance_scale=None)}, "guidance_scale"),
        ({"decode": _decode(timestep=300)}, "300"),
        ({"decode": _decode(guidance_scale="much")}, "guidance_scale"),
        ({"model": {}}, "ModelReference"),
        ({"model": {"path": "../model"}}, "path"),
        ({"model": {"path": "model/../../model"}}, "path"),
        ({"model": {"path": "/etc"}}, "path"),
        ({"model": {"path": "C:\\model"}}, "path"),
        ({"model": {"repo_id": "a/b"}}, "revision"),
    ],
    ids=str,
)
def test_fields_out_of_range_are_refused(
    changes: dict[str, Any], named: str | None, artifact_copy: Path
) -> None:
    change_info(artifact_copy, **changes)
    with pytest.raises(ArtifactFormatError, match=METADATA) as caught:
        Artifact.load(artifact_copy)
    assert named is None or named in str(caught.value)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "model/../../secret", ".."])
def test_checksums_of_files_outside_are_refused(name: str, artifact_copy: Path) -> None:
    document = read_document(artifact_copy)
    document["sha256"][name] = DIGEST
    write_document(artifact_copy, document)
    with pytest.raises(ArtifactFormatError, match=r"sha256\["):
        Artifact.load(artifact_copy)


@pytest.mark.parametrize("digest", ["", "abc", None, 5, [DIGEST], DIGEST + "0"])
def test_checksums_that_are_none_are_refused(digest: Any, artifact_copy: Path) -> None:
    document = read_document(artifact_copy)
    document["sha256"][STATISTICS] = digest
    write_document(artifact_copy, document)
    with pytest.raises(ArtifactFormatError, match=STATISTICS):
        Artifact.load(artifact_copy)


def test_statistics_without_a_checksum_are_refused(artifact_copy: Path) -> None:
    document = read_document(artifact_copy)
    del document["sha256"][STATISTICS]
    write_document(artifact_copy, document)
    with pytest.raises(ArtifactFormatError, match=STATISTICS):
        Artifact.load(artifact_copy)


def test_description_is_plain_json(tiny_artifact: Path) -> None:
    document = json.loads((tiny_artifact / METADATA).read_text(encoding="utf-8"))
    assert document["format"] == 1
    assert document["info"]["classes"] == list(CLASSES)
    assert document["info"]["model"] == {"repo_id": None, "revision": None, "path": "model"}
    files = {
        path.relative_to(tiny_artifact).as_posix() for path in tiny_artifact.rglob("*") if path.is_file()
    }
    assert set(document["sha256"]) == files - {METADATA}


def test_description_survives_json() -> None:
    info = tiny_info(wnids=("a", "b", "c"), source={"fingerprint": "x", "images": 12})
    assert ArtifactInfo.from_dict(json.loads(json.dumps(info.to_dict()))) == info


def test_wrong_description_is_refused_when_it_is_made() -> None:
    with pytest.raises(ConfigError, match="300"):
        tiny_info(decode=DecodeConfig(timestep=300, num_inference_steps=10))
    with pytest.raises(ConfigError, match="counts"):
        dataclasses.replace(tiny_info(), counts=(4, 4))
    assert tiny_info(inversion=InversionConfig((400,), num_inference_steps=5)).inversion.timesteps == (400,)
