"""Students: models, protocols, views, teachers, soft labels, training, selection and scores."""

from __future__ import annotations

import copy
import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from accelerate import Accelerator
from safetensors.torch import save_file
from timm.models import save_for_hf
from torch.optim.optimizer import register_optimizer_step_pre_hook

from d3hr_datasets.errors import ConfigError, SoftLabelsError, TeacherError
from d3hr_datasets.students.evaluation import evaluate
from d3hr_datasets.students.labels import SoftLabels, images_digest
from d3hr_datasets.students.losses import soft_label_loss
from d3hr_datasets.students.models import create_student
from d3hr_datasets.students.protocol import Protocol
from d3hr_datasets.students.scores import augmentation_robust_score, label_robust_score, mean_std
from d3hr_datasets.students.selection import herding, k_center, select_per_class
from d3hr_datasets.students.teachers import load_teacher
from d3hr_datasets.students.training import EpochReport, make_optimizer, train_student
from d3hr_datasets.students.views import (
    EpochBatches,
    ShufflePatches,
    TensorImages,
    Views,
    dsa_augment,
    evaluation_transform,
    normalized,
    train_transform,
)

CLASSES = ["ant", "bee", "cat"]


def protocol(**changes: Any) -> Protocol:
    values: dict[str, Any] = {
        "student": "convnet3",
        "student_args": {"width": 8},
        "image_size": 12,
        "channels": 1,
        "mean": [0.5],
        "std": [0.25],
        "epochs": 4,
        "batch_size": 4,
        "optimizer": "sgd",
        "learning_rate": 0.05,
        "weight_decay": 5e-4,
        "schedule": "step",
        "milestones": [0.5],
        "labels": "hard",
    }
    return Protocol(**{**values, **changes})


@pytest.fixture(scope="module")
def images() -> TensorImages:
    """Return ten images of 12 x 12: the class is where the bright stripe is."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(10) % 3
    pixels = torch.randint(0, 60, (10, 1, 12, 12), generator=generator, dtype=torch.uint8)
    for index, label in enumerate(labels.tolist()):
        pixels[index, :, 4 * label : 4 * label + 3] += 150
    return TensorImages(pixels, labels, CLASSES)


@pytest.fixture(scope="module")
def teacher_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an untrained teacher as timm keeps it, whose classes are in another order."""
    torch.manual_seed(1)
    model = create_student("convnet3", 3, 1, 12, {"width": 4})
    folder = tmp_path_factory.mktemp("teacher")
    data = {"input_size": (1, 12, 12), "mean": (0.4,), "std": (0.2,)}
    labels = {"label_names": ["cat", "ant", "bee"]}
    save_for_hf(model, str(folder), labels, safe_serialization=True, data_config=data)
    return folder


@pytest.mark.parametrize(
    ("name", "channels", "size", "arguments", "parameters"),
    [
        # DC's ConvNet-3 of width 128: convolutions, affine instance norms and a linear layer.
        ("convnet3", 1, 28, {}, 10 * 128 + 2 * (1152 + 1) * 128 + 3 * 256 + (128 * 9 + 1) * 10),
        ("convnet3", 1, 28, {"first_padding": 3}, 10 * 128 + 2 * 1153 * 128 + 3 * 256 + (128 * 16 + 1) * 10),
        ("convnet6", 3, 64, {"width": 4}, 28 * 4 + 5 * 37 * 4 + 6 * 8 + 5 * 10),
        ("resnet18_modified", 3, 32, {}, 11_173_962),  # as published for 10 classes
        ("resnetap10", 3, 32, {}, 4_903_242),
    ],
)
def test_models_are_the_published_ones(
    name: str, channels: int, size: int, arguments: dict[str, Any], parameters: int
) -> None:
    model = create_student(name, 10, channels, size, arguments)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    images = torch.randn(2, channels, size, size)
    assert model(images).shape == (2, 10)
    features = model.forward_head(model.forward_features(images), pre_logits=True)  # type: ignore[operator]
    assert features.shape == (2, model.num_features)


