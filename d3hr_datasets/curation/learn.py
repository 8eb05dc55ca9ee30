"""Learning means of modes: an artifact and real images -> a copy of the artifact whose groups train better.

Moves the means of the modes by distribution matching (`matching`), within a stated distance. Variances,
masses, class Gaussians and the size of the file stay.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from tqdm import tqdm

from d3hr_datasets.artifact.artifact import Artifact
from d3hr_datasets.artifact.changed_copies import new_copy
from d3hr_datasets.artifact.d3hr_json import EMBEDDINGS, MOMENTS, STATISTICS
from d3hr_datasets.artifact.info import ArtifactInfo
from d3hr_datasets.artifact.learned import Learned
from d3hr_datasets.artifact.mode_means import write_mode_means
from d3hr_datasets.artifact.model import load_model
from d3hr_datasets.combine.written_artifact import files_left_out, kept_files, say_left_out
from d3hr_datasets.config.checks import check_int
from d3hr_datasets.config.defaults import BATCH_SIZE
from d3hr_datasets.curation.learning_settings import LearningSettings, generation_of, kept_budgets
from d3hr_datasets.curation.matching import Matcher, network_depth
from d3hr_datasets.errors import ConfigError
from d3hr_datasets.numerics.allocator import kept_memory
from d3hr_datasets.numerics.seeds import derive_seed
from d3hr_datasets.numerics.torch_settings import neutral
from d3hr_datasets.sources.matched_images import MatchedImages
from d3hr_datasets.sources.user_datasets import TorchvisionLike

if TYPE_CHECKING:
    from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion

HELD_DRAWS = 4  # of which no step sees one; the loss before and after is theirs

logger = logging.getLogger(__name__)


@neutral()
@kept_memory()
def learn_artifact(
    artifact: str | Path | Artifact,
    output: str | Path,
    images: str | Path | TorchvisionLike,
    settings: LearningSettings | None = None,
    *,
    batch_size: int = BATCH_SIZE,
    device: torch.device | str | None = None,
    progress: bool = True,
    notify: Callable[[str], object] = logger.warning,
) -> Artifact:
    """Copy an artifact, and move the means of its modes so that groups of the copy train students better.

    Means of modes move to where groups are nearer to real images in features of untrained networks, another
    one in each step; each element by at most `max_shift` standard deviations within its mode. All else that
    is stored stays, to the last bit. So groups of "modes" change, of any size, and others do not. An order of
    curated images, sums behind the statistics, and what shows images are left out. What students gain, and
    of which architecture, is not measured yet. The same arguments give the same means on one machine;
    elsewhere they differ by rounding in the models.

    Source: Zhao & Bilen, "Dataset Condensation with Distribution Matching" (WACV 2023). Differs from it:
    means of modes are learned through a diffusion model, and not pixels; steps are Adam's.

    Args:
        artifact: A folder, "ORG/NAME" or "ORG/NAME@REVISION" on the Hub, or an `Artifact`. It is not changed.
        output: The folder to make; it must be missing or empty.
        images: Real images of all classes: what `open_source` takes, matched by the names of their classes.
        settings: What decides the means.
        batch_size: Images in the diffusion model at a time, all of their steps with gradients.
        device: Where to generate, as in `D3HRDataset`.
        progress: Show a progress bar on stderr.
        notify: Called with each sentence that the user should know.

    Returns:
        The artifact in `output`, of which `info.learned` says how.

    Raises:
        ConfigError: The artifact stores no modes, is private, or has learned means already; a size is not
            sampled from modes; an argument is not accepted; a class has no images.
        ArtifactNotFoundError: There is no artifact; likewise `ModelNotFoundError`.
        ModelFormatError: The model makes images that are not finite.
        SourceError: There are no such real images; likewise `UnreadableImageError`.
        ExportError: `output` holds something or cannot be written, or this is one of several processes.
    """
    check_int("batch_size", batch_size, 1)
    settings = settings or LearningSettings()
    found = artifact if isinstance(artifact, Artifact) else Artifact.from_pretrained(artifact)
    plain = _plain(found.info)
    generation, left_out = generation_of(plain, settings.ipc), files_left_out([found])
    with new_copy(found, output) as folder:
        real = _real_images(images, found.info, settings.num_images)
        modes = {decode.timestep: found.modes(decode.timestep) for _, decode in generation.values()}
        model, sizes = _load(found, device), (settings.real_batch, settings.width, batch_size)
        matcher = Matcher(model, found.info.padding, modes, generation, real, *sizes)
        shifts, losses = learn_shifts(matcher, settings, progress)
        learned = _learned(found, matcher, settings, shifts, losses)
        means = {timestep: _means(matcher, timestep, shift) for timestep, shift in shifts.items()}
        _write(found, folder, dataclasses.replace(plain, learned=learned), means)
    _say(found, learned, plain, notify, left_out)
    return Artifact.load(output)


@neutral(full_float32=True)
def learn_shifts(
    matcher: Matcher, settings: LearningSettings, progress: bool
) -> tuple[dict[float, torch.Tensor], tuple[float, float]]:
    """Return how far means should move, and the loss of held draws before and after.

    Args:
        matcher: What compares groups with real images.
        settings: Sizes, steps and distance.
        progress: Show a progress bar on stderr.

    Returns:
        Shifts (K, M, *latent) by timestep, in standard deviations within the mode, and the two losses.
    """
    shifts = {
        timestep: torch.zeros_like(modes.mean, requires_grad=True)
        for timestep, modes in matcher.modes.items()
    }
    sizes = list(matcher.generation)
    optimizer = torch.optim.Adam(list(shifts.values()), settings.learning_rate)
    rates = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / settings.iterations)
    before = held_loss(matcher, shifts, settings)
    # Even a bar that shows nothing takes a lock that a killed sibling may hold for ever.
    bar = tqdm(total=settings.iterations, desc="learning means", unit="step") if progress else None
    with bar or contextlib.nullcontext():
        for iteration in range(settings.iterations):
            optimizer.zero_grad()
            draw = matcher.draw(derive_seed(settings.seed, "learned", iteration))
            ipc, total = sizes[iteration % len(sizes)], 0.0
            for label in range(len(matcher.real)):
                loss = matcher.loss(shifts, label, ipc, draw)
                loss.backward()
                total += float(loss.detach())
            optimizer.step()
            rates.step()
            for shift in shifts.values():
                shift.clamp_(-settings.max_shift, settings.max_shift)
            if bar is not None:
                bar.set_postfix(loss=f"{total:.4g}", refresh=False)
                bar.update()
    found = {timestep: shift.detach() for timestep, shift in shifts.items()}
    return found, (before, held_loss(matcher, found, settings))


@neutral()
def held_loss(matcher: Matcher, shifts: Mapping[float, torch.Tensor], settings: LearningSettings) -> float:
    """Return the loss, summed over classes, of draws that no step has: the mean over sizes of groups."""
    fixed = {timestep: shift.detach() for timestep, shift in shifts.items()}
    total, sizes = 0.0, list(matcher.generation)
    for number in range(HELD_DRAWS):
        draw = matcher.draw(derive_seed(settings.seed, "held", number))
        for ipc in sizes:
            for label in range(len(matcher.real)):
                total += float(matcher.loss(fixed, label, ipc, draw))
    return total / (HELD_DRAWS * len(sizes))


def _plain(info: ArtifactInfo) -> ArtifactInfo:
    """Return a description without an order of curated images, if means can be learned."""
    if info.privacy is not None:
        info.privacy.check_no_images("learning means of modes from real images")
    if info.num_modes == 1:
        raise ConfigError(
            f"the artifact {info.name} stores no modes, whose means are what is learned; build one with modes"
        )
    if info.learned is not None:
        raise ConfigError(
            f"the artifact {info.name} has learned means already, and how far they may go is told from those "
            f"of the images: learn from the artifact that it was learned from, {info.learned.original}"
        )
    return dataclasses.replace(info, curation=None, budgets=kept_budgets(info))


def _real_images(images: str | Path | TorchvisionLike, info: ArtifactInfo, number: int) -> list[torch.Tensor]:
    """Return real images of every class, uint8 (N, C, S, S); what lacks is said before any is read."""
    matched = MatchedImages(images, info.class_list)
    labels = range(len(info.classes))
    for label in labels:
        matched.records(label, 1)
    return [
        matched.pixels(
            matched.chosen(label, number), info.image_size, info.image_mode, info.inversion.resizing
        )
        for label in labels
    ]


def _load(artifact: Artifact, device: torch.device | str | None) -> LatentDiffusion:
    with torch.random.fork_rng(devices=[]):  # loading a model must not move the user's generator
        return load_model(artifact, device)


def _learned(
    artifact: Artifact,
    matcher: Matcher,
    settings: LearningSettings,
    shifts: Mapping[float, torch.Tensor],
    losses: tuple[float, float],
) -> Learned:
    squares = sum(float(shift.double().square().sum()) for shift in shifts.values())
    return Learned(
        method="distribution_matching",
        network=f"ConvNet-{network_depth(artifact.info.image_size)} of width {settings.width}",
        iterations=settings.iterations,
        ipc=tuple(matcher.generation),
        timesteps=tuple(shifts),
        num_images=settings.num_images,
        max_shift=settings.max_shift,
        shift=(squares / sum(shift.numel() for shift in shifts.values())) ** 0.5,
        loss_before=losses[0],
        loss_after=losses[1],
        original=artifact.fingerprint,
        seed=settings.seed,
    )


def _means(matcher: Matcher, timestep: float, shift: torch.Tensor) -> torch.Tensor:
    """Return all means (K, M, *latent) of a timestep."""
    return torch.stack([matcher.moved(timestep, label, of_class) for label, of_class in enumerate(shift)])


def _write(artifact: Artifact, folder: Path, info: ArtifactInfo, means: Mapping[float, torch.Tensor]) -> None:
    """Write model, adapter and embeddings of an artifact with other means, and nothing that shows images."""
    names = {*kept_files(artifact), STATISTICS, EMBEDDINGS}
    sha256 = {name: digest for name, digest in artifact.sha256.items() if name in names}
    plain = Artifact(artifact.folder, info, sha256, artifact.repo_id, artifact.revision)
    copy = plain.save_pretrained(folder)
    write_mode_means(folder / STATISTICS, info, means)
    copy.write_metadata()
    copy.verify()


def _say(
    artifact: Artifact,
    learned: Learned,
    plain: ArtifactInfo,
    notify: Callable[[str], object],
    left_out: Sequence[str],
) -> None:
    """Say what is not in the copy, and where learning has gained nothing."""
    if artifact.info.curation is not None:
        notify(
            "the order of curated images is left out, since its candidates would be other images now; "
            "`d3hr curate` makes an order of the new artifact"
        )
    gone = [str(rule.max_ipc) for rule in artifact.info.budgets if rule not in plain.budgets]
    if gone:
        notify(
            f"the rules for at most {', '.join(gone)} images per class are left out, since they ask for "
            "curated images; `d3hr budgets` gives the new artifact others"
        )
    if MOMENTS in artifact.sha256:
        notify(
            f"the sums of the images ({MOMENTS}) are left out: learned means are not theirs. Merge, or "
            "forget images, in the artifact that means were learned from, and keep it for that"
        )
    if learned.loss_after >= learned.loss_before:
        notify(
            f"the loss of held draws did not fall ({learned.loss_before:.4g} before, "
            f"{learned.loss_after:.4g} after): the new means are not worth having; give more iterations, or "
            "another learning rate"
        )
    say_left_out(left_out, notify)
