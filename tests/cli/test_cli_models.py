"""`d3hr train diffusion` and `d3hr adapt`: what they print, and what they refuse."""

from __future__ import annotations

from pathlib import Path

import yaml

from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from tests.cli.test_cli import d3hr, fail, succeed
from tests.training.tiny_training import save_base, tiny_settings, write_inputs


def test_a_model_is_trained_from_a_file_of_settings(tmp_path: Path) -> None:
    write_inputs(tmp_path)
    settings = tiny_settings(tmp_path, tmp_path / "run", samples_per_class=0)
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(vars(settings)))
    result = d3hr("train", "diffusion", tmp_path / "mine.yaml", "--set", "epochs=1")
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{tmp_path / 'run' / 'model'}\n"
    again = succeed("train", "diffusion", tmp_path / "mine.yaml")  # goes on
    assert again["folder"] == str(tmp_path / "run" / "model") and again["settings"]["epochs"] == 2
    assert again["bytes"] > 10_000
    assert len((tmp_path / "run" / "metrics.csv").read_text().splitlines()) == 1 + 12
    assert "unknown settings ['epoch']" in fail(
        1, "train", "diffusion", tmp_path / "mine.yaml", "--set", "epoch=1"
    )
    assert "Packaged: " in fail(1, "train", "diffusion", "nothing")


def test_a_model_is_adapted(tmp_path: Path) -> None:
    write_inputs(tmp_path)
    base = save_base(tmp_path / "base")
    arguments = ["adapt", tmp_path / "images", "--model", base, "--output", tmp_path / "run"]
    few = ["--steps", 3, "--batch-size", 4, "--rank", 2, "--set", "samples_per_class=0"]
    result = d3hr(*arguments, *few)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{tmp_path / 'run' / 'adapter'}\n"
    assert "% of the model's" in result.stderr and "of new classes; from step 0" in result.stderr
    model = LatentDiffusion.from_pretrained(base, device="cpu", adapter=tmp_path / "run" / "adapter")
    assert model.num_classes == 3
    other = fail(1, *arguments, *few, "--seed", 1)
    assert "holds a run with other settings of ['seed']" in other
    full = succeed(
        "adapt", tmp_path / "images", "--model", base, "--full", "--output", tmp_path / "all", *few
    )
    assert full["folder"] == str(tmp_path / "all" / "model") and full["settings"]["start"] == "full"


def test_what_cannot_be_adapted_is_said(tmp_path: Path) -> None:
    write_inputs(tmp_path)
    images, out = tmp_path / "images", ["--output", tmp_path / "run"]
    assert "there is no folder" in fail(1, "adapt", tmp_path / "none", "--model", "fashion-mnist", *out)
    assert "all 40 digits of the commit" in fail(1, "adapt", images, "--model", "org/name", *out)
    message = fail(1, "adapt", images, "--model", "fashion-mnist", "--prompt", "a {name}", *out)
    assert "takes class labels; leave out the prompts" in message
    message = fail(1, "adapt", images, "--model", "fashion-mnist", "--accumulation", 7, *out)
    assert "--accumulation" in message and "give a multiple of 7" in message
    assert "--model" in fail(2, "adapt", images)
