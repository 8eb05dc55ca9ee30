"""The figures of a report: numbers -> PNG files in memory, with matplotlib and scikit-learn."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from d3hr_datasets.config.timesteps import CLEAN
from d3hr_datasets.io.extras import needs_extra
from d3hr_datasets.io.text import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def check_installed() -> None:
    """Check that the figures can be drawn.

    Raises:
        MissingExtraError: matplotlib or scikit-learn is not installed.
    """
    with needs_extra("report", "a report is drawn with matplotlib and scikit-learn"):
        import matplotlib  # noqa: F401
        import sklearn  # noqa: F401


def png_bytes(image: Image.Image) -> bytes:
    """Return a picture as a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def normality_figure(
    rows: dict[float, dict[str, float]], noise: dict[str, float], stored: Sequence[float]
) -> bytes:
    """Draw measures over times, those of Gaussian noise as a line, stored times as vertical ones.

    Args:
        rows: By timestep or sigma, -1 for VAE space, measures by name.
        noise: The same measures of Gaussian noise.
        stored: Timesteps whose statistics the artifact has.
    """
    figure = _figure(10, 3.2)
    panels = figure.subplots(1, len(noise))
    times = sorted(rows)
    are_sigmas = any(isinstance(time, float) for time in times)
    places = [0.0 if are_sigmas and time == CLEAN else time for time in times]
    for axes, (name, of_noise) in zip(panels, noise.items(), strict=True):
        axes.plot(places, [rows[time][name] for time in times], marker="o", label="images")
        axes.axhline(of_noise, color="black", linestyle="--", label="Gaussian noise")
        for timestep in stored:
            axes.axvline(timestep, color="tab:orange", linewidth=1, alpha=0.7)
        axes.set_title(f"mean |{name.replace('_', ' ')}|", fontsize=10)
        axes.set_xlabel(f"{'sigma' if are_sigmas else 'timestep'} (left end: VAE space)")
        axes.set_ylim(0, 1.1 * max(of_noise, *(row[name] for row in rows.values())))
    panels[0].plot([], [], color="tab:orange", linewidth=1, label="stored")
    panels[0].legend(fontsize=8)
    return _save(figure)


def qq_figure(
    quantiles: dict[float, torch.Tensor], of_noise: torch.Tensor, probabilities: torch.Tensor
) -> bytes:
    """Draw quantiles of standardised elements against those of the normal law, a line for each class.

    Args:
        quantiles: By timestep, (classes, Q).
        of_noise: (Q,), of Gaussian noise, standardised likewise: with few samples its tails are shorter.
        probabilities: (Q,).
    """
    normal = torch.special.ndtri(probabilities).tolist()
    figure = _figure(8, 4)
    panels = figure.subplots(1, len(quantiles), sharex=True, sharey=True, squeeze=False)[0]
    for axes, (timestep, of_classes) in zip(panels, sorted(quantiles.items()), strict=True):
        for line in of_classes:
            axes.plot(normal, line.tolist(), color="tab:blue", linewidth=0.8, alpha=0.5)
        axes.plot(normal, of_noise.tolist(), color="black", linestyle="--", linewidth=1)
        axes.set_title(_space(timestep), fontsize=10)
        axes.set_xlabel("quantile of the normal law")
    panels[0].set_ylabel("quantile of standardised elements")
    return _save(figure)


def projection_figure(
    spaces: dict[float, tuple[torch.Tensor, torch.Tensor]],
    labels: torch.Tensor,
    group_labels: torch.Tensor,
    names: Sequence[str],
) -> bytes:
    """Draw latents of images as dots and those of the sampled groups as stars, by PCA and by t-SNE.

    Source: D3HR, figures 1 and 3.

    Args:
        spaces: By timestep, latents of images (N, *latent) and of the groups (M, *latent).
        labels: (N,) index into `names`.
        group_labels: (M,) likewise.
        names: Classes.
    """
    import matplotlib
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    colours = matplotlib.colormaps["tab10"](range(10))
    figure = _figure(10, 4.6 * len(spaces))
    panels = figure.subplots(len(spaces), 2, squeeze=False)
    for row, (timestep, latents) in zip(panels, sorted(spaces.items()), strict=True):
        images, groups = (found.flatten(1).double().numpy() for found in latents)
        both = np.concatenate([images, groups])
        perplexity = min(30.0, (len(both) - 1) / 3)
        embedded = {
            "PCA of the images": PCA(2, random_state=0).fit(images).transform(both),
            "t-SNE": TSNE(2, perplexity=perplexity, init="pca", random_state=0).fit_transform(both),
        }
        for axes, (method, points) in zip(row, embedded.items(), strict=True):
            dots, stars = points[: len(images)], points[len(images) :]
            for index, name in enumerate(names):
                colour = colours[index % len(colours)]
                mine = (labels == index).numpy()
                axes.scatter(*dots[mine].T, s=9, color=colour, alpha=0.65, linewidths=0, label=_plain(name))
            for index in range(len(names)):
                mine = (group_labels == index).numpy()
                axes.scatter(
                    *stars[mine].T,
                    s=70,
                    marker="*",
                    color=colours[index % len(colours)],
                    edgecolors="black",
                    linewidths=0.7,
                )
            axes.set_title(f"{_space(timestep)}, {method}", fontsize=10)
            axes.set_xticks([])
            axes.set_yticks([])
    handles, entries = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, entries, loc="outside lower center", ncols=5, fontsize=8, markerscale=2.5)
    return _save(figure)


def nearness_figure(values: dict[tuple[str, str], list[torch.Tensor]]) -> bytes:
    """Draw how near generated images and others are to training images: shares over a measure, as steps.

    Args:
        values: By space and measure: (N,) of generated images, (M,) of others.
    """
    figure = _figure(10, 3.2 * len(values) / 2)
    panels = figure.subplots(-(-len(values) // 2), 2, squeeze=False).flatten()
    for axes, ((space, measure), (mine, others)) in zip(panels, values.items(), strict=True):
        for found, name, colour in ((mine, "generated", "tab:orange"), (others, "others", "tab:blue")):
            ordered = found.sort().values.tolist()
            shares = [place / len(ordered) for place in range(len(ordered) + 1)]
            axes.step([ordered[0], *ordered], shares, where="post", color=colour, linewidth=1.2, label=name)
        axes.set_title(f"{measure} in {space}", fontsize=10)
        axes.set_ylabel("share of images")
    panels[0].legend(fontsize=8)
    return _save(figure)


def scores_figure(scores: dict[str, dict[str, float]]) -> bytes:
    """Draw the terms of the loss of each sampler as bars."""
    terms = [term for term in next(iter(scores.values())) if term != "loss"]
    figure = _figure(8, 0.9 + 0.75 * len(scores))
    axes = figure.subplots()
    height = 0.8 / len(terms)
    for offset, term in enumerate(terms):
        places = [row + offset * height for row in range(len(scores))]
        axes.barh(places, [score[term] for score in scores.values()], height, label=term)
    axes.set_yticks([row + 0.4 - height / 2 for row in range(len(scores))], list(scores))
    axes.invert_yaxis()
    axes.set_xlabel("distance to the class Gaussian (lower is better)")
    axes.legend(fontsize=8)
    return _save(figure)


def _plain(name: str) -> str:
    """Return a text that matplotlib shows as it is: "$" would be a formula, "_" at the start hides it."""
    text = printable(name).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def _space(timestep: float) -> str:
    return "VAE space" if timestep == CLEAN else f"inverted to t = {timestep:g}"


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure  # not pyplot, which keeps figures for the whole process

    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
