"""What a recipe needs of other recipes: a path -> the path, or the command that makes it."""

from __future__ import annotations

from pathlib import Path

from d3hr_datasets.runs.settings_files import read_yaml
from recipes.common.errors import RecipeError

CONFIGS = Path(__file__).parents[1] / "configs"
EMBEDDED = "python -m recipes.build.fashion_mnist"  # makes hub/d3hr-fashion-mnist


def need(path: str | Path, command: str) -> Path:
    """Return the path of something that another command makes.

    Raises:
        RecipeError: It is missing; the message says which command makes it.
    """
    if not Path(path).exists():
        raise RecipeError(f"{path} is missing; this makes it: `{command}`")
    return Path(path)


def need_artifact(artifact: str | Path) -> None:
    """Check that an artifact is there, if it is one of a folder of this checkout and not of the Hub."""
    if Path(artifact).parts[:1] in {("hub",), ("runs",)}:
        need(artifact, EMBEDDED)


def training_of(folder: str | Path, recipe: str) -> str:
    """Return the command of a recipe that trains into a folder."""
    if Path(folder).parts[:1] == ("hub",):
        return EMBEDDED
    for path in sorted(CONFIGS.glob("*.yaml")):
        if Path(read_yaml(path)["output"]) == Path(folder):
            return f"python -m recipes.{recipe} recipes/configs/{path.name}"
    return f"python -m recipes.{recipe} CONFIG --set output={folder}"
