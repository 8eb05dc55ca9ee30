"""The command line: what it prints where, and what it exits with."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from torchvision.datasets import ImageFolder
from typer.testing import CliRunner, Result

import d3hr_datasets
from d3hr_datasets import D3HRDataset, DecodeConfig, GroupSamplingConfig
from d3hr_datasets.cli.app import app
from tests.support.tampering import flip_byte

REPOSITORY = Path(__file__).resolve().parents[2]


def d3hr(*arguments: object) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="d3hr")


def succeed(*arguments: object) -> Any:
    """Run the command with `--json` and return what it prints, which is JSON and nothing else."""
    result = d3hr(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def fail(exit_code: int, *arguments: object) -> str:
    """Run the command, which must fail and print nothing to stdout; return what it says on stderr."""
    result = d3hr(*arguments)
    assert (result.exit_code, result.stdout) == (exit_code, ""), result.output
    assert "Traceback" not in result.stderr
    return result.stderr


@pytest.fixture(scope="module")
def root(tiny_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a cache with one set of two images per class. Tests only read it."""
    root = tmp_path_factory.mktemp("root")
    D3HRDataset(tiny_artifact, root, 2, device="cpu").materialize(progress=False)
    return root


def test_version() -> None:
    result = d3hr("--version")
    assert (result.exit_code, result.stdout) == (0, f"d3hr {d3hr_datasets.__version__}\n")


def test_materialize_prints_the_folder(tiny_artifact: Path, root: Path, tmp_path: Path) -> None:
    result = d3hr(
        "materialize", "--artifact", tiny_artifact, "--ipc", 2, "--root", tmp_path, "--device", "cpu"
    )
    assert result.exit_code == 0
    folder = Path(result.stdout.removesuffix("\n"))
    expected = D3HRDataset(tiny_artifact, root, 2).image_folder
    assert folder == tmp_path / expected.name
    images = sorted(path.relative_to(folder) for path in folder.rglob("*.png"))
    assert len(images) == 6
    for path in images:
        assert (folder / path).read_bytes() == (expected / path).read_bytes()


def test_materialize_takes_every_option(tiny_artifact: Path, tmp_path: Path) -> None:
    values = succeed(
        "materialize",
        "--artifact",
        tiny_artifact,
        "--ipc",
        1,
        "--seed",
        7,
        "--root",
        tmp_path,
        "--classes",
        "cat",
        "--classes",
        "bee/wasp",
        "--device",
        "cpu",
        "--dtype",
        "bfloat16",
    )
    import torch

    dataset = D3HRDataset(
        tiny_artifact, tmp_path, 1, 7, classes=["cat", "bee/wasp"], torch_dtype=torch.bfloat16
    )
    assert values == {
        "folder": str(dataset.image_folder),
        "num_images": 2,
        "classes": ["cat", "bee/wasp"],
        "ipc": 1,
        "seed": 7,
        "fingerprint": dataset.fingerprint,
    }
    assert ImageFolder(values["folder"]).classes == ["000-cat", "001-bee_wasp"]


def test_sampler_and_decoding_are_options(tiny_artifact: Path, tmp_path: Path) -> None:
    where = ("--artifact", tiny_artifact, "--ipc", 2, "--root", tmp_path / "root", "--device", "cpu")
    settings = ("--sampling", "search", "--timestep", 200, "--guidance-scale", 1.5)
    folders = [
        succeed("materialize", *where, *settings)["folder"],
        succeed("materialize", *where, "--timestep", 200)["folder"],
    ]
    search, changed = GroupSamplingConfig("search"), DecodeConfig(200, 10, 1.5)
    expected = [
        D3HRDataset(tiny_artifact, tmp_path / "root", 2, sampling=search, decode=changed),
        D3HRDataset(tiny_artifact, tmp_path / "root", 2, decode=DecodeConfig(200, 10, 2.0)),
    ]
    assert folders == [str(dataset.image_folder) for dataset in expected]
    options = ("export", "--format", "image-folder", "--output", tmp_path / "out", *where)
    values = succeed(*options, *settings)
    assert values["fingerprint"] == expected[0].fingerprint
    assert "--sampling must be one of" in fail(1, "materialize", *where, "--sampling", "best")
    assert "stores no modes" in fail(1, "materialize", *where, "--sampling", "modes")
    assert "timestep 300 is not stored; stored: [-1, 200, 400]" in fail(1, *options, "--timestep", 300)
    assert "nearest" in fail(1, "materialize", *where, "--timestep", 201)
    assert "--guidance-scale must be" in fail(1, "materialize", *where, "--guidance-scale", -1)


