"""What is found of near copies, in words: comparisons of two sets -> `CopyFindings`.

Reports, cards and results say the same of the same numbers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from d3hr_datasets.copies.comparisons import CHANCE, MEASURES, Comparison, Odds, numbers_of
from d3hr_datasets.copies.exceedances import NEAR
from d3hr_datasets.copies.nearness import PIXELS, SPACES

HELD_OUT, LEAVE_ONE_OUT = "held out", "leave one out"
REFERENCES = {
    HELD_OUT: "held-out images",
    LEAVE_ONE_OUT: "training images, each compared with the others",
}
HEADER = ["near by", "generated images", "near ones", "share, %", "expected, %", "p", "more than by chance"]
SAID = 10  # numbers of images in a sentence
UNTOLD = "not told"  # in a table, where there is no law of chance


@dataclass(frozen=True)
class CopyFindings:
    """What is found of near copies in a set.

    Args:
        reference: What generated images are compared with: a key of `REFERENCES`.
        num_training: Training images that were looked through.
        num_behind: Images that the artifact was built from, as it says.
        num_reference: Images that generated ones are compared with.
        num_shared: Those of them that have the pixels of a training image, though they are held out.
        num_neighbours: Whose mean distance the ratio is to.
        teacher: Whose features were compared; None where only pixels were.
        within_vae: Numbers of generated images that are as near to a training image, in pixels, as this comes
            out of the VAE.
        spaces: By space and measure.
    """

    reference: str
    num_training: int
    num_behind: int
    num_reference: int
    num_shared: int
    num_neighbours: int
    teacher: str | None
    within_vae: tuple[int, ...]
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
        whole = ("num_training", "num_behind", "num_reference", "num_shared", "num_neighbours")
        spaces = set(given["spaces"])
        if given["reference"] not in REFERENCES or PIXELS not in spaces or not spaces <= set(SPACES):
            raise ValueError(f"reference {given['reference']!r}, spaces {list(given['spaces'])}")
        if not all(type(given[name]) is int for name in whole):
            raise TypeError(f"{whole} must be integers")
        if not isinstance(given["teacher"], str | None):
            raise TypeError(f"teacher must be a text or null, not {given['teacher']!r}")
        given["within_vae"] = numbers_of("within_vae", given["within_vae"])
        given["spaces"] = {
            space: {measure: Comparison.from_dict(found[measure]) for measure in MEASURES}
            for space, found in given["spaces"].items()
        }
        made = cls(**given)
        if any(
            (found.odds is not None) != (made.reference == HELD_OUT) for _, _, found in made.comparisons()
        ):
            raise ValueError("there are odds where images were held out, and nowhere else")
        return made

    def comparisons(self) -> list[tuple[str, str, Comparison]]:
        """Return space, measure and comparison of each."""
        return [
            (space, measure, found)
            for space, measures in self.spaces.items()
            for measure, found in measures.items()
        ]

    @property
    def exceeds(self) -> bool | None:
        """Whether any comparison finds more near images than chance explains; None where it is not told."""
        odds = [found.odds.exceeds for _, _, found in self.comparisons() if found.odds is not None]
        return any(odds) if odds else None

    def named(self, space: str | None = None) -> tuple[int, ...]:
        """Return the numbers of the generated images that stand out, whatever their number, ascending.

        They are nearer to a training image than all that they are compared with, by either measure, or they
        are of `within_vae`.

        Args:
            space: To say it of this space only.
        """
        numbers = set(self.within_vae) if space in (None, PIXELS) else set()
        for name, _, found in self.comparisons():
            if space in (None, name):
                numbers |= set(found.nearest)
        return tuple(sorted(numbers))

    def verdict(self) -> str:
        """Return in some sentences what was found, with the images that stand out by themselves."""
        return " ".join(filter(None, [self._by_number(), self._by_name(), self._by_mistake()]))

    def _by_number(self) -> str:
        """Say whether there are more near images than chance explains."""
        others = REFERENCES[self.reference]
        told = [
            (space, measure, found, found.odds)
            for space, measure, found in self.comparisons()
            if found.odds is not None
        ]
        if not told:
            return (
                f"No verdict: generated images were compared with {others}, and chance is not known there. "
                "Held-out images would tell."
            )
        if not self.exceeds:
            images, needed = told[0][2].num_images, min(odds.needed for *_, odds in told)
            unseen = (
                "so few images tell nothing, whatever is found"
                if needed > images
                else f"fewer than {needed:,} copies among the {images:,} images, spread over the classes, "
                "would not be seen by their number"
            )
            return f"Not more near images than chance can explain, beside {others}; {unseen}."
        where = [
            f"{space} ({measure}: {found.num_near:,} of {found.num_images:,} images, {odds.expected:.1f} "
            f"expected{_in_classes(odds.classes)})"
            for space, measure, found, odds in told
            if odds.exceeds
        ]
        if any(measure == "ratio" and odds.exceeds for _, measure, _, odds in told):
            what = (
                f"More near copies of training images than among {others}: single training images stand out "
                "as the nearest"
            )
        else:
            what = (
                f"Nearer to training images than {others} are, though single training images do not stand "
                "out more often. Typical images are near many"
            )
        return f"{what}. In {'; in '.join(where)}."

    def _by_name(self) -> str:
        """Say which images stand out, however few they are."""
        named = self.named()
        others = f"all {self.num_reference:,} {REFERENCES[self.reference]}"
        if not named:
            return (
                f"No image is nearer to a training image than {others} are, or as near as this comes out of "
                "the VAE."
            )
        shown = ", ".join(map(str, named[:SAID])) + (
            f" and {len(named) - SAID:,} more" if len(named) > SAID else ""
        )
        what = f"{len(named):,} images are" if len(named) > 1 else "1 image is"
        return (
            f"{what} nearer to a training image than {others} are, or as near as this comes out of the VAE: "
            f"number {shown}. Look at the pairs."
        )

    def _by_mistake(self) -> str:
        if not self.num_shared:
            return ""
        return (
            f"{self.num_shared:,} of the {self.num_reference:,} held-out images are training images, pixel "
            "by pixel: they hide copies."
        )

    def compared(self) -> str:
        """Return in a few sentences what was compared with what."""
        first = self.spaces[PIXELS]["distance"]
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
            f"{first.num_images:,} generated images and {self.num_reference:,} {others}, the latter encoded "
            f"and decoded by the same VAE, were compared with {self.num_training:,} training images, "
            f"{space}. A generated image is near if it is nearer to a training image than all but the "
            f"nearest {NEAR:.0%} of the others of its class, of fewer than {round(2 / NEAR)} than all of them"
            f"{_by_chance(first.odds)}: by its distance to the nearest training image, or by the ratio of "
            f"that to the mean distance of the nearest {self.num_neighbours}, which is small where one "
            "training image stands out."
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
                *_cells(found),
            ]
            for space, measure, found in self.comparisons()
        ]


def _cells(found: Comparison) -> list[Any]:
    odds = found.odds
    if odds is None:
        return [UNTOLD] * 3
    return [100 * odds.expected / found.num_images, odds.p_value, "yes" if odds.exceeds else "no"]


def _by_chance(odds: Odds | None) -> str:
    """Say which share of images is near by chance, which is more than `NEAR` of few held-out images."""
    if odds is None:
        return ""
    least, most = (f"{100 * share:.2g} %" for share in odds.shares)
    return f" (by chance {least if least == most else f'{least} to {most}, by class,'} of images are)"


def _in_classes(classes: Sequence[str]) -> str:
    more = f" and {len(classes) - 5} more" if len(classes) > 5 else ""
    return f", above all {', '.join(classes[:5])}{more}" if classes else ""
