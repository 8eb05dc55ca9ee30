"""What the Hub says about the YAML of a dataset card, as far as it is documented."""

from __future__ import annotations

import re
from typing import Any

import yaml

LICENSES = {
    "apache-2.0",
    "mit",
    "bsd-2-clause",
    "bsd-3-clause",
    "cc0-1.0",
    "cc-by-4.0",
    "cc-by-sa-4.0",
    "cc-by-nc-4.0",
    "cc-by-nc-sa-4.0",
    "gpl-3.0",
    "lgpl-3.0",
    "mpl-2.0",
    "odbl",
    "odc-by",
    "pddl",
    "openrail",
    "creativeml-openrail-m",
    "unlicense",
    "other",
    "unknown",
}
LISTS = ("task_categories", "size_categories", "source_datasets", "annotations_creators", "tags")
SIZES = [
    "n<1K",
    "1K<n<10K",
    "10K<n<100K",
    "100K<n<1M",
    "1M<n<10M",
    "10M<n<100M",
    "100M<n<1B",
    "1B<n<10B",
    "10B<n<100B",
    "100B<n<1T",
    "n>1T",
]


def card_errors(text: str) -> list[dict[str, str]]:
    """Return what is wrong with the YAML of a card."""
    match = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
    try:
        values = yaml.safe_load(match[1]) if match else None
    except yaml.YAMLError as error:
        return [{"message": f"no YAML: {error}"}]
    if not isinstance(values, dict):
        return [{"message": "the card has no YAML"}]
    return [{"message": message} for message in _errors(values)]


def _errors(values: dict[str, Any]) -> list[str]:
    errors = []
    if values.get("license") not in LICENSES:
        errors.append(f'"license" must be one of the known ones, not {values.get("license")!r}')
    if values.get("license") == "other" and not values.get("license_name"):
        errors.append('"license_name" is needed where the license is "other"')
    for key in LISTS:
        items = values.get(key, [])
        if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
            errors.append(f'"{key}" must be an array of strings')
    if not set(values.get("size_categories", [])) <= set(SIZES):
        errors.append('"size_categories" has an unknown size')
    if not isinstance(values.get("pretty_name", ""), str):
        errors.append('"pretty_name" must be a string')
    for config in values.get("configs", []):
        if not isinstance(config, dict) or "config_name" not in config:
            errors.append('"configs" must have "config_name"')
    return errors
