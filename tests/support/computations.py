"""Everything that the library computes, small: name -> a function of an empty folder that returns numbers.

Inputs are made when this is imported, in plain settings; what they are made into is the library's.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import torch

from d3hr_datasets import (
    Artifact,
    ClassGaussians,
    D3HRDataset,
    D3HRFashionMNIST,
    DecodeConfig,
    GroupSamplingConfig,
    InversionConfig,
    check_teacher,
    group_score,
    sample_candidates,
    sample_group,
)
from d3hr_datasets.artifact.d3hr_json import CURATION
from d3hr_datasets.build.build import build_artifact
from d3hr_datasets.build.build_settings import BuildSettings, ClassOptions
from d3hr_datasets.build.kept_sums import KeptSums
from d3hr_datasets.build.mode_points import ModePoints
from d3hr_datasets.build.model_options import ModelOptions
from d3hr_datasets.build.planning import plan_build
from d3hr_datasets.build.reference_import import TIMESTEPS as IMPORTED
from d3hr_datasets.build.reference_import import import_statistics
from d3hr_datasets.curation import (
    CurationSettings,
    curate_artifact,
    mean_distance,
    order_candidates,
    squared_mmd,
)
from d3hr_datasets.curation.difficulty import add_difficulty
from d3hr_datasets.curation.ordering import OrderMethod
from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from d3hr_datasets.diffusion.noise_schedule import NoiseLevel
from d3hr_datasets.diffusion.solver import step
from d3hr_datasets.sampling.group_loss import skewness
from d3hr_datasets.students.evaluation import evaluate, teacher_outputs
from d3hr_datasets.students.models import create_student
from d3hr_datasets.students.selection import herding, k_center, medoids, random_per_class, select_per_class
from d3hr_datasets.students.soft_labels import SoftLabels, images_digest
from d3hr_datasets.students.teachers import load_teacher
from d3hr_datasets.students.training import train_student
from d3hr_datasets.students.views import TensorImages, normalized
from tests.support.combining import Pictures
from tests.support.combining_computation import combining
from tests.support.curated import save_separate_artifact, save_teacher
from tests.support.learning import learning
from tests.support.private_builds import privacy
from tests.support.report_computation import report
from tests.support.tiny import CLASSES, TIMESTEPS, TinyImages, tiny_info, tiny_pipeline
from tests.support.tiny_students import protocol

GENERATOR = torch.Generator().manual_seed(0)
LATENTS, IMAGES = torch.randn(6, 3, 4, 4, generator=GENERATOR), torch.rand(6, 1, 16, 16, generator=GENERATOR)
LABELS = torch.arange(6) % 3
MEAN, VARIANCE = torch.randn(3, 4, 4, generator=GENERATOR), torch.rand(3, 4, 4, generator=GENERATOR)
GAUSSIAN, NUMBERS = ClassGaussians(MEAN[None], VARIANCE[None], torch.tensor([4])), torch.tensor([3, 0])
PIXELS = (255 * torch.rand(12, 3, 12, 12, generator=GENERATOR)).to(torch.uint8)
VIEWS = PIXELS / 255
MANY = torch.randn(100, 3, generator=GENERATOR)  # more points than a mode holds
EACH = torch.arange(12)
TRAINING = TensorImages(PIXELS, EACH % 3, list(CLASSES))
WEIGHTS = (1 + EACH) / 6.5
COLOUR: dict[str, Any] = {
    "channels": 3,
    "mean": [0.5] * 3,
    "std": [0.25] * 3,
    "epochs": 2,
    "student": "convnet3",
}
AUGMENTED: dict[str, Any] = {
    "crop_scale": [0.5, 1.0],
    "flip": True,
    "color_jitter": 0.4,
    "lighting": 0.1,
    "shuffle_patches": 2,
    "cutmix": 1.0,
    "dsa": True,
}


def prepare(folder: Path) -> None:
    """Write what the computations read."""
    tiny_pipeline().save_pretrained(folder / "model")
    shutil.copytree(folder / "model", folder / "int8" / "model")
    info = tiny_info(dtype="int8", inversion=InversionConfig((400,), num_inference_steps=10))
    gaussian = ClassGaussians(MEAN.repeat(3, 1, 1, 1), VARIANCE.repeat(3, 1, 1, 1), torch.tensor(info.counts))
    Artifact.save(folder / "int8", info, {400: gaussian})
    torch.manual_seed(0)
    network = create_student("convnet3", 3, 3, 12, {"width": 8})
    torch.save(network.state_dict(), folder / "teacher.pt")
    separate = save_separate_artifact(folder / "separate")
    save_teacher(separate, folder / "separate-teacher", folder / "images")
    (folder / "reference").mkdir()
    for label, name in enumerate(("ant", "bee", "cat")):
        moments = {
            "mean": MEAN.flatten().repeat(len(IMPORTED), 1) + label,
            "variance": VARIANCE.flatten().repeat(len(IMPORTED), 1),
        }
        torch.save(moments, folder / "reference" / f"{name}.pt")
    for index in range(12):
        image, label = TinyImages()[index]
        photos = folder / "photos" / CLASSES[label].replace("/", "_")
        photos.mkdir(parents=True, exist_ok=True)
        image.save(photos / f"{index}.png")


def sampling(folder: Path, work: Path) -> Any:
    """Sample groups, and choose images."""
    search = GroupSamplingConfig("search", num_candidates=5)
    return [
        *(sample_group(MEAN, VARIANCE, ipc, 1, search) for ipc in (1, 5)),
        *(sample_group(MEAN, VARIANCE, ipc, 1, GroupSamplingConfig()) for ipc in (1, 2, 5)),
        group_score(LATENTS, MEAN, VARIANCE, search),
        skewness(LATENTS),
        herding(LATENTS.flatten(1), 4),
        k_center(LATENTS.flatten(1), 4),
        medoids(LATENTS.flatten(1), 4),
        random_per_class(LABELS, 2, 0),
        select_per_class(herding, LATENTS.flatten(1), LABELS, 2),
        sample_candidates(GAUSSIAN, NUMBERS, 1),
        *(order_candidates(LATENTS.flatten(1), 4, method) for method in get_args(OrderMethod)),
        add_difficulty(LATENTS.flatten(1), LATENTS.flatten(1)[:, 0], 1.0)[0],
        squared_mmd(LATENTS.flatten(1)[:2], LATENTS.flatten(1)),
        mean_distance(LATENTS.flatten(1)[:2], LATENTS.flatten(1)),
    ]


def model(folder: Path, work: Path) -> Any:
    """Load a model and run it both ways."""
    loaded = LatentDiffusion.from_pretrained(folder / "model", device="cpu")
    clean = loaded.encode(IMAGES)
    sampled = loaded.encode(IMAGES, [torch.Generator().manual_seed(index) for index in range(len(IMAGES))])
    inversion = InversionConfig((200, 400), num_inference_steps=10)
    fixed_point = dataclasses.replace(inversion, method="fixed_point", evaluations_per_step=2)
    guided = dataclasses.replace(inversion, guidance_scale=2.0, noise_timestep="target")
    inverted = [loaded.invert(clean, LABELS, config) for config in (inversion, fixed_point, guided)]
    denoised = loaded.denoise(LATENTS, LABELS, DecodeConfig(400, 10, 2.0), batch_size=4)
    counted: dict[str, Any] = {"num_steps": 4, "spacing": "logsnr", "guidance_interval": (100, 400)}
    few = [
        loaded.denoise(LATENTS, LABELS, DecodeConfig(400, solver=solver, **counted))
        for solver in ("dpm++2m", "unipc")
    ]
    parameters = [*loaded.network.state_dict().values(), *loaded.vae.state_dict().values()]
    stepped = step(LATENTS, clean, NoiseLevel(0.95, 0.3), NoiseLevel(0.7, 0.7))
    return [
        clean,
        sampled,
        inverted,
        denoised,
        few,
        loaded.decode(denoised),
        parameters,
        stepped,
        loaded.inversion_fingerprint,
    ]


def images(folder: Path, work: Path) -> Any:
    """Make images of an artifact in eight bits."""
    found: list[Any] = []
    choices: list[dict[str, Any]] = [{}, {"nested": True}, {"classes": ["cat", "ant"]}]
    for number, options in enumerate(choices):
        dataset = D3HRDataset(folder / "int8", work / str(number), ipc=2, device="cpu", **options)
        assert check_teacher(dataset, dataset.classes).tolist() == list(range(len(dataset.classes)))
        found += [dataset[0][0].tobytes(), dataset.sample_latents(1), dataset.class_labels]
        dataset.materialize(progress=False)
        found += [dataset[index][0].tobytes() for index in range(len(dataset))]
    named = D3HRFashionMNIST(work / "named", True, ipc=1, classes=["Bag"], device="cpu")
    return [*found, named.data, named.targets]


def building(folder: Path, work: Path) -> Any:
    """Plan and build, quantize and import artifacts."""
    loaded = LatentDiffusion.from_pretrained(folder / "model", device="cpu")
    shutil.copytree(folder / "model", work / "artifact" / "model")
    info = tiny_info(num_modes=2, dtype="float32")
    built = build_artifact(
        TinyImages(),
        loaded,
        work / "artifact",
        info,
        work / "work",
        batch_size=5,
        chunk_size=7,
        progress=False,
    )
    plan = plan_build(
        folder / "photos",
        folder / "model",
        work / "planned",
        BuildSettings((400,), num_inference_steps=10, image_size=14),
        class_options=ClassOptions(same_order=True),
        model_options=ModelOptions("cpu"),
    )
    stopped = {work / "stopped": None, work / "exact": KeptSums()}
    for place, sums in stopped.items():
        shutil.copytree(folder / "model", place / "model")
        options: dict[str, Any] = {"progress": False, "sums": sums, "tolerance": 0.75}
        build_artifact(Pictures(range(12)), loaded, place, info, work / "stopped.chunks", **options)
    dataset = D3HRDataset(built, work / "cache", ipc=3, device="cpu")
    imported = tiny_info(
        classes=("ant", "bee", "cat"), inversion=InversionConfig((500, 600)), decode=DecodeConfig(500)
    )
    shutil.copytree(folder / "model", work / "imported" / "model")
    artifact = import_statistics(folder / "reference", work / "imported", imported)
    shutil.copytree(folder / "model", work / "int8" / "model")
    gaussians, modes = {t: built.gaussians(t) for t in TIMESTEPS}, {t: built.modes(t) for t in TIMESTEPS}
    Artifact.save(work / "int8", dataclasses.replace(info, dtype="int8"), gaussians, modes)
    points, others = ModePoints(1, 3), ModePoints(1, 3)
    points.update(MANY)
    others.merge(points)
    return [
        [others.points, others.weights, others.centroids()],
        (work / "artifact" / "statistics.safetensors").read_bytes(),
        [(place / "statistics.safetensors").read_bytes() for place in stopped],
        [dataset.sample_latents(label) for label in range(3)],
        dataset.weights,
        artifact.gaussians(500),
        plan.run(progress=False).gaussians(400),
        (work / "int8" / "statistics.safetensors").read_bytes(),
    ]


def curating(folder: Path, work: Path) -> Any:
    """Put images of an artifact in order, and make the first ones."""
    settings = CurationSettings(num_candidates=6, num_kept=4)
    options: dict[str, Any] = {"device": "cpu", "progress": False, "images": folder / "photos"}
    made = curate_artifact(
        folder / "separate", work / "curated", f"local-dir:{folder / 'separate-teacher'}", settings, **options
    )
    plain = {**options, "images": None}
    again = curate_artifact(
        made, work / "again", f"local-dir:{folder / 'separate-teacher'}", settings, **plain
    )
    curated = GroupSamplingConfig("curated")
    dataset = D3HRDataset(made, work / "cache", 2, device="cpu", sampling=curated)
    return [made.order(), again.order(), (made.folder / CURATION).read_bytes(), dataset.sample_latents(1)]


def students(folder: Path, work: Path) -> Any:
    """Train students in every way there is."""
    plain = protocol(**COLOUR)
    teacher = load_teacher(
        "convnet3",
        CLASSES,
        weights=folder / "teacher.pt",
        class_names=CLASSES,
        image_size=12,
        num_classes=3,
        img_size=12,
        width=8,
    )
    logits = teacher_outputs(teacher, plain, TRAINING)
    soft = SoftLabels.from_logits(
        logits, CLASSES, "teacher", images_digest(TRAINING), top_k=2, storage="int8"
    )
    soft.save(work / "labels.safetensors")
    soft = SoftLabels.load(work / "labels.safetensors")
    trained = [
        train_student(plain, TRAINING, 3),
        train_student(plain, TRAINING, 3, weights=WEIGHTS),
        train_student(protocol(**COLOUR, **AUGMENTED, labels="soft"), TRAINING, 3, teacher=teacher),
        train_student(protocol(**COLOUR, labels="stored"), TRAINING, 3, soft_labels=soft),
    ]
    return [
        logits,
        teacher(VIEWS),
        teacher_outputs(teacher, plain, TRAINING, features=True),
        soft.probabilities(EACH, 2.0),
        [list(student.state_dict().values()) for student in trained],
        [evaluate(normalized(plain, student), plain, TRAINING) for student in trained],
    ]


QUICK: dict[str, Callable[[Path, Path], Any]] = {"sampling": sampling, "model": model, "images": images}
SLOW: dict[str, Callable[[Path, Path], Any]] = {
    "building": building,
    "curating": curating,
    "learning": learning,
    "combining": combining,
    "privacy": privacy,
    "students": students,
    "report": report,
}
