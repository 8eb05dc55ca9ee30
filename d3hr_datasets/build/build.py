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
import json
from pathlib import Path

from d3hr_datasets.artifact.artifact import Artifact
from d3hr_datasets.artifact.info import ArtifactInfo
from d3hr_datasets.artifact.model import check_fits
from d3hr_datasets.build.chunk_builder import ChunkBuilder
from d3hr_datasets.build.clustering import find_centroids
from d3hr_datasets.build.launch import _wait, join_processes
from d3hr_datasets.build.moments import RunningMoments
from d3hr_datasets.build.progress import BuildProgress
from d3hr_datasets.config.checks import check_int
from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from d3hr_datasets.errors import ConfigError, StatisticsError, UnreadableImageError
from d3hr_datasets.io.paths import expand_user
from d3hr_datasets.numerics.ambient import neutral
from d3hr_datasets.sources.records import ImageSource, ImageStream, IndexedImages


@neutral()
def build_artifact(
    source: ImageSource | ImageStream,
    model: LatentDiffusion,
    output: str | Path,
    info: ArtifactInfo,
    work: str | Path,
    batch_size: int = 256,
    chunk_size: int = 2048,
    progress: bool = True,
    *,
    skip_unreadable: int = 0,
    num_readers: int = 4,
) -> Artifact:
    """Invert every image of `source` and save the class Gaussians.

    Under `accelerate launch` or `torchrun` every process calls this with the same arguments (`model` on its
    own device) and makes its share of the chunks; the first one merges them.

    Source: D3HR, sections 4.1 and 4.2.
    Differs from reference: an unreadable image stops the build (there it becomes a black one), moments
    are float64, and posterior samples, where asked for, are seeded by the image's index.

    Args:
        source: Images with class labels 0..K-1 of the model, in a fixed order.
        model: The diffusion model; the same one that `info.model` refers to.
        output: Folder of the artifact. A model inside it must be there already.
        info: What to write; `counts`, and in `source` `fingerprint` and `unreadable`, are those found.
            `source` must tell the images from other ones: finished chunks are looked up by it, by
            `targets` and `identity` where the data set has them, and by the model's weights.
        work: Folder for finished chunks. Another build of the same chunks goes on from them. Processes
            on several machines must share it.
        batch_size: Images per batch; halved as often as memory runs out.
        chunk_size: Images per chunk, the most that a killed process loses.
        progress: Show a progress bar on stderr.
        skip_unreadable: Images, in all, that may be left out because they cannot be read. They are named
            in `source["unreadable"]`.
        num_readers: Threads that read images while the model runs.

    Returns:
        The artifact.

    Raises:
        UnreadableImageError: More images cannot be read than may be left out; the message says which and
            why.
        ConfigError: A class label is outside 0..K-1, a size is below 1, not even one image at a time fits
            into memory, modes are asked for without random access, or Accelerate is not installed.
        ModelFormatError: The model's latents, classes or images are not those of `info`.
        StatisticsError: A class has fewer than two images, or a latent is not finite.
        BuildError: Another process has ended before its work was done.
    """
    check_int("batch_size", batch_size, 1)
    check_int("chunk_size", chunk_size, 1)
    check_int("skip_unreadable", skip_unreadable, 0)
    check_int("num_readers", num_readers, 1)
    check_fits(model, info)
    processes = join_processes()
    images = source if isinstance(source, ImageStream) else IndexedImages(source)
    if isinstance(images, IndexedImages):
        _check_targets(images.source, info)
    elif info.num_modes > 1:
        raise ConfigError(
            f"num_modes={info.num_modes} needs images in random order, which a stream cannot give; build "
            "from a copy on disk (without --streaming), or with num_modes=1"
        )
    work, output = expand_user(work), expand_user(output)
    try:
        work.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"the folder {work} for finished chunks cannot be made: {error}") from error
    key = _chunk_key(source, model, info, chunk_size)
    if processes.is_main_process:
        (work / f"{key}.json").write_text(json.dumps(info.to_dict(), indent=1), encoding="utf-8")
    _wait(processes)
    if not (work / f"{key}.json").is_file():
        raise ConfigError(f"{work} is not the folder of the first process; give one that all machines share")
    centroids = None
    if isinstance(images, IndexedImages) and info.num_modes > 1:
        with processes.main_process_first():
            path = work / f"{key}-modes.safetensors"
            centroids = find_centroids(
                path, images, model, info, batch_size, num_readers, skip_unreadable > 0
            )
    build = ChunkBuilder(
        images, model, info, work / key, batch_size, chunk_size, skip_unreadable, num_readers, centroids
    )
    show = progress and processes.is_main_process
    with BuildProgress(build.count_finished, images.num_images, show) as progress_bar:
        for _ in build.chunks(processes.process_index, processes.num_processes, progress_bar.advance):
            pass
        _wait(processes)
    if processes.is_main_process:
        _merge(build, output)
    _wait(processes)
    return Artifact.load(output)


