"""Builds from prompts: which classes they have, what they are told, and what is refused before a model is "
"loaded."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from d3hr_datasets.artifact.embeddings import as_stored
from d3hr_datasets.build import (
    BuildPlan,
    BuildSettings,
    ClassOptions,
    ModelOptions,
    PromptOptions,
    plan_build,
)
from d3hr_datasets.diffusion.conditioning import PromptEmbeddings
from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from d3hr_datasets.errors import ConfigError, D3HRError, ModelFormatError
from tests.cli.test_cli import fail
from tests.support.tiny import tiny_pipeline
from tests.support.tiny_kinds import save_kind

SETTINGS = BuildSettings(num_inference_steps=10, num_modes=1, shrinkage="none")
TEMPLATE = "a photo of a {name}"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a Stable Diffusion, and a DiT."""
    folder = tmp_path_factory.mktemp("models")
    save_kind("sd-1", folder / "text")
    tiny_pipeline(channels=3).save_pretrained(folder / "dit")
    return folder


def _plan(models: Path, source: Any, output: Path, **options: Any) -> BuildPlan:
    values: dict[str, Any] = {
        "model": models / "text",
        "settings": SETTINGS,
        "model_options": ModelOptions("cpu"),
        "prompt_options": PromptOptions(TEMPLATE),
        **options,
    }
    return plan_build(source, output=output, **values)


def test_classes_are_those_of_the_source_in_its_order(
    models: Path, image_folder: Path, tmp_path: Path
) -> None:
    plan = _plan(models, image_folder, tmp_path / "out")
    assert plan.info.classes == ("blue", "green", "red") and plan.info.wnids is None
    assert plan.info.prompts is not None and plan.info.prompts.negative is None
    assert plan.info.prompts.per_class == tuple(f"a photo of a {name}" for name in plan.info.classes)
    assert plan.images.labels == [0] * 8 + [1] * 8 + [2] * 8
    assert plan.notes == (
        "the prompts are 'a photo of a blue', 'a photo of a green', 'a photo of a red'; --class-list or "
        "--prompts "
        "gives classes other words",
    )
    assert (plan.info.image_size, plan.info.image_mode, plan.info.latent_shape) == (16, "RGB", (4, 8, 8))


def test_a_map_renames_classes_and_leaves_some_out(models: Path, image_folder: Path, tmp_path: Path) -> None:
    options = ClassOptions(class_map={"red": "a house", "green": None, "blue": "tree"})
    plan = _plan(models, image_folder, tmp_path / "out", class_options=options)
    assert plan.info.classes == ("tree", "a house") and plan.images.labels == [0] * 8 + [1] * 8
    merged = ClassOptions(class_map={"red": "warm", "green": "cold", "blue": "cold"})
    plan = _plan(models, image_folder, tmp_path / "out", class_options=merged)
    assert plan.info.classes == ("cold", "warm") and plan.images.labels == [0] * 16 + [1] * 8


def test_a_list_orders_classes_or_renames_them(models: Path, image_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "order.json").write_text('["red", "green", "blue"]')
    (tmp_path / "names.json").write_text('["sky", "tree", "house"]')
    ordered = ClassOptions(str(tmp_path / "order.json"))
    plan = _plan(models, image_folder, tmp_path / "out", class_options=ordered)
    assert plan.info.classes == ("red", "green", "blue") and plan.images.labels == [2] * 8 + [1] * 8 + [0] * 8
    renamed = ClassOptions(str(tmp_path / "names.json"), same_order=True)
    plan = _plan(models, image_folder, tmp_path / "out", class_options=renamed)
    assert plan.info.classes == ("sky", "tree", "house") and plan.images.labels == [0] * 8 + [1] * 8 + [2] * 8


class Unnamed:
    """Twelve images of three classes that have numbers alone."""

    targets = (0, 1, 2) * 4

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        if not 0 <= index < 12:
            raise IndexError(index)
        return Image.new("RGB", (16, 16), (20 * index, 0, 0)), index % 3


def test_a_source_without_names_needs_a_list(models: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"does not name its classes.*give --class-list"):
        _plan(models, Unnamed(), tmp_path / "out")
    (tmp_path / "names.json").write_text('["ant", "bee", "cat"]')
    listed = ClassOptions(str(tmp_path / "names.json"))
    plan = _plan(models, Unnamed(), tmp_path / "out", class_options=listed)
    assert plan.info.classes == ("ant", "bee", "cat") and plan.images.labels == [0, 1, 2] * 4


def test_a_map_of_prompts_may_be_a_file(models: Path, image_folder: Path, tmp_path: Path) -> None:
    prompts = {"red": "a small red house", "blue": "a blurry picture", "green": "the large tree"}
    (tmp_path / "prompts.json").write_text(json.dumps(prompts))
    for given in (prompts, tmp_path / "prompts.json", str(tmp_path / "prompts.json")):
        options = PromptOptions(per_class=given, negative="small")
        info = _plan(models, image_folder, tmp_path / "out", prompt_options=options).info
        assert info.prompts is not None and info.prompts.negative == "small"
        assert info.prompts.per_class == ("a blurry picture", "the large tree", "a small red house")


