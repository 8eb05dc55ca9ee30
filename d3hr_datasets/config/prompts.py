"""The prompts of a model that text describes classes to: a template or a map -> one prompt for each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from d3hr_datasets.config.json_settings import JsonSettings, without_defaults
from d3hr_datasets.errors import ConfigError

NAME = "{name}"  # in a template: the name of a class
MAX_PROMPT = 2000  # characters


@dataclass(frozen=True)
class Prompts(JsonSettings):
    """A prompt for each class, and what guidance leads away from.

    Args:
        per_class: In the order of the class labels.
        negative: The negative prompt; None for what the model's pipeline takes where none is given.
    """

    per_class: tuple[str, ...]
    negative: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.per_class, tuple) or not self.per_class:
            raise ConfigError(f"prompts must be a list of one for each class, not {self.per_class!r:.80}")
        for prompt in (*self.per_class, "" if self.negative is None else self.negative):
            if not isinstance(prompt, str) or len(prompt) > MAX_PROMPT or not prompt.isprintable():
                raise ConfigError(
                    f"a prompt must be of up to {MAX_PROMPT:,} printable characters, not {prompt!r:.80}"
                )

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return without_defaults(super().to_dict(), negative=None)

    @classmethod
    def from_template(cls, template: str, classes: Sequence[str], negative: str | None = None) -> Prompts:
        """Put the name of each class into a template such as "a photo of a {name}".

        Raises:
            ConfigError: The template has no {name}, or other braces.
        """
        rest = template.replace(NAME, "") if isinstance(template, str) else "{"
        if rest == template or "{" in rest or "}" in rest:
            raise ConfigError(
                f"the prompt {template!r:.200} must say {NAME} where the name of a class goes, and have no "
                "other braces, as 'a photo of a {name}'; a JSON file of class -> prompt gives each its own"
            )
        return cls(tuple(template.replace(NAME, name) for name in classes), negative)

    @classmethod
    def from_map(
        cls, prompts: Mapping[str, str], classes: Sequence[str], negative: str | None = None
    ) -> Prompts:
        """Give each class its own prompt.

        Raises:
            ConfigError: A class has none, or a name is no class.
        """
        missing = [name for name in classes if name not in prompts]
        unknown = [name for name in prompts if name not in set(classes)]
        if missing or unknown:
            what = (
                f"has no prompt for {missing[:5]}"
                if missing
                else f"names {unknown[:5]}, which are no classes"
            )
            raise ConfigError(
                f"the map of prompts {what}; the classes are {list(classes)[:10]}"
                f"{', ...' if len(classes) > 10 else ''}: give each of them one prompt, and no others"
            )
        return cls(tuple(prompts[name] for name in classes), negative)
