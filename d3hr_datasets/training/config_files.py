"""The packaged settings files: a name, or the path of a file -> settings of a training."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

from d3hr_datasets.errors import ConfigError
from d3hr_datasets.io.paths import expand_user
from d3hr_datasets.io.untrusted_files import is_file
from d3hr_datasets.runs.settings_files import load_settings
from d3hr_datasets.training.settings import DiffusionTraining

CONFIGS = Path(__file__).parent / "configs"


def config_names() -> list[str]:
    """Return the names of the packaged settings files; what several of them share has a name with "_"."""
    return sorted(path.stem for path in CONFIGS.glob("[!_]*.yaml"))


def find_config(config: str | Path) -> Path:
    """Return the path of a settings file.

    Args:
        config: A file, or the name of a packaged one.

    Raises:
        ConfigError: There is neither.
    """
    path = expand_user(config)
    if is_file(path):
        return path
    if str(config) in config_names():
        return CONFIGS / f"{config}.yaml"
    near = difflib.get_close_matches(str(config), config_names(), 1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ConfigError(
        f"there is no settings file {str(config)!r:.300}, and none of this name ships with the package."
        f"{hint} Packaged: {', '.join(config_names())}"
    )


def training_settings(config: str | Path, changes: Sequence[str] = ()) -> DiffusionTraining:
    """Return the settings of a training.

    Args:
        config: A YAML file, or the name of a packaged one.
        changes: "KEY=VALUE" each, over the file's.

    Raises:
        ConfigError: There is no such file, a setting is unknown, or has a value that is not accepted.
    """
    return load_settings(DiffusionTraining, find_config(config), list(changes))
