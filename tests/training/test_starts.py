"""From scratch, with all weights of a base model, with small ones beside them: each learns, and is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torchvision.transforms.v2.functional import pil_to_tensor

from d3hr_datasets.build.model_facts import image_frame, model_classes
from d3hr_datasets.diffusion.adapters import check_base, read_description
from d3hr_datasets.diffusion.kinds.table import DIT
from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from d3hr_datasets.errors import ConfigError, ModelFormatError
from d3hr_datasets.training.diffusion import train_diffusion
from tests.training.tiny_training import (
    CLASSES,
    metrics,
    save_base,
    tiny_settings,
    weights_of,
    write_inputs,
)

LONG: dict[str, Any] = {
    "epochs": None,
    "steps": 150,
    "log_every": 30,
    "label_dropout": 0.1,
    "learning_rate": 5e-3,
    "minutes_between_checkpoints": 60.0,
}


def prediction(model: LatentDiffusion) -> torch.Tensor:
    """Return what a model's network says of fixed latents."""
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(3, *model.latent_shape, generator=generator)
    return model.denoiser(latents, 300, torch.arange(3), 1.0)


def falls(output: Path, share: float = 0.8) -> bool:
    errors = metrics(output)
    return errors[-1] < share * errors[0]


def test_flow_matching_from_scratch(tmp_path: Path) -> None:
    write_inputs(tmp_path)
    settings = tiny_settings(
        tmp_path,
        tmp_path / "run",
        objective="flow",
        shift=2.0,
        split="train",
        validation_split="held-out",
        **LONG,
    )
    folder = train_diffusion(settings)
    assert falls(tmp_path / "run")
    model = LatentDiffusion.from_pretrained(folder, device="cpu")
    assert (model.schedule.grid_kind, model.schedule.shift, model.num_classes) == ("flow", 2.0, 3)
    assert metrics(tmp_path / "run", table="validation")[0] < 1.3
    known = model_classes(str(folder), None)
    assert known is not None and known.names == CLASSES
    assert image_frame(str(folder), model.sample_size) == (1, None)
    assert (tmp_path / "run" / "samples-150.png").is_file()


@pytest.mark.parametrize("options", [{}, {"learned_sigma": True, "prediction_type": "v_prediction"}])
def test_all_weights_of_a_base_model_with_other_classes(options: dict[str, Any], tmp_path: Path) -> None:
    write_inputs(tmp_path)
    base = save_base(tmp_path / "base", 5, **options)
    settings = tiny_settings(tmp_path, tmp_path / "run", start="full", model=str(base), **LONG)
    folder = train_diffusion(settings)
    assert falls(tmp_path / "run")
    before, after = weights_of(base), weights_of(folder)
    tables = {name for name in after if "class_embedder" in name}
    assert {after[name].shape[0] for name in tables} == {4} and {before[n].shape[0] for n in tables} == {6}
    changed = {n for n in after if n not in tables and (after[n] - before[n].half()).abs().max() > 1e-3}
    assert len(changed) > 20
    model = LatentDiffusion.from_pretrained(folder, device="cpu")
    assert (model.num_classes, model.image_channels) == (3, 3)
    assert model.schedule.prediction_type == options.get("prediction_type", "epsilon")
    assert image_frame(str(folder), model.sample_size) == (0, None)  # as the base says: no frame


def test_all_weights_of_a_base_model_with_its_own_classes(tmp_path: Path) -> None:
    write_inputs(tmp_path)
    base = save_base(tmp_path / "base", 3)
    settings = tiny_settings(
        tmp_path,
        tmp_path / "run",
        start="full",
        model=str(base),
        keep_classes=True,
        ema_decay=0.0,
        steps=1,
        epochs=None,
        learning_rate=1e-6,
    )
    before, after = weights_of(base), weights_of(train_diffusion(settings))
    tables = [name for name in after if "class_embedder" in name]
    assert tables
    assert all(torch.allclose(after[name].float(), before[name].float(), atol=1e-3) for name in tables)


