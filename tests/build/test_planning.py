"""A build that is planned in Python: what `d3hr build` makes, and nothing before it runs."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from d3hr_datasets import Artifact, Budget, DecodeConfig, GroupSamplingConfig
from d3hr_datasets.artifact.d3hr_json import file_digests
from d3hr_datasets.build import BuildPlan, BuildSettings, ClassOptions, ModelOptions, plan_build
from d3hr_datasets.build.artifact_folder import written_folder
from d3hr_datasets.build.build import build_artifact
from d3hr_datasets.build.reference_import import as_reference
from d3hr_datasets.errors import ConfigError, D3HRError
from tests.cli.test_cli import succeed
from tests.support.tampering import METADATA, STATISTICS
from tests.support.tiny import CLASSES, TinyImages, tiny_model, tiny_pipeline

NAMES = ("ant", "bee_wasp", "cat")
SETTINGS = BuildSettings((200, 400), num_inference_steps=10, image_size=14, num_modes=1)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with `model`, `images` and `list.json`."""
    folder = tmp_path_factory.mktemp("planning")
    tiny_pipeline().save_pretrained(folder / "model")
    for index in range(12):
        image, label = TinyImages()[index]
        (folder / "images" / NAMES[label]).mkdir(parents=True, exist_ok=True)
        image.save(folder / "images" / NAMES[label] / f"{index:02d}.png")
    (folder / "list.json").write_text(json.dumps(CLASSES))
    return folder


def _plan(scene: Path, output: Path, settings: BuildSettings = SETTINGS, **others: Any) -> BuildPlan:
    values: dict[str, Any] = {
        "source": scene / "images",
        "model": scene / "model",
        "class_options": ClassOptions(str(scene / "list.json")),
        "model_options": ModelOptions("cpu"),
        **others,
    }
    return plan_build(output=output, settings=settings, **values)


def _files(*folders: Path) -> list[Path]:
    return sorted(path for folder in folders for path in folder.rglob("*"))


def test_a_plan_makes_what_the_command_makes(scene: Path, tmp_path: Path) -> None:
    settings = dataclasses.replace(
        SETTINGS, num_modes=2, name="same", license_name="MIT", decode_timestep=200
    )
    planned = _plan(scene, tmp_path / "planned", settings).run(5, 7, progress=False)
    command = ["build", scene / "images", "--model", scene / "model", "--output", tmp_path / "commanded"]
    options = ["--timestep", 200, "--timestep", 400, "--steps", 10, "--image-size", 14, "--modes", 2]
    more = ["--name", "same", "--license", "MIT", "--decode-timestep", 200, "--device", "cpu"]
    sizes = ["--batch-size", 5, "--chunk-size", 7, "--class-list", scene / "list.json"]
    values = succeed(*command, *options, *more, *sizes)
    assert values["fingerprint"] == planned.fingerprint and values["counts"] == [4, 4, 4]
    for name in (METADATA, STATISTICS):
        assert (planned.folder / name).read_bytes() == (tmp_path / "commanded" / name).read_bytes()
    assert planned.info.source["license"] == "MIT" and planned.info.producer.endswith("d3hr build")


def test_a_plan_writes_nothing_until_it_runs(scene: Path, tmp_path: Path) -> None:
    before = _files(scene, tmp_path)
    plan = _plan(scene, tmp_path / "out")
    assert _files(scene, tmp_path) == before
    assert plan.info.counts == () and "fingerprint" not in plan.info.source
    assert (plan.info.name, plan.info.padding) == ("out", 1)
    assert [note[:39] for note in plan.notes] == ["3 of 3 classes have fewer than 100 image"[:39]]
    assert (plan.output, plan.work) == (tmp_path / "out", tmp_path / "out.chunks")
    artifact = plan.run(progress=False)
    assert artifact.info.counts == (4, 4, 4)
    assert len(artifact.info.shrinkage) == 3 and max(artifact.info.shrinkage) > 0
    found = dataclasses.replace(artifact.info, counts=(), source=plan.info.source, shrinkage=())
    assert found == plan.info and set(artifact.info.source) == {*plan.info.source, "fingerprint"}


