"""The sections of a card on what was measured: files of results -> Markdown."""

from __future__ import annotations

from pathlib import Path

from d3hr_datasets.copies.findings import HEADER, CopyFindings
from d3hr_datasets.errors import ConfigError
from d3hr_datasets.io.markdown import format_score, markdown, markdown_table
from d3hr_datasets.io.untrusted_files import read_json_argument
from d3hr_datasets.publish.earlier_card import ACCURACY, COPIES, kept_section


def measured_sections(earlier: str, results: Path | None, report: Path | None, fingerprint: str) -> list[str]:
    """Return the sections on what was measured: new ones, and those of an earlier card in place of others.

    Args:
        earlier: The card that is there, without the author's notes.
        results: Of `accuracy_section`.
        report: Of `copies_section`.
        fingerprint: Of the artifact.

    Raises:
        ConfigError: A file is none of these.
    """
    found = (
        accuracy_section(results) if results else kept_section(earlier, ACCURACY),
        copies_section(report, fingerprint) if report else kept_section(earlier, COPIES),
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


def copies_section(path: Path, fingerprint: str) -> str:
    """Return what a report says of near copies, as a section of a card.

    Args:
        path: Its `report.json`.
        fingerprint: Of the artifact that the report must be on.

    Raises:
        ConfigError: The file is no report, is on another artifact, or was written without real images.
    """
    how = "`d3hr report ARTIFACT --output FOLDER --images TRAINING_IMAGES` writes FOLDER/report.json"
    numbers = read_json_argument(path, "report")
    try:
        of, num_classes, ipc = numbers["fingerprint"], len(numbers["classes"]), int(numbers["ipc"])
        found = None if numbers["copies"] is None else CopyFindings.from_dict(numbers["copies"])
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path} is no report of this version: {error!r}; {how}") from error
    if found is None:
        raise ConfigError(f"{path} is a report without real images, which near copies need; {how}")
    if of != fingerprint:
        raise ConfigError(
            f"{path} is a report on the artifact {of!r:.40}, not on this one, {fingerprint}; {how}"
        )
    what = f"Of a set of {num_classes} classes, {ipc} images each. {found.compared()}"
    return "\n\n".join(
        [COPIES, markdown(found.verdict()), markdown(what), markdown_table(HEADER, found.rows())]
    )
