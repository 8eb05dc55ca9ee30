"""Reports: a data set -> one HTML page that says what its artifact is worth, with its pictures as PNG files.

In: a data set and, for what an artifact's moments cannot tell, some real images. Out: a folder with
`index.html`, which needs no other file and loads nothing, the pictures, and the numbers as `report.json`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torchvision.transforms.v2.functional import to_pil_image

from d3hr_datasets.config.checks import check_int
from d3hr_datasets.config.timesteps import CLEAN
from d3hr_datasets.dataset.dataset import D3HRDataset
from d3hr_datasets.dataset.export import new_folder
from d3hr_datasets.diffusion.pixels import to_pil
from d3hr_datasets.io.paths import expand_user
from d3hr_datasets.numerics.ambient import neutral
from d3hr_datasets.report import figures
from d3hr_datasets.report.images import RealImages
from d3hr_datasets.report.inversion import DRAWN_CLASSES, InvertedImages, measure_inversion
from d3hr_datasets.report.measures import sampler_scores, sizes
from d3hr_datasets.report.page import heading, missing, page, paragraph, picture, table

__all__ = ["write_report"]

PAGE, NUMBERS = "index.html", "report.json"
SMALL = 84  # images with a side of up to half of this are shown enlarged

# Saves a picture and returns its HTML: (file name, PNG, alternative text, caption, scale).
_Show = Callable[..., str]


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
            `report.images.RealImages` takes. Without them these sections say what is missing.
        images_per_class: Real images of each class, the same ones each time.
        progress: Show progress bars on stderr.

    Returns:
        The page, `index.html` in `output`.

    Raises:
        ConfigError: matplotlib or scikit-learn is missing, or the images are not of the artifact's classes.
        SourceError: There are no such images.
        ExportError: `output` holds something, or cannot be written.
        UnreadableImageError: A real image cannot be read.
    """
    check_int("images_per_class", images_per_class, 2)
    figures.check_installed()
    info = dataset.artifact.info
    real = None if images is None else RealImages(images, info.class_list)
    with new_folder(output) as folder:

        def show(name: str, png: bytes, alt: str, caption: str, scale: int = 0) -> str:
            (folder / name).write_bytes(png)
            return picture(png, alt, caption, scale)

        dataset.materialize(progress=progress)
        inverted = None if real is None else measure_inversion(dataset, real, images_per_class, progress)
        scores, num_bytes = sampler_scores(dataset), sizes(dataset)
        sections = {
            "The artifact": _artifact(dataset),
            "Images": _images(dataset, inverted, show),
            "Normality over timesteps": _normality(dataset, inverted, show),
            "Quantiles": _quantiles(dataset, inverted, show),
            "Latents and sampled groups": _projection(dataset, inverted, show),
            "Samplers": _samplers(dataset, scores, show),
            "Sizes": _sizes(dataset, num_bytes),
        }
        title = f"{info.name}: report"
        (folder / PAGE).write_text(page(title, sections), encoding="utf-8")
        numbers = {
            "artifact": info.name,
            "fingerprint": dataset.artifact.fingerprint,
            "classes": list(dataset.classes),
            "ipc": dataset.ipc,
            "seed": dataset.seed,
            "sampling": dataset.sampling.to_dict(),
            "decode": dataset.decode.to_dict(),
            "sampler_scores": scores,
            "num_bytes": num_bytes,
            "inversion": None
            if inverted is None
            else {
                "num_images": inverted.num_images,
                "normality": inverted.normality,
                "noise": inverted.noise,
                "distance_to_stored": inverted.distance,
            },
        }
        text = json.dumps(numbers, indent=1, ensure_ascii=False) + "\n"
        (folder / NUMBERS).write_text(text, encoding="utf-8")
    return expand_user(output) / PAGE