def test_timm_knows_the_models_and_unknown_ones_are_refused() -> None:
    assert {"convnet3", "convnet4", "convnet5", "convnet6", "resnet18_modified", "resnetap10"} <= set(
        timm.list_models()
    )
    with pytest.raises(ConfigError, match=r"no model 'convnet9'; similar: .*convnet"):
        create_student("convnet9", 10, 1, 28)
    with pytest.raises(ConfigError, match="convnet3 does not take"):
        create_student("convnet3", 10, 1, 28, {"height": 3})
    with pytest.raises(ConfigError, match="too small for 3 halvings"):
        create_student("convnet3", 10, 1, 7)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer": "lamb"}, "optimizer must be one of"),
        ({"milestones": [2.0]}, "fractions of the epochs"),
        ({"schedule": "half_cosine"}, "do not go together"),
        ({"crop_scale": [0.5, 0.1]}, "ascending shares"),
        ({"mean": [0.5, 0.5]}, "a value for each of the 1 channels"),
        ({"lighting": 0.1}, "needs 3 channels"),
        ({"temperature": 0.0}, "must be positive"),
        ({"epochs": 0}, "epochs must be at least 1"),
    ],
)
def test_protocols_are_checked(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        protocol(**changes)


def test_schedules() -> None:
    steps = protocol(epochs=6, milestones=[2 / 3, 5 / 6], gamma=0.2)
    assert [steps.learning_rate_factor(epoch) for epoch in range(6)] == pytest.approx([1, 1, 1, 1, 0.2, 0.04])
    long = protocol(
        epochs=1500, milestones=[0.6666666667, 0.8333333333], gamma=0.2
    )  # as Minimax's file has it
    assert [long.learning_rate_factor(epoch) for epoch in (999, 1000, 1249, 1250)] == pytest.approx(
        [1, 0.2, 0.2, 0.04]
    )
    cosine = protocol(epochs=300, schedule="half_cosine", milestones=[])
    assert cosine.learning_rate_factor(0) == 1
    assert cosine.learning_rate_factor(150) == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))
    assert cosine.learning_rate_factor(299) == pytest.approx(0.5, abs=0.003)  # ends near one half, not zero
    cycle = protocol(epochs=100, schedule="one_cycle", milestones=[])
    rising, top, falling, last = (cycle.learning_rate_factor(epoch) for epoch in (0, 20, 60, 99))
    assert (rising, top, falling) == pytest.approx((1 / 21, 1, 0.5)) and last < 0.001
    assert cycle.learning_rate_factor(60.9) == falling
    assert steps.learning_rate_factor(4.9) == pytest.approx(0.2)
    short = protocol(epochs=3, schedule="one_cycle", milestones=[])  # 14 changes an epoch
    assert short.learning_rate_factor(0) == pytest.approx(1 / 9.4)
    assert short.learning_rate_factor(1 / 14) == pytest.approx(2 / 9.4)
    assert short.learning_rate_factor(2.99) == pytest.approx(0, abs=0.01)


def test_the_rate_of_a_single_epoch_rises_and_ends_near_zero(images: TensorImages) -> None:
    rates: list[float] = []
    reports: list[EpochReport] = []
    settings = protocol(epochs=1, batch_size=1, schedule="one_cycle", milestones=[])
    hook = register_optimizer_step_pre_hook(
        lambda optimizer, *_: rates.append(optimizer.param_groups[0]["lr"])
    )
    try:
        train_student(settings, images, 3, on_epoch=reports.append)
    finally:
        hook.remove()
    assert rates == [0.05 * settings.learning_rate_factor(step / 10) for step in range(10)]
    assert rates[0] < rates[1] < max(rates) and rates[-1] == reports[0].learning_rate < 0.01


