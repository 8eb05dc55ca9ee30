""""""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from d3hr_datasets import (
    Artifact,
    InversionConfig,
    ModelReference,
)
from d3hr_datasets.dataset.artifact_registry import embedded_artifact
from d3hr_datasets.errors import (
    ArtifactFormatError,
    ArtifactIntegrityError,
    D3HRError,
    ModelNotFoundError,
    StatisticsError,
)
from tests.support.gaussians import STATISTICS_SHAPE, tiny_gaussians
from tests.support.tampering import (
    METADATA,
    STATISTICS,
    change_info,
    flip_byte,
    read_document,
)
from tests.support.tiny import CLASSES, TIMESTEPS, tiny_info

WEIGHTS = "model/vae/diffusion_pytorch_model.safetensors"


def test_the_method_of_inversion_is_written_unless_it_is_plain_ddim(tmp_path: Path) -> None:
    other = InversionConfig(TIMESTEPS, num_inference_steps=10, method="fixed_point", evaluations_per_step=2)
    for name, info in (("plain", tiny_info()), ("other", tiny_info(inversion=other))):
        Artifact.save(tmp_path / name, info, tiny_gaussians())
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
    gaussians = tiny_gaussians()
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
    gaussians = tiny_gaussians()
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
    assert whole.mean.shape == whole.variance.shape == STATISTICS_SHAPE
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
    assert Artifact.save(tmp_path, info, tiny_gaussians()).model_folder() is None


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
    artifact = Artifact.save(tmp_path / parent / "artifact", tiny_info(), tiny_gaussians())
    assert set(artifact.sha256) == {STATISTICS}


@pytest.mark.parametrize("position", [0, 8, 300, -1])
def test_changed_statistics_are_refused(position: int, artifact_copy: Path) -> None:
    flip_byte(artifact_copy / STATISTICS, position)
    for label in (None, 1):
        with pytest.raises(ArtifactIntegrityError, match=STATISTICS):
            Artifact.load(artifact_copy).gaussians(400, label)
    with pytest.raises(ArtifactIntegrityError, match=STATISTICS):
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
    gaussians = tiny_gaussians()
    getattr(gaussians[200], name)[0, 0, 0, 0] = 1e6
    with pytest.raises(StatisticsError, match=rf"t200.{name} overflows .*float32"):
        Artifact.save(tmp_path, tiny_info(), gaussians)
    artifact = Artifact.save(tmp_path, tiny_info(dtype="float32"), gaussians)
    assert float(getattr(artifact.gaussians(200), name)[0, 0, 0, 0]) == 1e6


def test_repr_names_folder_and_fingerprint(tiny_artifact: Path) -> None:
    artifact = Artifact.load(tiny_artifact)
    assert repr(artifact) == f"Artifact('{tiny_artifact}', 3 classes, {artifact.fingerprint})"


def test_errors_of_artifacts_are_value_errors_of_this_library() -> None:
    assert issubclass(ArtifactIntegrityError, ArtifactFormatError)
    assert issubclass(ArtifactFormatError, D3HRError) and issubclass(ArtifactFormatError, ValueError)
