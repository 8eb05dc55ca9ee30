"""The recipes on small data: settings, images, both trainings, resuming, metrics, students."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from d3hr_datasets.build.model_folder import image_frame, model_classes
from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from d3hr_datasets.students.convnet import ConvNet
from d3hr_datasets.students.models import create_student
from recipes.build import small as build_small
from recipes.common.batches import shuffled_batches
from recipes.common.errors import RecipeError
from recipes.common.learning_rates import one_cycle, warmup_stable_decay
from recipes.common.run_folder import RunFolder
from recipes.common.settings import load_settings
from recipes.data.images import load_images
from recipes.evaluate.metrics import frechet_distance, recall_and_coverage
from recipes.train import diffusion as train_dit
from recipes.train import vae as train_vae
from recipes.train.diffusion import DiTSettings
from recipes.train.perceptual import PerceptualDistance
from recipes.train.vae import VAESettings

CONFIGS = Path(__file__).parents[2] / "recipes" / "configs"


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """Return a folder of three classes of colour pictures of different sizes, eight each."""
    for label, name in enumerate(("red", "green", "blue")):
        (tmp_path / "images" / name).mkdir(parents=True)
        for index in range(8):
            colour = [20 * index] * 3
            colour[label] = 255
            Image.new("RGB", (20 + index, 24), tuple(colour)).save(
                tmp_path / "images" / name / f"{index}.png"
            )
    return tmp_path / "images"


def vae_settings(image_folder: Path, output: Path, **changes: Any) -> VAESettings:
    values: dict[str, Any] = {
        "output": str(output),
        "source": str(image_folder),
        "image_size": 14,
        "padding": 1,
        "channels": 3,
        "latent_channels": 2,
        "block_out_channels": [4, 8, 8],
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "epochs": 2,
        "batch_size": 4,
        "learning_rate": 1e-3,
        "kl_weight": 1e-3,
        "ema_decay": 0.9,
        "log_every": 1,
        "minutes_between_checkpoints": 0.0,
    }
    return VAESettings(**{**values, **changes})


def dit_settings(image_folder: Path, output: Path, vae: Path, **changes: Any) -> DiTSettings:
    values: dict[str, Any] = {
        "output": str(output),
        "vae": str(vae),
        "source": str(image_folder),
        "image_size": 14,
        "padding": 1,
        "patch_size": 2,
        "num_layers": 1,
        "num_attention_heads": 2,
        "attention_head_dim": 8,
        "epochs": 2,
        "batch_size": 4,
        "learning_rate": 1e-3,
        "label_dropout": 0.5,
        "snr_gamma": 5.0,
        "ema_decay": 0.9,
        "log_every": 1,
        "minutes_between_checkpoints": 0.0,
        "minutes_between_samples": 60.0,
    }
    return DiTSettings(**{**values, **changes})


def interrupt_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Make the next training stop as if by Ctrl-C when it logs `step`."""
    log = RunFolder.log

    def stop(self: RunFolder, **metrics: Any) -> None:
        if metrics["step"] == step:
            raise KeyboardInterrupt
        log(self, **metrics)

    monkeypatch.setattr(RunFolder, "log", stop)


