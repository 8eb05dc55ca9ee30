"""What commands say of wrong values names their options, and no argument of the library."""

from __future__ import annotations

import dataclasses
import errno
import functools
import json
import re
from pathlib import Path
from typing import Any

import pytest
import typer.main

from d3hr_datasets import DecodeConfig, InversionConfig
from d3hr_datasets.cli.app import app
from d3hr_datasets.cli_common.error_lines import OTHER_NAMES, error_line
from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from d3hr_datasets.errors import ArtifactFormatError, CacheError, ConfigError, D3HRError
from tests.cli.test_cli import d3hr, fail
from tests.support.tiny import CLASSES, TinyImages

GROUP: Any = typer.main.get_command(app)
VALUES = ("-5", "401", "nan", "999999")
# Names in messages that are what a user gives: choices of options, and the files of others.
NO_ARGUMENTS = {"fixed_point", "moment_matched", "save_pretrained", "model_index"}
NO_ARGUMENTS |= {"adapter_config", "adapter_model", "hr_adapter"}


@pytest.fixture(scope="module")
def commands(tiny_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[object]]:
    """Return arguments with which commands would work; options may be added."""
    folder = tmp_path_factory.mktemp("errors")
    for index in range(12):
        image, label = TinyImages()[index]
        (folder / "images" / f"{label:03d}-x").mkdir(parents=True, exist_ok=True)
        image.save(folder / "images" / f"{label:03d}-x" / f"{index}.png")
    (folder / "list.json").write_text(json.dumps(CLASSES))
    model = ["--model", tiny_artifact / "model", "--output", folder / "out"]
    grid = ["--timestep", 400, "--steps", 10]
    made = ["--root", folder / "root", "--ipc", 1, "--device", "cpu"]
    return {
        "build": ["build", folder / "images", *model, "--class-order", "same", *grid],
        "import": ["import", folder, *model, "--class-list", folder / "list.json", "--counts", 10],
        "materialize": ["materialize", "--artifact", tiny_artifact, *made],
        "export": ["export", "--artifact", tiny_artifact, "--format", "parquet", *model[2:], *made],
        "report": ["report", tiny_artifact, "--output", folder / "report", *made],
        "card": ["card", tiny_artifact],
        "publish": ["publish", tiny_artifact, "ORG/NAME"],
        "cache": ["cache", "verify", "--root", folder / "root"],
    }


def _python_names(line: str) -> set[str]:
    """Return what looks like arguments of the library, outside quotes and paths."""
    line = re.sub(r"'[^' ]*'|\S*/\S*", "", line)
    return set(re.findall(r"[a-z]+_[a-z_]+|\b[a-z]+=\S+", line)) - NO_ARGUMENTS


