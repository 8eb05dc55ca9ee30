"""What an artifact calls itself, its classes and fields: checks of the texts that folders are named by."""

from __future__ import annotations

from typing import Any

from d3hr_datasets.errors import ConfigError
from d3hr_datasets.io.text import check_text

MAX_NAME, MAX_CLASS_NAME, MAX_TEXT = 100, 200, 1000  # characters; folders are named by the first two
MAX_CLASSES = 65_536
# What later versions have added to a description, which is not written where it is so.
ADDED: dict[str, Any] = {
    "prompts": None,
    "embeddings": False,
    "adapter": False,
    "shrinkage": [],
    "budgets": [],
    "curation": None,
    "tolerance": None,
    "privacy": None,
    "learned": None,
}
_OF_NAMES = set("abcdefghijklmnopqrstuvwxyz0123456789-_.")


def check_name(name: Any) -> None:
    """Raise `ConfigError` unless a text can be the name of a data set."""
    if not isinstance(name, str) or not name:
        raise ConfigError(f"name must be a string, not {name!r}")
    check_text("name", name, MAX_NAME)
    if not set(name) <= _OF_NAMES or name[0] in ".-":
        raise ConfigError(f"name must be of lower-case letters, digits, '-', '_', '.', not {name!r}")


def check_classes(classes: Any) -> None:
    """Raise `ConfigError` unless these can be the names of an artifact's classes."""
    if not isinstance(classes, tuple) or not classes:
        raise ConfigError("classes must name at least one class")
    if len(classes) > MAX_CLASSES:
        raise ConfigError(f"classes has {len(classes):,} entries; accepted: at most {MAX_CLASSES:,}")
    if not all(isinstance(name, str) and name for name in classes):
        raise ConfigError("classes must be non-empty strings")
    for name in classes:
        check_text("a class name", name, MAX_CLASS_NAME)
    if len(set(classes)) != len(classes):
        raise ConfigError("classes has duplicates")


def check_wnids(wnids: Any, num_classes: int) -> None:
    """Raise `ConfigError` unless these can be the WordNet IDs of so many classes; None if there are none."""
    if wnids is None:
        return
    if not isinstance(wnids, tuple) or len(wnids) != num_classes:
        raise ConfigError(f"wnids must have one entry per class ({num_classes})")
    if not all(isinstance(wnid, str) for wnid in wnids):
        raise ConfigError("wnids must be strings")
    for wnid in wnids:
        check_text("a WordNet ID", wnid, MAX_CLASS_NAME)
