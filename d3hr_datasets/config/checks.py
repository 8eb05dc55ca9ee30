"""Checks of arguments: a value -> the value, or an error that names it and says what is accepted."""

from __future__ import annotations

import os
import shutil
import sys
from typing import Any, get_args

from d3hr_datasets.errors import ConfigError


def check_int(name: str, value: Any, minimum: int, maximum: int | None = None) -> int:
    """Return `value` if it is an integer in range.

    Raises:
        ConfigError: It is not; booleans and floats are no integers here.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(f"{name} must be an integer, not {value!r} ({type(value).__name__})")
    if value < minimum or (maximum is not None and value > maximum):
        accepted = f"at least {minimum}" if maximum is None else f"from {minimum} to {maximum}"
        raise ConfigError(f"{name} must be {accepted}, not {value}")
    return value


def check_bool(name: str, value: Any) -> bool:
    """Return `value` if it is True or False.

    Raises:
        ConfigError: It is not; a text such as "no" would count as true.
    """
    if not isinstance(value, bool):
        raise ConfigError(f"{name} must be True or False, not {value!r:.80}")
    return value


def check_number(name: str, value: Any, minimum: float) -> float:
    """Return `value` if it is a finite number of at least `minimum`.

    Raises:
        ConfigError: It is not.
    """
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not -sys.float_info.max <= value <= sys.float_info.max:  # NaN compares false
        raise ConfigError(f"{name} must be a finite number, not {value!r}")
    if value < minimum:
        raise ConfigError(f"{name} must be at least {minimum}, not {value}")
    return float(value)


def check_compiler(device_type: str) -> None:
    """Raise `ConfigError` where torch.compile could not work: on a "cpu" without a C++ compiler."""
    if device_type == "cpu" and not shutil.which(os.environ.get("CXX", "g++")):
        raise ConfigError(
            "torch.compile needs a C++ compiler, and there is none; install g++ (or set CXX), "
            "or go on without compiling"
        )


def check_choice(name: str, value: Any, literal: Any) -> None:
    """Raise `ConfigError` unless `value` is one of a `Literal`'s values."""
    if value not in get_args(literal):
        raise ConfigError(f"{name} must be one of {list(get_args(literal))}, not {value!r}")
