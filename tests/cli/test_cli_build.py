"""`d3hr build`, alone and under `torchrun`."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from d3hr_datasets import Artifact, D3HRDataset
from d3hr_datasets.artifact.d3hr_json import file_digests
from d3hr_datasets.build.artifact_folder import copy_model
from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from tests.cli.test_cli import fail, succeed
from tests.support.tampering import STATISTICS
from tests.support.tiny import CLASSES, TinyImages, tiny_pipeline

REPOSITORY = Path(__file__).resolve().parents[2]
NAMES = ("ant", "bee_wasp", "cat")


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with `model`, `images` and files of classes."""
    folder = tmp_path_factory.mktemp("cli-build")
    tiny_pipeline().save_pretrained(folder / "model")
    for index in range(12):
        image, label = TinyImages()[index]
        (folder / "images" / NAMES[label]).mkdir(parents=True, exist_ok=True)
        image.save(folder / "images" / NAMES[label] / f"{index:02d}.png")
    (folder / "list.json").write_text(json.dumps(CLASSES))
    (folder / "others.json").write_text(json.dumps(["ant", "hornet", "cat"]))
    (folder / "map.json").write_text(json.dumps({"ant": "Ant", "bee_wasp": 1, "cat": "cat"}))
    return folder


def _arguments(scene: Path, output: Path, *more: object) -> list[object]:
    return [
        "build",
        scene / "images",
        "--model",
        scene / "model",
        "--output",
        output,
        "--timestep",
        400,
        "--steps",
        10,
        "--image-size",
        14,
        "--chunk-size",
        4,
        "--batch-size",
        3,
        "--device",
        "cpu",
        *more,
    ]


def test_build_makes_an_artifact_that_opens(scene: Path, tmp_path: Path) -> None:
    output = tmp_path / "my-set"
    classes = ("--class-list", scene / "list.json", "--class-map", scene / "map.json")
    values = succeed(*_arguments(scene, output, *classes, "--license", "MIT"))
    assert values["counts"] == [4, 4, 4] and values["unreadable"] == []
    artifact = Artifact.load(output)
    artifact.verify()
    info = artifact.info
    assert (info.name, info.classes, info.padding, info.model.path) == ("my-set", CLASSES, 1, "model")
    assert info.source["name"] == "images" and info.source["license"] == "MIT"
    assert info.inversion.timesteps == (400,) and info.decode.num_inference_steps == 10
    assert len(D3HRDataset(output, tmp_path / "cache", ipc=2, device="cpu")) == 6


def test_papers_inversion_is_one_flag_away(scene: Path, tmp_path: Path) -> None:
    order = ("--class-order", "same")
    plain = tmp_path / "plain"
    succeed(*_arguments(scene, tmp_path / "best", *order, "--evaluations-per-step", 2))
    succeed(*_arguments(scene, plain, *order, "--inversion", "ddim", "--noise-timestep", "target"))
    best, paper = (Artifact.load(folder) for folder in (tmp_path / "best", plain))
    assert (best.info.inversion.method, best.info.inversion.evaluations_per_step) == ("fixed_point", 2)
    assert (paper.info.inversion.method, paper.info.inversion.noise_timestep) == ("ddim", "target")
    assert not torch.equal(best.gaussians(400).mean, paper.gaussians(400).mean)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            ("--class-order", "same", "--noise-timestep", "target"),
            "d3hr: --noise-timestep is of the method 'ddim'",
        ),
        ((), "nothing says which classes the model knows"),
        (("--class-list", "{scene}/others.json"), "'bee_wasp'.*--class-map"),
        (("--class-order", "same", "--image-size", "13"), "even frame"),
        (("--class-order", "same", "--timestep", "401"), "d3hr: --timestep 401 is not on the grid"),
        (("--class-order", "same", "--output", "{scene}"), "other files in it"),
        (("--class-order", "same", "--model", "nowhere"), "ORG/NAME@COMMIT"),
        (("--class-order", "same", "--model", "a/b@main"), "40 hexadecimal digits"),
    ],
)
def test_what_cannot_be_built_is_said(more: tuple[str, ...], said: str, scene: Path, tmp_path: Path) -> None:
    arguments = [value.format(scene=scene) for value in more]
    line = fail(1, *_arguments(scene, tmp_path / "out", *arguments))
    assert re.search(said, line), line
    assert not (tmp_path / "out").exists()