def test_a_short_cycle_goes_on_where_it_was_interrupted(images: TensorImages) -> None:
    settings = protocol(epochs=3, schedule="one_cycle", milestones=[])
    states: list[dict[str, Any]] = []
    whole = train_student(settings, images, 3, on_epoch=lambda r: states.append(copy.deepcopy(r.state())))
    resumed = train_student(settings, images, 3, state=states[0])
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)


def test_weight_decay_leaves_vectors_alone_where_asked() -> None:
    adamw = protocol(optimizer="adamw", decayed="matrices", weight_decay=0.01)
    model = create_student("convnet3", 3, 1, 12, {"width": 4})
    decayed, rest = make_optimizer(adamw, model).param_groups
    assert (decayed["weight_decay"], rest["weight_decay"], decayed["betas"]) == (0.01, 0.0, (0.9, 0.999))
    assert {p.dim() for p in decayed["params"]} == {2, 4} and {p.dim() for p in rest["params"]} == {1}


def test_views_depend_on_seed_epoch_and_index_only(images: TensorImages) -> None:
    settings = protocol(crop_scale=[0.5, 1.0], flip=True, color_jitter=0.4, random_crop=1)
    views, batches = Views(images, train_transform(settings)), EpochBatches(10, 4, seed=3)
    state = torch.random.get_rng_state()
    first = [[views[item][0] for item in batch] for batch in batches]
    torch.rand(7)
    again = [[views[item][0] for item in batch] for batch in batches]
    assert [len(batch) for batch in first] == [4, 4, 2]
    assert all(
        torch.equal(a, b) for x, y in zip(first, again, strict=True) for a, b in zip(x, y, strict=True)
    )
    torch.random.set_rng_state(state)
    items = [item for batch in batches for item in batch]
    views[items[0]]
    assert torch.equal(torch.random.get_rng_state(), state)
    batches.epoch = 1
    assert [item for batch in batches for item in batch] != items
    assert first[0][0].shape == (1, 12, 12) and first[0][0].min() >= 0 and first[0][0].max() <= 1


@pytest.mark.parametrize(("count", "world"), [(10, 2), (5, 4), (1, 3)])
def test_processes_share_every_batch(count: int, world: int) -> None:
    whole = list(EpochBatches(count, 4, seed=0))
    shares = [list(EpochBatches(count, 4, seed=0, rank=rank, world_size=world)) for rank in range(world)]
    for batch, *parts in zip(whole, *shares, strict=True):
        assert all(parts)  # none waits for another
        assert {item for part in parts for item in part} == set(batch)


def test_patches_are_moved_and_kept() -> None:
    image = torch.arange(16.0).view(1, 4, 4)
    torch.manual_seed(0)
    shuffled = [ShufflePatches(2)(image) for _ in range(8)]
    patches = {tuple(image[0, y : y + 2, x : x + 2].flatten().tolist()) for y in (0, 2) for x in (0, 2)}
    for result in shuffled:
        found = {tuple(result[0, y : y + 2, x : x + 2].flatten().tolist()) for y in (0, 2) for x in (0, 2)}
        assert found == patches
    assert any(not torch.equal(result, image) for result in shuffled)


def test_dsa_draws_all_augmentations_and_keeps_shapes() -> None:
    torch.manual_seed(0)
    batch = torch.randn(3, 3, 8, 8)
    results = [dsa_augment(batch) for _ in range(40)]
    assert all(result.shape == batch.shape and result.isfinite().all() for result in results)
    assert any((result == 0).sum() > 3 * 3 * 8 for result in results)  # cutout
    assert any(torch.equal(result[0], batch[0].flip(2)) for result in results)  # flip


def test_evaluation_resizes_and_crops() -> None:
    settings = protocol(image_size=8, resize=12)
    view = evaluation_transform(settings)(torch.full((1, 24, 12), 51, dtype=torch.uint8))
    assert view.shape == (1, 8, 8)
    assert view.unique().tolist() == pytest.approx([0.2])