@pytest.fixture
def _nothing_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: object, **__: object) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(LatentDiffusion, "from_pretrained", load)


@pytest.mark.usefixtures("_nothing_is_loaded")
@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            (),
            "2.x, to which a prompt .*give --prompt 'a photo of a {name}', or --prompts FILE.json",
        ),
        (("--negative-prompt", "dull"), "there is none; give --prompt 'a photo of a {name}'"),
        (("--prompt", "a photo"), "must say {name} where the name of a class goes"),
        (("--prompt", "a {name} of {kind}"), "no other braces"),
        (("--prompt", "a {name}", "--prompts", "map.json"), "--prompt.* or .*--prompts.*not both"),
        (("--prompts", "nowhere.json"), "map of prompts nowhere.json cannot be read"),
        (("--prompts", "list.json"), "list.json' is no JSON object"),
        (("--prompts", "few.json"), r"has no prompt for \['green', 'red'\]"),
        (("--prompts", "many.json"), r"names \['white'\], which are no classes"),
        (("--prompts", "number.json"), "a prompt must be of up to 2,000 printable characters, not 5"),
        (
            ("--prompt", "a {name}", "--model", "dit"),
            "kind DiT, which takes class labels and no text; leave out --pr",
        ),
        (("--store-embeddings", "--model", "dit"), "kind DiT, which takes class labels and no text"),
        (
            ("--prompt", "a {name}", "--model", "other"),
            "'WuerstchenPipeline', which is not supported; accepted: DiT",
        ),
        (("--prompt", "a {name}", "--class-map", "labels.json"), "a name for each class, or null"),
        (("--prompt", "a {name}", "--class-map", "none.json"), "at least one name"),
        (("--prompt", "a {name}", "--class-map", "part.json"), "it lacks 'green', 'red'"),
        (("--prompt", "a {name}", "--model", "org/model@main"), "40 hexadecimal digits"),
    ],
)
def test_what_is_wrong_with_prompts_is_said_before_the_model_is_loaded(
    more: tuple[str, ...],
    said: str,
    models: Path,
    image_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = tmp_path / "place"
    place.mkdir()
    monkeypatch.chdir(place)
    files: dict[str, Any] = {
        "list": ["a"],
        "few": {"blue": "a blue house"},
        "many": {"blue": "b", "green": "g", "red": "r", "white": "w"},
        "number": {"blue": 5, "green": "g", "red": "r"},
        "labels": {"blue": 0, "green": 1, "red": 2},
        "none": {"blue": None, "green": None, "red": None},
        "part": {"blue": "sky"},
    }
    for name, values in files.items():
        (place / f"{name}.json").write_text(json.dumps(values))
    (place / "other").mkdir()
    (place / "other" / "model_index.json").write_text('{"_class_name": "WuerstchenPipeline"}')
    (place / "dit").symlink_to(models / "dit")
    given = ("--model", models / "text", *more)
    line = fail(1, "build", image_folder, "--output", tmp_path / "out", "--device", "cpu", *given)
    assert re.search(said, line), line
    assert not list(tmp_path.glob("out*"))


def test_options_of_another_class_are_refused(models: Path, image_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(D3HRError, match=r"is no PromptOptions; accepted: PromptOptions\(...\), or None"):
        _plan(models, image_folder, tmp_path / "out", prompt_options=TEMPLATE)
    with pytest.raises(ConfigError, match="per_class must be a mapping or a file, not 5"):
        PromptOptions(per_class=5)  # type: ignore[arg-type]


def test_other_prompts_ask_for_other_chunks(models: Path, image_folder: Path, tmp_path: Path) -> None:
    found: dict[str, set[str]] = {}
    for words in (TEMPLATE, "the large {name}", TEMPLATE):
        plan = _plan(models, image_folder, tmp_path / "out", prompt_options=PromptOptions(words))
        artifact = plan.run(progress=False)
        found.setdefault(words, set()).add(artifact.sha256["statistics.safetensors"])
    assert [len(digests) for digests in found.values()] == [1, 1] and len(set.union(*found.values())) == 2
    assert len(list((tmp_path / "out.chunks").glob("*.safetensors"))) == 2  # the third build made none


def test_a_tokenizer_that_has_changed_since_is_noticed(
    models: Path, image_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(models / "text", tmp_path / "text")
    plan = _plan(models, image_folder, tmp_path / "out", model=tmp_path / "text")
    merges = tmp_path / "text" / "tokenizer" / "merges.txt"
    merges.write_text(merges.read_text())
    with pytest.raises(ConfigError, match="has changed since the build was planned"):
        plan.run(progress=False)


def test_statistics_of_the_reference_are_not_of_a_model_of_prompts(models: Path, tmp_path: Path) -> None:
    line = fail(
        1, "import", tmp_path, "--model", models / "text", "--output", tmp_path / "out", "--counts", "9"
    )
    assert "statistics of D3HR's code are of a model of class labels (DiT)" in line


def test_embeddings_that_overflow_are_not_stored() -> None:
    large = PromptEmbeddings(1, {0: {"encoder_hidden_states": torch.full((1, 2, 3), 1e6)}})
    with pytest.raises(ModelFormatError, match="overflow half precision"):
        as_stored(large)
