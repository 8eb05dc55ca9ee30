"""Settings that cannot be meant are refused, and say what is accepted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from d3hr_datasets.errors import ConfigError, D3HRError, ModelNotFoundError
from d3hr_datasets.training.adaption import adaption_settings, default_output
from d3hr_datasets.training.config_files import CONFIGS, config_names, find_config, training_settings
from d3hr_datasets.training.diffusion import train_diffusion
from d3hr_datasets.training.settings import DiffusionTraining
from tests.training.tiny_training import save_base, tiny_settings, write_inputs

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"epochs": None}, "give one of them, how long to train"),
    ({"steps": 3}, "give one of them, how long to train"),
    ({"epochs": 0}, "epochs must be at least 1"),
    ({"batch_size": 0}, "batch_size must be at least 1"),
    ({"learning_rate": 0.0}, "learning_rate must be more than 0"),
    ({"learning_rate": float("nan")}, "learning_rate must be a finite number"),
    ({"ema_decay": 1.5}, "ema_decay must be from 0 to 1"),
    ({"mixed_precision": "int8"}, "mixed_precision must be one of"),
    ({"gradient_accumulation": 0}, "gradient_accumulation must be at least 1"),
    ({"split": "validation"}, "split must be one of"),
    ({"start": "anew"}, "start must be one of"),
    ({"objective": "score"}, "objective must be one of"),
    ({"sigmas": "cosine"}, "sigmas must be one of"),
    ({"schedule": "cosine"}, "schedule must be one of"),
    ({"label_dropout": -0.1}, "label_dropout must be at least 0"),
    ({"snr_gamma": 0.0}, "snr_gamma must be more than 0"),
    ({"patch_size": None}, r"needs \['patch_size'\]"),
    ({"num_layers": 0}, "num_layers must be from 1"),
    ({"vae": None}, "needs a VAE"),
    ({"prompt": "a {name}"}, "takes class labels"),
    ({"start": "lora"}, "needs model"),
    ({"start": "full", "model": "base", "num_layers": 2}, "are of start = 'scratch'"),
    ({"start": "lora", "model": "base", "keep_classes": True}, "keep_classes is of start = 'full'"),
    ({"keep_classes": True}, "keep_classes is of start = 'full'"),
    (
        {"start": "full", "model": "base", "keep_classes": "no"},
        "keep_classes must be True or False, not 'no'",
    ),
    ({"torch_compile": "no"}, "torch_compile must be True or False, not 'no'"),
    ({"gradient_checkpointing": 1}, "gradient_checkpointing must be True or False, not 1"),
    ({"start": "lora", "model": "base", "rank": 0}, "rank must be from 1 to"),
    ({"start": "lora", "model": "base", "prompt": "{name}", "prompts": "p.json"}, "give one of them"),
    ({"validation_split": "train+held-out"}, "shares images with split"),
    ({"split": "train", "validation_split": "train+held-out"}, "shares images with split"),
    ({"minutes_between_checkpoints": -1.0}, "minutes_between_checkpoints must be at least 0"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG)
def test_bad_settings_are_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny_settings(tmp_path, tmp_path / "run", **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 25}, "larger than the 24 images; lower batch_size"),
        ({"gradient_accumulation": 3}, "give a multiple of 3"),
        ({"mixed_precision": "fp16"}, "needs a GPU"),
        ({"padding": 0}, "no multiple of 8"),
        ({"split": "test"}, "has no test split"),
        ({"start": "lora", "model": "org/name"}, "ORG/NAME@COMMIT"),
        ({"start": "lora", "model": "org/name@main"}, "needs a revision, the 40 hexadecimal digits"),
        (
            {"start": "full", "model": "BASE", "prompt": "a {name}"},
            "takes class labels; leave out the prompts",
        ),
        ({"start": "full", "model": "BASE", "objective": "flow"}, "its schedule asks for 'min_snr'"),
        ({"start": "full", "model": "BASE", "keep_classes": True}, "knows 5 classes, and the images have 3"),
        ({"start": "full", "model": "BASE", "image_size": 13}, "do not fit the model's 16"),
        ({"start": "full", "model": "BASE", "image_size": 12, "padding": 1}, "leave one of them out"),
        ({"vae": "nowhere"}, "config.json is missing"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    write_inputs(tmp_path)
    if changes.get("model") == "BASE":
        changes = {**changes, "model": str(save_base(tmp_path / "base"))}
    with pytest.raises(D3HRError, match=message) as raised:
        train_diffusion(tiny_settings(tmp_path, tmp_path / "run", **changes))
    assert isinstance(raised.value, ConfigError | ModelNotFoundError)


def test_a_run_has_a_folder_of_its_own(tmp_path: Path) -> None:
    from filelock import FileLock

    write_inputs(tmp_path)
    (tmp_path / "run").mkdir()
    with FileLock(tmp_path / "run" / ".lock"), pytest.raises(ConfigError, match="another process trains"):
        train_diffusion(tiny_settings(tmp_path, tmp_path / "run"))


def test_packaged_settings_are_read_by_name() -> None:
    assert {"fashion-mnist", "cifar10", "own-photos"} <= set(config_names())
    with pytest.raises(ConfigError, match="start = 'full' needs model"):
        training_settings("cifar10")
    for name in config_names():
        assert isinstance(training_settings(name, ["model=base"]), DiffusionTraining)
        assert (CONFIGS / f"{name}.yaml").read_text(encoding="utf-8").startswith("# ")
    changed = training_settings("fashion-mnist", ["epochs=2", "mixed_precision=bf16"])
    assert (changed.epochs, changed.mixed_precision) == (2, "bf16")
    with pytest.raises(ConfigError, match="Did you mean 'fashion-mnist'"):
        find_config("fashion_mnist")


def test_an_adaption_has_defaults(image_folder: Path, tmp_path: Path) -> None:
    settings = adaption_settings(str(image_folder), "base", None, rank=None)
    assert (settings.start, settings.steps, settings.batch_size) == ("lora", 2000, 24)
    assert settings.output == "images-adapter" and settings.learning_rate == 1e-3
    prompted = adaption_settings(str(image_folder), "base", tmp_path, ["epochs=3"], prompt="a {name}", rank=4)
    assert (prompted.epochs, prompted.steps, prompted.rank) == (3, None, 4)
    assert prompted.learning_rate == 1e-4 and prompted.output == str(tmp_path)
    full = adaption_settings(str(image_folder), "base", None, ["learning_rate=1e-5"], start="full")
    assert (full.output, full.learning_rate) == ("images-model", 1e-5)
    assert default_output("torchvision:CIFAR10:root", False) == "CIFAR10-adapter"
    assert default_output("datasets:org/name@abc", False) == "name-adapter"
    with pytest.raises(ConfigError, match="unknown settings"):
        adaption_settings(str(image_folder), "base", None, ["ranks=3"])
    with pytest.raises(ConfigError, match="rank = 'many' must be a int"):
        adaption_settings(str(image_folder), "base", None, ["rank=many"])


def test_a_new_dit_larger_than_any_is_refused() -> None:
    sizes = ["num_layers=60000", "num_attention_heads=60000", "attention_head_dim=60000"]
    with pytest.raises(ConfigError, match=r"make a DiT of about .* parameters; accepted: up to"):
        training_settings("fashion-mnist", sizes)


def test_half_precision_of_gpus_is_refused_on_a_cpu() -> None:
    with pytest.raises(ConfigError, match="'fp16' needs a GPU"):
        training_settings("fashion-mnist", ["mixed_precision=fp16"]).check_device("cpu")