def _artifact(dataset: D3HRDataset) -> str:
    info, decode = dataset.artifact.info, dataset.decode
    model = f"{info.model.path}/ inside the artifact"
    if info.model.path is None:
        model = f"{info.model.repo_id} at revision {info.model.revision}"
    guidance = f"guidance {decode.guidance_scale:g}"
    rows = {
        "name": info.name,
        "fingerprint": dataset.artifact.fingerprint,
        "source": ", ".join(str(info.source[key]) for key in ("name", "split") if key in info.source)
        or "not given",
        "classes": f"{len(dataset.classes)} shown of {len(info.classes)}",
        "images": f"{info.image_size} x {info.image_size}, {info.image_mode}",
        "latents": " x ".join(map(str, info.latent_shape)),
        "stored timesteps": ", ".join(map(str, info.inversion.timesteps)),
        "inversion": f"{info.inversion.method}, {info.inversion.num_inference_steps}-step grid, "
        f"evaluations per step {info.inversion.evaluations_per_step}, "
        f"guidance {info.inversion.guidance_scale:g}",
        "decoding": f"from t = {decode.timestep}, {decode.num_inference_steps}-step grid, {guidance}",
        "groups": f"{dataset.ipc} per class, {dataset.sampling.method}, seed {dataset.seed}",
        "diffusion model": model,
    }
    return table([], rows.items())


def _images(dataset: D3HRDataset, inverted: InvertedImages | None, show: _Show) -> str:
    info, model = dataset.artifact.info, dataset.model()
    scale = SMALL // info.image_size
    parts = [
        paragraph(
            "For each class: the mean of its inverted latents, denoised and decoded as the images are; then "
            "the generated images" + ("." if inverted is None else "; then real ones, chosen at random.")
        )
    ]
    for label, class_label in enumerate(dataset.class_labels.tolist()):
        name = dataset.classes[label]
        gaussian = dataset.artifact.gaussians(dataset.decode.timestep, class_label)
        clean = model.denoise(gaussian.mean, dataset.class_labels[label : label + 1], dataset.decode)
        mean = to_pil(model.decode(clean), info.padding)
        first = label * dataset.ipc
        sheets = {
            "mean": (mean, f"Image that the mean of class {name} decodes to", "mean"),
            "generated": (
                [dataset[index][0] for index in range(first, first + dataset.ipc)],
                f"{dataset.ipc} generated images of class {name}",
                f"generated, {dataset.sampling.method}",
            ),
        }
        if inverted is not None:
            real = [to_pil_image(pixels) for pixels in inverted.shown[label]]
            sheets["real"] = (real, f"{len(real)} real images of class {name}", "real")
        title = heading(f"{name}: {info.counts[class_label]:,} images behind it")
        strips = "".join(
            show(f"class-{class_label:03d}-{kind}.png", figures.contact_sheet(sheet), alt, caption, scale)
            for kind, (sheet, alt, caption) in sheets.items()
        )
        parts.append(f'{title}<div class="strips">{strips}</div>')
    return "\n".join(parts)


def _needs_images(dataset: D3HRDataset) -> str:
    return missing(
        "Not measured: an artifact holds means and variances only, so this needs real images. Give a folder "
        "with one folder per class, or what else `d3hr build` takes, such as a data set of torchvision:",
        f"d3hr report {dataset.artifact.folder} --output NEW_FOLDER --images FOLDER_OR_torchvision:NAME:ROOT",
    )


def _normality(dataset: D3HRDataset, inverted: InvertedImages | None, show: _Show) -> str:
    if inverted is None:
        return _needs_images(dataset)
    stored = dataset.artifact.info.inversion.timesteps
    vae, there = inverted.normality[CLEAN], inverted.normality[dataset.decode.timestep]
    alt = (
        f"Lines over timesteps. From VAE space to t = {dataset.decode.timestep}: "
        + "; ".join(
            f"{name.replace('_', ' ')} {vae[name]:.3g} to {there[name]:.3g} (Gaussian noise {noise:.3g})"
            for name, noise in inverted.noise.items()
        )
        + "."
    )
    caption = (
        f"Per latent element within a class, averaged over elements and classes; {inverted.num_images:,} "
        "images. Noise is of the same size: a finite sample of it is not at 0."
    )
    header = ["timestep", *(name.replace("_", " ") for name in inverted.noise)]
    rows: list[list[Any]] = [
        ["VAE space" if timestep == CLEAN else timestep, *row.values()]
        for timestep, row in sorted(inverted.normality.items())
    ]
    rows.append(["Gaussian noise", *inverted.noise.values()])
    png = figures.normality_figure(inverted.normality, inverted.noise, stored)
    distance = (
        f"The means of these images' latents at t = {dataset.decode.timestep} are {inverted.distance:.2f} "
        "standard errors from the stored ones: about 1 is chance for images like those behind the artifact, "
        "much more means other images, classes or another model."
    )
    return show("normality.png", png, alt, caption) + table(header, rows) + paragraph(distance)