def test_a_student_learns_the_same_again_and_after_an_interruption(images: TensorImages) -> None:
    settings = protocol(
        epochs=12, flip=True, random_crop=1, cutmix=1.0, optimizer="adamw", learning_rate=0.02
    )
    states = []

    def keep(report: EpochReport) -> None:
        states.append(copy.deepcopy(report.state()))

    before = torch.random.get_rng_state()
    whole = train_student(settings, images, 3, seed=5, on_epoch=keep)
    assert torch.equal(torch.random.get_rng_state(), before)
    resumed = train_student(settings, images, 3, seed=5, state=states[4])
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)
    other_seed = train_student(dataclasses.replace(settings, epochs=1), images, 3, seed=6)
    assert not torch.equal(next(iter(other_seed.parameters())), states[0]["model"]["features.0.weight"])


def test_hard_labels_are_learned_and_scored(images: TensorImages) -> None:
    settings = protocol(epochs=25)
    model = train_student(settings, images, 3)
    assert evaluate(normalized(settings, model), settings, images, batch_size=4) == {"top1": 100, "top5": 100}
    wrong = TensorImages(images.images, (torch.tensor(images.targets) + 1) % 3, CLASSES)
    assert evaluate(normalized(settings, model), settings, wrong) == {"top1": 0, "top5": 100}


def test_labels_and_teachers_go_together(images: TensorImages) -> None:
    with pytest.raises(ConfigError, match="teacher None do not go together"):
        train_student(protocol(labels="soft"), images, 3)
    with pytest.raises(ConfigError, match="need soft_labels"):
        train_student(protocol(labels="stored"), images, 3)


def test_a_loss_that_is_no_number_is_an_error(images: TensorImages) -> None:
    with pytest.raises(FloatingPointError, match="lower learning_rate"):
        train_student(protocol(learning_rate=1e30), images, 3)


def test_soft_label_loss_by_hand() -> None:
    logits, targets = torch.tensor([[1.0, -2.0, 0.5], [0.0, 3.0, 1.0]]), [[0.2, 0.5, 0.3], [0.6, 0.3, 0.1]]
    expected = 0.0
    for row, target in zip(logits.tolist(), targets, strict=True):
        normalizer = math.log(sum(math.exp(value / 20) for value in row))
        expected += sum(p * (math.log(p) - (z / 20 - normalizer)) for p, z in zip(target, row, strict=True))
    loss = soft_label_loss(logits, torch.tensor(targets), protocol())
    assert loss.item() == pytest.approx(expected / 2, rel=1e-5)  # batch mean, without the factor 20^2


def test_a_teacher_answers_in_the_order_of_the_data_set(teacher_folder: Path, images: TensorImages) -> None:
    teacher = load_teacher(f"local-dir:{teacher_folder}", CLASSES)
    views = images.images.float() / 255
    logits = teacher.model((views - 0.4) / 0.2)
    assert torch.allclose(teacher(views), logits[:, [1, 2, 0]])
    assert torch.equal(load_teacher(f"local-dir:{teacher_folder}", ["Bee"])(views), teacher(views)[:, 1:2])
    assert teacher.features(views).shape == (10, 4)
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert not teacher.train().model.training


def test_teachers_of_other_classes_are_refused(teacher_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match=r"does not know the classes \['dog'\] \(1 of 2\)"):
        load_teacher(f"local-dir:{teacher_folder}", ["ant", "dog"])
    weights = tmp_path / "weights.safetensors"
    arguments: dict[str, Any] = {"num_classes": 3, "in_chans": 1, "img_size": 12, "width": 4}
    state = timm.create_model("convnet3", **arguments).state_dict()
    save_file({f"my.{index:02d}": tensor for index, tensor in enumerate(state.values())}, weights)
    with pytest.raises(TeacherError, match="does not tell its classes"):
        load_teacher("convnet3", CLASSES, weights=weights, **arguments)
    teacher = load_teacher("convnet3", CLASSES, weights=weights, class_names=CLASSES, **arguments)
    for name, tensor in teacher.model.state_dict().items():  # other names, the same order and shapes
        assert torch.equal(tensor, state[name])
    with pytest.raises(TeacherError, match="fit the 14 of the architecture neither"):
        load_teacher("convnet3", CLASSES, weights=weights, class_names=CLASSES, **{**arguments, "width": 8})
    for name in ("nothing", f"local-dir:{tmp_path}", "folder/nothing"):
        with pytest.raises(TeacherError, match=f"the teacher '{name}' cannot be made"):
            load_teacher(name, CLASSES)
    with pytest.raises(TeacherError, match="cannot be read"):
        load_teacher("convnet3", CLASSES, weights=tmp_path / "none.pth", class_names=CLASSES, **arguments)


