"""The options of a plan: what is given, or its defaults, each of the class that has checked it."""

from __future__ import annotations

from typing import Any

from d3hr_datasets.build.build_settings import BuildSettings, ClassOptions
from d3hr_datasets.build.kept_sums import KeptSums
from d3hr_datasets.build.model_options import ModelOptions
from d3hr_datasets.build.prompt_options import PromptOptions
from d3hr_datasets.errors import ConfigError
from d3hr_datasets.io.paths import expand_user
from d3hr_datasets.privacy.settings import PrivacySettings
from d3hr_datasets.sources.opening import SourceOptions


class PlanOptions:
    """All options of a plan, each of the class that has checked it.

    Args:
        given: Settings, options of source, classes, model and prompts, what sums are kept, and privacy; None
            for the defaults.

    Raises:
        ConfigError: One is of another class, or options do not go together.
    """

    def __init__(self, *given: object) -> None:
        kinds: list[Any] = [BuildSettings, SourceOptions, ClassOptions, ModelOptions, PromptOptions, KeptSums]
        kinds.append(PrivacySettings)
        for one, kind in zip(given, kinds, strict=True):
            if one is not None and not isinstance(one, kind):
                raise ConfigError(
                    f"{one!r:.80} is no {kind.__name__}; accepted: {kind.__name__}(...), or None"
                )
        defaults = [*(kind() for kind in kinds[:-1]), None]  # there is no budget that fits everybody
        values: list[Any] = [
            other if one is None else one for one, other in zip(given, defaults, strict=True)
        ]
        self.settings: BuildSettings = values[0]
        self.source: SourceOptions = values[1]
        self.classes: ClassOptions = values[2]
        self.model: ModelOptions = values[3]
        self.prompts: PromptOptions = values[4]
        # None keeps none, unless the settings say so.
        self.sums: KeptSums | None = values[5] if given[5] is not None or self.settings.moments else None
        self.privacy: PrivacySettings | None = values[6]
        adapter = self.model.adapter
        self.adapter = None if adapter is None else expand_user(adapter).absolute()
        if adapter is not None and self.model.allow_bin:
            raise ConfigError(
                "an adapter belongs to weights in safetensors; leave out --allow-bin, or --adapter"
            )
