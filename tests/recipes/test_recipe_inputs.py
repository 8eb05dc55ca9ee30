"""Every recipe says in one line which command makes what it needs and does not find."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

import recipes
from d3hr_datasets.image_sets import real_images
from recipes.common import program as common
from recipes.common.errors import RecipeError
from recipes.common.prerequisites import need, need_artifact, training_of

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "recipes" / "configs"
BUILD = "python -m recipes.build.fashion_mnist"
VAE = "python -m recipes.train.vae recipes/configs/vae_fashion_mnist.yaml"
DECODER = "python -m recipes.train.vae recipes/configs/decoder_fashion_mnist.yaml"
DIT = "python -m recipes.train.diffusion recipes/configs/dit_fashion_mnist.yaml"
LONG = "python -m recipes.train.diffusion recipes/configs/dit_fashion_mnist_long.yaml"
LONGER = "python -m recipes.train.diffusion recipes/configs/dit_fashion_mnist_longer.yaml"
# Arguments of a recipe, and the command that it names in a folder where there is nothing.
NEEDS: dict[str, list[tuple[list[str], str]]] = {
    "build.distilled_steps": [([], BUILD)],
    "build.fashion_mnist": [([], LONGER)],
    "build.group_variants": [([], BUILD)],
    "build.student_errors": [([], BUILD)],
    "build.weaker_guidance": [(["--weaker", "nowhere"], BUILD)],
    "evaluate.continual": [([], BUILD)],
    "evaluate.copies": [([], BUILD)],
    "evaluate.diffusion": [([], BUILD)],
    "evaluate.inversion": [([], BUILD)],
    "evaluate.inversion_methods": [([], BUILD)],
    "evaluate.inversion_steps": [([], BUILD)],
    "evaluate.federated": [([], BUILD)],
    "evaluate.few_images": [([], BUILD)],
    "evaluate.modes": [([], BUILD)],
    "evaluate.precision": [([], VAE)],
    "evaluate.privacy": [([], "python -m recipes.evaluate.privacy --do images")],
    "evaluate.solvers": [([], BUILD)],
    "evaluate.storage": [([], BUILD)],
    "tables.students": [
        ([str(CONFIGS / "tables" / "hard-labels.yaml")], "apt-get install dataset-fashion-mnist")
    ],
    "evaluate.tolerance": [(["--work", "work"], BUILD)],
    "evaluate.vae": [([], BUILD)],
    "tables.accuracy_by_bytes": [
        ([], "python -m recipes.tables.students recipes/configs/tables/hard-labels.yaml")
    ],
    "tables.rank_architectures": [
        (
            ["hub/results/tables/architectures.json"],
            "python -m recipes.tables.students recipes/configs/tables/architectures.yaml",
        ),
    ],
    "release": [(["org", "--dry-run"], BUILD)],
    "tables.trainings": [([], VAE)],
    "train.diffusion": [
        ([str(CONFIGS / "dit_fashion_mnist.yaml")], DECODER),
        ([str(CONFIGS / "dit_fashion_mnist_long.yaml")], DIT),
        ([str(CONFIGS / "dit_fashion_mnist_longer.yaml")], LONG),
        (
            [str(CONFIGS / "dit_fashion_mnist.yaml"), "--set", "vae=runs/my-vae/vae"],
            "python -m recipes.train.vae CONFIG --set output=runs/my-vae",
        ),
        (["nowhere.yaml"], "there is no settings file nowhere.yaml"),
    ],
    "train.step_distillation": [([str(CONFIGS / "distilled_steps_fashion_mnist.yaml")], BUILD)],
    "train.vae": [
        ([str(CONFIGS / "decoder_fashion_mnist.yaml")], VAE),
    ],
    "train.with_timm": [(["exported"], "d3hr export --format image-folder --output exported")],
    "tables.write_cards": [([], BUILD)],
}
# They make all they need, or say themselves what is wrong with the folder they are given.
NEED_NOTHING = {
    "build.mnist_digits",
    "build.small",
    "evaluate.flops",
    "demo",
    "tables.concept_figures",
    "evaluate.dit_xl",
    "evaluate.build_memory",
    "evaluate.dataset",
    "evaluate.benchmarks",
    "evaluate.gpu",
    "evaluate.scale",
    "evaluate.training_speed",
    "evaluate.adaption",
    "tables.training_costs",
}
CASES = [(name, *case) for name, cases in NEEDS.items() for case in cases]


def _text(name: str) -> str:
    return (ROOT / "recipes" / f"{name.replace('.', '/')}.py").read_text(encoding="utf-8")


@pytest.mark.parametrize(("name", "arguments", "command"), CASES)
def test_what_is_missing_is_said_in_a_line(
    name: str,
    arguments: list[str],
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(real_images, "DEBIAN_FASHION_MNIST", tmp_path / "no-package")
    monkeypatch.setattr("sys.argv", [name, *arguments])
    recipe = importlib.import_module(f"recipes.{name}")
    with pytest.raises(SystemExit) as raised:
        recipe.main()
    message = str(raised.value.code)
    assert message.startswith("error: ") and command in message and "\n" not in message
    assert "huggingface.co" not in message


def test_no_recipe_is_left_out() -> None:
    modules = [found for found in pkgutil.walk_packages(recipes.__path__, "recipes.") if not found.ispkg]
    names = {module.name.removeprefix("recipes.") for module in modules}
    mains = {name for name in names if re.search(r"^def main\(", _text(name), re.M)}
    assert mains == NEEDS.keys() | NEED_NOTHING
    for name in mains - {"evaluate.benchmarks"}:
        main = importlib.import_module(f"recipes.{name}").main
        assert inspect.unwrap(main) is not main, f"recipes.{name}.main has no @program"


def test_a_recipe_reads_what_trainings_made_only_after_asking_for_it() -> None:
    """A recipe that names a folder in runs/ as its input asks `need` for it."""
    for name in NEEDS.keys() | NEED_NOTHING:
        text = _text(name)
        inputs = re.findall(r'"--(\w+)", type=Path, default=Path\("runs/[\w-]+', text)
        for argument in set(inputs) - {"work", "output"}:
            assert re.search(rf"need\(arguments\.{argument}\b|arguments\.{argument}: ", text), (
                name,
                argument,
            )


def test_what_is_there_is_given_back(tmp_path: Path) -> None:
    assert need(str(tmp_path), "make it") == tmp_path
    with pytest.raises(RecipeError, match="gone is missing; this makes it: `make it`"):
        need(tmp_path / "gone", "make it")
    need_artifact("org/on-the-hub")
    with pytest.raises(RecipeError, match=r"recipes\.build\.fashion_mnist"):
        need_artifact("hub/nothing-here")
    assert training_of("runs/dit-fashion-mnist", "train.diffusion") == DIT


def test_other_errors_keep_their_traceback() -> None:
    @common.program
    def main() -> None:
        raise KeyError("a fault of the recipe itself")

    with pytest.raises(KeyError):
        main()
