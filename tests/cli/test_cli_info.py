"""`d3hr info` and `d3hr verify`: what an artifact is, and whether its files are sound."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from d3hr_datasets import Artifact
from d3hr_datasets.dataset.artifact_registry import embedded_artifact
from tests.cli.test_cli import d3hr, fail, succeed
from tests.support.tampering import STATISTICS, change_info, flip_byte


def test_info_describes_the_embedded_artifact_by_default() -> None:
    values = succeed("info")
    artifact = Artifact.load(embedded_artifact("fashion-mnist"))
    assert {key: values[key] for key in artifact.info.to_dict()} == artifact.info.to_dict()
    assert (values["fingerprint"], values["license"]) == (artifact.fingerprint, "MIT")
    assert values["folder"] == str(artifact.folder)
    assert values["num_bytes"] == sum(
        path.stat().st_size for path in artifact.folder.rglob("*") if path.is_file()
    )


def test_info_is_readable(tiny_artifact: Path) -> None:
    lines = d3hr("info", tiny_artifact).stdout.splitlines()
    rows = {line[:12].strip(): line[13:] for line in lines}
    assert rows["name"] == "tiny" and rows["folder"] == str(tiny_artifact)
    assert rows["classes"] == "3 (ant, bee/wasp, cat)"
    assert rows["images"] == "14 x 14, L" and rows["built from"] == "12 images"
    assert rows["latents"] == "3 x 4 x 4 at timesteps -1, 200, 400"
    assert rows["model"] == "model/ inside the artifact" and rows["licence"] == "not given"


def test_info_names_a_model_on_the_hub(artifact_copy: Path) -> None:
    change_info(artifact_copy, model={"repo_id": "org/model", "revision": "abc0" * 10})
    assert "org/model at revision abc0abc0" in d3hr("info", artifact_copy).stdout


def test_verify_passes_what_is_sound(tiny_artifact: Path) -> None:
    values = succeed("verify", tiny_artifact)
    assert values["sound"] is True and values["error"] is None
    assert values["num_files"] == len(Artifact.load(tiny_artifact).sha256)
    assert "sound" in d3hr("verify", tiny_artifact).stdout


@pytest.mark.parametrize("file", [STATISTICS, "model/vae/config.json"])
def test_verify_finds_damage(file: str, artifact_copy: Path) -> None:
    flip_byte(artifact_copy / file)
    line = fail(1, "verify", artifact_copy)
    assert line.startswith(f"d3hr: {artifact_copy / file} is not the file") and line.count("\n") == 1
    result = d3hr("verify", artifact_copy, "--json")
    values = json.loads(result.stdout)
    assert result.exit_code == 1 and values["sound"] is False
    assert result.stderr == f"d3hr: {values['error']}\n"


def test_verify_refuses_additional_files_of_the_model(artifact_copy: Path) -> None:
    (artifact_copy / "model" / "more.safetensors").touch()
    assert "more.safetensors is not listed" in fail(1, "verify", artifact_copy)
