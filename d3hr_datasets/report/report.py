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
from d3hr_datasets.io.paths import expand_user
from d3hr_datasets.numerics.torch_settings import neutral
from d3hr_datasets.report import figures, sections
from d3hr_datasets.report.inversion import InvertedImages, measure_inversion
from d3hr_datasets.report.measures import sampler_scores, sizes
from d3hr_datasets.report.page import page
from d3hr_datasets.report.sections import Pictures
from d3hr_datasets.sources.matched_images import MatchedImages

PAGE, NUMBERS = "index.html", "report.json"


@neutral()
def write_report(
    dataset: D3HRDataset,
    output: str | Path,
    images: Any = None,
    images_per_class: int = 100,
    *,
    progress: bool = True,
) -> Path:
    """Write a report on an artifact and on the images that a data set makes of it.

    Args:
        dataset: The data set; what is missing of it is generated first. Its sampler, size, seed and classes
            are those of the report.
        output: The folder to make; it must be missing or empty.
        images: Real images to invert, which normality, QQ plot and projections need: what
            `sources.matched_images.MatchedImages` takes. Without them these sections say what is missing.
        images_per_class: Real images of each class, the same ones each time.
        progress: Show progress bars on stderr.

    Returns:
        The page, `index.html` in `output`.

    Raises:
        MissingExtraError: matplotlib or scikit-learn is missing.
        ConfigError: The images are not of the artifact's classes.
        SourceError: There are no such images.
        ExportError: `output` holds something, or cannot be written.
        UnreadableImageError: A real image cannot be read.
    """
    check_int("images_per_class", images_per_class, 2)
    figures.check_installed()
    real = None if images is None else MatchedImages(images, dataset.artifact.info.class_list)
    with new_folder(output) as folder:
        dataset.materialize(progress=progress)
        inverted = None if real is None else measure_inversion(dataset, real, images_per_class, progress)
        scores, num_bytes, pictures = sampler_scores(dataset), sizes(dataset), Pictures(folder)
        parts = {
            "The artifact": sections.artifact_table(dataset),
            "Images": sections.images_section(dataset, inverted, pictures),
            "Normality over timesteps": sections.normality_section(dataset, inverted, pictures),
            "Quantiles": sections.quantiles_section(dataset, inverted, pictures),
            "Latents and sampled groups": sections.projection_section(dataset, inverted, pictures),
            "Samplers": sections.samplers_section(dataset, scores, pictures),
            "Sizes": sections.sizes_section(dataset, num_bytes),
        }
        title = f"{dataset.artifact.info.name}: report"
        (folder / PAGE).write_text(page(title, parts), encoding="utf-8")
        numbers = {
            **_settings(dataset),
            "sampler_scores": scores,
            "num_bytes": num_bytes,
            "inversion": None if inverted is None else _numbers(inverted),
        }
        text = json.dumps(numbers, indent=1, ensure_ascii=False) + "\n"
        (folder / NUMBERS).write_text(text, encoding="utf-8")
    return expand_user(output) / PAGE


def _settings(dataset: D3HRDataset) -> dict[str, Any]:
    """Return what a report is of."""
    return {
        "artifact": dataset.artifact.info.name,
        "fingerprint": dataset.artifact.fingerprint,
        "classes": list(dataset.classes),
        "ipc": dataset.ipc,
        "seed": dataset.seed,
        "sampling": dataset.sampling.to_dict(),
        "decode": dataset.decode.to_dict(),
    }


def _numbers(inverted: InvertedImages) -> dict[str, Any]:
    """Return what was measured on real images."""
    return {
        "num_images": inverted.num_images,
        "normality": inverted.normality,
        "noise": inverted.noise,
        "distance_to_stored": inverted.distance,
    }