def test_memory_is_kept_while_it_runs(scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, found = [], []

    @contextlib.contextmanager
    def keep() -> Iterator[None]:
        kept.append(1)
        yield
        kept.pop()

    def build(*args: Any, **options: Any) -> Artifact:
        found.extend(kept)
        return build_artifact(*args, **options)

    monkeypatch.setattr("d3hr_datasets.build.planning.kept_memory", keep)
    monkeypatch.setattr("d3hr_datasets.build.planning.build_artifact", build)
    _plan(scene, tmp_path / "out").run(progress=False)
    assert (found, kept) == ([1], [])


@pytest.mark.parametrize(
    ("settings", "others", "said"),
    [
        ({}, {"source": "nowhere"}, "there is no folder 'nowhere' of images"),
        ({}, {"model": "nowhere"}, "ORG/NAME@COMMIT"),
        ({}, {"class_options": ClassOptions()}, "nothing says which classes the model knows"),
        ({}, {"class_options": ClassOptions(class_map={"ant": 0}, same_order=True)}, "not both"),
        ({}, {"work": "{out}/chunks"}, "is in the artifact"),
        ({}, {"work": "{scene}/images/chunks"}, "is in the folder of the images"),
        ({"timesteps": ()}, {}, "at least one timestep"),
        ({"timesteps": (401,)}, {}, "not on the grid"),
        ({"decode_timestep": 300}, {}, "decode.timestep 300 is not stored"),
        ({"image_size": 13}, {}, "even frame"),
        ({"name": "My Set"}, {}, "name must be of lower-case letters"),
        ({"num_modes": 2000}, {}, "num_modes must be from 1 to 1024"),
    ],
)
def test_what_cannot_be_built_is_refused_before_anything_is_written(
    settings: dict[str, Any], others: dict[str, Any], said: str, scene: Path, tmp_path: Path
) -> None:
    places = {"out": tmp_path / "out", "scene": scene}
    given = {name: text.format(**places) if isinstance(text, str) else text for name, text in others.items()}
    before = _files(scene, tmp_path)
    with pytest.raises(D3HRError, match=said):
        _plan(scene, tmp_path / "out", dataclasses.replace(SETTINGS, **settings), **given)
    assert _files(scene, tmp_path) == before


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"decode_timestep": -7}, "decode_timestep must be at least -1, not -7"),
        ({"decode_guidance_scale": float("nan")}, "decode_guidance_scale must be a finite number"),
        ({"license_name": "a\nb"}, "license_name must be of printable characters"),
        ({"reference": True, "latent": "sample", "num_modes": 2}, "sets what latent, num_modes would"),
    ],
)
def test_settings_are_checked_at_once_by_their_own_names(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        BuildSettings(**settings)


def test_the_settings_of_the_reference_are_its_own(scene: Path, tmp_path: Path) -> None:
    settings = BuildSettings((400,), reference=True, seed=3)
    plan = _plan(scene, tmp_path / "out", settings)
    assert plan.info == as_reference(plan.info) and plan.info.num_modes == 1 and plan.notes == ()
    assert (plan.info.inversion.seed, plan.info.inversion.first_timestep) == (3, 0)


@pytest.mark.parametrize(
    ("given", "num_steps", "spacing", "grid"),
    [
        ({}, 6, "cubic", 50),
        ({"num_inference_steps": 10}, None, "uniform", 10),
        ({"method": "ddim"}, None, "uniform", 50),
        ({"method": "adams"}, 6, "cubic", 50),
        ({"method": "ddim", "num_steps": 9}, 9, "cubic", 50),
        ({"num_inference_steps": 10, "num_steps": 9, "spacing": "logsnr"}, 9, "logsnr", 10),
        ({"reference": True}, None, "uniform", 50),
    ],
)
def test_inversion_takes_few_steps_unless_a_grid_is_asked_for(
    given: dict[str, Any], num_steps: int | None, spacing: str, grid: int
) -> None:
    settings = BuildSettings((400,), **given)
    inversion = settings.inversion(tiny_model().schedule)
    assert (inversion.num_steps, inversion.spacing) == (num_steps, spacing)
    assert inversion.num_inference_steps == grid


FEW = DecodeConfig(400, None, solver="dpm++2m", num_steps=4, spacing="quadratic")


@pytest.mark.parametrize(
    ("given", "decode"),
    [
        ({}, FEW),
        ({"method": "adams"}, FEW),
        ({"decode_solver": "unipc"}, dataclasses.replace(FEW, solver="unipc")),
        ({"decode_num_steps": 7}, dataclasses.replace(FEW, num_steps=7)),
        ({"decode_spacing": "uniform"}, dataclasses.replace(FEW, spacing="uniform")),
        ({"num_inference_steps": 10}, DecodeConfig(400, 10)),
        ({"method": "ddim"}, DecodeConfig(400, 50)),
        ({"reference": True}, DecodeConfig(400, 50)),
        ({"num_inference_steps": 10, "decode_num_steps": 4}, FEW),
        ({"num_inference_steps": 10, "decode_solver": "unipc"}, DecodeConfig(400, 10, solver="unipc")),
    ],
)
def test_decoding_takes_few_steps_unless_a_grid_is_asked_for(
    given: dict[str, Any], decode: DecodeConfig
) -> None:
    settings = BuildSettings((400,), **given)
    assert settings.decode(settings.inversion(tiny_model().schedule)) == decode


def test_the_passes_that_pages_speak_of() -> None:
    """8 by default, 20 in ten steps, 62 on the paper's grid from timestep 600."""
    model = tiny_model()
    found = []
    for given in ({}, {"decode_num_steps": 10}, {"num_inference_steps": 50}):
        settings = BuildSettings((600,), **given)  # type: ignore[arg-type]
        found.append(model.forward_passes(settings.decode(settings.inversion(model.schedule))))
    assert found == [8, 20, 62]


@pytest.mark.parametrize(("time", "steps"), [(400, 4), (2, 3), (0, 1), (-1, None)])
def test_low_times_take_as_many_steps_as_there_are(time: int, steps: int | None) -> None:
    settings = BuildSettings((400,), decode_timestep=time)
    decode = settings.decode(settings.inversion(tiny_model().schedule))
    assert (decode.num_steps, decode.num_inference_steps) == (steps, 50 if steps is None else None)


def test_a_plan_says_what_it_chose(scene: Path, tmp_path: Path) -> None:
    settings = dataclasses.replace(SETTINGS, num_modes=None, shrinkage="none")
    (note,) = _plan(scene, tmp_path / "out", settings).notes
    assert note.startswith("no modes are stored: the smallest class, 'ant', has 4 images")


class Reversed(TinyImages):
    """The tiny images, and their classes in another order than the model's."""

    classes = CLASSES[::-1]

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        image, label = super().__getitem__(index)
        return image, 2 - label


def test_a_data_set_in_memory_is_matched_by_names_or_has_the_labels_of_the_model(
    scene: Path, tmp_path: Path
) -> None:
    by_name = _plan(scene, tmp_path / "by-name").run(progress=False)
    plan = _plan(scene, tmp_path / "in-memory", source=TinyImages())
    assert plan.info.source == {"name": "TinyImages"} and plan.info.classes == CLASSES
    assert len(plan.images.identity) == 64  # of some of its pixels, which tell it from other data sets
    reversed_names = _plan(scene, tmp_path / "reversed", source=Reversed())
    for artifact in (plan.run(progress=False), reversed_names.run(progress=False)):
        assert artifact.info.source["fingerprint"] == by_name.info.source["fingerprint"]
        assert artifact.info.counts == (4, 4, 4)
    others = ClassOptions(str(scene / "list.json"), {"0": 1, "1": 0, "2": 2})
    mapped = _plan(scene, tmp_path / "mapped", source=TinyImages(), class_options=others).run(progress=False)
    assert mapped.info.source["fingerprint"] != by_name.info.source["fingerprint"]
    with pytest.raises(ConfigError, match="give --class-list"):
        _plan(scene, tmp_path / "out", source=TinyImages(), class_options=ClassOptions())


def test_what_cannot_be_written_leaves_the_artifact_without_a_licence(scene: Path, tmp_path: Path) -> None:
    output, model = tmp_path / "out", str(scene / "model")
    _plan(scene, output).run(progress=False)
    before = file_digests(output), (output / METADATA).read_bytes(), _files(tmp_path)
    licensed = {"license": "MIT"}
    with (
        pytest.raises(KeyboardInterrupt),
        written_folder(output, model, tiny_model(), noted=licensed) as place,
    ):
        assert place != output and (place / "model").is_dir()
        (place / STATISTICS).unlink()
        raise KeyboardInterrupt
    assert (file_digests(output), (output / METADATA).read_bytes(), _files(tmp_path)) == before
    with written_folder(output, model, tiny_model(), noted=licensed):
        pass
    assert Artifact.load(output).info.source["license"] == "MIT"


def test_the_guide_plans_a_build(scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).parents[2] / "docs/guides/build.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (block,) = (found for found in blocks if "plan_build" in found)
    names: dict[str, Any] = {}
    shutil.copytree(scene / "model", tmp_path / "MODEL")
    index = {"id2label": dict(enumerate(CLASSES)), "_padding": 1}
    (tmp_path / "MODEL" / "model_index.json").write_text(json.dumps(index))
    monkeypatch.chdir(tmp_path)
    code = block.replace("IMAGES", str(scene / "images"))
    exec(code, names)
    assert names["artifact"].info.counts == (4, 4, 4) and (tmp_path / "my-planned-set" / METADATA).is_file()


def test_a_plan_has_rules_in_python(scene: Path, tmp_path: Path) -> None:
    rules: list[Any] = [
        Budget(2, sampling=GroupSamplingConfig()),
        {"max_ipc": 5, "decode": {"guidance_scale": 1}},
    ]
    plan = _plan(scene, tmp_path / "out", dataclasses.replace(SETTINGS, budgets=rules))
    decode = dataclasses.replace(plan.info.decode, guidance_scale=1.0)
    assert plan.info.budgets == (rules[0], Budget(5, decode))
    with pytest.raises(ConfigError, match="reference=True sets what budgets would"):
        BuildSettings(budgets=rules, reference=True)
