"""What is found of near copies, as numbers and in words: nearness of two sets -> `CopyFindings`.

Reports, cards and results say the same of the same numbers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from d3hr_datasets.copies.exceedances import NEAR, count_exceedances
from d3hr_datasets.copies.nearness import SPACES, Nearness
from d3hr_datasets.numerics.torch_settings import neutral

CHANCE = 0.01  # of a false alarm, over all comparisons of a set together
MEASURES = {"distance": "distance to the nearest", "ratio": "ratio to the mean of the nearest ones"}
REFERENCES = {
    "held out": "held-out images",
    "leave one out": "training images, each compared with the others",
}
HEADER = ["near by", "generated images", "near ones", "share, %", "expected, %", "p", "more than by chance"]


@dataclass(frozen=True)
class Comparison:
    """Generated images beside others, by one measure in one space.

    Args:
        num_images: Generated images.
        num_near: Those that are nearer than nearly all others of their class (`exceedances`).
        expected: Their number by chance.
        p_value: Chance of at least so many.
        classes: Classes that have too many by themselves, all comparisons considered.
        exceeds: Whether there are more than chance explains, of all classes together or of one.
        medians: Of the measure, of the generated and of the other images.
    """

    num_images: int
    num_near: int
    expected: float
    p_value: float
    classes: tuple[str, ...]
    exceeds: bool
    medians: tuple[float, float]


@dataclass(frozen=True)
class CopyFindings:
    """What is found of near copies in a set.

    Args:
        reference: What generated images are compared with: a key of `REFERENCES`.
        num_training: Training images that were looked through.
        num_behind: Images that the artifact was built from, as it says.
        num_reference: Images that generated ones are compared with.
        num_neighbours: Whose mean distance the ratio is to.
        teacher: Whose features were compared; None where only pixels were.
        spaces: By space and measure.
    """

    reference: str
    num_training: int
    num_behind: int
    num_reference: int
    num_neighbours: int
    teacher: str | None
    spaces: Mapping[str, Mapping[str, Comparison]]

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers for JSON, with what they say in words."""
        return {**dataclasses.asdict(self), "near": NEAR, "chance": CHANCE, "verdict": self.verdict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CopyFindings:
        """Return what `to_dict` wrote.

        Raises:
            KeyError: Something is missing.
            TypeError: Something is of another type.
            ValueError: Something has a value that is not known.
        """
        given = {field.name: values[field.name] for field in dataclasses.fields(cls)}
        whole = ("num_training", "num_behind", "num_reference", "num_neighbours")
        if given["reference"] not in REFERENCES or not set(given["spaces"]) <= set(SPACES):
            raise ValueError(f"reference {given['reference']!r}, spaces {list(given['spaces'])}")
        if not all(type(given[name]) is int for name in whole):
            raise TypeError(f"{whole} must be integers")
        if not isinstance(given["teacher"], str | None):
            raise TypeError(f"teacher must be a text or null, not {given['teacher']!r}")
        given["spaces"] = {
            space: {measure: _comparison(found[measure]) for measure in MEASURES}
            for space, found in given["spaces"].items()
        }
        return cls(**given)

    @property
    def exceeds(self) -> bool:
        """Whether any comparison finds more near images than chance explains."""
        return any(found.exceeds for space in self.spaces.values() for found in space.values())

    def verdict(self) -> str:
        """Return in a sentence or two what was found."""
        others = REFERENCES[self.reference]
        if not self.exceeds:
            return (
                f"No more near copies than among {others}: no measure has more near images than chance "
                "explains."
            )
        where = [
            f"{space} ({measure}: {found.num_near:,} of {found.num_images:,} images, {found.expected:.1f} "
            f"expected{_in_classes(found.classes)})"
            for space, measures in self.spaces.items()
            for measure, found in measures.items()
            if found.exceeds
        ]
        if any(space["ratio"].exceeds for space in self.spaces.values()):
            what = (
                f"More near copies of training images than among {others}: single training images stand out "
                "as the nearest. Look at the pairs"
            )
        else:
            what = (
                f"Nearer to training images than {others} are, though single training images do not stand "
                "out more often. Typical images are near many; look at the pairs, whether these are"
            )
        return f"{what}. In {'; in '.join(where)}."

    def compared(self) -> str:
        """Return in a few sentences what was compared with what."""
        images = next(iter(self.spaces.values()))["distance"].num_images
        missing = ""
        if self.num_training < self.num_behind:
            missing = (
                f" The artifact was built from {self.num_behind:,} images: copies of those that were not "
                "given are not found."
            )
        space = (
            "in pixels only, as no teacher was given"
            if self.teacher is None
            else f"in pixels and in the features of the teacher {self.teacher}"
        )
        others = REFERENCES[self.reference]
        return (
            f"{images:,} generated images and {self.num_reference:,} {others}, the latter encoded and "
            f"decoded by the same VAE, were compared with {self.num_training:,} training images, {space}. A "
            f"generated image is near if it is nearer to a training image than {1 - NEAR:.0%} of the others "
            "of its class: by its distance to the nearest one, or by the ratio of that to the mean distance "
            f"of the nearest {self.num_neighbours}, which is small where one training image stands out."
            f"{missing}"
        )

    def rows(self) -> list[list[Any]]:
        """Return a row for each comparison, as `HEADER` says."""
        return [
            [
                f"{space}, {measure}",
                found.num_images,
                found.num_near,
                100 * found.num_near / found.num_images,
                100 * found.expected / found.num_images,
                found.p_value,
                "yes" if found.exceeds else "no",
            ]
            for space, measures in self.spaces.items()
            for measure, found in measures.items()
        ]


@neutral()
def compare_nearness(
    generated: Mapping[str, Nearness],
    labels: torch.Tensor,
    others: Mapping[str, Nearness],
    other_labels: torch.Tensor,
    names: Sequence[str],
) -> dict[str, dict[str, Comparison]]:
    """Compare generated images with others, in each space and by each measure.

    A comparison looks at all classes together, and at each alone; each of these tests has its share of
    `CHANCE`, so that a set without copies is called one with copies as seldom.

    Args:
        generated: By space, of N generated images.
        labels: (N,) int64.
        others: By space, of M other images.
        other_labels: (M,) int64.
        names: Classes, by label.

    Raises:
        ConfigError: A class has generated images and no others.
    """
    num_tests = 2 * len(generated) * len(MEASURES)
    found: dict[str, dict[str, Comparison]] = {}
    for space, nearness in generated.items():
        found[space] = {}
        for measure in MEASURES:
            mine, theirs = getattr(nearness, measure), getattr(others[space], measure)
            counts = count_exceedances(mine, labels, theirs, other_labels)
            level = CHANCE / num_tests
            by_class = counts.class_p_values
            classes = tuple(names[label] for label, p in by_class.items() if p * len(by_class) < level)
            found[space][measure] = Comparison(
                num_images=len(mine),
                num_near=int(counts.near.sum()),
                expected=counts.expected,
                p_value=counts.p_value,
                classes=classes,
                exceeds=counts.p_value < level or bool(classes),
                medians=(float(mine.median()), float(theirs.median())),
            )
    return found


def _comparison(values: Mapping[str, Any]) -> Comparison:
    given = {field.name: values[field.name] for field in dataclasses.fields(Comparison)}
    for name in ("num_images", "num_near"):
        if type(given[name]) is not int or given[name] < 0:
            raise TypeError(f"{name} must be a whole number, not {given[name]!r}")
    if given["num_images"] < 1 or type(given["exceeds"]) is not bool:
        raise ValueError(f"num_images {given['num_images']!r}, exceeds {given['exceeds']!r}")
    given["expected"], given["p_value"] = float(given["expected"]), float(given["p_value"])
    given["classes"] = tuple(map(str, given["classes"]))
    first, second = map(float, given["medians"])
    return Comparison(**{**given, "medians": (first, second)})


def _in_classes(classes: Sequence[str]) -> str:
    more = f" and {len(classes) - 5} more" if len(classes) > 5 else ""
    return f", above all {', '.join(classes[:5])}{more}" if classes else ""
