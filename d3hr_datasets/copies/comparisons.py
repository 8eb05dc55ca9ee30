"""Nearness of generated images beside that of others: in each space and by each measure a `Comparison`.

In: nearness and labels of both. Out: how many generated images are near, which are nearer than all others,
and, where the others obey the law of chance, what it says.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from d3hr_datasets.copies.exceedances import Exceedances, count_exceedances
from d3hr_datasets.copies.nearness import Nearness
from d3hr_datasets.numerics.torch_settings import neutral

CHANCE = 0.01  # of a false alarm, over all comparisons of a set together
MEASURES = {"distance": "distance to the nearest", "ratio": "ratio to the mean of the nearest ones"}


@dataclass(frozen=True)
class Odds:
    """What chance says of the number of near images, where generated images are as held-out ones are.

    Args:
        expected: Near images by chance.
        shares: Of the images of a class that are near by chance, the least and the greatest of all classes.
        needed: Near images, over all classes, that chance does not explain; fewer are not told. One more
            than there are images if no number is enough.
        p_value: Chance of at least as many as there are.
        classes: Classes that have too many by themselves, all comparisons considered.
        exceeds: Whether there are more than chance explains, of all classes together or of one.
    """

    expected: float
    shares: tuple[float, float]
    needed: int
    p_value: float
    classes: tuple[str, ...]
    exceeds: bool


@dataclass(frozen=True)
class Comparison:
    """Generated images beside others, by one measure in one space.

    Args:
        num_images: Generated images.
        num_near: Those that are nearer than nearly all others of their class (`exceedances`).
        nearest: Numbers of those that are nearer than all others, of any class.
        medians: Of the measure, of the generated and of the other images.
        odds: What chance says of `num_near`; None where the others obey another law.
    """

    num_images: int
    num_near: int
    nearest: tuple[int, ...]
    medians: tuple[float, float]
    odds: Odds | None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Comparison:
        """Return what JSON has of one.

        Raises:
            KeyError: Something is missing.
            TypeError: Something is of another type.
            ValueError: Something has a value that is not accepted.
        """
        given = {field.name: values[field.name] for field in dataclasses.fields(cls)}
        _check_count("num_images", given["num_images"], 1)
        _check_count("num_near", given["num_near"])
        given["nearest"] = numbers_of("nearest", given["nearest"])
        first, second = map(float, given["medians"])
        odds = None if given["odds"] is None else _odds(given["odds"])
        return cls(**{**given, "medians": (first, second), "odds": odds})


@neutral()
def compare_nearness(
    generated: Mapping[str, Nearness],
    labels: torch.Tensor,
    others: Mapping[str, Nearness],
    other_labels: torch.Tensor,
    names: Sequence[str],
    held_out: bool = True,
) -> dict[str, dict[str, Comparison]]:
    """Compare generated images with others, in each space and by each measure.

    A comparison looks at all classes together, and at each alone; each of these tests has its share of
    `CHANCE`, so that a set that is as held-out images are is called one with copies as seldom.

    Args:
        generated: By space, of N generated images.
        labels: (N,) int64.
        others: By space, of M other images.
        other_labels: (M,) int64.
        names: Classes, by label.
        held_out: Whether the others are held out. Training images that are compared with the rest of them
            are not: they are one another's neighbours, chance has another law there, and nothing is said
            of it.

    Raises:
        ConfigError: A class has generated images and no others.
    """
    level = CHANCE / (2 * len(generated) * len(MEASURES))
    found: dict[str, dict[str, Comparison]] = {}
    for space, nearness in generated.items():
        found[space] = {}
        for measure in MEASURES:
            mine, theirs = getattr(nearness, measure), getattr(others[space], measure)
            counts = count_exceedances(mine, labels, theirs, other_labels)
            found[space][measure] = Comparison(
                num_images=len(mine),
                num_near=int(counts.near.sum()),
                nearest=tuple((mine < theirs.min()).nonzero().flatten().tolist()),
                medians=(float(mine.median()), float(theirs.median())),
                odds=_odds_of(counts, level, names) if held_out else None,
            )
    return found


def _odds_of(counts: Exceedances, level: float, names: Sequence[str]) -> Odds:
    by_class = counts.class_p_values
    classes = tuple(names[label] for label, p in by_class.items() if p * len(by_class) < level)
    return Odds(
        expected=counts.expected,
        shares=counts.shares,
        needed=counts.needed(level),
        p_value=counts.p_value,
        classes=classes,
        exceeds=counts.p_value < level or bool(classes),
    )


def numbers_of(name: str, values: Any) -> tuple[int, ...]:
    """Return a list of JSON as numbers of images.

    Raises:
        TypeError: It is none.
    """
    if not isinstance(values, list | tuple):
        raise TypeError(f"{name} must be a list, not {values!r:.80}")
    for value in values:
        _check_count(name, value)
    return tuple(values)


def _check_count(name: str, value: Any, least: int = 0) -> None:
    if type(value) is not int:
        raise TypeError(f"{name} must be a whole number, not {value!r:.80}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, not {value}")


def _odds(values: Mapping[str, Any]) -> Odds:
    given = {field.name: values[field.name] for field in dataclasses.fields(Odds)}
    if type(given["exceeds"]) is not bool:
        raise TypeError(f"exceeds must be true or false, not {given['exceeds']!r:.80}")
    _check_count("needed", given["needed"])
    given["expected"], given["p_value"] = float(given["expected"]), float(given["p_value"])
    given["classes"] = tuple(map(str, given["classes"]))
    least, most = map(float, given["shares"])
    return Odds(**{**given, "shares": (least, most)})
