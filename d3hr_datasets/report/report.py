"""A report: a data set -> one HTML page that says what its artifact is worth, with its pictures as PNG files.

In: a data set and, for what an artifact's moments cannot tell, some real images. Out: a folder with
`index.html`, which needs no other file and loads nothing, the pictures, and the numbers as `report.json`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from d3hr_datasets.config.checks import check_int
from d3hr_datasets.dataset.dataset import D3HRDataset
from d3hr_datasets.dataset.export import new_folder
from d3hr_datasets.errors import ConfigError
from d3hr_datasets.io.paths import expand_user
from d3hr_datasets.numerics.torch_settings import neutral
from d3hr_datasets.report import figures, sections
from d3hr_datasets.report.copies_section import copies_numbers, copies_section
from d3hr_datasets.report.copying import MeasuredCopies, measure_copies
from d3hr_datasets.report.inversion import InvertedImages, measure_inversion
from d3hr_datasets.report.measures import sampler_scores, sizes
from d3hr_datasets.report.page import page
from d3hr_datasets.report.sections import Pictures
from d3hr_datasets.sources.matched_images import MatchedImages
from d3hr_datasets.sources.opening import is_same_source

PAGE, NUMBERS = "index.html", "report.json"


@neutral()
def write_report(
    dataset: D3HRDataset,
    output: str | Path,
    images: Any = None,
    images_per_class: int = 100,
    *,
    held_out: Any = None,
    teacher: str | None = None,
    progress: bool = True,
) -> Path:
    """Write a report on an artifact and on the images that a data set makes of it.

    Args:
        dataset: The data set; what is missing of it is generated first. Its sampler, size, seed and classes
            are those of the report.
        output: The folder to make; it must be missing or empty.
        images: Real images, which normality, QQ plot, projections and near copies need: what
            `sources.matched_images.MatchedImages` takes. Without them these sections say what is missing.
            Near copies are those of these images: give all that the artifact was built from.
        images_per_class: Real images of each class that are inverted, the same ones each time.
        held_out: Real images that the artifact was not built from, likewise; generated images should be no
            nearer to `images` than these are. Of "torchvision:NAME" and "datasets:NAME" it is the split
            "test". Without them `images` are compared with one another, and there is no verdict.
        teacher: Near copies are looked for in the features of this teacher, too, as `load_teacher` takes it.
        progress: Show progress bars on stderr.

    Returns:
        The page, `index.html` in `output`.

    Raises:
        MissingExtraError: matplotlib or scikit-learn is missing, or timm for a teacher.
        ConfigError: The images are not of the artifact's classes, or too few; `held_out` or `teacher` are
            given without `images`; most `held_out` are `images`; or the teacher takes other channels.
        TeacherError: The teacher cannot be loaded, or does not know the classes.
        SourceError: There are no such images.
        ExportError: `output` holds something, or cannot be written.
        UnreadableImageError: A real image cannot be read.
    """
    check_int("images_per_class", images_per_class, 2)
    figures.check_installed()
    real, others = _real_images(dataset, images, held_out, teacher)
    with new_folder(output) as folder:
        dataset.materialize(progress=progress)
        copies = None if real is None else measure_copies(dataset, real, others, teacher, progress)
        inverted = None if real is None else measure_inversion(dataset, real, images_per_class, progress)
        scores, num_bytes, pictures = sampler_scores(dataset), sizes(dataset), Pictures(folder)
        parts = {
            "The artifact": sections.artifact_table(dataset),
            "Images": sections.images_section(dataset, inverted, pictures),
            **_measured_parts(dataset, inverted, copies, pictures),
            "Samplers": sections.samplers_section(dataset, scores, pictures),
            "Sizes": sections.sizes_section(dataset, num_bytes),
        }
        title = f"{dataset.artifact.info.name}: report"
        (folder / PAGE).write_text(page(title, parts), encoding="utf-8")
        measured = {"inversion": _numbers(inverted), "copies": copies_numbers(copies)}
        numbers = {**_settings(dataset), "sampler_scores": scores, "num_bytes": num_bytes, **measured}
        text = json.dumps(numbers, indent=1, ensure_ascii=False) + "\n"
        (folder / NUMBERS).write_text(text, encoding="utf-8")
    return expand_user(output) / PAGE


def _real_images(
    dataset: D3HRDataset, images: Any, held_out: Any, teacher: str | None
) -> tuple[MatchedImages | None, MatchedImages | None]:
    """Open training and held-out images, as far as they are given."""
    if images is None and (held_out is not None or teacher is not None):
        raise ConfigError(
            "held_out and teacher are for near copies of training images, and no images are given; give them "
            "as `images` (--images)"
        )
    if images is not None and is_same_source(images, held_out):
        raise ConfigError(
            f"the held-out images are the training images, {str(images)!r:.300}; give images that the "
            "artifact was not built from, or none as `held_out` (--held-out)"
        )
    class_list = dataset.artifact.info.class_list
    return (
        None if images is None else MatchedImages(images, class_list),
        None if held_out is None else MatchedImages(held_out, class_list, "test"),
    )


def _measured_parts(
    dataset: D3HRDataset,
    inverted: InvertedImages | None,
    copies: MeasuredCopies | None,
    pictures: Pictures,
) -> dict[str, str]:
    """Return the sections that need real images."""
    return {
        "Normality over timesteps": sections.normality_section(dataset, inverted, pictures),
        "Quantiles": sections.quantiles_section(dataset, inverted, pictures),
        "Latents and sampled groups": sections.projection_section(dataset, inverted, pictures),
        "Near copies of training images": copies_section(dataset, copies, pictures),
    }


def _settings(dataset: D3HRDataset) -> dict[str, Any]:
    """Return what a report is of: "order" is that of curated images, of other sets there is none."""
    curated = dataset.sampling.method == "curated"
    return {
        "artifact": dataset.artifact.info.name,
        "fingerprint": dataset.artifact.fingerprint,
        "order": dataset.artifact.order_fingerprint if curated else None,
        "set": dataset.fingerprint,
        "classes": list(dataset.classes),
        "ipc": dataset.ipc,
        "seed": dataset.seed,
        "epoch": dataset.epoch,
        "sampling": dataset.sampling.to_dict(),
        "decode": dataset.decode.to_dict(),
    }


def _numbers(inverted: InvertedImages | None) -> dict[str, Any] | None:
    """Return what was measured on inverted real images."""
    if inverted is None:
        return None
    return {
        "num_images": inverted.num_images,
        "normality": inverted.normality,
        "noise": inverted.noise,
        "distance_to_stored": inverted.distance,
    }
