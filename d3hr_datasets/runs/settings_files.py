"""Settings of a training: a YAML file and overrides -> a dataclass, checked."""

from __future__ import annotations

import dataclasses
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

from d3hr_datasets.errors import ConfigError
from d3hr_datasets.io.extras import needs_extra
from d3hr_datasets.io.untrusted_files import check_file

with needs_extra("train", "settings files need PyYAML"):
    import yaml


Settings = TypeVar("Settings")


def load_settings(cls: type[Settings], path: str | Path, overrides: list[str]) -> Settings:
    """Read a YAML file into the dataclass `cls`, then apply `KEY=VALUE` overrides.

    A file may name another one, relative to its own folder, as `base`: it changes the settings of that one.

    Raises:
        ConfigError: A key is not a field of `cls`, a value has the wrong type, or one is missing.
    """
    values = read_yaml(Path(path))
    for override in overrides:
        key, value = parse_override(override)
        values[key] = value
    hints = typing.get_type_hints(cls)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise ConfigError(f"{path}: unknown settings {unknown}; accepted: {sorted(hints)}")
    fields = dataclasses.fields(typing.cast(Any, cls))
    missing = [
        field.name
        for field in fields
        if field.name not in values
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ConfigError(f"{path}: missing settings {missing}")
    return cls(**{key: _convert(path, key, value, hints[key]) for key, value in values.items()})


def parse_override(override: str) -> tuple[str, Any]:
    """Return key and value of `KEY=VALUE`; the value is read as YAML.

    Raises:
        ConfigError: It is of another form.
    """
    key, separator, text = override.partition("=")
    if not separator:
        raise ConfigError(f"--set {override!r} is not of the form KEY=VALUE")
    try:
        return key, yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{text!r} is no value in YAML: {error}") from error


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the settings of a YAML file, over those of its `base`."""
    if not path.is_file():
        raise ConfigError(f"there is no settings file {path}")
    check_file(path)
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
        raise ConfigError(f"{path}: {key} = {value!r} must be a {getattr(expected, '__name__', expected)}")
    return value