def test_materialize_knows_data_sets_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(D3HRDataset, "materialize", lambda self, *args, **kwargs: self.image_folder)
    expected = d3hr_datasets.D3HRFashionMNIST(tmp_path, ipc=3)
    for name in ((), ("--name", "fashion-mnist")):
        values = succeed("materialize", *name, "--ipc", 3, "--root", tmp_path)
        assert values["folder"] == str(expected.image_folder)
    nested = succeed("materialize", "--nested", "--ipc", 3, "--root", tmp_path)
    assert nested["folder"] == str(d3hr_datasets.D3HRFashionMNIST(tmp_path, ipc=3, nested=True).image_folder)
    assert "'fashion-mnist'" in fail(1, "materialize", "--name", "mnist", "--root", tmp_path)
    line = fail(1, "materialize", "--name", "imagenet", "--root", tmp_path)
    assert "d3hr build FOLDER --class-list imagenet" in line
    assert "no subset" in fail(1, "materialize", "--subset", "imagenette", "--root", tmp_path)


def test_artifact_of_other_classes_is_not_the_named_one(tiny_artifact: Path, tmp_path: Path) -> None:
    line = fail(1, "materialize", "--name", "cifar10", "--artifact", tiny_artifact, "--root", tmp_path)
    assert "has 3 classes, this data set 10" in line


@pytest.mark.parametrize("form", ["image-folder", "parquet", "webdataset"])
def test_export_writes_every_format(form: str, tiny_artifact: Path, root: Path, tmp_path: Path) -> None:
    options = ("--artifact", tiny_artifact, "--ipc", 2, "--root", root, "--device", "cpu")
    output = tmp_path / "out"
    values = succeed("export", "--format", form, "--output", output, *options, "--shard-size", 4)
    assert (values["folder"], values["format"], values["num_images"]) == (str(output), form, 6)
    files = sorted(path.relative_to(output).as_posix() for path in output.rglob("*") if path.is_file())
    classes = ("000-ant", "001-bee_wasp", "002-cat")
    assert (
        files
        == {
            "image-folder": [f"{name}/0000{index}.png" for name in classes for index in range(2)],
            "parquet": ["data/train-00000-of-00001.parquet"],
            "webdataset": ["_info.json", "train-000000.tar", "train-000001.tar"],
        }[form]
    )
    line = fail(1, "export", "--format", form, "--output", output, *options)
    assert line.startswith(f"d3hr: {output} exists and is no empty folder") and line.count("\n") == 1
    shutil.rmtree(output)
    assert d3hr("export", "--format", form, "--output", output, *options).stdout == f"{output}\n"


@pytest.fixture
def cache_copy(root: Path, tmp_path: Path) -> Path:
    """Return the folder of a copy of the cache that the test may change."""
    return Path(shutil.copytree(root, tmp_path / "cache"))


def test_cache_list_describes_the_sets(tiny_artifact: Path, root: Path) -> None:
    (values,) = succeed("cache", "list", "--root", root)
    dataset = D3HRDataset(tiny_artifact, root, 2)
    assert (values["name"], values["folder"]) == (dataset.image_folder.name, str(dataset.image_folder))
    assert (values["num_groups"], values["num_complete_groups"], values["num_images"]) == (3, 3, 6)
    size = sum(path.stat().st_size for path in dataset.image_folder.rglob("*") if path.is_file())
    assert values["num_bytes"] == size
    (line,) = d3hr("cache", "list", "--root", root).stdout.splitlines()
    assert line.startswith(f"{values['name']}  3 of 3 classes, 6 images, 0.0 MB")