def _check_targets(source: ImageSource, info: ArtifactInfo) -> None:
    """Check the labels before hours of work, where the data set knows them without reading images."""
    targets = getattr(source, "targets", None)
    if targets is None:
        return
    counts = [0] * len(info.classes)
    for index, target in enumerate(targets):
        if not 0 <= int(target) < len(counts):
            raise ConfigError(
                f"image {index} has class label {int(target)}; accepted: 0 to {len(counts) - 1}"
            )
        counts[int(target)] += 1
    few = [label for label, count in enumerate(counts) if count < 2]
    if few:
        names = [info.classes[label] for label in few[:10]]
        raise StatisticsError(
            f"class labels {few[:10]}{' ...' if len(few) > 10 else ''} ({', '.join(names)}) have fewer than "
            "two images, so no variance; add images, or use a model of the classes there are"
        )


def _chunk_key(
    source: ImageSource | ImageStream, model: LatentDiffusion, info: ArtifactInfo, chunk_size: int
) -> str:
    """Return what names the chunks of a build: model, settings, and what is known of the images."""
    targets = getattr(source, "targets", None)
    size = source.num_shards if isinstance(source, ImageStream) else len(source)
    settings = [
        model.inversion_fingerprint,
        info.inversion.to_dict(),
        [info.image_size, info.padding, info.image_mode, len(info.classes), info.latent_shape],
        [info.source, size, None if targets is None else [int(target) for target in targets]],
        getattr(source, "identity", ""),
        chunk_size,
        info.num_modes,
    ]
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def _merge(build: ChunkBuilder, output: Path) -> None:
    """Merge all chunks in their order and write the artifact; a chunk that was damaged is made again."""
    info = build.info
    rows = len(info.classes) * info.num_modes
    total = {timestep: RunningMoments(rows, info.latent_shape) for timestep in info.inversion.timesteps}
    pixels, unreadable = 0, []
    for chunk in build.chunks(0, 1):
        for timestep, moments in chunk.moments.items():
            total[timestep].merge(moments, chunk.rows)
        pixels += chunk.pixels
        unreadable += chunk.unreadable
    if len(unreadable) > build.skip_unreadable:
        raise UnreadableImageError(
            f"{len(unreadable)} images cannot be read, the first is {unreadable[0]['image']} "
            f"({unreadable[0]['reason']}); at most {build.skip_unreadable} may be left out: mend them and "
            "run the build again, or raise --skip-unreadable"
        )
    gaussians = {t: moments.grouped(info.num_modes).gaussians() for t, moments in total.items()}
    modes = {t: moments.modes(info.num_modes) for t, moments in total.items() if info.num_modes > 1}
    source = {**info.source, "fingerprint": f"{pixels % 2**256:064x}"}
    if unreadable:
        source["unreadable"] = unreadable
    counts = tuple(gaussians[info.inversion.timesteps[0]].count.tolist())
    Artifact.save(output, dataclasses.replace(info, counts=counts, source=source), gaussians, modes)
