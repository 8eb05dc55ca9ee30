"""The section of a report on near copies: what was measured -> HTML, and pictures beside it."""

from __future__ import annotations

from typing import Any

from torchvision.transforms.v2.functional import to_pil_image

from d3hr_datasets.copies.comparisons import MEASURES
from d3hr_datasets.copies.findings import HEADER, LEAVE_ONE_OUT
from d3hr_datasets.copies.nearness import SPACES
from d3hr_datasets.dataset.contact_sheet import contact_sheet
from d3hr_datasets.dataset.dataset import D3HRDataset
from d3hr_datasets.report import figures
from d3hr_datasets.report.copying import MeasuredCopies
from d3hr_datasets.report.page import escape, heading, missing, paragraph, table
from d3hr_datasets.report.sections import Pictures, needs_images, scale_of

PAIRS_PER_ROW = 5


def copies_section(dataset: D3HRDataset, copies: MeasuredCopies | None, pictures: Pictures) -> str:
    """Return whether the set has near copies of training images, with the nearest pairs."""
    if copies is None:
        return needs_images(dataset)
    findings = copies.findings
    parts = [f"<p><strong>{escape(findings.verdict())}</strong></p>", paragraph(findings.compared())]
    if findings.reference == LEAVE_ONE_OUT:
        parts.append(
            missing(
                "No held-out images were given, so training images were compared with the others, and "
                "nothing is said of chance. Give images that the artifact was not built from, for instance "
                "the test set:",
                f"d3hr report {dataset.artifact.folder} --output NEW_FOLDER --images TRAINING_IMAGES "
                "--held-out FOLDER_OR_torchvision:NAME:ROOT",
            )
        )
    parts.append(table(HEADER, findings.rows()))
    alt = "Shares of images up to a distance, and up to a ratio. Medians: " + "; ".join(
        f"{space}, {measure}: generated {found.medians[0]:.3g}, others {found.medians[1]:.3g}"
        for space, measures in findings.spaces.items()
        for measure, found in measures.items()
    )
    values = {
        (space, measure): [getattr(found[space], measure) for found in (copies.generated, copies.others)]
        for space in findings.spaces
        for measure in MEASURES
    }
    caption = (
        "Share of images up to each value; a line that begins further left has nearer images. "
        + ". ".join(f"Distance in {space}: {SPACES[space]}" for space in findings.spaces)
        + f". The ratio is that of the distance to the mean of the nearest {findings.num_neighbours}."
    )
    parts.append(pictures.add("copies.png", figures.nearness_figure(values), f"{alt}.", caption))
    scale = scale_of(dataset.artifact.info.image_size)
    for space, pairs in copies.pairs.items():
        sheets = [contact_sheet([to_pil_image(pixels) for pixels in pair.pixels], 2, gap=1) for pair in pairs]
        png = figures.png_bytes(contact_sheet(sheets, PAIRS_PER_ROW, gap=4))
        text = (
            f"{len(pairs)} pairs in {space}, those that the verdict names first, each by ascending ratio: "
            "the generated image left, the nearest training image right."
        )
        rows: list[list[Any]] = [
            [pair.generated, pair.class_name, pair.training, pair.distance, pair.ratio] for pair in pairs
        ]
        header = ["generated image", "class", "training image", "distance", "ratio"]
        parts += [
            heading(f"Nearest pairs in {space}"),
            pictures.add(f"copies-{space}.png", png, text, text, scale),
            table(header, rows),
        ]
    return "\n".join(parts)


def copies_numbers(copies: MeasuredCopies | None) -> dict[str, Any] | None:
    """Return what was found, for `report.json`."""
    if copies is None:
        return None
    fields = ("generated", "class_name", "training", "distance", "ratio")
    pairs = {
        space: [{name: getattr(pair, name) for name in fields} for pair in found]
        for space, found in copies.pairs.items()
    }
    return {**copies.findings.to_dict(), "pairs": pairs}
