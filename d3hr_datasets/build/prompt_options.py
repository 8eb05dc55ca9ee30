"""What a model of prompts is told of each class: a template or a map -> `Prompts`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from d3hr_datasets.config.prompts import Prompts
from d3hr_datasets.errors import ConfigError
from d3hr_datasets.io.untrusted_files import read_json_argument

if TYPE_CHECKING:
    from d3hr_datasets.diffusion.kinds.kind import ModelKind

EXAMPLE = "--prompt 'a photo of a {name}'"


@dataclass(frozen=True)
class PromptOptions:
    """The prompts of a model that text describes classes to; none for a model of class labels.

    Args:
        template: One for all classes, with {name} where the name of a class goes.
        per_class: Class -> prompt, or a JSON file of that; instead of a template.
        negative: What guidance leads away from; None for what the model's pipeline takes then.
        store_embeddings: Store what the text encoders make of the prompts, so that whoever uses the artifact
            needs no text encoder.

    Raises:
        ConfigError: Both a template and a map are given, or a value is of another type.
    """

    template: str | None = None
    per_class: Mapping[str, str] | str | Path | None = None
    negative: str | None = None
    store_embeddings: bool = False

    def __post_init__(self) -> None:
        if self.template is not None and self.per_class is not None:
            raise ConfigError("give a template (--prompt) or a map (--prompts), not both")
        if self.template is not None:
            Prompts.from_template(self.template, ("x",), self.negative)  # before anything is opened
        if self.per_class is not None and not isinstance(self.per_class, Mapping | str | Path):
            raise ConfigError(f"per_class must be a mapping or a file, not {self.per_class!r:.80}")
        if not isinstance(self.store_embeddings, bool):
            raise ConfigError(f"store_embeddings must be a bool, not {self.store_embeddings!r:.80}")

    def check_kind(self, kind: ModelKind, model: str) -> None:
        """Check that prompts are given to a model that takes some, and to no other.

        Raises:
            ConfigError: They are not.
        """
        given = self.template is not None or self.per_class is not None
        if kind.takes_prompts and not given:
            raise ConfigError(
                f"the model {model} is of the kind {kind.name}, to which a prompt describes a class, and "
                "there "
                f"is none; give {EXAMPLE}, or --prompts FILE.json, a JSON object of class -> prompt"
            )
        if not kind.takes_prompts and self != PromptOptions():
            raise ConfigError(
                f"the model {model} is of the kind {kind.name}, which takes class labels and no text; leave "
                "out --prompt, --prompts, --negative-prompt and --store-embeddings"
            )

    def for_classes(self, classes: Sequence[str]) -> Prompts:
        """Return the prompt of each class.

        Raises:
            ConfigError: The map misses a class or names one that is none, or a prompt is no text.
        """
        if self.template is not None:
            return Prompts.from_template(self.template, classes, self.negative)
        values = self.per_class
        if isinstance(values, str | Path):
            values = read_json_argument(values, "map of prompts")
        if not isinstance(values, Mapping):
            raise ConfigError(
                f"the map of prompts {str(self.per_class)!r:.300} is no JSON object such as "
                '{"cat": "a photo of a cat"}'
            )
        return Prompts.from_map(values, classes, self.negative)
