"""The sections of a report: a data set and what was measured of it -> HTML, and pictures beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torchvision.transforms.v2.functional import to_pil_image

from d3hr_datasets.artifact.facts import artifact_facts, describe_decoding, describe_passes
from d3hr_datasets.config.timesteps import CLEAN
from d3hr_datasets.dataset.contact_sheet import contact_sheet
from d3hr_datasets.dataset.dataset import D3HRDataset
from d3hr_datasets.diffusion.pixel_range import to_pil
from d3hr_datasets.report import figures
from d3hr_datasets.report.inversion import DRAWN_CLASSES, InvertedImages
from d3hr_datasets.report.page import heading, missing, paragraph, picture, table

SMALL = 84  # images with a side of up to half of this are shown enlarged
IMAGES_PER_ROW = 10
ADDITIONS = {
    "adapter": "adapter of the diffusion model",
    "embeddings": "what prompts are to the model, so that no text encoder is needed",
    "order": "order of curated images",
}


class Pictures:
    """The pictures of a report: files in its folder, and in its page.

    Args:
        folder: The folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, name: str, png: bytes, alt: str, caption: str, scale: int = 0) -> str:
        """Write a PNG file and return its HTML: arguments as `page.picture`, and the file's name."""
        (self.folder / name).write_bytes(png)
        return picture(png, alt, caption, scale)


def artifact_table(dataset: D3HRDataset) -> str:
    """Return the facts of the artifact, and those of the set that is shown."""
    rows = {
        **artifact_facts(dataset.artifact),
        "shown here": f"{len(dataset.classes)} of {len(dataset.artifact.info.classes)} classes",
        "decoded here": describe_decoding(dataset.decode),
        "image costs here": describe_passes(dataset.model().forward_passes(dataset.decode)),
        "groups": f"{dataset.ipc} per class, {dataset.sampling.method}, seed {dataset.seed}",
    }
    return table([], rows.items())


def images_section(dataset: D3HRDataset, inverted: InvertedImages | None, pictures: Pictures) -> str:
    """Return the pictures of each class: its mean, the generated images, and real ones if there are any."""
    info, model = dataset.artifact.info, dataset.model()
    scale = scale_of(info.image_size)
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
            pictures.add(
                f"class-{class_label:03d}-{kind}.png",
                figures.png_bytes(contact_sheet(images, IMAGES_PER_ROW, gap=1)),
                alt,
                caption,
                scale,
            )
            for kind, (images, alt, caption) in sheets.items()
        )
        parts.append(f'{title}<div class="strips">{strips}</div>')
    return "\n".join(parts)


def scale_of(image_size: int) -> int:
    """Return the screen pixels per pixel of images of a size; 0 for large ones, which fit the page."""
    return SMALL // image_size


def needs_images(dataset: D3HRDataset) -> str:
    """Return what a section says that needs real images."""
    return missing(
        "Not measured: an artifact holds means and variances only, so this needs real images. Give a folder "
        "with one folder per class, or what else `d3hr build` takes, such as a data set of torchvision:",
        f"d3hr report {dataset.artifact.folder} --output NEW_FOLDER --images FOLDER_OR_torchvision:NAME:ROOT",
    )


def normality_section(dataset: D3HRDataset, inverted: InvertedImages | None, pictures: Pictures) -> str:
    """Return how far latents are from Gaussian noise, over timesteps."""
    if inverted is None:
        return needs_images(dataset)
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
    return pictures.add("normality.png", png, alt, caption) + table(header, rows) + paragraph(distance)


def quantiles_section(dataset: D3HRDataset, inverted: InvertedImages | None, pictures: Pictures) -> str:
    """Return the QQ plots of latents."""
    if inverted is None:
        return needs_images(dataset)
    ends = {t: float(lines[:, -1].mean()) for t, lines in sorted(inverted.quantiles.items())}
    probability = float(inverted.probabilities[-1])
    spaces = [f"{'VAE space' if t == CLEAN else f't = {t:g}'} {end:.2f}" for t, end in ends.items()]
    of_noise = float(inverted.noise_quantiles[-1])
    alt = f"QQ plots. At probability {probability:g}: {', '.join(spaces)}, Gaussian noise {of_noise:.2f}."
    png = figures.qq_figure(inverted.quantiles, inverted.noise_quantiles, inverted.probabilities)
    caption = (
        "Elements standardised within their class, a line for each class; dashed: Gaussian noise, as many "
        "samples and standardised likewise."
    )
    return pictures.add("qq.png", png, alt, caption)


def projection_section(dataset: D3HRDataset, inverted: InvertedImages | None, pictures: Pictures) -> str:
    """Return the two-dimensional views of latents and groups."""
    if inverted is None:
        return needs_images(dataset)
    names = dataset.classes[:DRAWN_CLASSES]
    png = figures.projection_figure(inverted.spaces, inverted.labels, inverted.group_labels, names)
    alt = f"Two-dimensional views of latents of {len(names)} classes, real images and sampled groups."
    caption = (
        f"Dots: {len(inverted.labels):,} real images of the first {len(names)} classes. Stars: the sampled "
        f"groups of {dataset.ipc}, in VAE space their generated images. PCA is fitted to the real images."
    )
    return pictures.add("projection.png", png, alt, caption)


def samplers_section(dataset: D3HRDataset, scores: dict[str, dict[str, float]], pictures: Pictures) -> str:
    """Return the loss of the groups of each sampler."""
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
        + pictures.add("samplers.png", figures.scores_figure(scores), alt, caption)
        + table(header, rows)
    )


def sizes_section(dataset: D3HRDataset, num_bytes: dict[str, int]) -> str:
    """Return the bytes of the artifact, of the images, and of those behind it."""
    info = dataset.artifact.info
    shown = sum(info.counts[label] for label in dataset.class_labels.tolist())
    rows: list[list[Any]] = [
        [f"statistics of {len(info.classes)} classes, for any number of images", num_bytes["statistics"]],
        ["diffusion model inside the artifact", num_bytes["model"] or "none inside"],
        *[[label, num_bytes[name]] for name, label in ADDITIONS.items() if name in num_bytes],
        [f"these {len(dataset):,} generated images, as PNG", num_bytes["generated_png"]],
        [f"the {shown:,} source images of these classes, as uncompressed pixels", num_bytes["source_pixels"]],
    ]
    return table(["", "bytes"], rows)
