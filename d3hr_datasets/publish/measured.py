"""The sections of a card on what was measured: files of results -> Markdown."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from d3hr_datasets.artifact.artifact import Artifact
from d3hr_datasets.artifact.facts import describe_decoding
from d3hr_datasets.config.settings import DecodeConfig, GroupSamplingConfig
from d3hr_datasets.copies.findings import HEADER, CopyFindings
from d3hr_datasets.errors import ConfigError
from d3hr_datasets.io.markdown import code, format_score, markdown, markdown_table
from d3hr_datasets.io.untrusted_files import read_json_argument
from d3hr_datasets.publish.earlier_card import ACCURACY, COPIES, kept_section

# The line of a section on near copies that says which artifact, and which order of curated images, it is on.
SUBJECT = re.compile(r"^<!-- near copies of (\w+)(?: in the order (\w+))? -->$", re.MULTILINE)
HOW = "`d3hr report ARTIFACT --output FOLDER --images TRAINING_IMAGES` writes FOLDER/report.json"


def measured_sections(
    earlier: str, results: Path | None, report: Path | None, artifact: Artifact
) -> list[str]:
    """Return the sections on what was measured: new ones, and those of an earlier card in place of others.

    A section on near copies of another artifact, or of another order of curated images, is not kept.

    Args:
        earlier: The card that is there, without the author's notes.
        results: Of `accuracy_section`.
        report: Of `reported_copies`.
        artifact: What the card is of.

    Raises:
        ConfigError: A file is none of these.
    """
    found = (
        accuracy_section(results) if results else kept_section(earlier, ACCURACY),
        reported_copies(report, artifact) if report else _kept_copies(earlier, artifact),
    )
    return [section for section in found if section is not None]


def accuracy_section(path: Path) -> str:
    """Return the accuracies that `recipes.tables.students` measured, as a section of a card.

    Raises:
        ConfigError: The file is none of that recipe's.
    """
    try:
        rows = read_json_argument(path, "file of results")["rows"]
        cells = [[row["name"], format_score(row["top1"])] for row in rows]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f'{path} has no {{"rows": [{{"name", "top1": {{"mean", "std", "values"}}}}]}}: {error!r}; '
            "`python -m recipes.tables.students` writes such a file"
        ) from error
    return f"{ACCURACY}\n\n" + markdown_table(["training set", "accuracy, %"], cells)


def reported_copies(path: Path, artifact: Artifact) -> str:
    """Return what a report says of near copies, as a section of a card.

    Args:
        path: Its `report.json`.
        artifact: What the report must be on.

    Raises:
        ConfigError: The file is no report, is on another artifact or on curated images in another order, or
            was written without real images.
    """
    if artifact.info.privacy is not None:
        artifact.info.privacy.check_no_images("a report with real images on the card")
    numbers = read_json_argument(path, "report")
    try:
        of, order = str(numbers["fingerprint"]), numbers["order"]
        found = None if numbers["copies"] is None else CopyFindings.from_dict(numbers["copies"])
        what = _set_of(numbers)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path} is no report of this version: {error!r}; {HOW}") from error
    if found is None:
        raise ConfigError(f"{path} is a report without real images, which near copies need; {HOW}")
    if of != artifact.fingerprint:
        raise ConfigError(
            f"{path} is a report on the artifact {of!r:.40}, not on this one, {artifact.fingerprint}; {HOW}"
        )
    if order not in (None, artifact.order_fingerprint):
        raise ConfigError(
            f"{path} is a report on curated images in the order {order!r:.40}, and this artifact's is "
            f"{artifact.order_fingerprint}; {HOW}"
        )
    subject = f"<!-- near copies of {of}{'' if order is None else f' in the order {order}'} -->"
    table = markdown_table(HEADER, found.rows())
    return "\n\n".join([COPIES, subject, markdown(found.verdict()), what, markdown(found.compared()), table])


def _set_of(numbers: dict[str, Any]) -> str:
    """Say in Markdown which images a report is on."""
    sampling = GroupSamplingConfig.from_dict(numbers["sampling"])
    decode = DecodeConfig.from_dict(numbers["decode"])
    order = "" if numbers["order"] is None else f" in the order {code(numbers['order'])}"
    epoch = f", epoch {int(numbers['epoch'])}" if numbers["epoch"] else ""
    return (
        f"Of the set {code(numbers['set'])} of {len(numbers['classes'])} classes, {int(numbers['ipc'])} "
        f"images each: sampling {markdown(sampling.method)}{order}, seed {int(numbers['seed'])}{epoch}, "
        f"decoded {markdown(describe_decoding(decode))}. Other sets of the artifact have other images."
    )


def _kept_copies(earlier: str, artifact: Artifact) -> str | None:
    """Return the section of an earlier card on near copies, if it is on these images."""
    section = kept_section(earlier, COPIES)
    subject = None if section is None else SUBJECT.search(section)
    if subject is None:
        return None
    of, order = subject.groups()
    right = of == artifact.fingerprint and order in (None, artifact.order_fingerprint)
    return section if right else None
