"""Settings by budget: rules for sets of so many images per class, which an artifact may carry.

In: values of JSON, as an artifact has them or as people write them. Out: `Budget`s, checked as far as one can
be without its artifact.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from d3hr_datasets.config.checks import check_int
from d3hr_datasets.config.json_settings import JsonSettings
from d3hr_datasets.config.settings import MAX_IPC, DecodeConfig, GroupSamplingConfig, GroupSamplingMethod
from d3hr_datasets.errors import ConfigError

MAX_BUDGETS = 100  # rules of an artifact
MAX_CANDIDATES = 100_000  # groups that a rule has compared; the artifact of others must not run for ever

# What each method takes of `GroupSamplingConfig`. The seed is always the user's.
OF_METHOD: dict[GroupSamplingMethod, tuple[str, ...]] = {
    "moment_matched": (),
    "search": ("num_candidates", "mean_weight", "std_weight", "skewness_weight"),
    "modes": ("mode_spread",),
    "curated": (),
}
# Steps are counted in one way: a rule that says it takes nothing of the other from the artifact.
WAYS_TO_COUNT = {"num_steps": {"num_inference_steps"}, "num_inference_steps": {"num_steps", "spacing"}}
EXAMPLE = '[{"max_ipc": 1, "decode": {"guidance_scale": 2}}]'


@dataclass(frozen=True)
class Budget(JsonSettings):
    """A rule of an artifact: how sets of at most so many images per class are made.

    What it does not set is as the artifact has it for all sets; no other rule is asked.

    Args:
        max_ipc: Images per class up to which it holds, above those of the rule before it.
        decode: How groups are denoised; None for `ArtifactInfo.decode`. A rule of curated images decodes from
            the timestep that they were chosen under, and None decodes them as they were chosen.
        sampling: How groups are sampled, by the settings that its method has; None for
            `ArtifactInfo.default_sampling`. The seed is left at 0: it is the user's. There is one group of
            curated images, so a rule that asks for them holds for seed 0 only, and not where each epoch has
            a group of its own, or where another method is asked for. For such sets the next rule holds.

    Raises:
        ConfigError: It sets nothing, or a value is not accepted.
    """

    max_ipc: int
    decode: DecodeConfig | None = None
    sampling: GroupSamplingConfig | None = None

    def __post_init__(self) -> None:
        check_int("max_ipc", self.max_ipc, 1, MAX_IPC)
        for name, config in (("decode", DecodeConfig), ("sampling", GroupSamplingConfig)):
            value = getattr(self, name)
            if value is not None and not isinstance(value, config):
                raise ConfigError(f"{name} must be a {config.__name__}, not {value!r:.80}")
        if self.decode is None and self.sampling is None:
            raise ConfigError("it sets nothing; give it decode, sampling or both, or leave the rule out")
        if self.sampling is not None:
            defaults = GroupSamplingConfig(self.sampling.method)
            fields = {field.name for field in dataclasses.fields(defaults)}
            changed = {name for name in fields if getattr(self.sampling, name) != getattr(defaults, name)}
            _check_of_method(self.sampling.method, changed)
            check_int("sampling.num_candidates", self.sampling.num_candidates, 1, MAX_CANDIDATES)

    @property
    def is_curated(self) -> bool:
        """Whether it asks for the images of an artifact's order."""
        return self.sampling is not None and self.sampling.method == "curated"

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values: what the rule sets, whole, so that it means the same to every version."""
        values: dict[str, Any] = {"max_ipc": self.max_ipc}
        if self.decode is not None:
            values["decode"] = self.decode.to_dict()
        if self.sampling is not None:
            kept = ("method", *OF_METHOD[self.sampling.method])
            values["sampling"] = {name: getattr(self.sampling, name) for name in kept}
        return values

    @classmethod
    def from_dict(cls, values: Any) -> Budget:
        """Make a rule from JSON values.

        Raises:
            ConfigError: A field is unknown, missing, or has a value that is not accepted.
        """
        if not isinstance(values, Mapping):
            raise ConfigError(f"it must be an object, as in {EXAMPLE}, not {values!r:.80}")
        known = [field.name for field in dataclasses.fields(cls)]
        unknown = sorted(str(key) for key in values if key not in known)
        if unknown or "max_ipc" not in values:
            what = f"unknown fields {unknown}" if unknown else "max_ipc is missing"
            raise ConfigError(f"{what}; accepted: max_ipc, with decode, sampling or both")
        configs: dict[str, Callable[[Any], Any]] = {"decode": DecodeConfig.from_dict, "sampling": _sampling}
        made = {"max_ipc": values["max_ipc"]}
        for name, config in configs.items():
            if name in values:
                with _named(name):
                    if values[name] == {}:
                        raise ConfigError("it says nothing; leave it out")
                    made[name] = config(values[name])
        return cls(**made)


def read_budgets(values: Any) -> tuple[Budget, ...]:
    """Return the rules of an artifact.

    Args:
        values: What `d3hr.json` says.

    Raises:
        ConfigError: They are no list of rules.
    """
    budgets = []
    for index, value in enumerate(_rules(values)):
        with named_budget(index):
            budgets.append(Budget.from_dict(value))
    return tuple(budgets)


def complete_budgets(
    values: Any, decode: DecodeConfig, sampling: GroupSamplingConfig, curated: DecodeConfig | None = None
) -> tuple[Budget, ...]:
    """Return rules as people write them: what `decode` or `sampling` leaves out is as for all sets.

    Args:
        values: `Budget`s, or objects like those of `d3hr.json`, whose `decode` need not be whole and whose
            `sampling` need not name the method.
        decode: How the artifact decodes all other sets.
        sampling: How it samples their groups.
        curated: How the images of its order were decoded when they were chosen, which completes rules of
            curated images; None without an order.

    Raises:
        ConfigError: They are no list of rules.
    """
    completed = []
    for value in _rules(values):
        if isinstance(value, Budget):
            completed.append(value.to_dict())
            continue
        if not isinstance(value, Mapping):
            completed.append(value)
            continue
        whole = dict(value)
        given = value.get("sampling")
        is_curated = isinstance(given, Mapping) and given.get("method") == "curated"
        rest_of_decode = (curated or decode) if is_curated else decode
        for name, rest in (("decode", rest_of_decode.to_dict()), ("sampling", {"method": sampling.method})):
            given = value.get(name)
            if isinstance(given, Mapping) and given:  # what says nothing stays so
                counted = set().union(*(WAYS_TO_COUNT[way] for way in WAYS_TO_COUNT if way in given))
                whole[name] = {**{k: v for k, v in rest.items() if k not in counted}, **given}
        completed.append(whole)
    return read_budgets(completed)


def named_budget(index: int, part: str = "") -> contextlib.AbstractContextManager[None]:
    """Say of which rule a `ConfigError` is, and maybe of which part: "budgets[0].decode.timestep ..."."""
    return _named(f"budgets[{index}].{part}".removesuffix("."))


@contextlib.contextmanager
def _named(where: str) -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        fields = (field.name for kind in _KINDS for field in dataclasses.fields(kind))
        is_field = re.split("[ .:]", str(error), maxsplit=1)[0] in fields
        raise ConfigError(f"{where}{'.' if is_field else ': '}{error}") from error


_KINDS = (Budget, DecodeConfig, GroupSamplingConfig)


def _rules(values: Any) -> list[Any]:
    """Return a list of rules if it is one of a number that is accepted."""
    if not isinstance(values, list | tuple):
        raise ConfigError(f"budgets must be a list of rules, as {EXAMPLE}, not {values!r:.80}")
    if len(values) > MAX_BUDGETS:
        raise ConfigError(f"budgets has {len(values):,} rules; accepted: at most {MAX_BUDGETS}")
    return list(values)


def _sampling(values: Any) -> GroupSamplingConfig:
    """Make settings of sampling from JSON values, none of which belongs to another method."""
    config = GroupSamplingConfig.from_dict(values)
    if "method" not in values:
        raise ConfigError(f"method is missing; accepted: {list(OF_METHOD)}")
    _check_of_method(config.method, set(values))
    return config


def _check_of_method(method: GroupSamplingMethod, names: set[str]) -> None:
    others = sorted(names - {"method", *OF_METHOD[method]})
    if "seed" in others:
        raise ConfigError("seed is the user's, and no setting of an artifact; leave it out")
    if others:
        raise ConfigError(
            f"method {method!r} does not take {others}; accepted: {list(OF_METHOD[method]) or 'nothing else'}"
        )


def check_order(budgets: Any) -> None:
    """Raise `ConfigError` unless it is a tuple of rules, each of larger sets than the one before."""
    if not isinstance(budgets, tuple) or not all(isinstance(rule, Budget) for rule in budgets):
        raise ConfigError(f"budgets must be a tuple of Budget, not {budgets!r:.80}")
    if len(budgets) > MAX_BUDGETS:
        raise ConfigError(f"budgets has {len(budgets):,} rules; accepted: at most {MAX_BUDGETS}")
    before = 0
    for index, rule in enumerate(budgets):
        if rule.max_ipc <= before:
            raise ConfigError(
                f"budgets[{index}].max_ipc is {rule.max_ipc}, and that of the rule before it {before}; each "
                "must be larger than the one before"
            )
        before = rule.max_ipc
