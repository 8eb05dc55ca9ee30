"""A training replaces nothing but what it made, and goes on only with what it was begun with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from d3hr_datasets.errors import ConfigError, DivergenceError
from d3hr_datasets.runs.run_folder import RunFolder
from d3hr_datasets.runs.settings_files import read_yaml
from d3hr_datasets.training.diffusion import train_diffusion
from tests.support.tiny_kinds import save_kind
from tests.training.tiny_training import save_base, tiny_settings, write_inputs

LORA = {"start": "lora", "samples_per_class": 0, "epochs": None, "steps": 2}


def test_the_base_model_is_not_replaced(tmp_path: Path) -> None:
    write_inputs(tmp_path)
    base = save_base(tmp_path / "run" / "model")
    settings = tiny_settings(tmp_path, tmp_path / "run", **{**LORA, "start": "full"}, model=str(base))
    with pytest.raises(ConfigError, match="which what is trained replaces; give another output"):
        train_diffusion(settings)
    assert (base / "model_index.json").exists()


def test_a_folder_of_no_run_is_not_replaced(tmp_path: Path) -> None:
    write_inputs(tmp_path)
    own = tmp_path / "run" / "adapter" / "mine.txt"
    own.parent.mkdir(parents=True)
    own.write_text("mine")
    settings = tiny_settings(tmp_path, tmp_path / "run", **LORA, model=str(save_base(tmp_path / "base")))
    with pytest.raises(ConfigError, match="is of no run of this kind, and would be replaced"):
        train_diffusion(settings)
    assert own.read_text() == "mine"


def test_nothing_is_written_among_the_images(tmp_path: Path) -> None:
    write_inputs(tmp_path)
    before = sorted((tmp_path / "images").rglob("*"))
    for output in ("images", "images/run"):
        with pytest.raises(ConfigError, match="is in the folder of the images"):
            train_diffusion(tiny_settings(tmp_path, tmp_path / output))
    assert sorted((tmp_path / "images").rglob("*")) == before


@pytest.mark.parametrize("change", ["classes", "names", "model weights"])
def test_other_inputs_are_not_gone_on_with(change: str, tmp_path: Path) -> None:
    write_inputs(tmp_path)
    base = save_base(tmp_path / "base")
    settings = tiny_settings(tmp_path, tmp_path / "run", **LORA, model=str(base))
    train_diffusion(settings)
    train_diffusion(settings)
    first = sorted((tmp_path / "images").iterdir())[0]
    if change == "classes":
        shutil.copytree(first, tmp_path / "images" / "zebra")
    elif change == "names":
        first.rename(first.with_name("0"))
    else:
        shutil.rmtree(base)
        save_base(base, num_classes=4)
    names = {
        "classes": "images and classes",
        "names": "classes",
        "model weights": "model weights and a VAE",
    }
    name = names[change]
    with pytest.raises(ConfigError, match=f"begun with {name} that have changed since"):
        train_diffusion(settings)


def test_other_prompts_are_not_gone_on_with(tmp_path: Path) -> None:
    write_inputs(tmp_path)
    names = sorted(path.name for path in (tmp_path / "images").iterdir())
    prompts = tmp_path / "prompts.json"
    prompts.write_text(json.dumps({name: f"a {name}" for name in names}))
    text = {"model": str(save_kind("sd-1", tmp_path / "text")), "prompts": str(prompts)}
    settings = tiny_settings(tmp_path, tmp_path / "run", **LORA, **text, image_size=16, padding=0)
    train_diffusion(settings)
    prompts.write_text(json.dumps({name: f"the {name}" for name in names}))
    with pytest.raises(ConfigError, match="begun with prompts that have changed since"):
        train_diffusion(settings)


def test_weights_that_are_no_numbers_are_not_kept(tmp_path: Path) -> None:
    write_inputs(tmp_path)
    changes = {"samples_per_class": 0, "learning_rate": 1e30, "log_every": 100}
    settings = tiny_settings(tmp_path, tmp_path / "run", **changes, minutes_between_checkpoints=60.0)
    with pytest.raises(DivergenceError, match="numbers that are not finite"):
        train_diffusion(settings)
    assert not (tmp_path / "run" / "model").exists() and not (tmp_path / "run" / "checkpoint.pt").exists()


@pytest.mark.parametrize("content", [b"", b"junk", b"\x80\x02N."])
def test_a_damaged_checkpoint_is_named(content: bytes, tmp_path: Path) -> None:
    write_inputs(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoint.pt").write_bytes(content)
    with pytest.raises(ConfigError, match=r"checkpoint.pt is damaged .* delete it"):
        train_diffusion(tiny_settings(tmp_path, tmp_path / "run"))


def test_a_full_disk_is_an_error_of_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a line on the command line then; the checkpoint before is kept."""
    write_inputs(tmp_path)
    run = RunFolder(tmp_path / "run", tiny_settings(tmp_path, tmp_path / "run"))
    run.save_checkpoint({"step": 1})

    def fail(*_: object) -> None:
        raise RuntimeError("unexpected pos 27840 vs 27728")

    monkeypatch.setattr("torch.save", fail)
    with pytest.raises(OSError, match="could not be written: unexpected pos"):
        run.save_checkpoint({"step": 2})
    assert run.load_checkpoint() == {"step": 1}


@pytest.mark.parametrize("content", [b"- 1", b"{", b"\xff\xfe\x00"])
def test_settings_that_are_none_are_named(content: bytes, tmp_path: Path) -> None:
    write_inputs(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "settings.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match="give another output folder"):
        train_diffusion(tiny_settings(tmp_path, tmp_path / "run"))
    with pytest.raises(ConfigError, match=r"no YAML file|must hold settings"):
        read_yaml(tmp_path / "run" / "settings.yaml")


def test_a_file_that_is_its_own_base_is_named(tmp_path: Path) -> None:
    for name, base in (("a", "b"), ("b", "a")):
        (tmp_path / f"{name}.yaml").write_text(f"base: {base}.yaml\n")
    with pytest.raises(ConfigError, match="is a base of itself"):
        read_yaml(tmp_path / "a.yaml")


def test_images_too_few_to_hold_some_out(tmp_path: Path) -> None:
    write_inputs(tmp_path)
    for folder in (tmp_path / "images").iterdir():
        for path in sorted(folder.iterdir())[1:]:
            path.unlink()
    with pytest.raises(ConfigError, match=r"'held-out' of the . images .* has none; it is one in 6"):
        train_diffusion(tiny_settings(tmp_path, tmp_path / "run", split="held-out"))
