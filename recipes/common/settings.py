"""Settings of a recipe: a YAML file and `--set NAME=VALUE` -> a dataclass, checked."""

from __future__ import annotations

import argparse
import dataclasses
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

import yaml

from recipes.common.errors import RecipeError

Settings = TypeVar("Settings")


def settings_parser(cls: type, description: str | None) -> argparse.ArgumentParser:
    """Return a parser of what `load_settings` takes: `config` and `set`."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", help=f"a YAML file with the fields of {cls.__name__}")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a setting")
    return parser


def load_settings(cls: type[Settings], path: str | Path, overrides: list[str]) -> Settings:
    """Read a YAML file into the dataclass `cls`, then apply `KEY=VALUE` overrides.

    A file may name another one, relative to its own folder, as `base`: it changes the settings of that one.

    Raises:
        RecipeError: A key is not a field of `cls`, a value has the wrong type, or one is missing.
    """
    values = read_yaml(Path(path))
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


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the settings of a YAML file, over those of its `base`."""
    if not path.is_file():
        raise RecipeError(f"there is no settings file {path}; those that ship are in recipes/configs/")
    values: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    base = values.pop("base", None)
    return values if base is None else {**read_yaml(path.parent / base), **values}


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
