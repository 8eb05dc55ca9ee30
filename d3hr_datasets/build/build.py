"""The build side: labelled images + a diffusion model -> an artifact.

In: a data set of (PIL image, int), or a stream of shards, and a model. Out: class Gaussians of the inverted
latents at one or several timesteps, and the modes of the classes if asked for, as an artifact.

The work is cut into chunks, the same for any number of processes, and each finished chunk is a file. So a
build that was killed goes on, on as many processes as there are then, and since the chunks are merged in
their order, in float64, the statistics are the same to the last bit (for the same `batch_size`, on the same
kind of machine with the same number of threads).
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from d3hr_datasets.artifact.artifact import Artifact
from d3hr_datasets.artifact.d3hr_json import MOMENTS
from d3hr_datasets.artifact.info import ArtifactInfo
from d3hr_datasets.artifact.membership import LINEAGE, Member, count_members, key_id, lineage
from d3hr_datasets.artifact.model import check_fits
from d3hr_datasets.artifact.tolerance import Tolerance
from d3hr_datasets.build.chunk_builder import ChunkBuilder
from d3hr_datasets.build.chunks import Chunk
from d3hr_datasets.build.early_stop import EarlyStop, check_stoppable
from d3hr_datasets.build.exact_moments import ExactMoments, check_room, latent_sums
from d3hr_datasets.build.joined_processes import join_processes, wait_for_processes
from d3hr_datasets.build.kept_sums import KeptSums, OpenMembership, open_membership
from d3hr_datasets.build.merged_moments import MergedMoments
from d3hr_datasets.build.mode_latents import ModeLatents
from d3hr_datasets.build.mode_search import check_sought, find_modes
from d3hr_datasets.build.private_build import batch_size_of, bounds_of, check_private, save_private
from d3hr_datasets.build.progress import BuildProgress
from d3hr_datasets.build.shrinkage import shrink_variances
from d3hr_datasets.build.shrinkage_choice import Shrinkage, check_shrinkage
from d3hr_datasets.config.checks import check_int
from d3hr_datasets.config.defaults import CHUNK_SIZE, NUM_READERS
from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from d3hr_datasets.errors import ConfigError, StatisticsError, UnreadableImageError
from d3hr_datasets.io.atomic import replace_text
from d3hr_datasets.io.paths import expand_user
from d3hr_datasets.numerics.torch_settings import neutral
from d3hr_datasets.sources.records import Images
from d3hr_datasets.sources.user_datasets import ImageStream, TorchvisionLike, as_images


@neutral()
def build_artifact(  # noqa: PLR0913  # all that a build is asked for
    source: TorchvisionLike | ImageStream,
    model: LatentDiffusion,
    output: str | Path,
    info: ArtifactInfo,
    work: str | Path,
    batch_size: int | None = None,
    chunk_size: int = CHUNK_SIZE,
    progress: bool = True,
    *,
    skip_unreadable: int = 0,
    num_readers: int = NUM_READERS,
    shrinkage: Shrinkage = "none",
    sums: KeptSums | None = None,
    tolerance: float | None = None,
) -> Artifact:
    """Invert every image of `source`, or as many as a tolerance takes, and save the class Gaussians.

    Under `accelerate launch` or `torchrun` every process calls this with the same arguments (`model` on its
    own device) and makes its share of the chunks; the first one merges them.

    Source: D3HR, sections 4.1 and 4.2.
    Differs from reference: an unreadable image stops the build (there it becomes a black one), moments
    are float64, and posterior samples, where asked for, are seeded by the image's index.

    Args:
        source: Images with class labels 0..K-1, in a fixed order: see `sources.user_datasets`.
        model: The diffusion model; the same one that `info.model` refers to.
        output: Folder of the artifact. A model inside it must be there already.
        info: What to write; `counts`, with `source`'s `fingerprint` and `unreadable`, are as found. `source`
            must tell the images from others: chunks are found by it, by labels, identity and model weights.
        work: Folder for finished chunks, from which another build goes on; all machines must share it.
        batch_size: Images per batch, 256 or with privacy 1; halved as often as memory runs out.
        chunk_size: Images per chunk, the most that a killed process loses.
        progress: Show a progress bar on stderr.
        skip_unreadable: Images that may be left out; they are named in `source["unreadable"]`.
        num_readers: Threads that read images while the model runs.
        shrinkage: How far variances are drawn towards those that all classes share, as `shrink_variances`.
        sums: Also keep the sums behind the statistics, in whole numbers; and whose they are, if it says so.
        tolerance: Stop a class when its means are known to this share of its spread: `early_stop.has_enough`.

    Raises:
        UnreadableImageError: More images cannot be read than may be left out.
        ConfigError: An option is not accepted, not one image fits into memory, or Accelerate is missing.
        ModelFormatError: The model's latents, classes or images are not those of `info`.
        StatisticsError: A class has fewer than two images, or no more than modes, or a latent is not finite.
        BuildError: Another process has ended before its work was done, or a file was damaged meanwhile.
    """
    sizes = check_sizes(info, batch_size, chunk_size, skip_unreadable, num_readers, shrinkage)
    check_fits(model, info)
    processes, images, output = join_processes(), as_images(source), expand_user(output)
    check_private(info, output, shrinkage, sums, tolerance)
    check_images(images, info, exact=sums is not None, tolerance=tolerance)
    noted, key = open_membership(sums, info, output, processes)
    chunk_key = _chunk_key(images, model, info, sizes, sums, key)  # of the weights, so of their precision
    parts = (images, model, with_precision(info, model), _open_work(work, chunk_key, info, processes), *sizes)
    latents = ModeLatents(*parts, private=key is not None)
    centroids = find_modes(latents, processes, progress) if info.num_modes > 1 else None
    build = ChunkBuilder(*parts, centroids, sums is not None, key)
    return _make_and_merge(build, output, processes, progress, shrinkage, noted, tolerance)


def with_precision(info: ArtifactInfo, model: LatentDiffusion) -> ArtifactInfo:
    """Return a description that says the precision of the model, which merging compares, if not float32."""
    if model.network.dtype == torch.float32:
        return info
    said = {"torch_dtype": str(model.network.dtype).removeprefix("torch.")}
    return dataclasses.replace(info, source={**info.source, **said})


def check_sizes(
    info: ArtifactInfo,
    batch_size: int | None,
    chunk_size: int,
    skip_unreadable: int,
    num_readers: int,
    shrinkage: Shrinkage = "none",
) -> tuple[int, int, int, int]:
    """Return the sizes if a build can run so; arguments and errors as of `build_artifact`."""
    batch_size = batch_size_of(info, batch_size)
    check_shrinkage(shrinkage)
    check_int("skip_unreadable", skip_unreadable, 0)
    for name, size in (("batch_size", batch_size), ("chunk_size", chunk_size), ("num_readers", num_readers)):
        check_int(name, size, 1)
    return batch_size, chunk_size, skip_unreadable, num_readers


def check_images(
    images: Images, info: ArtifactInfo, exact: bool = False, tolerance: float | None = None
) -> None:
    """Check before hours of work what is known of the images without reading them.

    Raises:
        ConfigError: A label is none of the model's; or as `check_stoppable`.
        StatisticsError: A class has fewer than two images, no more than modes, or more than `exact` sums have
            room for.
    """
    check_stoppable(tolerance, images)
    if images.labels is None:
        return
    counts = [0] * len(info.classes)
    for index, label in enumerate(images.labels):
        if not 0 <= label < len(counts):
            raise ConfigError(f"image {index} has class label {label}; accepted: 0 to {len(counts) - 1}")
        counts[label] += 1
    if exact or info.privacy:
        check_room(counts)
    # With privacy, that a class has none must make no difference.
    few = [] if info.privacy else [label for label, count in enumerate(counts) if count < 2]
    if few:
        names = [info.classes[label] for label in few[:10]]
        raise StatisticsError(
            f"class labels {few[:10]}{' ...' if len(few) > 10 else ''} ({', '.join(names)}) have fewer than "
            "two images, so no variance; add images, or use a model of the classes there are"
        )
    if info.num_modes > 1:
        check_sought(torch.tensor(counts), info)


def _chunk_key(
    images: Images,
    model: LatentDiffusion,
    info: ArtifactInfo,
    sizes: tuple[int, ...],
    sums: KeptSums | None,
    key: bytes | None,
) -> str:
    """Return what names the chunks of a build: model, settings, and what is known of the images."""
    batch_size, chunk_size = sizes[:2]
    size = images.num_images if images.has_random_access else images.num_shards
    settings = [
        model.inversion_fingerprint,
        info.inversion.to_dict(),
        [info.image_size, info.padding, info.image_mode, len(info.classes), info.latent_shape],
        [info.source, size, images.labels],
        images.identity,
        chunk_size,
        info.num_modes,
    ]
    if sums is not None:
        settings.append(["exact sums", None if key is None else key_id(key)])
    if info.privacy is not None:
        settings.append(["clipped", *bounds_of(info.privacy), batch_size])
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def _open_work(work: str | Path, key: str, info: ArtifactInfo, processes: Any) -> Path:
    """Make the folder of finished chunks, and return the first part of their names in it."""
    work = expand_user(work)
    try:
        # Sizes and times of files say something of private images, too. A folder that is there stays so.
        work.mkdir(0o777 if info.privacy is None else 0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"the folder {work} for finished chunks cannot be made: {error}") from error
    description = work / f"{key}.json"
    if processes.is_main_process:
        replace_text(description, json.dumps(info.to_dict(), indent=1))
    wait_for_processes(processes)
    if not description.is_file():
        raise ConfigError(f"{work} is not the folder of the first process; give one that all machines share")
    return work / key


def _make_chunks(build: ChunkBuilder, processes: Any, progress: bool) -> None:
    """Make this process's share of the chunks, then what others have not come to, and wait for them."""
    show = progress and processes.is_main_process
    with BuildProgress(build.count_finished, build.num_images, show) as progress_bar:
        place = processes.process_index, processes.num_processes
        for _ in build.chunks(*place, progress_bar.advance):
            pass
        build.make_left_over(*place, progress_bar.advance)
        wait_for_processes(processes)