def test_a_student_follows_its_teacher(teacher_folder: Path, images: TensorImages) -> None:
    teacher = load_teacher(f"local-dir:{teacher_folder}", CLASSES)
    settings = protocol(epochs=40, labels="soft", temperature=1.0, optimizer="adamw", learning_rate=0.01)
    reports: list[EpochReport] = []
    train_student(settings, images, 3, teacher=teacher, on_epoch=reports.append)
    assert reports[-1].loss < 0.1 * reports[0].loss


@pytest.mark.parametrize(
    ("top_k", "storage", "num_bytes", "tolerance"),
    [
        (None, "float16", 10 * 6 * 2, 1e-3),
        (None, "int8", 10 * (6 + 4), 0.02),
        (2, "float16", 10 * 2 * (2 + 1), 1e-3),
        (2, "int8", 10 * (2 * 2 + 4), 0.02),
    ],
)
def test_stored_labels(
    top_k: int | None, storage: Any, num_bytes: int, tolerance: float, tmp_path: Path
) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(10, 6, generator=generator)
    classes = [f"class {label}" for label in range(6)]
    labels = SoftLabels.from_logits(logits, classes, "teacher", "digest", top_k, storage)
    labels.save(tmp_path / "labels.safetensors")
    loaded = SoftLabels.load(tmp_path / "labels.safetensors")
    assert [path.name for path in tmp_path.glob("*labels*")] == ["labels.safetensors"]
    assert (len(loaded), loaded.num_bytes, loaded.classes) == (10, num_bytes, tuple(classes))
    index = torch.tensor([7, 2])
    found, expected = loaded.probabilities(index, 1.0), logits[index].softmax(dim=1)
    assert torch.allclose(found.sum(dim=1), torch.ones(2), atol=1e-5)
    kept = expected.topk(top_k or 6).indices
    assert torch.allclose(found.gather(1, kept), expected.gather(1, kept), atol=tolerance)
    if top_k is not None:  # the rest is spread evenly
        rest = torch.ones_like(found, dtype=torch.bool).scatter(1, kept, False)
        assert torch.allclose(found[rest].view(2, 4).std(dim=1), torch.zeros(2), atol=1e-6)
    else:
        softened = (logits[index] / 20).softmax(dim=1)
        assert torch.allclose(loaded.probabilities(index, 20.0), softened, atol=1e-3)


