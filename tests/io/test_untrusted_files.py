"""Files of others: links, FIFOs, files that change or cannot be read, and texts that are not plain."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from d3hr_datasets import Artifact, D3HRDataset
from d3hr_datasets.build.artifact_folder import copy_model
from d3hr_datasets.cli.app import app
from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from d3hr_datasets.errors import (
    ArtifactFormatError,
    ArtifactIntegrityError,
    ArtifactNotFoundError,
    ConfigError,
    D3HRError,
    ForeignFileError,
    ModelFormatError,
)
from d3hr_datasets.io.markdown import markdown
from d3hr_datasets.io.text import is_printable, printable
from d3hr_datasets.io.untrusted_files import open_file, read_file
from tests.support.tampering import (
    METADATA,
    STATISTICS,
    change_info,
    flip_byte,
    read_document,
    write_document,
)
from tests.support.tiny import tiny_info, tiny_pipeline

WEIGHTS = "model/transformer/diffusion_pytorch_model.safetensors"


def unlist(folder: Path, start: str) -> None:
    document = read_document(folder)
    document["sha256"] = {n: d for n, d in document["sha256"].items() if not n.startswith(start)}
    write_document(folder, document)


@pytest.mark.parametrize("name", ["model/transformer", "model/vae", "model/scheduler"])
@pytest.mark.parametrize("inside", [False, True])
def test_linked_folders_of_a_model_are_refused(
    name: str, inside: bool, artifact_copy: Path, tmp_path: Path
) -> None:
    """Their files are in no list where they lie, so that nothing would check them."""
    target = artifact_copy / "elsewhere" if inside else tmp_path / "elsewhere"
    shutil.move(artifact_copy / name, target)
    (artifact_copy / name).symlink_to(target)
    unlist(artifact_copy, f"{name}/")
    artifact = Artifact.load(artifact_copy)
    with pytest.raises(ArtifactIntegrityError, match="link to a folder"):
        artifact.verify()
    with pytest.raises(ArtifactIntegrityError, match="link to a folder"):
        D3HRDataset(artifact_copy, tmp_path / "root", 1, device="cpu", classes=[0])[0]
    with pytest.raises(ArtifactIntegrityError, match="link to a folder"):
        artifact.write_metadata()


@pytest.mark.parametrize(
    "name", [WEIGHTS, "model/transformer/config.json", "model/model_index.json", "model/vae/config.json"]
)
def test_every_file_of_a_model_is_listed(name: str, artifact_copy: Path) -> None:
    unlist(artifact_copy, name)
    with pytest.raises(ArtifactIntegrityError, match="not listed"):
        Artifact.load(artifact_copy).verify()


def test_an_artifact_whose_files_are_links_within_a_snapshot_is_read(
    artifact_copy: Path, tmp_path: Path
) -> None:
    repository = tmp_path / "datasets--org--tiny"
    snapshot = repository / "snapshots" / ("c" * 40)
    shared = tmp_path / "blobs" / "ab"
    for folder in (repository / "blobs", shared):
        folder.mkdir(parents=True)
    for number, path in enumerate(sorted(artifact_copy.rglob("*"))):
        if path.is_file():
            link, blob = snapshot / path.relative_to(artifact_copy), repository / "blobs" / str(number)
            link.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, shared / str(number))
            blob.symlink_to(
                shared / str(number)
            )  # as where the Hub's cache shares blobs between repositories
            link.symlink_to(blob)
    Artifact.load(snapshot).verify()
    output = tmp_path / "output"
    copy_model(
        str(snapshot / "model"), LatentDiffusion.from_pretrained(snapshot / "model", device="cpu"), output
    )
    assert not any(path.is_symlink() for path in output.rglob("*")) and (output / WEIGHTS).is_file()


def test_statistics_that_change_after_their_check_are_checked_again(artifact_copy: Path) -> None:
    artifact = Artifact.load(artifact_copy)
    before = artifact.gaussians(400).mean
    path = artifact_copy / STATISTICS
    other = path.with_name("other")
    shutil.copy(path, other)
    flip_byte(other, -40)
    status = path.stat()
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.replace(path)  # of the same size and time: another file all the same
    with pytest.raises(ArtifactIntegrityError, match="SHA-256 differs"):
        artifact.gaussians(400)
    flip_byte(path, -40)
    assert artifact.gaussians(400).mean.equal(before)


def test_model_files_that_change_after_their_check_are_checked_again(artifact_copy: Path) -> None:
    artifact = Artifact.load(artifact_copy)
    artifact.model_folder()
    flip_byte(artifact_copy / WEIGHTS, -40)
    with pytest.raises(ArtifactIntegrityError, match="SHA-256 differs"):
        artifact.model_folder()


def test_unchanged_files_are_read_once(artifact_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = Artifact.load(artifact_copy)
    artifact.check(STATISTICS)
    monkeypatch.setattr(
        "d3hr_datasets.artifact.checked_files.file_sha256", lambda _: pytest.fail("read again")
    )
    artifact.check(STATISTICS)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    tiny_pipeline().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize(
    "name", ["README.md", "model_index.json", "vae/config.json", "scheduler/scheduler_config.json"]
)
def test_a_build_copies_no_file_from_outside_the_model(name: str, model: Path, tmp_path: Path) -> None:
    diffusion = LatentDiffusion.from_pretrained(model, device="cpu")
    secret = tmp_path / "id_rsa"
    secret.write_text('{"key": "secret"}')
    (model / name).unlink(missing_ok=True)
    (model / name).symlink_to(secret)
    with pytest.raises(ModelFormatError, match=r"id_rsa.*put the file itself"):
        copy_model(str(model), diffusion, tmp_path / "output")
    assert not list((tmp_path / "output").rglob("*.*"))


def test_a_build_copies_the_files_of_a_model_alone(model: Path, tmp_path: Path) -> None:
    diffusion = LatentDiffusion.from_pretrained(model, device="cpu")
    (model / "transformer" / "notes.json").write_text("{}")
    (model / "vae" / "optimizer.safetensors").write_text("tensors")
    (model / "README.md").write_text("# Card\n")
    copy_model(str(model), diffusion, tmp_path / "output")
    copied = {path.name for path in (tmp_path / "output").rglob("*") if path.is_file()}
    assert copied == {
        "README.md",
        "model_index.json",
        "config.json",
        "scheduler_config.json",
        "diffusion_pytorch_model.safetensors",
    }


@pytest.mark.parametrize("name", [METADATA, STATISTICS, WEIGHTS, "model/vae/config.json"])
def test_fifos_are_refused_and_not_waited_for(name: str, artifact_copy: Path, tmp_path: Path) -> None:
    (artifact_copy / name).unlink()
    os.mkfifo(artifact_copy / name)
    with pytest.raises(D3HRError):
        D3HRDataset(artifact_copy, tmp_path / "root", 1, device="cpu", classes=[0])[0]


@pytest.mark.parametrize("name", [METADATA, STATISTICS, WEIGHTS])
def test_files_that_cannot_be_read_are_refused(
    name: str, artifact_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The suite may run as root, who may read everything: the system call says no."""
    real = os.open

    def refuse(path: object, *arguments: object) -> int:
        if str(path).endswith(name):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("os.open", refuse)
    with pytest.raises(D3HRError, match="Permission denied"):
        D3HRDataset(artifact_copy, tmp_path / "root", 1, device="cpu", classes=[0])[0]


