"""What every recipe shares: settings from YAML, a run folder, checkpoints and metrics.

In: a YAML file whose keys are exactly the fields of a dataclass. Out: that dataclass, and a run
folder with the resolved settings, `metrics.csv` and the newest checkpoint.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import json
import math
import os
import platform
import time
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
import yaml
from safetensors.torch import load_file, save_file

from d3hr_datasets.errors import D3HRError
from d3hr_datasets.safe_files import replace_file
from recipes.data import ImagesNotFoundError

Settings = TypeVar("Settings")


CONFIGS = Path(__file__).parent / "configs"
EMBEDDED = "python -m recipes.build_fashion_mnist"  # makes hub/d3hr-fashion-mnist


class RecipeError(ValueError):
    """A recipe was given settings it cannot run with, or something it needs is missing."""


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
        if Path(_read_yaml(path)["output"]) == Path(folder):
            return f"python -m recipes.{recipe} recipes/configs/{path.name}"
    return f"python -m recipes.{recipe} CONFIG --set output={folder}"


def program(main: Callable[[], None]) -> Callable[[], None]:
    """Let what a recipe cannot run with end it with one line instead of a traceback."""

    @functools.wraps(main)
    def run() -> None:
        try:
            main()
        except (RecipeError, ImagesNotFoundError, D3HRError) as error:
            raise SystemExit(f"error: {error}") from error

    return run


def load_settings(cls: type[Settings], path: str | Path, overrides: list[str]) -> Settings:
    """Read a YAML file into the dataclass `cls`, then apply `KEY=VALUE` overrides.

    A file may name another one, relative to its own folder, as `base`: it changes the settings of that one.

    Raises:
        RecipeError: A key is not a field of `cls`, a value has the wrong type, or one is missing.
    """
    values = _read_yaml(Path(path))
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator:
            raise RecipeError(f"--set {override!r} is not of the form KEY=VALUE")
        values[key] = yaml.safe_load(text)
    hints = typing.get_type_hints(cls)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise RecipeError(f"{path}: unknown settings {unknown}; accepted: {sorted(hints)}")
    fields = dataclasses.fields(typing.cast(Any, cls))
    missing = [
        field.name
        for field in fields
        if field.name not in values
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise RecipeError(f"{path}: missing settings {missing}")
    return cls(**{key: _convert(path, key, value, hints[key]) for key, value in values.items()})


def _read_yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise RecipeError(f"there is no settings file {path}; those that ship are in recipes/configs/")
    values: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    base = values.pop("base", None)
    return values if base is None else {**_read_yaml(path.parent / base), **values}


def _convert(path: str | Path, key: str, value: Any, hint: Any) -> Any:
    if isinstance(hint, types.UnionType):  # of a type and None
        return None if value is None else _convert(path, key, value, typing.get_args(hint)[0])
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is float and isinstance(value, str):  # YAML 1.1 reads 1e-4 as a string
        try:
            return float(value)
        except ValueError:
            pass
    expected = typing.get_origin(hint) or hint
    fits = not isinstance(expected, type) or isinstance(value, expected)
    if not fits or (expected is int and isinstance(value, bool)):
        raise RecipeError(f"{path}: {key} = {value!r} must be a {getattr(expected, '__name__', expected)}")
    return value


class Run:
    """A folder of one run: resolved settings, `metrics.csv` and one checkpoint, replaced atomically.

    Args:
        folder: The folder.
        settings: A dataclass.
        free: Settings that may differ from those of the run that is gone on with.

    Raises:
        RecipeError: The folder holds a run with other settings.
    """

    def __init__(self, folder: str | Path, settings: Any, free: Sequence[str] = ("epochs",)) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        resolved = dataclasses.asdict(settings)
        target = self.folder / "settings.yaml"
        before = yaml.safe_load(target.read_text(encoding="utf-8")) if target.exists() else None
        if before is not None:
            changed = [key for key in resolved if key not in free and resolved[key] != before.get(key)]
            if changed:
                raise RecipeError(
                    f"{self.folder} holds a run with other settings of {changed} (what may change: "
                    f"{', '.join(free)}); give another --set output=FOLDER, or delete that folder to start "
                    "again"
                )
        if before != resolved:  # of several processes only the first writes
            text = yaml.safe_dump(resolved, sort_keys=False)
            write_text(target, text)

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.pt"

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        replace_file(self.checkpoint, lambda temporary: torch.save(state, temporary))

    def load_checkpoint(self) -> dict[str, Any] | None:
        """Return the newest checkpoint, or None where the run is new."""
        if not self.checkpoint.exists():
            return None
        state: dict[str, Any] = torch.load(self.checkpoint, weights_only=True)
        return state

    def log(self, table: str = "metrics", **metrics: Any) -> None:
        """Append a row to `TABLE.csv`; the first row fixes the columns."""
        path = self.folder / f"{table}.csv"
        new = not path.exists()
        with path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(metrics))
            if new:
                writer.writeheader()
            writer.writerow(metrics)


class ExponentialMovingAverage:
    """An average of a module's parameters and buffers, `decay` per step, warmed up from the start.

    The decay used at step n is min(decay, (1 + n) / (10 + n)), so early weights are forgotten.
    """

    def __init__(self, module: torch.nn.Module, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self.state = {name: value.detach().clone() for name, value in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: torch.nn.Module) -> None:
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        averaged, current = [], []
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                averaged.append(self.state[name])
                current.append(value.detach())
            else:
                self.state[name].copy_(value)
        torch._foreach_lerp_(averaged, current, 1 - decay)


def shuffled_batches(count: int, batch_size: int, seed: int, step: int) -> Iterator[torch.Tensor]:
    """Yield index batches without end, from step `step` on: a new permutation for every epoch.

    The sequence depends on `seed` and `step` alone, so that a resumed run goes on where it stopped.
    """
    per_epoch = count // batch_size
    if per_epoch == 0:
        raise RecipeError(f"a batch of {batch_size} is larger than the {count} images; lower batch_size")
    while True:
        epoch, first = divmod(step, per_epoch)
        generator = torch.Generator().manual_seed(seed * 100_003 + epoch)
        order = torch.randperm(count, generator=generator)[: per_epoch * batch_size]
        for index in order.view(per_epoch, batch_size)[first:]:
            step += 1
            yield index


def one_cycle(step: int, total: int, warmup: float) -> float:
    """Return the learning-rate factor of a step: a linear rise over `warmup` of all, then a half cosine to 0.

    It depends on the step alone, so a run may be resumed with another number of epochs.
    """
    rise = max(1.0, warmup * total)
    if step < rise:
        return (step + 1) / (rise + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / (total - rise)))


def warmup_stable_decay(step: int, total: int, warmup: int, decay_share: float) -> float:
    """Return the learning-rate factor of a step: a linear rise of `warmup` steps, 1, then a line to 0.

    Until `decay_share` of all steps is left it does not depend on `total`: the end may be chosen late.

    Source: MiniCPM (arXiv 2404.06395), section 4.
    """
    decay = max(1.0, decay_share * total)
    return min(1.0, (step + 1) / (warmup + 1), (total - step) / decay)


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    replace_file(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_results(path: str | Path, settings: dict[str, Any], results: dict[str, Any]) -> None:
    """Write a results file of `results_document`."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(results_document(settings, results), indent=2) + "\n"
    write_text(Path(path), text)


def results_document(settings: dict[str, Any], results: dict[str, Any]) -> dict[str, Any]:
    """Return what a results file says: what was measured, with which settings, on what."""
    import diffusers

    return {
        "results": results,
        "settings": settings,
        "machine": {
            "cpus": os.cpu_count(),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "diffusers": diffusers.__version__,
        },
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def cached_tensors(path: Path, make: Callable[[], dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Return the tensors of `path`, made and written first where the file is missing."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        tensors = {name: tensor.contiguous() for name, tensor in make().items()}
        replace_file(path, lambda temporary: save_file(tensors, temporary))
    return load_file(path)