@pytest.mark.parametrize(
    ("names", "wrong"),
    [
        (("Ant, formicid", "bee", "cat"), None),
        (("bee", "ant", "cat"), "class label 0 of the images is 'ant', of the model .* 'bee'"),
        (("ant", "bee", "dog"), "class label 2 of the images is 'cat', of the model .* 'dog'"),
        (None, None),
    ],
)
def test_kept_classes_are_those_of_the_images(
    names: tuple[str, ...] | None, wrong: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_inputs(tmp_path)
    base = save_base(tmp_path / "base", 3)
    if names is not None:
        index = json.loads((base / "model_index.json").read_text())
        (base / "model_index.json").write_text(json.dumps({**index, "id2label": dict(enumerate(names))}))
    settings = tiny_settings(
        tmp_path, tmp_path / "run", start="full", model=str(base), keep_classes=True, steps=1, epochs=None
    )
    if wrong is None:
        train_diffusion(settings)
    else:
        with pytest.raises(ConfigError, match=wrong):
            train_diffusion(settings)
    assert ("does not name its classes" in caplog.text) is (names is None)


def test_an_adapter_of_a_dit(tmp_path: Path) -> None:
    write_inputs(tmp_path)
    base = save_base(tmp_path / "base")
    settings = tiny_settings(tmp_path, tmp_path / "run", start="lora", model=str(base), rank=2, **LONG)
    folder = train_diffusion(settings)
    assert falls(tmp_path / "run", 0.95)
    assert sorted(path.name for path in folder.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "d3hr_adapter.json",
    ]
    description = read_description(folder)
    assert (description.kind, description.num_classes, description.steps) == ("DiT", 3, 150)
    check_base(description, base, DIT, None, None)
    state = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    assert all("lora_" in name or "class_embedder" in name for name in state["transformer"])
    adapted = LatentDiffusion.from_pretrained(base, device="cpu", adapter=folder)
    assert adapted.num_classes == 3
    plain = prediction(LatentDiffusion.from_pretrained(base, device="cpu"))
    assert (prediction(adapted) - plain).abs().max() > 1e-2
    average = {name: tensor for name, tensor in state["average"].items() if "lora_B" in name}
    for name, tensor in weights_of(folder).items():  # averaged weights are kept, not the last ones
        inner = name.replace("lora_B.weight", "lora_B.default.weight")
        if inner in average:
            torch.testing.assert_close(tensor, average.pop(inner))
    assert not average
    other = save_base(tmp_path / "other", 4)
    with pytest.raises(ModelFormatError, match="give the model it was trained on"):
        LatentDiffusion.from_pretrained(other, device="cpu", adapter=folder)


def test_what_was_trained_is_what_is_loaded(tmp_path: Path) -> None:
    """Samples of the run, made of peft's model, are those of the base with the adapter merged into it."""
    from d3hr_datasets.training.samples import save_samples

    write_inputs(tmp_path)
    base = save_base(tmp_path / "base")
    folder = train_diffusion(tiny_settings(tmp_path, tmp_path / "run", start="lora", model=str(base), **LONG))
    model = LatentDiffusion.from_pretrained(base, device="cpu", adapter=folder)
    save_samples(model, tmp_path / "again.png", 1)
    pixels = []
    for name in ("again.png", "run/samples-150.png"):
        with Image.open(tmp_path / name, formats=["PNG"]) as image:
            pixels.append(pil_to_tensor(image).int())
    assert pixels[0].float().std() > 10
    assert (pixels[0] - pixels[1]).abs().max() <= 1


@pytest.mark.parametrize("kind", ["sd-1", "sd-3"])
def test_a_model_of_prompts(kind: str, tmp_path: Path) -> None:
    from tests.support.tiny_kinds import save_kind

    write_inputs(tmp_path)
    base = save_kind(kind, tmp_path / "base")
    prompts = {0: "a photo of an ant", 1: "a photo of a bee", 2: "a photo of a cat"}
    (tmp_path / "prompts.json").write_text(json.dumps(dict(zip(CLASSES, prompts.values(), strict=True))))
    settings = tiny_settings(
        tmp_path,
        tmp_path / "run",
        start="lora",
        model=str(base),
        prompts=str(tmp_path / "prompts.json"),
        negative_prompt="blurry",
        **LONG,
    )
    folder = train_diffusion(settings)
    assert metrics(tmp_path / "run")[-1] < metrics(tmp_path / "run")[0]
    assert read_description(folder).num_classes is None
    models = [
        LatentDiffusion.from_pretrained(base, device="cpu", prompts=prompts, adapter=adapter)
        for adapter in (None, folder)
    ]
    assert (prediction(models[0]) - prediction(models[1])).abs().max() > 1e-3
    (tmp_path / "prompts.json").write_text(json.dumps({"ant": "an ant", "bee": "a bee", "dog": "a dog"}))
    settings = tiny_settings(
        tmp_path, tmp_path / "x", start="full", model=str(base), prompts=str(tmp_path / "prompts.json")
    )
    with pytest.raises(ConfigError, match="has no prompt for"):
        train_diffusion(settings)
    with pytest.raises(ConfigError, match="takes a prompt for each class"):
        train_diffusion(tiny_settings(tmp_path, tmp_path / "y", start="full", model=str(base)))


def test_all_weights_of_a_model_of_prompts(tmp_path: Path) -> None:
    from tests.support.tiny_kinds import save_kind

    write_inputs(tmp_path)
    base = save_kind("sd-2-v", tmp_path / "base")
    settings = tiny_settings(
        tmp_path, tmp_path / "run", start="full", model=str(base), prompt="a photo of a {name}"
    )
    folder = train_diffusion(settings)
    parts = {path.name for path in folder.iterdir()}
    assert parts >= {"model_index.json", "scheduler", "text_encoder", "tokenizer", "unet", "vae"}
    weights = [
        load_file(path / "unet" / "diffusion_pytorch_model.safetensors")["conv_in.weight"].float()
        for path in (base, folder)
    ]
    assert (weights[0] - weights[1]).abs().max() > 1e-4
    model = LatentDiffusion.from_pretrained(
        folder, device="cpu", prompts={0: "an ant", 1: "a bee", 2: "a cat"}
    )
    assert model.kind.takes_prompts and model.schedule.prediction_type == "v_prediction"
