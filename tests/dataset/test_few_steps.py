"""Few steps from an artifact to images: in Python and by command, of a set and of the artifact's own."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from d3hr_datasets import Artifact, D3HRDataset, DecodeConfig
from d3hr_datasets.artifact.facts import artifact_facts, describe_decoding, forward_passes
from d3hr_datasets.build import BuildSettings, plan_build
from d3hr_datasets.build.prompt_options import PromptOptions
from d3hr_datasets.config.defaults import INVERSION_STEPS
from d3hr_datasets.dataset.artifact_registry import embedded_artifact
from d3hr_datasets.dataset.generation_settings import default_settings
from d3hr_datasets.errors import ArtifactFormatError, ConfigError
from tests.cli.test_cli import d3hr, fail, succeed
from tests.support.sets import image_digests, tiny_set
from tests.support.tampering import change_info, read_document, write_document
from tests.support.tiny_kinds import save_kind

FEW = DecodeConfig(
    400, guidance_scale=2.0, solver="dpm++2m", num_steps=4, spacing="quadratic", guidance_interval=(100, 400)
)


def test_a_data_set_is_made_in_few_steps(tiny_artifact: Path, tmp_path: Path) -> None:
    usual = tiny_set(tiny_artifact, tmp_path, ipc=2)
    few = tiny_set(tiny_artifact, tmp_path, ipc=2, decode=FEW)
    rows: list[int] = []
    hook = few.model().network.register_forward_hook(lambda _, __, output: rows.append(len(output.sample)))
    few.materialize(progress=False)
    hook.remove()
    assert few.model().forward_passes(FEW) == 6  # at 400 and 225 two, at 99 and 24 one
    assert sum(rows) == 6 * len(few)
    assert few.image_folder != usual.image_folder
    assert not set(image_digests(few)) & set(image_digests(usual))
    again = tiny_set(tiny_artifact, tmp_path / "other", ipc=2, decode=FEW)
    assert image_digests(again) == image_digests(few)
    settings = json.loads((few.image_folder / "set.json").read_text())
    assert FEW.to_dict() == (settings.get("settings") or settings)["decode"]


def test_many_steps_of_any_solver_come_to_the_same_images(tiny_artifact: Path, tmp_path: Path) -> None:
    found = []
    for solver in ("ddim", "dpm++2m", "unipc"):
        decode = DecodeConfig(400, guidance_scale=2.0, solver=solver, num_steps=200)
        dataset = tiny_set(tiny_artifact, tmp_path, ipc=1, decode=decode)
        found.append(np.stack([np.asarray(dataset[index][0]).astype(int) for index in range(3)]))
    assert all(np.abs(images - found[0]).max() <= 2 for images in found)


def test_an_artifact_that_is_decoded_so_by_default_is_of_format_2(
    artifact_copy: Path, tmp_path: Path
) -> None:
    assert read_document(artifact_copy)["format"] == 1
    change_info(artifact_copy, decode=FEW.to_dict())
    with pytest.raises(ArtifactFormatError, match=r"format = 1.*another way to decode"):
        Artifact.load(artifact_copy)
    write_document(artifact_copy, {**read_document(artifact_copy), "format": 2})
    artifact = Artifact.load(artifact_copy)
    assert artifact.info.decode == FEW and artifact.info.needs_format_2
    assert tiny_set(artifact_copy, tmp_path, ipc=1).decode == FEW
    artifact.write_metadata()
    assert read_document(artifact_copy)["format"] == 2
    facts = artifact_facts(artifact)
    assert facts["decoding"] == (
        "from timestep 400, 4 steps of DPM-Solver++ (2M) counted from there, quadratic in time, guidance 2 "
        "from timestep 100 to 400, none elsewhere"
    )
    assert facts["image costs"] == "6 forward passes of the network"
    shown = d3hr("info", artifact_copy)
    assert "image costs  6 forward passes of the network" in shown.stdout
    assert succeed("info", artifact_copy)["forward_passes"] == 6


def test_a_command_takes_what_is_not_the_artifacts(tiny_artifact: Path, tmp_path: Path) -> None:
    where = ("materialize", "--artifact", tiny_artifact, "--ipc", 1, "--root", tmp_path, "--device", "cpu")
    few = ("--num-steps", 4, "--spacing", "quadratic", "--guidance-interval", 100, 400)
    folder = succeed(*where, "--solver", "dpm++2m", *few)["folder"]
    assert folder == str(D3HRDataset(tiny_artifact, tmp_path, 1, decode=FEW).image_folder)
    on_grid = succeed(*where, "--solver", "unipc")["folder"]
    grid = DecodeConfig(400, 10, 2.0, solver="unipc")
    assert on_grid == str(D3HRDataset(tiny_artifact, tmp_path, 1, decode=grid).image_folder)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ("--spacing", "logsnr"),
            "--spacing logsnr is of steps that are counted from the start: ",
        ),
        (("--num-steps", 402), "--num-steps must be from 1 to 401, not 402"),
        (("--num-steps", 4, "--timestep", -1), "leave out --num-steps"),
        (("--guidance-interval", 300, 100), "--guidance-interval must be (low, high)"),
    ],
)
def test_a_command_says_what_is_wrong_by_its_options(
    options: tuple[object, ...], said: str, tiny_artifact: Path, tmp_path: Path
) -> None:
    where = ("materialize", "--artifact", tiny_artifact, "--ipc", 1, "--root", tmp_path)
    assert said in fail(1, *where, *options)


def _build(images: Path, model: Path, output: Path, *more: object) -> list[object]:
    grid = ("--timestep", 400, "--steps", 10, "--modes", 1, "--shrinkage", "none", "--device", "cpu")
    return ["build", images, "--model", model, "--output", output, "--class-order", "same", *grid, *more]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Return a folder of twelve images of three classes."""
    from tests.support.tiny import TinyImages

    for index in range(12):
        image, label = TinyImages()[index]
        (tmp_path / "photos" / f"{label}-x").mkdir(parents=True, exist_ok=True)
        image.save(tmp_path / "photos" / f"{label}-x" / f"{index}.png")
    return tmp_path / "photos"