def test_label_map_of_the_model_is_used(scene: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    pipeline = tiny_pipeline()
    pipeline.save_pretrained(model)
    index = json.loads((model / "model_index.json").read_text())
    index["id2label"] = {"0": "cat", "1": "ant, emmet", "2": "bee wasp"}
    (model / "model_index.json").write_text(json.dumps(index))
    output = tmp_path / "out"
    succeed(*_arguments(scene, output, "--model", model))
    assert Artifact.load(output).info.classes == ("cat", "ant, emmet", "bee wasp")
    named = ("--model", model, "--class-list", scene / "list.json")
    line = fail(1, *_arguments(scene, tmp_path / "other", *named))
    assert "their orders differ" in line


def test_bin_weights_are_loaded_only_if_allowed_and_never_passed_on(scene: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    tiny_pipeline().save_pretrained(model, safe_serialization=False)
    order = ("--class-order", "same")
    assert "safetensors is missing" in fail(1, *_arguments(scene, tmp_path / "out", "--model", model, *order))
    succeed(*_arguments(scene, tmp_path / "out", "--model", model, *order, "--allow-bin"))
    succeed(*_arguments(scene, tmp_path / "safe", *order))
    found = {path.name for path in (tmp_path / "out" / "model").rglob("diffusion*")}
    assert found == {"diffusion_pytorch_model.safetensors"}
    folders = (tmp_path / "out" / "model", tmp_path / "safe" / "model")
    models = [LatentDiffusion.from_pretrained(folder, device="cpu") for folder in folders]
    assert models[0].inversion_fingerprint == models[1].inversion_fingerprint


def test_copy_of_a_model_replaces_an_earlier_one_as_a_whole(
    scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Path(shutil.copytree(scene / "model", tmp_path / "model"))
    (source / "README.md").write_text("---\nlicense: mit\n---\n")
    (source / "model_index.json").unlink()
    diffusion = LatentDiffusion.from_pretrained(source, device="cpu")
    earlier = tmp_path / "out" / "model"
    (earlier / "unet").mkdir(parents=True)
    for name in ("model_index.json", "unet/config.json"):
        (earlier / name).write_text("{}")
    before = file_digests(tmp_path / "out")
    with monkeypatch.context() as patch, pytest.raises(OSError, match="disk"):
        patch.setattr("d3hr_datasets.build.artifact_folder.shutil.copy", _full_disk)
        copy_model(str(source), diffusion, tmp_path / "out")
    assert file_digests(tmp_path / "out") == before
    left, written_now = (tmp_path / "out" / f".model.{8 * name}.tmp" for name in ("0123", "4567"))
    for folder in (left, written_now):  # as a killed process leaves it, and as another one has it now
        (folder / "vae").mkdir(parents=True)
    os.utime(left, (0, 0))
    copy_model(str(source), diffusion, tmp_path / "out")
    assert file_digests(earlier) == file_digests(source)
    assert not left.exists() and written_now.exists()
    shutil.rmtree(written_now)
    earlier.rename(tmp_path / "elsewhere")
    for _ in range(2):
        shutil.rmtree(earlier, ignore_errors=True)
        earlier.symlink_to(tmp_path / "elsewhere")
        copy_model(str(source), diffusion, tmp_path / "out")
        assert not earlier.is_symlink()
    assert (tmp_path / "elsewhere" / "transformer").is_dir()  # what a link led to stays
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["model"]
    copy_model(str(earlier), diffusion, tmp_path / "out")  # it is there already
    assert file_digests(earlier) == file_digests(source)


def test_a_build_over_an_artifact_is_that_or_this(scene: Path, tmp_path: Path) -> None:
    output, images = tmp_path / "out", Path(shutil.copytree(scene / "images", tmp_path / "images"))
    again = [images if value == scene / "images" else value for value in _arguments(scene, output)]
    succeed(*again, "--class-order", "same")
    (output / "README.md").write_text("mine")
    Artifact.load(output).write_metadata()
    before = file_digests(output)
    other = tmp_path / "other"
    pipeline = tiny_pipeline()
    pipeline.vae.register_to_config(scaling_factor=0.5)
    pipeline.save_pretrained(other)
    again[again.index(scene / "model")] = other
    (images / "cat" / "02.png").write_bytes(b"no image")
    assert "cannot be read" in fail(1, *again, "--class-order", "same")
    assert file_digests(output) == before
    Artifact.load(output).verify()
    succeed(*again, "--class-order", "same", "--skip-unreadable", 1)
    Artifact.load(output).verify()
    assert (output / "model/vae/config.json").read_bytes() == (other / "vae/config.json").read_bytes()
    assert (output / "README.md").read_text() == "mine"
    assert {path.name for path in tmp_path.iterdir()} >= {"out"} and not list(tmp_path.glob(".out*"))


def _full_disk(*_: object) -> None:
    raise OSError("no space left on the disk")


def test_torchrun_restarts_a_killed_worker_and_gives_the_same_bits(scene: Path, tmp_path: Path) -> None:
    succeed(*_arguments(scene, tmp_path / "alone", "--class-order", "same"))
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "--max-restarts",
        "1",
        "-m",
        "tests.support.dying_build",
        tmp_path / "died",
        *_arguments(scene, tmp_path / "together", "--class-order", "same", "--json"),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False, env=environment, timeout=1200
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "died").exists() and json.loads(done.stdout)["counts"] == [4, 4, 4]
    alone, together = ((tmp_path / name / STATISTICS).read_bytes() for name in ("alone", "together"))
    assert alone == together


def test_processes_of_accelerate_launch_give_the_bits_of_one(scene: Path, tmp_path: Path) -> None:
    succeed(*_arguments(scene, tmp_path / "alone", "--class-order", "same", "--modes", 2))
    command = [
        "accelerate",
        "launch",
        "--cpu",
        "--num_processes",
        "2",
        "-m",
        "d3hr_datasets.build",
        *_arguments(scene, tmp_path / "together", "--class-order", "same", "--modes", 2, "--json")[1:],
    ]
    paths = (str(REPOSITORY), str(Path(sys.executable).parent), os.environ["PATH"])
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": paths[0],
        "PATH": os.pathsep.join(paths[1:]),
    }
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False, env=environment, timeout=1200
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["counts"] == [4, 4, 4]
    alone, together = ((tmp_path / name / STATISTICS).read_bytes() for name in ("alone", "together"))
    assert alone == together