def test_stored_labels_of_other_data_are_refused(images: TensorImages, tmp_path: Path) -> None:
    digest = images_digest(images)
    labels = SoftLabels.from_logits(torch.randn(10, 3), CLASSES, "teacher", digest)
    labels.check(CLASSES, digest)
    with pytest.raises(SoftLabelsError, match="differ first at label 1"):
        labels.check(["ant", "cat", "bee"], digest)
    with pytest.raises(SoftLabelsError, match="other images, or for these in another order"):
        turned = TensorImages(images.images.flip(0), torch.tensor(images.targets), CLASSES)
        labels.check(CLASSES, images_digest(turned))
    with pytest.raises(SoftLabelsError, match="a column for each"):
        SoftLabels.from_logits(torch.randn(10, 2), CLASSES, "teacher", digest)
    save_file({"values": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(SoftLabelsError, match="has the format None"):
        SoftLabels.load(tmp_path / "other.safetensors")
    (tmp_path / "damaged.safetensors").write_bytes(b"nothing")
    with pytest.raises(SoftLabelsError, match="cannot be read"):
        SoftLabels.load(tmp_path / "damaged.safetensors")


def test_stored_labels_are_mixed_as_the_images_are(images: TensorImages) -> None:
    # Labels that are almost certain are hard labels: the loss is that of mixed hard labels, at temperature 1.
    certain = 30.0 * torch.nn.functional.one_hot(torch.tensor(images.targets), 3)
    labels = SoftLabels.from_logits(certain, CLASSES, "teacher", "digest")
    reports: list[EpochReport] = []
    for kind in ("hard", "stored"):
        settings = protocol(epochs=1, batch_size=10, labels=kind, temperature=1.0, cutmix=1.0)
        given = labels if kind == "stored" else None
        train_student(settings, images, 3, soft_labels=given, on_epoch=reports.append)
    # Cross entropy is KL plus the entropy of the targets, which mixing makes positive.
    assert 0 < reports[1].loss < reports[0].loss


def test_herding_and_k_center_choose_by_hand() -> None:
    features = torch.tensor([[0.0], [1.0], [2.0], [9.0]])  # mean 3
    assert herding(features, 2).tolist() == [2, 1]  # 2 is nearest to 3; (2 + 1) / 2 = 1.5, (2 + 9) / 2 = 5.5
    assert k_center(features, 3).tolist() == [2, 3, 0]
    labels = torch.tensor([1, 0, 1, 0])
    assert select_per_class(k_center, features, labels, 1).tolist() == [1, 0]
    with pytest.raises(ConfigError, match="class 0 has 2 images, not 3"):
        select_per_class(k_center, features, labels, 3)


def test_scores() -> None:
    assert mean_std([1.0, 3.0]) == (2.0, math.sqrt(2))
    assert mean_std([1.0]) == (1.0, None)
    # No gap to real images and nothing gained over random ones: e^0.
    neutral = (1 - math.exp(-1)) / (math.e - math.exp(-1))
    assert label_robust_score(0.9, 0.7, 0.9, 0.7) == pytest.approx(neutral)
    assert augmentation_robust_score(0.7, 0.7, 0.5, 0.5) == pytest.approx(neutral)
    # 0.5 * (0.8 - 0.7) - 0.5 * (0.9 - 0.6) = -0.1
    assert label_robust_score(0.9, 0.7, 0.6, 0.8) == pytest.approx(
        (math.exp(-0.1) - math.exp(-1)) / (math.e - math.exp(-1))
    )
    # 0.5 * 0.1 + 0.5 * 0.3 = 0.2
    assert augmentation_robust_score(0.8, 0.7, 0.6, 0.3) == pytest.approx(
        (math.exp(0.2) - math.exp(-1)) / (math.e - math.exp(-1))
    )
    with pytest.raises(ValueError, match="divide percentages by 100"):
        label_robust_score(90, 70, 60, 80)


def test_evaluation_counts_every_image_once_over_processes(images: TensorImages) -> None:
    settings = protocol()

    class Share(Accelerator):  # type: ignore[misc]
        """One of two processes, whose `reduce` leaves its own sum."""

        rank = 0
        num_processes = 2

        @property
        def process_index(self) -> int:
            return self.rank

        def reduce(self, tensor: torch.Tensor, reduction: str = "mean", scale: float = 1.0) -> torch.Tensor:
            return tensor

    model = create_student("convnet3", 3, 1, 12, {"width": 4}).eval()
    shares = []
    for rank in range(2):
        accelerator = Share()
        accelerator.rank = rank
        shares.append(evaluate(normalized(settings, model), settings, images, accelerator)["top1"])
    assert sum(shares) == pytest.approx(evaluate(normalized(settings, model), settings, images)["top1"])