def _quantiles(dataset: D3HRDataset, inverted: InvertedImages | None, show: _Show) -> str:
    if inverted is None:
        return _needs_images(dataset)
    ends = {t: float(lines[:, -1].mean()) for t, lines in sorted(inverted.quantiles.items())}
    probability = float(inverted.probabilities[-1])
    spaces = [f"{'VAE space' if t == CLEAN else f't = {t}'} {end:.2f}" for t, end in ends.items()]
    of_noise = float(inverted.noise_quantiles[-1])
    alt = f"QQ plots. At probability {probability:g}: {', '.join(spaces)}, Gaussian noise {of_noise:.2f}."
    png = figures.qq_figure(inverted.quantiles, inverted.noise_quantiles, inverted.probabilities)
    caption = (
        "Elements standardised within their class, a line for each class; dashed: Gaussian noise, as many "
        "samples and standardised likewise."
    )
    return show("qq.png", png, alt, caption)


def _projection(dataset: D3HRDataset, inverted: InvertedImages | None, show: _Show) -> str:
    if inverted is None:
        return _needs_images(dataset)
    names = dataset.classes[:DRAWN_CLASSES]
    png = figures.projection_figure(inverted.spaces, inverted.labels, inverted.group_labels, names)
    alt = f"Two-dimensional views of latents of {len(names)} classes, real images and sampled groups."
    caption = (
        f"Dots: {len(inverted.labels):,} real images of the first {len(names)} classes. Stars: the sampled "
        f"groups of {dataset.ipc}, in VAE space their generated images. PCA is fitted to the real images."
    )
    return show("projection.png", png, alt, caption)


def _samplers(dataset: D3HRDataset, scores: dict[str, dict[str, float]], show: _Show) -> str:
    alt = "Bars. Loss: " + ", ".join(f"{name} {score['loss']:.3g}" for name, score in scores.items())
    caption = (
        f"Groups of {dataset.ipc} at t = {dataset.decode.timestep}, averaged over {len(dataset.classes)} "
        "classes."
    )
    rows = [[name, *score.values()] for name, score in scores.items()]
    header = ["sampler", "loss", "distance of means", "distance of standard deviations", "skewness"]
    text = (
        "The paper's loss, mean + standard deviation + 0.5 x skewness, each as a length over all elements, "
        "of one group per class against the class Gaussian. Groups that are spread over modes are not made "
        "to match it: what they are for is not in this loss."
    )
    return (
        paragraph(text)
        + show("samplers.png", figures.scores_figure(scores), alt, caption)
        + table(header, rows)
    )


def _sizes(dataset: D3HRDataset, num_bytes: dict[str, int]) -> str:
    info = dataset.artifact.info
    shown = sum(info.counts[label] for label in dataset.class_labels.tolist())
    rows: list[list[Any]] = [
        [f"statistics of {len(info.classes)} classes, for any number of images", num_bytes["statistics"]],
        ["diffusion model inside the artifact", num_bytes["model"] or "none inside"],
        [f"these {len(dataset):,} generated images, as PNG", num_bytes["generated_png"]],
        [f"the {shown:,} source images of these classes, as uncompressed pixels", num_bytes["source_pixels"]],
    ]
    return table(["", "bytes"], rows)