@pytest.mark.parametrize("name", ["build", "import", "materialize", "export", "report"])
def test_no_command_names_an_argument_of_the_library(
    name: str, commands: dict[str, list[object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Give every option values that it may refuse; what would take long stops where it begins."""

    def stop(*args: object, **kwargs: object) -> None:
        raise typer.Exit(0)

    for long in (
        "build.planning.build_artifact",
        "build.reference_import.import_statistics",
        "dataset.dataset.D3HRDataset.materialize",
        "report.write_report",
        "build.artifact_folder.copy_model",
        "dataset.export.export_parquet",
    ):
        monkeypatch.setattr(f"d3hr_datasets.{long}", stop)
    load = functools.cache(LatentDiffusion.from_pretrained)
    monkeypatch.setattr(LatentDiffusion, "from_pretrained", load)
    refused = 0
    for parameter in GROUP.commands[name].params:
        option = next((word for word in parameter.opts if word.startswith("--")), None)
        if option is None or parameter.is_flag:
            continue
        for value in VALUES:
            result = d3hr(*commands[name], option, value)
            assert isinstance(result.exception, SystemExit | None), (option, value, result.exception)
            if result.exit_code == 1:
                refused += 1
                line = result.stderr.splitlines()[-1]
                assert line.startswith("d3hr: ") and not _python_names(line), (option, value, line)
    assert refused >= 4


@pytest.mark.parametrize(
    ("name", "more", "said"),
    [
        ("build", ("--steps", 5000), "--steps must be from 1 to 1000, not 5000"),
        ("build", ("--timestep", 1001), "--timestep must be from -1 to 999, not 1001"),
        ("build", ("--timestep", 400), "--timestep (400, 400) has duplicates"),
        ("build", ("--guidance-scale", -1), "--guidance-scale must be at least 0.0"),
        ("build", ("--decode-guidance-scale", -1), "--decode-guidance-scale must be at least 0.0"),
        ("build", ("--decode-timestep", 500), "--decode-timestep 500 is not stored; stored: [400]"),
        ("build", ("--decode-timestep", -7), "--decode-timestep must be at least -1, not -7"),
        ("build", ("--evaluations-per-step", 101), "--evaluations-per-step must be from 1 to 100"),
        (
            "build",
            ("--inversion", "ddim", "--evaluations-per-step", 2),
            "must be 1 with --inversion ddim, not 2; --inversion fixed_point takes more",
        ),
        ("build", ("--modes", 2000), "--modes must be from 1 to 1024, not 2000"),
        (
            "build",
            ("--modes", 7),
            "to find 7 modes in, and needs more images than modes; add images, or build with --modes 3",
        ),
        ("build", ("--name", "My Set"), "--name must be of lower-case letters"),
        ("import", ("--decode-guidance-scale", -1), "--decode-guidance-scale must be at least 0.0"),
        ("import", ("--timestep", 400), "--timestep 400 is not in these statistics"),
        ("materialize", ("--sampling", "best"), "--sampling must be one of"),
        ("materialize", ("--timestep", 1001), "--timestep must be from -1 to 999"),
        ("report", ("--root", "{file}"), "Make it readable or give another --root"),
        ("card", (), "the card's snippet names the repository: give ORG/NAME"),
        ("publish", (), "If it is yours to publish: give --with-model; otherwise"),
        ("cache", ("--root", "{file}"), "Give the folder of a cache as --root"),
    ],
)
def test_errors_name_the_options_of_the_command(
    name: str, more: tuple[object, ...], said: str, commands: dict[str, list[object]], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    words = [str(word).format(file=tmp_path / "file") for word in more]
    line = fail(1, *commands[name], *words).splitlines()[-1]
    assert said in line and not _python_names(line.partition("otherwise build with")[0]), line


def test_every_setting_of_a_build_has_an_option() -> None:
    """A new setting is named by its own option or in `OTHER_NAMES`, or its errors would name the argument."""
    build = {str(parameter.name) for parameter in GROUP.commands["build"].params}
    for config, derived in (
        # `--reference` says these, and the model the last two.
        (InversionConfig, {"num_train_timesteps", "first_timestep", "resizing", "grid", "shift"}),
        (DecodeConfig, {"reference_off_by_one", "reference_last_step", "grid"}),
    ):
        for field in dataclasses.fields(config):
            known = {field.name, *OTHER_NAMES.get(field.name, ())}
            assert known & build or field.name in derived, field.name
    everything = {str(parameter.name) for command in GROUP.commands.values() for parameter in command.params}
    assert {other for others in OTHER_NAMES.values() for other in others} <= everything


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConfigError("batch_size must be 1; not 'batch_size'"), "--batch-size must be 1; not 'batch_size'"),
        (ConfigError("a/batch_size.json and batch_size.json"), "a/batch_size.json and batch_size.json"),
        (ConfigError("device must be one"), "--device must be one"),
        (ConfigError("the device must be one"), "the device must be one"),
        (ConfigError("give nested=True or dtype='float32'"), "give --nested or --dtype float32"),
        (ConfigError("give torch_dtype=torch.float32."), "give --dtype float32."),
        (ConfigError("see GroupSamplingConfig(method='x')"), "see GroupSamplingConfig(method='x')"),
        (CacheError("give another `root`"), "give another --root"),
        # Of a file, and not of what was given:
        (ArtifactFormatError("d3hr.json: guidance_scale must be"), "d3hr.json: guidance_scale must be"),
    ],
)
def test_only_arguments_are_renamed(error: D3HRError, expected: str) -> None:
    assert error_line(error, GROUP.commands["materialize"]) == expected
    assert error_line(error, None) == str(error)


def test_an_error_of_the_system_is_a_line(tiny_artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "README.md")

    monkeypatch.setattr("d3hr_datasets.publish.card.write_card", full)
    line = fail(1, "card", tiny_artifact, "org/tiny").splitlines()[-1]
    assert line.startswith("d3hr: ") and "No space left" in line and "give a place" in line