def _make_and_merge(
    build: ChunkBuilder,
    output: Path,
    processes: Any,
    progress: bool,
    shrinkage: Shrinkage,
    noted: OpenMembership | None,
    tolerance: float | None,
) -> Artifact:
    """Return the artifact of all chunks, of which each process makes its share."""
    stop = None if tolerance is None else EarlyStop(build, tolerance, processes)
    parts = []
    for part in [build] if stop is None else stop.rounds():
        _make_chunks(part, processes, progress)
        parts.append(part)
    if processes.is_main_process:
        _merge(parts, output, progress, shrinkage, noted, None if stop is None else stop.found())
    wait_for_processes(processes)
    return Artifact.load(output)


def _merge(
    parts: Sequence[ChunkBuilder],
    output: Path,
    progress: bool,
    shrinkage: Shrinkage,
    noted: OpenMembership | None,
    stated: Tolerance | None,
) -> None:
    """Merge all chunks in their order and write the artifact; a chunk that was damaged is made again."""
    build = parts[0]
    info = build.info

    def chunks() -> Iterator[Chunk]:
        return itertools.chain.from_iterable(part.chunks(0, 1) for part in parts)

    merged = MergedMoments(chunks, info, build.moments)
    pixels, unreadable, members = 0, [], []
    for chunk in merged:
        pixels += chunk.pixels
        unreadable += chunk.unreadable
        members += chunk.members
    if len(unreadable) > build.skip_unreadable:
        raise UnreadableImageError(
            f"{len(unreadable)} images cannot be read, the first is {unreadable[0]['image']} "
            f"({unreadable[0]['reason']}); at most {build.skip_unreadable} may be left out: mend them and "
            "run the build again, or raise --skip-unreadable"
        )
    if info.privacy is not None:
        save_private(output, info, latent_sums(merged.total, 1), shrinkage, build.batch_size, progress)
        return
    sums = latent_sums(merged.total, info.num_modes) if build.moments is ExactMoments else None
    gaussians, modes = merged.statistics() if sums is None else sums.statistics()
    source = {**info.source, "fingerprint": f"{pixels % 2**256:064x}"}
    if unreadable:
        source["unreadable"] = unreadable
    if noted is not None:
        noted.check()
        source[LINEAGE] = lineage(noted.key, source["fingerprint"])
    counts = tuple(gaussians[info.inversion.timesteps[0]].count.tolist())
    gaussians, shares = shrink_variances(gaussians, shrinkage)
    described = dataclasses.replace(info, counts=counts, source=source, shrinkage=shares, tolerance=stated)
    artifact = Artifact.save(output, described, gaussians, modes, sums)
    if noted is not None:
        found = (Member(digest, *divmod(row, info.num_modes)) for digest, row in members)
        how = (build.model.network.dtype, check_shrinkage(shrinkage))
        noted.write(count_members(found, artifact.sha256[MOMENTS], noted.key, *how))
