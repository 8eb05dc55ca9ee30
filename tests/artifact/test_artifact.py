""""""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from d3hr_datasets import (
    Artifact,
    ArtifactInfo,
    ClassGaussians,
    DecodeConfig,
    InversionConfig,
    ModelReference,
)
from d3hr_datasets.dataset.registry import embedded_artifact
from d3hr_datasets.errors import (
    ArtifactFormatError,
    ArtifactIntegrityError,
    ArtifactNotFoundError,
    ConfigError,
    D3HRError,
    ModelNotFoundError,
    StatisticsError,
)
from tests.support.tampering import (
    METADATA,
    STATISTICS,
    change_info,
    change_statistics,
    flip_byte,
    read_document,
    refresh_checksum,
    truncate,
    write_document,
)
from tests.support.tiny import CLASSES, TIMESTEPS, tiny_info

SHAPE = (3, 3, 4, 4)
DIGEST = "0" * 64
WEIGHTS = "model/vae/diffusion_pytorch_model.safetensors"


def _gaussians(seed: int = 0, scale: float = 1.0) -> dict[int, ClassGaussians]:
    generator = torch.Generator().manual_seed(seed)
    return {
        timestep: ClassGaussians(
            torch.randn(SHAPE, generator=generator) * scale,
            torch.rand(SHAPE, generator=generator) + 0.1,
            torch.full((3,), 4),
        )
        for timestep in TIMESTEPS
    }


def test_the_method_of_inversion_is_written_unless_it_is_plain_ddim(tmp_path: Path) -> None:
    other = InversionConfig(TIMESTEPS, num_inference_steps=10, method="fixed_point", evaluations_per_step=2)
    for name, info in (("plain", tiny_info()), ("other", tiny_info(inversion=other))):
        Artifact.save(tmp_path / name, info, _gaussians())
        assert Artifact.load(tmp_path / name).info == info
    plain, written = (read_document(tmp_path / name)["info"]["inversion"] for name in ("plain", "other"))
    assert not {"method", "evaluations_per_step"} & set(plain)
    assert (written["method"], written["evaluations_per_step"]) == ("fixed_point", 2)


def test_artifacts_of_before_are_described_with_the_same_words() -> None:
    folder = embedded_artifact("fashion-mnist")
    assert Artifact.load(folder).info.to_dict() == read_document(folder)["info"]


def test_artifact_survives_the_disk(tmp_path: Path) -> None:
    info = tiny_info(
        model=ModelReference(repo_id="facebook/DiT-XL-2-256", revision="abc0" * 10),
        source={"fingerprint": "1234", "name": "Ameisen, größer"},
        producer="tests 1",
        wnids=("n01", "n02", "n03"),
        dtype="float32",
    )
    gaussians = _gaussians()
    saved = Artifact.save(tmp_path / "new" / "artifact", info, gaussians)
    loaded = Artifact.load(str(tmp_path / "new" / "artifact"))
    assert loaded.info == saved.info == info
    assert loaded.fingerprint == saved.fingerprint
    for timestep in TIMESTEPS:
        found = loaded.gaussians(timestep)
        assert torch.equal(found.mean, gaussians[timestep].mean)
        assert torch.equal(found.variance, gaussians[timestep].variance)
        assert torch.equal(found.count, gaussians[timestep].count)
    loaded.verify()
    assert sorted(path.name for path in loaded.folder.iterdir()) == [METADATA, STATISTICS]