def test_a_build_says_how_to_decode(photos: Path, tiny_artifact: Path, tmp_path: Path) -> None:
    options = (
        "--decode-solver",
        "dpm++2m",
        "--decode-num-steps",
        4,
        "--decode-spacing",
        "quadratic",
        "--decode-guidance-interval",
        100,
        400,
        "--decode-guidance-scale",
        2,
    )
    made = d3hr(*_build(photos, tiny_artifact / "model", tmp_path / "few", *options))
    assert made.exit_code == 0, made.output
    assert read_document(tmp_path / "few")["format"] == 2
    assert Artifact.load(tmp_path / "few").info.decode == FEW
    made = d3hr(*_build(photos, tiny_artifact / "model", tmp_path / "usual"))
    assert made.exit_code == 0, made.output
    assert read_document(tmp_path / "usual")["format"] == 1


def test_a_build_inverts_in_few_steps_and_says_so(photos: Path, tiny_artifact: Path, tmp_path: Path) -> None:
    options = ("--num-steps", 6, "--spacing", "cubic", "--inversion", "adams")
    made = d3hr(*_build(photos, tiny_artifact / "model", tmp_path / "few", *options))
    assert made.exit_code == 0, made.output
    assert read_document(tmp_path / "few")["format"] == 2
    inversion = Artifact.load(tmp_path / "few").info.inversion
    assert (inversion.num_steps, inversion.spacing, inversion.method) == (6, "cubic", "adams")
    said = artifact_facts(Artifact.load(tmp_path / "few"))
    assert said["grid of inversion"].startswith("6 steps to the highest time, cubic in time, of 1,000")
    assert "second order" in said["inversion"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--num-steps", 1001), "--num-steps must be from 1 to 1000, not 1001"),
        (("--spacing", "cubic"), "give --num-steps, too"),
        (("--reference", "--num-steps", 4), "--reference sets what"),
        (("--decode-num-steps", 402), "--decode-num-steps must be from 1 to 401, not 402"),
        (("--decode-spacing", "logsnr"), "give --decode-num-steps, too"),
        (("--decode-guidance-interval", 3, 1), "--decode-guidance-interval must be (low, high)"),
        (("--reference", "--decode-solver", "unipc"), "--reference sets what"),
    ],
)
def test_a_build_refuses_it_before_it_begins(
    options: tuple[object, ...], said: str, photos: Path, tiny_artifact: Path, tmp_path: Path
) -> None:
    assert said in fail(1, *_build(photos, tiny_artifact / "model", tmp_path / "out", *options))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "from timestep 400, 50 steps, guidance 4"),
        ({"solver": "unipc"}, "from timestep 400, 50 steps of UniPC, guidance 4"),
        (
            {"num_inference_steps": None, "num_steps": 1},
            "from timestep 400, 1 step counted from there, uniform in time",
        ),
        (
            {"guidance_interval": (0.1, 0.35), "grid": "flow", "timestep": 0.4},
            "from sigma 0.4, 50 steps, guidance 4 from sigma 0.1 to 0.35, none elsewhere",
        ),
    ],
)
def test_decoding_is_said_in_words(changes: dict[str, Any], said: str) -> None:
    assert describe_decoding(dataclasses.replace(DecodeConfig(400), **changes)).startswith(said)


def test_a_build_with_a_model_that_is_told_the_scale_refuses_an_interval(
    photos: Path, tmp_path: Path
) -> None:
    model = save_kind("flux-dev", tmp_path / "flux")
    settings = BuildSettings((0.6,), num_modes=1, decode_guidance_interval=(0.1, 0.4))
    with pytest.raises(ConfigError, match=r"guidance_interval \(0\.1, 0\.4\).*asked once; leave it out"):
        plan_build(
            photos, model, tmp_path / "out", settings, prompt_options=PromptOptions("a photo of a {name}")
        )


def test_the_embedded_artifact_makes_eight_passes_and_searches_for_one_image() -> None:
    info = Artifact.load(embedded_artifact("fashion-mnist")).info
    assert forward_passes(info) == 8
    assert info.inversion.num_steps == INVERSION_STEPS
    assert {ipc: default_settings(info, ipc)[0].method for ipc in (1, 2, 10)} == {
        1: "search",
        2: "modes",
        10: "modes",
    }