def test_a_model_trains_on_any_image_folder_and_resumes(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = vae_settings(image_folder, tmp_path / "vae")
    train_vae.train(whole)
    parts = dataclasses.replace(whole, output=str(tmp_path / "vae-parts"))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_at(patch, 8)
        train_vae.train(parts)
    train_vae.train(parts)
    weights, again = (
        load_file(Path(s.output) / "vae" / "diffusion_pytorch_model.safetensors") for s in (whole, parts)
    )
    for name, tensor in weights.items():
        torch.testing.assert_close(again[name], tensor)
    assert (tmp_path / "vae" / "reconstructions.png").is_file()
    assert len((tmp_path / "vae" / "metrics.csv").read_text().splitlines()) == 1 + 12

    settings = dit_settings(image_folder, tmp_path / "dit", tmp_path / "vae" / "vae")
    train_dit.train(settings)
    model = LatentDiffusion.from_pretrained(tmp_path / "dit" / "model", device="cpu")
    assert (model.num_classes, model.latent_shape, model.image_channels) == (3, (2, 4, 4), 3)
    known = model_classes(str(tmp_path / "dit" / "model"), None)
    assert known is not None
    assert known.names == ("blue", "green", "red")  # so that `d3hr build` need not be told
    assert image_frame(str(tmp_path / "dit" / "model"), model.sample_size) == (14, 1, None)
    assert (tmp_path / "dit" / "samples-12.png").is_file()
    resumed = dataclasses.replace(settings, output=str(tmp_path / "dit-parts"))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_at(patch, 7)
        train_dit.train(resumed)
    train_dit.train(resumed)
    file = Path("model/transformer/diffusion_pytorch_model.safetensors")
    weights, again = (load_file(Path(s.output) / file) for s in (settings, resumed))
    for key, tensor in weights.items():
        torch.testing.assert_close(again[key], tensor)


def test_a_long_dit_training_validates_and_may_be_told_its_end_late(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_vae.train(vae_settings(image_folder, tmp_path / "vae"))
    vae = tmp_path / "vae" / "vae"
    settings = dit_settings(
        image_folder,
        tmp_path / "dit",
        vae,
        split="train",
        validation_split="held-out",
        decay_share=0.25,
        minutes_between_samples=0.0,
    )
    train_dit.train(settings)
    rows = (tmp_path / "dit" / "validation.csv").read_text().splitlines()
    assert rows[0] == "step,epoch,mse"
    assert [row.split(",")[0] for row in rows[1:]] == [*map(str, range(1, 11)), "10"]
    assert len({row.split(",")[2] for row in rows[1:]}) == 10  # of weights that change, on the same noise
    longer = dataclasses.replace(settings, output=str(tmp_path / "longer"), epochs=50)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt_at(patch, 7)
        train_dit.train(longer)
    train_dit.train(dataclasses.replace(longer, epochs=2))
    file = Path("model/transformer/diffusion_pytorch_model.safetensors")
    weights, again = (load_file(Path(s.output) / file) for s in (settings, longer))
    for key, tensor in weights.items():
        torch.testing.assert_close(again[key], tensor)


def test_the_learning_rate_of_a_long_training_does_not_depend_on_its_end_until_it_falls() -> None:
    rates = [warmup_stable_decay(step, 100, 9, 0.2) for step in range(101)]
    assert rates[0] == 0.1
    assert rates[9:81] == [1.0] * 72
    assert (rates[90], rates[100]) == (0.5, 0.0)
    assert [warmup_stable_decay(step, 1000, 9, 0.2) for step in range(81)] == rates[:81]


def test_a_decoder_trains_on_while_the_latents_stay(image_folder: Path, tmp_path: Path) -> None:
    whole = vae_settings(image_folder, tmp_path / "vae")
    train_vae.train(whole)
    base = tmp_path / "vae" / "vae"
    train_vae.train(
        vae_settings(
            image_folder,
            tmp_path / "decoder",
            decoder_of=str(base),
            perceptual_weight=0.1,
            minutes_between_checkpoints=60.0,
        )
    )
    before, after = (
        load_file(folder / "vae" / "diffusion_pytorch_model.safetensors")
        for folder in (tmp_path / "vae", tmp_path / "decoder")
    )
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"decoder"}
    configs = [json.loads((tmp_path / run / "vae" / "config.json").read_text()) for run in ("vae", "decoder")]
    assert configs[0]["scaling_factor"] == configs[1]["scaling_factor"]


def test_the_perceptual_distance_is_of_features_and_zero_for_the_same_images() -> None:
    torch.manual_seed(0)
    network = create_student("convnet3", 3, 1, 16, {"width": 4})
    assert isinstance(network, ConvNet)
    distance = PerceptualDistance(network)
    images = torch.rand(2, 1, 16, 16) * 2 - 1
    assert distance(images, images) == 0
    assert distance(images, images.flip(-1)) > 1e-3
    assert distance(images, images + 0.01) < distance(images, images.flip(-1))


def test_a_run_refuses_other_settings(image_folder: Path, tmp_path: Path) -> None:
    settings = vae_settings(image_folder, tmp_path / "run")
    RunFolder(settings.output, settings)
    RunFolder(settings.output, dataclasses.replace(settings, epochs=5))
    with pytest.raises(RecipeError, match="learning_rate"):
        RunFolder(settings.output, dataclasses.replace(settings, learning_rate=0.5))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("epoch=3", "unknown settings"),
        ("epochs=many", "must be a int"),
        ("epochs=true", "must be a int"),
        ("epochs", "KEY=VALUE"),
    ],
)
def test_settings_are_checked(override: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_settings(VAESettings, CONFIGS / "vae_fashion_mnist.yaml", [override])


def test_the_shipped_settings_are_accepted() -> None:
    vae = load_settings(VAESettings, CONFIGS / "vae_fashion_mnist.yaml", ["learning_rate=1e-4"])
    assert vae.learning_rate == 1e-4
    assert load_settings(DiTSettings, CONFIGS / "dit_fashion_mnist.yaml", []).image_size == 28
    assert load_settings(DiTSettings, CONFIGS / "dit_fashion_mnist_long.yaml", []).split == "train"


def test_missing_settings_are_named(tmp_path: Path) -> None:
    (tmp_path / "short.yaml").write_text("output: x\n")
    with pytest.raises(RecipeError, match=r"missing settings .*kl_weight"):
        load_settings(VAESettings, tmp_path / "short.yaml", [])


def test_batches_cover_an_epoch_and_continue_anywhere() -> None:
    batches = shuffled_batches(10, 3, seed=1, step=0)
    seen = [next(batches) for _ in range(7)]
    assert len(torch.cat(seen[:3]).unique()) == 9
    assert not torch.equal(torch.cat(seen[:3]), torch.cat(seen[3:6]))
    assert torch.equal(next(shuffled_batches(10, 3, seed=1, step=5)), seen[5])
    with pytest.raises(RecipeError, match="larger than"):
        next(shuffled_batches(2, 3, seed=0, step=0))


def test_one_cycle_rises_and_falls_to_zero() -> None:
    factors = [one_cycle(step, 100, 0.1) for step in range(101)]
    assert max(factors) == factors[10] == 1
    assert factors[:11] == sorted(factors[:11])
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert factors[100] == pytest.approx(0)


def test_splits_do_not_overlap(image_folder: Path) -> None:
    train, targets, names = load_images(str(image_folder), "train", 14, 3)
    held_out, held_out_targets, _ = load_images(str(image_folder), "held-out", 14, 3)
    assert (len(train), len(held_out), names) == (20, 4, ["blue", "green", "red"])
    assert train.shape[1:] == (3, 14, 14)
    both = torch.cat([train, held_out]).flatten(1).unique(dim=0)
    assert len(both) == len(
        load_images(str(image_folder), "train+held-out", 14, 3)[0].flatten(1).unique(dim=0)
    )
    assert sorted(torch.cat([targets, held_out_targets]).tolist()) == [0] * 8 + [1] * 8 + [2] * 8
    with pytest.raises(ValueError, match="no test split"):
        load_images(str(image_folder), "test", 14, 3)


def test_frechet_distance_of_gaussians() -> None:
    features = torch.randn(4000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    moved = 2 * features + torch.tensor([3.0, 0, 0])
    # Means differ by 3 and standard deviations by 1 in each of three dimensions: 9 + 3.
    assert frechet_distance(features, moved) == pytest.approx(12, rel=0.05)
    assert frechet_distance(features, features) == pytest.approx(0, abs=1e-6)


def test_recall_and_coverage_see_a_missing_mode() -> None:
    generator = torch.Generator().manual_seed(0)
    real = torch.randn(200, 2, generator=generator)
    real[100:] += 100
    fake = torch.randn(100, 2, generator=generator)
    recall, coverage = recall_and_coverage(real, fake)
    assert 0.35 < recall <= 0.5
    assert 0.35 < coverage <= 0.5
    assert recall_and_coverage(real, real) == (1, 1)


def test_images_of_other_packages_become_image_folders(tmp_path: Path) -> None:
    digits = tmp_path / "digits"
    digits.mkdir()
    grey = [round(value / 255, 3) for value in range(256)] * 7  # as the package rounds them
    (digits / "3.json").write_text(json.dumps({"data": grey[:1568]}), encoding="utf-8")
    build_small.write_digits(digits, tmp_path / "digits-out")
    images, _, names = load_images(str(tmp_path / "digits-out"), "train+held-out", 28, 1)
    assert names == ["3"]
    assert images.flatten().tolist() == [round(255 * value) for value in grey[:1568]]
    assert images[0].flatten()[:256].tolist() == list(range(256))

    pictures = tmp_path / "emoji" / "img" / "google" / "64"
    pictures.mkdir(parents=True)
    picture = Image.new("RGBA", (64, 64), (200, 0, 0, 0))  # red that nobody sees
    picture.putpixel((5, 7), (0, 90, 0, 255))
    picture.save(pictures / "a.png")
    listed = [{"image": "a.png", "category": name} for name in ("Food & Drink", "Component")]
    (tmp_path / "emoji" / "emoji.json").write_text(
        json.dumps([*listed, {"image": "missing.png", "category": "Flags"}]), encoding="utf-8"
    )
    build_small.write_emoji(tmp_path / "emoji", tmp_path / "emoji-out")
    images, _, names = load_images(str(tmp_path / "emoji-out"), "train+held-out", 64, 3)
    assert (len(images), names) == (1, ["Food & Drink"])
    assert images[0, :, 0, 0].tolist() == [255, 255, 255]
    assert images[0, :, 7, 5].tolist() == [0, 90, 0]

    photos = tmp_path / "photos"
    photos.mkdir()
    for index, label in enumerate((0, 397, 398, 949, 999)):
        Image.new("RGB", (8, 8)).save(photos / f"imagenet_{index:02d}_{label}.jpg")
    build_small.write_photos(photos, tmp_path / "photos-out")
    found = {path.name: len(list(path.iterdir())) for path in (tmp_path / "photos-out").iterdir()}
    assert found == {"animal": 2, "artifact": 2, "fruit": 1}


def test_a_package_without_images_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "source").mkdir()
    monkeypatch.setattr(
        "sys.argv", ["build_small", "digits", str(tmp_path / "source"), "--work", str(tmp_path / "work")]
    )
    with pytest.raises(SystemExit):
        build_small.main()
    assert "holds none of the images of digits" in capsys.readouterr().err
    assert not (tmp_path / "work").exists()
