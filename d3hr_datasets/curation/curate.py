"""Curating: an artifact and a teacher -> a copy of the artifact that stores an order of images of each class.

Makes many candidates of a class, drops those that the teacher does not take for it, and puts the rest in
order by the teacher's features. What is stored are the numbers of the best ones. One class is in memory at a
time.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from tqdm import tqdm

from d3hr_datasets.artifact.artifact import Artifact
from d3hr_datasets.artifact.changed_copies import new_copy
from d3hr_datasets.artifact.curation import MAX_TEACHER, Curation
from d3hr_datasets.artifact.d3hr_json import CURATION
from d3hr_datasets.artifact.info import ArtifactInfo
from d3hr_datasets.artifact.model import load_model
from d3hr_datasets.artifact.order_file import write_order
from d3hr_datasets.config.checks import check_int
from d3hr_datasets.config.defaults import BATCH_SIZE
from d3hr_datasets.config.settings import DecodeConfig
from d3hr_datasets.curation.candidates import CandidateMaker, Judged, judge_real
from d3hr_datasets.curation.difficulty import add_difficulty
from d3hr_datasets.curation.ordering import order_candidates
from d3hr_datasets.curation.settings import CurationSettings, complete_settings
from d3hr_datasets.errors import TeacherError
from d3hr_datasets.image_sets.judge import Judge, load_judge
from d3hr_datasets.io.text import check_text
from d3hr_datasets.numerics.allocator import kept_memory
from d3hr_datasets.numerics.seeds import derive_seed
from d3hr_datasets.numerics.torch_settings import neutral
from d3hr_datasets.processes import generation_device
from d3hr_datasets.sampling.curated_sampling import modes_of_candidates
from d3hr_datasets.sampling.mode_sampling import share_images
from d3hr_datasets.sources.matched_images import MatchedImages
from d3hr_datasets.sources.user_datasets import TorchvisionLike

if TYPE_CHECKING:
    from d3hr_datasets.students.teachers import Teacher

SEEN = 10  # classes after which a teacher that recognises too little is taken for a wrong one
SHOWN = 5  # classes that a note names

logger = logging.getLogger(__name__)


@neutral()
@kept_memory()
def curate_artifact(
    artifact: str | Path | Artifact,
    output: str | Path,
    teacher: str | Teacher,
    settings: CurationSettings | None = None,
    *,
    images: str | Path | TorchvisionLike | None = None,
    batch_size: int = BATCH_SIZE,
    device: torch.device | str | None = None,
    progress: bool = True,
) -> Artifact:
    """Copy an artifact, and store in the copy an order of good images of each class.

    The first k images of an order are a good set of k images, for every k. Whoever has the copy makes them by
    `GroupSamplingConfig("curated")`, without the teacher. All other sets are those of the artifact.

    The same arguments give the same order on one machine; on another one, rounding in the models may swap
    images that are as good. What is stored gives the same images everywhere.

    Args:
        artifact: A folder, "ORG/NAME" or "ORG/NAME@REVISION" on the Hub, or an `Artifact`. It is not changed.
        output: The folder to make; it must be missing or empty.
        teacher: A classifier of the artifact's classes, as `students.teachers.load_teacher` takes it, or a
            loaded one, whose logits are in the order of the classes.
        settings: What decides the order.
        images: Real images that the order should stand for: what `sources.opening.open_source` takes, matched
            by the names of their classes; at most 1,000 of each class are looked at. By default the
            candidates stand for themselves, each mode by its share.
        batch_size: Images in the model at a time.
        device: Where to generate, as in `D3HRDataset`.
        progress: Show a progress bar on stderr, which says how long it will take.

    Returns:
        The artifact in `output`; `info.curation` says how its order was made.

    Raises:
        ConfigError: An argument is not accepted, a rule of the artifact would not fit the order, `output`
            lies in the folder of the artifact, a class has no real images, or the teacher takes images of
            other channels.
        TeacherError: The teacher has other classes, cannot be loaded, or takes most images for other classes.
        ArtifactNotFoundError: There is no artifact.
        ModelNotFoundError: Its diffusion model is missing.
        SourceError: There are no such real images.
        ExportError: `output` holds something or cannot be written, or this is one of several processes.
    """
    check_int("batch_size", batch_size, 1)
    found = artifact if isinstance(artifact, Artifact) else Artifact.from_pretrained(artifact)
    settings = complete_settings(settings or CurationSettings(), found.info)
    with new_copy(found, output) as folder:
        real = None if images is None else _real_images(images, found.info)
        judge, maker = _load(found, teacher, settings, batch_size, device)
        orders, recognized = _orders(maker, judge, settings, real, progress)
        curation = _curation(settings, judge, maker.decode, real is not None, recognized)
        _write(found, folder, curation, orders)
    for note in curation_notes(Artifact.load(output).info):
        logger.warning(note)
    return Artifact.load(output)


def curation_notes(info: ArtifactInfo) -> list[str]:
    """Return what a user should know of an order: classes of which the teacher recognised few candidates."""
    curation, notes = info.curation, []
    if curation is None:
        return []
    limits = [
        (
            curation.num_kept,
            "fewer than are kept; images that it takes for other classes follow them in the order. Make more "
            "candidates, or keep fewer",
        ),
        (
            (curation.num_candidates + 1) // 2,
            "fewer than half. Look at images of these classes, at the guidance, and whether the teacher's "
            "classes of these names are the same",
        ),
    ]
    for limit, meaning in limits:
        few = [(name, n) for name, n in zip(info.classes, curation.recognized, strict=True) if n < limit]
        if few:
            shown = ", ".join(f"{name}: {number}" for name, number in few[:SHOWN])
            notes.append(
                f"of {curation.num_candidates} candidates of each class, the teacher recognises in "
                f"{len(few)} of {len(info.classes)} classes ({shown}{', ...' if len(few) > SHOWN else ''}) "
                f"{meaning}"
            )
    return notes


def _real_images(images: str | Path | TorchvisionLike, info: ArtifactInfo) -> MatchedImages:
    """Return real images, of which every class has some: what lacks is said before anything is made."""
    if info.privacy is not None:
        info.privacy.check_no_images("an order of curated images that stands for real images")
    real = MatchedImages(images, info.class_list)
    for label in range(len(info.classes)):
        real.records(label, 1)
    return real


def _load(
    artifact: Artifact,
    teacher: str | Teacher,
    settings: CurationSettings,
    batch_size: int,
    device: torch.device | str | None,
) -> tuple[Judge, CandidateMaker]:
    """Return the teacher, which says first what does not fit, and what makes candidates."""
    info = artifact.info
    with torch.random.fork_rng(devices=[]):  # loading a model must not move the user's generator
        judge = load_judge(teacher, info, generation_device(device))
        check_text("the teacher's name, which the artifact will state,", judge.name, MAX_TEACHER)
        model = load_model(artifact, device)
    decode = settings.decode or info.decode
    return judge, CandidateMaker(artifact, model, decode, settings.seed, settings.mode_spread, batch_size)


def _orders(
    maker: CandidateMaker,
    judge: Judge,
    settings: CurationSettings,
    real: MatchedImages | None,
    progress: bool,
) -> tuple[torch.Tensor, list[int]]:
    """Return the order (K, N) of all classes, and how many candidates of each the teacher recognised."""
    info, number = maker.artifact.info, settings.num_candidates
    orders, recognized = [], []
    # Even a bar that shows nothing takes a lock that a killed sibling may hold for ever.
    bar = tqdm(total=len(info.classes) * number, desc="curating", unit="image") if progress else None
    with bar or contextlib.nullcontext():
        for label in range(len(info.classes)):
            judged = maker.judge(judge, label, number, bar.update if bar is not None else lambda _: None)
            recognized.append(int(judged.recognized.sum()))
            _check_recognized(recognized, info, number, judge)
            target = None if real is None else judge_real(maker, real, judge, label)
            orders.append(_order(maker, settings, label, judged, target))
    return torch.stack(orders), recognized


def _check_recognized(recognized: list[int], info: ArtifactInfo, number: int, judge: Judge) -> None:
    """Raise `TeacherError` where a teacher takes most images for other classes than theirs."""
    seen, right = len(recognized), sum(recognized)
    if seen < min(SEEN, len(info.classes)) or 2 * right >= seen * number:
        return
    raise TeacherError(
        f"the teacher {judge.name!r} takes {right} of {seen * number} images of the first {seen} classes for "
        "their class, fewer than half, so its order would be worth nothing. Its classes of these names may "
        "be others, it may be trained on images of another size or normalisation, or the images may be poor: "
        "look at some of `d3hr materialize`, and try another guidance"
    )


def _order(
    maker: CandidateMaker,
    settings: CurationSettings,
    class_label: int,
    judged: Judged,
    target: Judged | None,
) -> torch.Tensor:
    """Return the numbers of the candidates of one class that are kept, the best first."""
    known, others = (mask.nonzero().flatten() for mask in (judged.recognized, ~judged.recognized))
    artifact, number = maker.artifact, min(settings.num_kept, len(known))
    weights = None
    if target is None and artifact.info.num_modes > 1:
        modes = artifact.modes(maker.decode.timestep, class_label)
        drawn = modes_of_candidates(modes, known, class_label, seed=maker.seed)
        weights = share_images(drawn, modes.count[0])
    order = known
    if number:
        features, points = add_difficulty(
            judged.features[known],
            judged.losses[known],
            settings.difficulty_spread,
            target=None if target is None else target.features,
            target_losses=None if target is None else target.losses,
        )
        positions = order_candidates(
            features,
            number,
            settings.method,
            target=points,
            weights=weights,
            difficulty=judged.losses[known],
            difficulty_weight=settings.difficulty_weight,
            seed=derive_seed(settings.seed, class_label),
        )
        order = known[positions]
    least_wrong = others[judged.losses[others].argsort(stable=True)]
    return torch.cat([order, least_wrong[: settings.num_kept - number]])


def _curation(
    settings: CurationSettings, judge: Judge, decode: DecodeConfig, real: bool, recognized: list[int]
) -> Curation:
    return Curation(
        decode=decode,
        num_candidates=settings.num_candidates,
        num_kept=settings.num_kept,
        method=settings.method,
        teacher=judge.name,
        teacher_sha256=judge.sha256(),
        target="images" if real else "candidates",
        recognized=tuple(recognized),
        seed=settings.seed,
        mode_spread=settings.mode_spread,
        difficulty_weight=settings.difficulty_weight,
        difficulty_spread=settings.difficulty_spread,
    )


def _write(artifact: Artifact, folder: Path, curation: Curation, orders: torch.Tensor) -> None:
    """Write a copy of an artifact with an order; of one that has an order already, with the new one only."""
    copy = artifact.save_pretrained(folder)
    write_order(folder / CURATION, orders)
    new = Artifact(folder, dataclasses.replace(artifact.info, curation=curation), copy.sha256)
    new.write_metadata()
    new.verify()