def test_statistics_are_kept_in_half_precision_and_read_in_single(tmp_path: Path) -> None:
    gaussians = _gaussians()
    artifact = Artifact.save(tmp_path, tiny_info(), gaussians)
    stored = load_file(tmp_path / STATISTICS)
    assert set(stored) == {"count", *(f"t{t}.{name}" for t in TIMESTEPS for name in ("mean", "variance"))}
    assert stored["t400.mean"].dtype == torch.float16 and stored["count"].dtype == torch.int64
    found = artifact.gaussians(400)
    assert found.mean.dtype == found.variance.dtype == torch.float32
    torch.testing.assert_close(found.mean, gaussians[400].mean, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(found.variance, gaussians[400].variance, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("timestep", TIMESTEPS)
def test_one_class_is_a_slice_of_all(timestep: int, tiny_artifact: Path) -> None:
    artifact = Artifact.load(tiny_artifact)
    whole = artifact.gaussians(timestep)
    assert whole.mean.shape == whole.variance.shape == SHAPE
    for label in range(len(CLASSES)):
        one = artifact.gaussians(timestep, label)
        assert torch.equal(one.mean, whole.mean[label : label + 1])
        assert torch.equal(one.variance, whole.variance[label : label + 1])
        assert torch.equal(one.count, whole.count[label : label + 1])


def test_loading_reads_the_description_only(artifact_copy: Path) -> None:
    (artifact_copy / STATISTICS).unlink()
    shutil.rmtree(artifact_copy / "model")
    assert Artifact.load(artifact_copy).info.classes == CLASSES


def test_model_inside_is_found_and_checked(tiny_artifact: Path) -> None:
    artifact = Artifact.load(tiny_artifact)
    assert artifact.model_folder() == tiny_artifact / "model"
    assert WEIGHTS in artifact.sha256
    artifact.verify()


def test_file_of_the_model_that_is_not_listed_is_refused(artifact_copy: Path) -> None:
    (artifact_copy / "model" / "vae" / "diffusion_pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(ArtifactIntegrityError, match=r"diffusion_pytorch_model\.bin"):
        Artifact.load(artifact_copy).model_folder()


def test_card_of_the_model_may_change(artifact_copy: Path) -> None:
    (artifact_copy / "model" / "README.md").write_text("# Card\n")
    assert Artifact.load(artifact_copy).model_folder() == artifact_copy / "model"


def test_hidden_folders_are_no_part_of_it(artifact_copy: Path) -> None:
    before = Artifact.load(artifact_copy).sha256
    for name in (".git", ".cache"):
        (artifact_copy / name / "huggingface").mkdir(parents=True)
        (artifact_copy / name / "huggingface" / "index").write_text("changes all the time")
    artifact = Artifact.load(artifact_copy)
    artifact.write_metadata()
    assert artifact.sha256 == before


def test_model_elsewhere_has_no_folder(tmp_path: Path) -> None:
    info = tiny_info(model=ModelReference(repo_id="a/b", revision="c" * 40))
    assert Artifact.save(tmp_path, info, _gaussians()).model_folder() is None


def test_fingerprint_names_the_contents_but_not_the_card(artifact_copy: Path) -> None:
    artifact = Artifact.load(artifact_copy)
    before = artifact.fingerprint
    (artifact_copy / "README.md").write_text("# Card\n")
    artifact.write_metadata()
    assert "README.md" in Artifact.load(artifact_copy).sha256
    assert Artifact.load(artifact_copy).fingerprint == before
    flip_byte(artifact_copy / WEIGHTS)
    artifact.write_metadata()
    other_model = Artifact.load(artifact_copy).fingerprint
    change_info(artifact_copy, name="other")
    assert len({before, other_model, Artifact.load(artifact_copy).fingerprint}) == 3


def test_fingerprint_does_not_depend_on_the_folder(tiny_artifact: Path, artifact_copy: Path) -> None:
    assert Artifact.load(artifact_copy).fingerprint == Artifact.load(tiny_artifact).fingerprint


@pytest.mark.parametrize("parent", ["artifacts", ".cache", ".git"])
def test_artifact_may_be_below_any_folder(parent: str, tmp_path: Path) -> None:
    artifact = Artifact.save(tmp_path / parent / "artifact", tiny_info(), _gaussians())
    assert set(artifact.sha256) == {STATISTICS}


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


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_other_formats_are_refused(version: Any, artifact_copy: Path) -> None:
    write_document(artifact_copy, {**read_document(artifact_copy), "format": version})
    with pytest.raises(ArtifactFormatError, match=r"format = .*accepted: 1\b.*upgrade"):
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


@pytest.mark.parametrize("position", [0, 8, 300, -1])
def test_changed_statistics_are_refused(position: int, artifact_copy: Path) -> None:
    flip_byte(artifact_copy / STATISTICS, position)
    for label in (None, 1):
        with pytest.raises(ArtifactIntegrityError, match=STATISTICS):
            Artifact.load(artifact_copy).gaussians(400, label)
    with pytest.raises(ArtifactIntegrityError, match=STATISTICS):
        Artifact.load(artifact_copy).verify()


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_truncated_statistics_are_refused(share: float, artifact_copy: Path) -> None:
    truncate(artifact_copy / STATISTICS, share)
    with pytest.raises(ArtifactIntegrityError, match=STATISTICS):
        Artifact.load(artifact_copy).gaussians(400)
    refresh_checksum(artifact_copy, STATISTICS)
    with pytest.raises(ArtifactFormatError, match=STATISTICS):
        Artifact.load(artifact_copy).gaussians(400)


def test_missing_statistics_are_named(artifact_copy: Path) -> None:
    (artifact_copy / STATISTICS).unlink()
    with pytest.raises(ArtifactIntegrityError, match=f"{STATISTICS} is missing"):
        Artifact.load(artifact_copy).gaussians(400)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"t400_mean": torch.zeros(3, 3, 4, 5)}, r"t400\.mean .*\[3, 3, 4, 4\]"),
        ({"t400_mean": torch.zeros(2, 3, 4, 4)}, r"t400\.mean"),
        ({"t400_mean": torch.zeros(3, 48)}, r"t400\.mean"),
        ({"t400_mean": torch.zeros(SHAPE, dtype=torch.int64)}, r"t400\.mean .*I64"),
        ({"t400_variance": torch.zeros(3, 3, 4, 4, 1)}, r"t400\.variance"),
        ({"t400_variance": torch.zeros(SHAPE, dtype=torch.bool)}, r"t400\.variance"),
        ({"t400_variance": torch.zeros(SHAPE, dtype=torch.float64)}, r"t400\.variance .*F64"),
        ({"t400_mean": torch.zeros(SHAPE, dtype=torch.bfloat16)}, r"t400\.mean .*BF16"),
        ({"count": torch.full((4,), 4)}, "count"),
        ({"count": torch.full((3,), 4.0)}, "count"),
        ({"count": torch.full((3,), 4, dtype=torch.int32)}, "count"),
        ({"t400_mean": None}, r"t400\.mean"),
        ({"count": None}, "count"),
    ],
)
def test_statistics_of_another_shape_or_type_are_refused(
    changes: dict[str, Any], named: str, artifact_copy: Path
) -> None:
    change_statistics(artifact_copy, **changes)
    artifact = Artifact.load(artifact_copy)
    for label in (None, 0):
        with pytest.raises(ArtifactFormatError, match=named) as caught:
            artifact.gaussians(400, label)
        assert not isinstance(caught.value, ArtifactIntegrityError)
    with pytest.raises(ArtifactFormatError):
        artifact.verify()


