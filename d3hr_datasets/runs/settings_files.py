"""Settings of a training: a YAML file and overrides -> a dataclass, checked."""

from __future__ import annotations

import dataclasses
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

from d3hr_datasets.errors import ConfigError
from d3hr_datasets.io.extras import needs_extra
from d3hr_datasets.io.text import printable
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
    return settings_of(cls, values, path)


def settings_of(cls: type[Settings], values: dict[str, Any], path: str | Path) -> Settings:
    """Make the dataclass `cls` of values by name.

    Args:
        cls: The dataclass.
        values: Its fields.
        path: Where errors say that they are from.

    Raises:
        ConfigError: A key is not a field of `cls`, a value has the wrong type, or one is missing.
    """
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


def read_yaml(path: Path, read: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Return the settings of a YAML file, over those of its `base`.

    Args:
        path: The file.
        read: Those whose `base` it is.

    Raises:
        ConfigError: It is missing, holds no settings, or is a base of itself.
    """
    if path.resolve() in read:
        raise ConfigError(f"{path} is a base of itself; name another file as its base, or none")
    if not path.is_file():
        raise ConfigError(f"there is no settings file {path}")
    check_file(path)
    try:
        values: Any = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no YAML file of settings: {printable(error)}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold settings, KEY: VALUE each, not {values!r:.80}")
    base = values.pop("base", None)
    return (
        values if base is None else {**read_yaml(path.parent / str(base), (*read, path.resolve())), **values}
    )


def _convert(path: str | Path, key: str, value: Any, hint: Any) -> Any:
    if isinstance(hint, types.UnionType):  # of one or several types and None
        if value is None:
            return None
        hints = [one for one in typing.get_args(hint) if one is not types.NoneType]
        fitting = next((one for one in hints if isinstance(value, typing.get_origin(one) or one)), hints[0])
        return _convert(path, key, value, fitting)
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