def test_cache_commands_take_the_default_root(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert succeed("cache", "list", "--root", tmp_path / "nothing") == []
    monkeypatch.setattr("d3hr_datasets.cache.files.default_root", lambda: root)
    assert [found["num_images"] for found in succeed("cache", "list")] == [6]


def test_cache_verify_finds_damage(cache_copy: Path) -> None:
    result = d3hr("cache", "verify", "--root", cache_copy)
    assert (result.exit_code, result.stdout) == (0, "")
    (path,) = cache_copy.glob("*/001-bee_wasp/00001.png")
    flip_byte(path)
    result = d3hr("cache", "verify", "--root", cache_copy)
    assert (result.exit_code, result.stdout) == (1, f"{path}\n")
    assert result.stderr == "1 sets, 1 damaged files\n"
    name = path.parent.parent.name
    result = d3hr("cache", "verify", name, "--root", cache_copy, "--json")
    assert (result.exit_code, json.loads(result.stdout)) == (1, {name: [str(path)]})
    assert "has no set 'other'" in fail(1, "cache", "verify", "other", "--root", cache_copy)


def test_cache_verify_goes_on_after_a_set_it_cannot_read(cache_copy: Path) -> None:
    (cache_copy / "another").mkdir()
    sealed = {"format": 99, "sha256": hashlib.sha256(b'{"format": 99}').hexdigest()}
    (cache_copy / "another" / "set.json").write_text(json.dumps(sealed, sort_keys=True, indent=2) + "\n")
    (path,) = cache_copy.glob("*/001-bee_wasp/00001.png")
    flip_byte(path)
    result = d3hr("cache", "verify", "--root", cache_copy)
    assert (result.exit_code, result.stdout) == (1, f"{path}\n") and "another" in result.stderr


def test_cache_prune_removes_what_is_named(cache_copy: Path) -> None:
    (folder,) = cache_copy.glob("tiny-*")
    assert succeed("cache", "prune", "--root", cache_copy) == {"removed": [], "num_bytes": 0}
    damaged = folder / "001-bee_wasp"
    flip_byte(damaged / "00001.png")
    size = sum(path.stat().st_size for path in damaged.iterdir())
    values = succeed("cache", "prune", "--damaged", "--root", cache_copy)
    assert values == {"removed": [str(damaged)], "num_bytes": size}
    assert not damaged.exists() and (folder / "002-cat").is_dir()
    num_bytes = sum(path.stat().st_size for path in folder.rglob("*.*"))
    result = d3hr("cache", "prune", folder.name, "--root", cache_copy)
    assert (result.exit_code, result.stdout) == (0, f"{folder}  {num_bytes} bytes\n")
    assert result.stderr.endswith(" freed\n")
    assert not folder.exists()
    assert "has no set" in fail(1, "cache", "prune", folder.name, "--root", cache_copy)


def test_errors_are_one_line(tmp_path: Path, tiny_artifact: Path) -> None:
    line = fail(1, "info", tmp_path / "nothing")
    assert line.startswith(f"d3hr: {tmp_path}/nothing/d3hr.json does not exist") and line.count("\n") == 1
    line = fail(1, "materialize", "--artifact", tiny_artifact, "--classes", "dog", "--root", tmp_path)
    assert line.startswith("d3hr: unknown classes ['dog']") and line.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "No such command 'nothing'"),
        (["info", "--nothing"], "No such option"),
        (["materialize", "--ipc", "0"], "--ipc"),
        (["materialize", "--ipc", "ten"], "--ipc"),
        (["materialize", "--seed", "-1"], "--seed"),
        (["materialize", "--dtype", "int8"], "--dtype"),
        (["materialize", "--device", "abacus"], "--device abacus"),
        (["materialize", "--artifact", "a", "--subset", "imagenette"], "--subset needs --name"),
        (["materialize", "--batch-size", "0"], "--batch-size"),
        (["export", "--output", "x"], "--format"),
        (["export", "--output", "x", "--format", "zip"], "--format"),
        (["export", "--output", "x", "--format", "webdataset", "--shard-size", "0"], "--shard-size"),
    ],
)
def test_wrong_usage_exits_with_two(arguments: list[str], message: str) -> None:
    assert message in fail(2, *arguments)


def test_the_project_declares_the_command() -> None:
    import tomllib

    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["scripts"] == {"d3hr": "d3hr_datasets.cli.app:app"}