def test_the_door_opens_to_regular_files_of_a_size(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    with open_file(path) as file:
        assert read_file(path, 5) == b"12345" == file.read()
    with pytest.raises(ForeignFileError, match="5 bytes; accepted: at most 4"):
        read_file(path, 4)
    for wrong in (tmp_path / "missing", tmp_path / ("x" * 5000), Path("nul\0"), Path("\ud800")):
        with pytest.raises(ForeignFileError, match="cannot be read"):
            open_file(wrong)
    for special in (tmp_path, Path("/dev/zero")):
        with pytest.raises(ForeignFileError, match="no regular file"):
            open_file(special)


@pytest.mark.parametrize("where", ["a" * 5000, "org/" + "a" * 5000, "/" + "b" * 5000, "a\0b"])
def test_long_places_are_no_artifacts(where: str) -> None:
    with pytest.raises(ConfigError if "\0" in where else ArtifactNotFoundError) as caught:
        Artifact.from_pretrained(where, local_files_only=True)
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize(
    "text", ["\x1b[31m", "a\nb", "\u202eevil", "\ud800", "\u2028", "\u200b", "\x7f", "\x85"]
)
@pytest.mark.parametrize("field", ["name", "classes", "wnids", "producer", "license", "nested", "key"])
def test_texts_that_are_not_plain_are_refused(field: str, text: str, artifact_copy: Path) -> None:
    changes: dict[str, dict[str, Any]] = {
        "name": {"name": text},
        "classes": {"classes": [text, "b", "c"]},
        "wnids": {"wnids": [text, "b", "c"]},
        "producer": {"producer": text},
        "license": {"source": {"license": text}},
        "nested": {"source": {"more": [{"text": text}]}},
        "key": {"source": {text: 1}},
    }
    change_info(artifact_copy, **changes[field])
    with pytest.raises(ArtifactFormatError) as caught:
        Artifact.load(artifact_copy)
    assert is_printable(str(caught.value).replace("\n", " "))


def test_texts_have_a_length() -> None:
    for changes in (
        {"name": "a" * 101},
        {"classes": ("a" * 201, "b", "c")},
        {"producer": "a" * 1001},
        {"source": {"license": "a" * 1001}},
        {"source": {"a": [[[[[[[["deep"]]]]]]]]}},
    ):
        with pytest.raises(ConfigError, match=r"at most|nested too deeply"):
            tiny_info(**changes)
    tiny_info(
        name="a" * 100, classes=("a" * 200, "Ünïcödé 漢字 🐜", "b\u200dc"), source={"license": "CC BY-SA"}
    )


def test_texts_are_escaped_wherever_they_are_shown() -> None:
    assert printable("a\x1b[1m\u202e\ud800é") == r"a\x1b[1m\u202e\ud800é"
    assert markdown("<b>|`x`[y](z)_$") == r"&lt;b&gt;|\`x\`\[y\](z)\_\$"


def test_errors_of_commands_are_plain(artifact_copy: Path) -> None:
    document = read_document(artifact_copy)
    document["info"]["source"] = {"license": "\x1b[31mred\u202e"}
    (artifact_copy / METADATA).write_text(json.dumps(document))
    for arguments in (["info", str(artifact_copy)], ["info", "no\x1b[31martifact"], ["verify", "\u202ex"]):
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 1, result.output
        assert is_printable(result.output.replace("\n", ""))
