"""What a student sees: generated sets, baselines of real images, folders."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from d3hr_datasets import D3HRDataset, GroupSamplingConfig
from d3hr_datasets.artifact.model import load_model
from d3hr_datasets.dataset.artifact_registry import embedded_artifact
from d3hr_datasets.errors import ConfigError
from d3hr_datasets.image_sets.distilled_sets import IN_MEMORY, open_artifact
from d3hr_datasets.image_sets.generated_images import raw_samples
from d3hr_datasets.image_sets.training_set_settings import TrainingSet
from d3hr_datasets.image_sets.training_sets import images_to_test_on, training_set
from tests.support.tiny_students import CLASSES


@pytest.mark.parametrize(
    "source", ["default", "independent", "vae_gaussians", "search", "moment_matched", "raw_diffusion"]
)
def test_generated_sets(source: str, tiny_artifact: Path, tmp_path: Path) -> None:
    settings = TrainingSet(
        dataset="none", source=source, ipc=2, seed=1, artifact=str(tiny_artifact), num_candidates=3
    )
    made, again = (training_set(settings, tmp_path / name) for name in ("a", "b"))
    assert (made.classes, [made.images[i][1] for i in range(6)]) == (
        ["ant", "bee/wasp", "cat"],
        [0, 0, 1, 1, 2, 2],
    )
    assert all(torch.equal(made.images[i][0], again.images[i][0]) for i in range(6))
    if source == "moment_matched":
        dataset = D3HRDataset(tiny_artifact, tmp_path / "c", 2, 1, device="cpu")
        assert list(dataset[3][0].get_flattened_data()) == made.images[3][0].flatten().tolist()
        assert len(dataset) <= IN_MEMORY


def test_raw_samples_are_of_the_classes_of_the_set(tiny_artifact: Path, tmp_path: Path) -> None:
    """With the class of the model, and the label of the set: a class alone is what it is in another set."""
    few = D3HRDataset(tiny_artifact, tmp_path, 2, classes=["cat"], device="cpu")
    model = load_model(few.artifact)
    images, labels = raw_samples(few, model, 2, 0, 3.0)
    assert labels.tolist() == [0, 0]
    first = D3HRDataset(tiny_artifact, tmp_path, 2, classes=["cat", "ant"], device="cpu")
    more, of_both = raw_samples(first, model, 2, 0, 3.0)
    assert of_both.tolist() == [0, 0, 1, 1]
    assert (images.int() - more[:2].int()).abs().max() <= 1
    turned = D3HRDataset(tiny_artifact, tmp_path, 2, classes=["ant", "cat"], device="cpu")
    assert not torch.equal(raw_samples(turned, model, 2, 0, 3.0)[0], more)


def test_settings_of_generation_reach_the_data_set(tmp_path: Path) -> None:
    embedded = str(embedded_artifact("fashion-mnist"))
    plain = TrainingSet(dataset="fashion-mnist", source="modes", ipc=1, artifact=embedded)
    default = open_artifact(plain, tmp_path)
    assert default.sampling == GroupSamplingConfig("modes")
    changed = dataclasses.replace(plain, mode_spread=1.3, timestep=200, guidance_scale=6.0)
    other = open_artifact(changed, tmp_path)
    assert other.sampling == GroupSamplingConfig("modes", mode_spread=1.3)
    assert (other.decode.timestep, other.decode.guidance_scale) == (200, 6.0)
    assert default.decode != other.decode
    with pytest.raises(ConfigError, match="mode_spread is of source 'modes', not of 'default'"):
        open_artifact(dataclasses.replace(changed, source="default"), tmp_path)


def test_steps_of_decoding_reach_the_data_set(tiny_artifact: Path, tmp_path: Path) -> None:
    plain = TrainingSet(dataset="none", source="moment_matched", ipc=1, artifact=str(tiny_artifact))
    few = {"num_steps": 3, "solver": "dpm++2m", "spacing": "quadratic", "guidance_interval": [100, 400]}
    changed = open_artifact(dataclasses.replace(plain, decode=few, guidance_scale=2.0), tmp_path).decode
    kept = open_artifact(plain, tmp_path).decode
    assert changed == dataclasses.replace(
        kept,
        num_inference_steps=None,
        num_steps=3,
        solver="dpm++2m",
        spacing="quadratic",
        guidance_interval=(100.0, 400.0),
        guidance_scale=2.0,
    )
    for wrong, said in (
        ({"guidance_scale": 3.0}, "settings of their own"),
        ({"steps": 3}, "does not know"),
        ([3], "must be a mapping"),
    ):
        with pytest.raises(ConfigError, match=said):
            open_artifact(dataclasses.replace(plain, decode=wrong), tmp_path)  # type: ignore[arg-type]


def test_baselines_of_real_images(real: Path, tmp_path: Path) -> None:
    def chosen(source: str, seed: int = 0) -> list[tuple[int, int]]:
        settings = TrainingSet(dataset=str(real), source=source, ipc=1, seed=seed)
        images = training_set(settings, tmp_path, brightness).images
        return [(min(image.getpixel((0, 0))), label) for image, label in (images[i] for i in range(3))]

    def brightness(images: Any) -> torch.Tensor:
        return torch.tensor([[float(min(images[i][0].getpixel((0, 0))))] for i in range(len(images))])

    # The four pictures of a class have 40, 60, 80, 100; two are as near to the mean.
    assert [label for _, label in chosen("herding")] == [0, 1, 2]
    assert {value for value, _ in chosen("herding") + chosen("k_center")} == {60}
    assert {value for value, _ in chosen("medoids")} <= {60, 80}  # about 70
    assert len({tuple(chosen("random_real", seed)) for seed in range(5)}) > 1
    assert chosen("random_real", 3) == chosen("random_real", 3)
    whole = training_set(TrainingSet(dataset=str(real), source="whole"), tmp_path)
    assert (len(whole.images), whole.classes) == (12, CLASSES)


def test_training_sets_are_checked(real: Path, tiny_artifact: Path, tmp_path: Path) -> None:
    for changes, message in (
        ({"source": "noise"}, "must be one of"),
        ({"source": "whole", "ipc": 3}, "do not go together"),
        ({"source": "herding", "ipc": 1}, "give a teacher"),
        ({"dataset": "mnist", "source": "whole"}, "or a folder with train/"),
        ({"source": "whole", "select": True}, "no held-out part"),
        (
            {"source": "random_real", "ipc": 1, "weights": True},
            "weights=True .*'random_real' have no",
        ),
        ({"source": "whole", "subset": "imagewoof"}, "no folders"),
    ):
        values: dict[str, Any] = {"dataset": str(real), **changes}
        with pytest.raises(ConfigError, match=message):
            training_set(TrainingSet(**values), tmp_path)
    settings = TrainingSet(dataset=str(real), source="default", ipc=1, artifact=str(tiny_artifact))
    with pytest.raises(ConfigError, match=r"\['ant', 'bee', 'cat'\].*\['ant', 'bee/wasp', 'cat'\]"):
        images_to_test_on(settings, training_set(settings, tmp_path))
