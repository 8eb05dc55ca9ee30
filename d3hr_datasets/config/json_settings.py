"""Settings <-> JSON values. The fingerprints of artifacts and sets are of that JSON."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, TypeVar

from d3hr_datasets.errors import ConfigError

_Config = TypeVar("_Config", bound="JsonSettings")


class JsonSettings:
    """What all settings share: JSON in and out."""

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON values."""
        values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))  # type: ignore[call-overload]
        return values

    @classmethod
    def from_dict(cls: type[_Config], values: Any) -> _Config:
        """Make the settings from JSON values.

        Raises:
            ConfigError: `values` is no object, or has a field this version does not know.
        """
        if not isinstance(values, dict):
            raise ConfigError(f"{cls.__name__} must be a JSON object, not {values!r:.80}")
        known = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
        unknown = sorted(set(values) - known)
        if unknown:
            raise ConfigError(f"{cls.__name__} does not know {unknown}; accepted: {sorted(known)}")
        try:
            return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
        except TypeError as error:
            raise ConfigError(f"{cls.__name__}: {error}") from error


def without_defaults(values: dict[str, Any], **defaults: Any) -> dict[str, Any]:
    """Return values without those that are at a default: of what a later version added."""
    return {key: value for key, value in values.items() if key not in defaults or value != defaults[key]}