@pytest.mark.parametrize("timestep", ["t400", "tm1"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["mean", "variance"])
def test_statistics_that_are_not_finite_are_refused(
    name: str, value: float, timestep: str, artifact_copy: Path
) -> None:
    tensor = torch.ones(SHAPE)
    tensor[1, 0, 2, 3] = value
    change_statistics(artifact_copy, **{f"{timestep}_{name}": tensor})
    artifact = Artifact.load(artifact_copy)
    number = {"t400": 400, "tm1": -1}[timestep]
    with pytest.raises(StatisticsError, match=rf"{name} of class labels \[1\]"):
        artifact.gaussians(number)
    with pytest.raises(StatisticsError, match=name):
        artifact.gaussians(number, 1)
    with pytest.raises(StatisticsError, match=name):
        artifact.verify()
    artifact.gaussians(number, 0)


def test_negative_variances_are_refused(artifact_copy: Path) -> None:
    change_statistics(artifact_copy, t400_variance=torch.full(SHAPE, -0.5))
    with pytest.raises(StatisticsError, match="negative"):
        Artifact.load(artifact_copy).gaussians(400)


def test_counts_below_two_are_refused(artifact_copy: Path) -> None:
    change_statistics(artifact_copy, count=torch.tensor([4, 1, 4]))
    with pytest.raises(StatisticsError, match="fewer than two"):
        Artifact.load(artifact_copy).gaussians(400)


def test_counts_other_than_the_described_ones_are_refused(artifact_copy: Path) -> None:
    change_statistics(artifact_copy, count=torch.tensor([4, 5, 4]))
    for label in (None, 1):
        with pytest.raises(ArtifactFormatError, match="count"):
            Artifact.load(artifact_copy).gaussians(400, label)
    assert Artifact.load(artifact_copy).gaussians(400, 0).count.tolist() == [4]


@pytest.mark.parametrize("timestep", [0, 300, 600, 1000])
def test_timesteps_that_are_not_stored_are_refused(timestep: int, tiny_artifact: Path) -> None:
    with pytest.raises(ConfigError, match=rf"{timestep} .*\[-1, 200, 400\]"):
        Artifact.load(tiny_artifact).gaussians(timestep)


@pytest.mark.parametrize("label", [-1, 3, 1.0, True, "ant"])
def test_class_labels_that_do_not_exist_are_refused(label: Any, tiny_artifact: Path) -> None:
    with pytest.raises(ConfigError, match="class_label"):
        Artifact.load(tiny_artifact).gaussians(400, label)


@pytest.mark.parametrize("name", [WEIGHTS, "model/transformer/config.json"])
def test_changed_model_is_refused(name: str, artifact_copy: Path) -> None:
    flip_byte(artifact_copy / name)
    with pytest.raises(ArtifactIntegrityError, match=Path(name).name):
        Artifact.load(artifact_copy).model_folder()
    with pytest.raises(ArtifactIntegrityError, match=Path(name).name):
        Artifact.load(artifact_copy).verify()


def test_missing_file_of_the_model_is_named(artifact_copy: Path) -> None:
    (artifact_copy / WEIGHTS).unlink()
    with pytest.raises(ArtifactIntegrityError, match=f"{WEIGHTS} is missing"):
        Artifact.load(artifact_copy).model_folder()


def test_missing_folder_of_the_model_is_named(artifact_copy: Path) -> None:
    shutil.rmtree(artifact_copy / "model")
    with pytest.raises(ModelNotFoundError, match="model"):
        Artifact.load(artifact_copy).model_folder()
    Artifact.load(artifact_copy).write_metadata()
    with pytest.raises(ModelNotFoundError, match="model"):
        Artifact.load(artifact_copy).model_folder()


def test_description_may_name_another_folder_of_the_artifact(artifact_copy: Path) -> None:
    (artifact_copy / "models").mkdir()
    (artifact_copy / "model").rename(artifact_copy / "models" / "dit")
    change_info(artifact_copy, model={"path": "models/dit"})
    artifact = Artifact.load(artifact_copy)
    artifact.write_metadata()
    assert artifact.model_folder() == artifact_copy / "models" / "dit"


@pytest.mark.parametrize("name", ["mean", "variance"])
def test_statistics_that_overflow_their_type_are_not_saved(name: str, tmp_path: Path) -> None:
    gaussians = _gaussians()
    getattr(gaussians[200], name)[0, 0, 0, 0] = 1e6
    with pytest.raises(StatisticsError, match=rf"t200.{name} overflows .*float32"):
        Artifact.save(tmp_path, tiny_info(), gaussians)
    artifact = Artifact.save(tmp_path, tiny_info(dtype="float32"), gaussians)
    assert float(getattr(artifact.gaussians(200), name)[0, 0, 0, 0]) == 1e6


def test_gaussians_must_be_of_the_timesteps_of_the_description(tmp_path: Path) -> None:
    gaussians = _gaussians()
    del gaussians[200]
    with pytest.raises(StatisticsError, match="timesteps"):
        Artifact.save(tmp_path, tiny_info(), gaussians)


@pytest.mark.parametrize("changes", [{"latent_shape": (3, 4, 5)}, {"classes": ("a", "b"), "counts": (4, 4)}])
def test_gaussians_must_be_of_the_shape_of_the_description(changes: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(StatisticsError, match=r"\(3, 3, 4, 4\)"):
        Artifact.save(tmp_path, tiny_info(**changes), _gaussians())


def test_gaussians_must_have_the_counts_of_the_description(tmp_path: Path) -> None:
    with pytest.raises(StatisticsError, match="counts"):
        Artifact.save(tmp_path, tiny_info(counts=(4, 4, 5)), _gaussians())


def test_failed_save_leaves_the_old_artifact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Artifact.save(tmp_path, tiny_info(), _gaussians())
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}

    def fail(*args: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        Artifact.save(tmp_path, tiny_info(), _gaussians(seed=1))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


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


def test_repr_names_folder_and_fingerprint(tiny_artifact: Path) -> None:
    artifact = Artifact.load(tiny_artifact)
    assert repr(artifact) == f"Artifact('{tiny_artifact}', 3 classes, {artifact.fingerprint})"


def test_errors_of_artifacts_are_value_errors_of_this_library() -> None:
    assert issubclass(ArtifactIntegrityError, ArtifactFormatError)
    assert issubclass(ArtifactFormatError, D3HRError) and issubclass(ArtifactFormatError, ValueError)
