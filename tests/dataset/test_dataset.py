""""""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.datasets import ImageFolder, VisionDataset
from torchvision.transforms.functional import pil_to_tensor

from d3hr_datasets import Artifact, D3HRDataset, DecodeConfig, GroupSamplingConfig, sample_group
from d3hr_datasets.cache.image_cache import ImageCache
from d3hr_datasets.diffusion.pixels import to_pil
from d3hr_datasets.errors import (
    ArtifactIntegrityError,
    ArtifactNotFoundError,
    CacheError,
    ConfigError,
    ModelFormatError,
    ModelNotFoundError,
)
from tests.support.tampering import STATISTICS, change_info, flip_byte
from tests.support.tiny import CLASSES, tiny_pipeline
from tests.support.workers import item_digests

IPC = 3
REPOSITORY = Path(__file__).resolve().parents[2]


def _dataset(artifact: Path, root: Path, ipc: int = IPC, **options: Any) -> D3HRDataset:
    return D3HRDataset(artifact, root, ipc, device="cpu", **options)


def _digests(dataset: D3HRDataset) -> list[str]:
    return list(item_digests(dataset, list(range(len(dataset)))).values())


def _no_model(*args: object, **kwargs: object) -> None:
    raise AssertionError("the model was loaded")


@pytest.fixture(scope="module")
def filled(tiny_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> D3HRDataset:
    """Return a data set all of whose images are cached. Tests only read it."""
    dataset = _dataset(tiny_artifact, tmp_path_factory.mktemp("filled"))
    dataset.materialize(progress=False)
    return dataset


def test_items_are_grey_images_and_int_labels(filled: D3HRDataset) -> None:
    assert isinstance(filled, VisionDataset) and len(filled) == 9
    for index in range(9):
        image, label = filled[index]
        assert isinstance(image, Image.Image) and image.mode == "L" and image.size == (14, 14)
        assert type(label) is int and label == filled.targets[index]


def test_attributes_are_those_of_torchvision(filled: D3HRDataset) -> None:
    assert filled.targets == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert filled.classes == list(CLASSES)
    assert filled.class_to_idx == {"ant": 0, "bee/wasp": 1, "cat": 2}
    assert filled.class_labels.tolist() == [0, 1, 2] and filled.class_labels.dtype == torch.int64
    assert filled.transform is None and filled.target_transform is None


def test_images_of_a_group_and_of_classes_differ(filled: D3HRDataset) -> None:
    assert len(set(_digests(filled))) == 9
    for index in range(9):
        assert np.asarray(filled[index][0]).std() > 1


def test_images_are_the_decoded_latents(filled: D3HRDataset) -> None:
    model = filled.model()
    labels = torch.full((IPC,), 1)
    images = model.decode(model.denoise(filled.sample_latents(1), labels, filled.decode))
    inside = ((images[:, 0, 1:15, 1:15] + 1) * 127.5).round().to(torch.uint8)
    for position in range(IPC):
        assert np.array_equal(np.asarray(filled[IPC + position][0]), inside[position].numpy())


def test_latents_are_a_group_of_the_class_gaussian(filled: D3HRDataset) -> None:
    gaussian = Artifact.load(filled.artifact.folder).gaussians(400)
    expected = sample_group(gaussian.mean[2], gaussian.variance[2], IPC, 2, GroupSamplingConfig(seed=0))
    assert torch.equal(filled.sample_latents(2), expected)


def test_construction_reads_no_model(
    tiny_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("d3hr_datasets.dataset.images_on_demand.load_model", _no_model)
    dataset = _dataset(tiny_artifact, tmp_path / "root")
    assert len(dataset) == 9 and repr(dataset)
    assert not (tmp_path / "root").exists()
    with pytest.raises(AssertionError, match="loaded"):
        dataset[0]


def test_only_the_class_asked_for_is_generated(tiny_artifact: Path, tmp_path: Path) -> None:
    dataset = _dataset(tiny_artifact, tmp_path)
    dataset[4]
    assert sorted(path.name for path in dataset.image_folder.iterdir()) == ["001-bee_wasp", "set.json"]
    assert len(list(dataset.image_folder.rglob("*.png"))) == IPC


def test_cached_images_need_no_model(filled: D3HRDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("d3hr_datasets.dataset.images_on_demand.load_model", _no_model)
    again = _dataset(filled.artifact.folder, Path(filled.root))
    assert _digests(again) == _digests(filled)
    again.materialize(progress=False)


def test_pixels_are_the_same_in_a_new_process_in_any_order(filled: D3HRDataset, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "tests.support.workers",
        str(filled.artifact.folder),
        str(tmp_path / "root"),
        str(IPC),
    ]
    environment = {**os.environ, "PYTHONHASHSEED": "17"}
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == item_digests(filled, list(range(len(filled))))


def test_another_root_has_the_same_pixels(filled: D3HRDataset, tmp_path: Path) -> None:
    torch.manual_seed(99)
    assert _digests(_dataset(filled.artifact.folder, tmp_path)) == _digests(filled)


def test_moved_artifact_has_the_same_pixels_and_cache(filled: D3HRDataset, artifact_copy: Path) -> None:
    assert _dataset(artifact_copy, Path(filled.root)).image_folder == filled.image_folder


@pytest.mark.parametrize(
    "options",
    [
        {"seed": 1},
        {"sampling": GroupSamplingConfig(method="search", num_candidates=3)},
        {"decode": DecodeConfig(timestep=400, num_inference_steps=10, guidance_scale=5.0)},
        {"decode": DecodeConfig(timestep=200, num_inference_steps=10, guidance_scale=2.0)},
        {"decode": DecodeConfig(400, 10, 2.0, reference_off_by_one=True)},
        {"torch_dtype": torch.bfloat16},
    ],
    ids=str,
)
def test_other_settings_give_other_images_beside_them(
    options: dict[str, Any], filled: D3HRDataset, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(filled.root, tmp_path / "root"))
    other = _dataset(filled.artifact.folder, root, **options)
    assert other.image_folder.name != filled.image_folder.name
    assert not set(_digests(other)) & set(_digests(filled))


def test_other_ipc_is_another_set(filled: D3HRDataset, tmp_path: Path) -> None:
    root = Path(shutil.copytree(filled.root, tmp_path / "root"))
    other = _dataset(filled.artifact.folder, root, ipc=1)
    assert len(other) == 3 and other.targets == [0, 1, 2]
    assert not set(_digests(other)) & set(_digests(filled))


def test_seed_of_the_sampling_is_the_seed_of_the_data_set(filled: D3HRDataset) -> None:
    sampling = GroupSamplingConfig(seed=5)
    dataset = _dataset(filled.artifact.folder, Path(filled.root), sampling=sampling)
    assert dataset.sampling.seed == 0 and dataset.image_folder == filled.image_folder


def test_equal_settings_are_one_set(filled: D3HRDataset) -> None:
    decode = DecodeConfig(timestep=400, num_inference_steps=10, guidance_scale=2)
    assert decode == filled.decode
    assert (
        _dataset(filled.artifact.folder, Path(filled.root), decode=decode).image_folder == filled.image_folder
    )


def test_transforms_apply_to_what_is_read(filled: D3HRDataset) -> None:
    dataset = _dataset(
        filled.artifact.folder,
        Path(filled.root),
        transform=pil_to_tensor,
        target_transform=lambda label: label + 10,
    )
    image, target = dataset[4]
    assert torch.equal(image, pil_to_tensor(filled[4][0])) and target == 11


def test_transforms_may_be_assigned_later(filled: D3HRDataset) -> None:
    dataset = _dataset(filled.artifact.folder, Path(filled.root))
    assert isinstance(dataset[4][0], Image.Image)
    dataset.transform = pil_to_tensor
    dataset.target_transform = str
    image, target = dataset[4]
    assert torch.equal(image, pil_to_tensor(filled[4][0])) and target == "1"
    dataset.transform = None
    assert isinstance(dataset[4][0], Image.Image)


@pytest.mark.parametrize("index", [-10, 9, 100])
def test_indices_out_of_range_are_index_errors(index: int, filled: D3HRDataset) -> None:
    with pytest.raises(IndexError, match=rf"index {index} .*9 images"):
        filled[index]


def test_iteration_ends(filled: D3HRDataset) -> None:
    assert [label for _, label in filled] == filled.targets  # type: ignore[attr-defined]


def test_numpy_and_torch_indices_work(filled: D3HRDataset) -> None:
    expected = filled[4][0].tobytes()
    indices: list[Any] = [np.int64(4), torch.tensor(4)]
    for index in indices:
        image, label = filled[index]
        assert image.tobytes() == expected and type(label) is int


@pytest.mark.parametrize("ipc", [0, -1, 1.5, "10", True, None, 10**12])
def test_ipc_that_is_no_positive_integer_is_refused(ipc: Any, tiny_artifact: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="ipc"):
        D3HRDataset(tiny_artifact, tmp_path, ipc)


@pytest.mark.parametrize("seed", [-1, 0.5, "0", False])
def test_seed_that_is_no_integer_is_refused(seed: Any, tiny_artifact: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="seed"):
        D3HRDataset(tiny_artifact, tmp_path, seed=seed)


@pytest.mark.parametrize(
    "classes", [["ant", "dog"], ["Ant"], [], ["ant", "ant"], ["ant", 0], "ant", [3], [-1], [True], [None]]
)
def test_classes_that_cannot_be_kept_are_refused(classes: Any, tiny_artifact: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"known: .*bee/wasp"):
        D3HRDataset(tiny_artifact, tmp_path, classes=classes)


@pytest.mark.parametrize(
    ("decode", "named"),
    [
        (DecodeConfig(timestep=300, num_inference_steps=10), r"300 .*\[-1, 200, 400\]"),
        (DecodeConfig(timestep=200, num_inference_steps=3), "200 is not on the grid"),
        (DecodeConfig(timestep=1000, num_inference_steps=10), "1000"),
    ],
)
def test_decode_settings_that_do_not_fit_are_refused(
    decode: DecodeConfig, named: str, tiny_artifact: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=named):
        D3HRDataset(tiny_artifact, tmp_path, decode=decode)


def test_kept_classes_keep_their_images(filled: D3HRDataset, tmp_path: Path) -> None:
    subset = _dataset(filled.artifact.folder, tmp_path, classes=["cat", "ant"])
    assert subset.classes == ["cat", "ant"] and subset.class_to_idx == {"cat": 0, "ant": 1}
    assert subset.class_labels.tolist() == [2, 0]
    assert len(subset) == 6 and subset.targets == [0, 0, 0, 1, 1, 1]
    digests = _digests(filled)
    assert _digests(subset) == digests[6:9] + digests[0:3]
    assert [label for _, label in subset] == subset.targets  # type: ignore[attr-defined]


def test_pickle_keeps_the_data_set_but_not_the_model(tiny_artifact: Path, tmp_path: Path) -> None:
    dataset = _dataset(tiny_artifact, tmp_path, transform=pil_to_tensor)
    first = dataset[0][0]
    data = pickle.dumps(dataset)
    assert len(data) < 20_000
    again = pickle.loads(data)
    assert torch.equal(again[0][0], first)
    assert again.targets == dataset.targets and again.image_folder == dataset.image_folder
    again[8]  # not cached: the copy loads the model
    assert again.cache.is_complete(2)


@pytest.mark.parametrize(("workers", "context"), [(0, None), (2, "fork")])
def test_loaders_generate(workers: int, context: str | None, filled: D3HRDataset, tmp_path: Path) -> None:
    _check_loader(_dataset(filled.artifact.folder, tmp_path), workers, context, filled)


@pytest.mark.parametrize(("workers", "context"), [(2, "fork"), (2, "spawn")])
def test_loaders_read_the_cache(workers: int, context: str | None, filled: D3HRDataset) -> None:
    _check_loader(_dataset(filled.artifact.folder, Path(filled.root)), workers, context, filled)


def _check_loader(dataset: D3HRDataset, workers: int, context: str | None, filled: D3HRDataset) -> None:
    """See that a loader gives the images of `filled`, in its order."""
    dataset.transform = pil_to_tensor
    loader: DataLoader[Any] = DataLoader(
        dataset,
        batch_size=2,
        num_workers=workers,
        multiprocessing_context=context,
        timeout=600 if workers else 0,
    )
    images, labels = zip(*loader, strict=True)
    assert torch.cat(labels).tolist() == filled.targets
    assert torch.equal(torch.cat(images), torch.stack([pil_to_tensor(filled[i][0]) for i in range(9)]))


def test_global_generators_stay_where_they_are(
    tiny_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load: Any = AutoencoderKL.from_pretrained

    def draw_and_load(*args: Any, **kwargs: Any) -> Any:
        torch.rand(3)  # as it does where weights are initialised before they are read
        return load(*args, **kwargs)

    monkeypatch.setattr(AutoencoderKL, "from_pretrained", draw_and_load)
    before = torch.get_rng_state(), random.getstate(), repr(np.random.get_state())
    dataset = _dataset(tiny_artifact, tmp_path)
    dataset[0]
    dataset.materialize(progress=False)
    after = torch.get_rng_state(), random.getstate(), repr(np.random.get_state())
    assert torch.equal(before[0], after[0]) and before[1:] == after[1:]


@pytest.mark.parametrize(
    ("options", "named"),
    [({"channels": 3}, "image_mode = L.*RGB"), ({"num_classes": 5}, "3 classes.*num_embeds_ada_norm = 5")],
)
def test_model_that_does_not_fit_is_refused(
    options: dict[str, Any], named: str, artifact_copy: Path, tmp_path: Path
) -> None:
    shutil.rmtree(artifact_copy / "model")
    tiny_pipeline(**options).save_pretrained(artifact_copy / "model")
    Artifact.load(artifact_copy).write_metadata()
    _check_misfit(artifact_copy, named, tmp_path)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"latent_shape": [3, 8, 8]}, r"latent_shape = \(3, 8, 8\).*sample_size = 4"),
        ({"image_size": 28}, r"image_size \+ 2 \* padding = 30.*16"),
        ({"padding": 0}, r"image_size \+ 2 \* padding = 14.*16"),
        ({"image_mode": "RGB"}, "image_mode = RGB.*L"),
        ({"classes": ["ant", "cat"], "counts": [4, 4]}, "2 classes.*num_embeds_ada_norm = 3"),
    ],
    ids=str,
)
def test_description_that_does_not_fit_the_model_is_refused(
    changes: dict[str, Any], named: str, artifact_copy: Path, tmp_path: Path
) -> None:
    change_info(artifact_copy, **changes)
    _check_misfit(artifact_copy, named, tmp_path)


def test_model_of_another_schedule_is_refused(artifact_copy: Path, tmp_path: Path) -> None:
    pipeline = tiny_pipeline()
    pipeline.scheduler = type(pipeline.scheduler)(num_train_timesteps=500)
    pipeline.scheduler.save_pretrained(artifact_copy / "model" / "scheduler")
    Artifact.load(artifact_copy).write_metadata()
    _check_misfit(artifact_copy, "1000 timesteps.*num_train_timesteps = 500", tmp_path)


def _check_misfit(artifact: Path, named: str, tmp_path: Path) -> None:
    dataset = _dataset(artifact, tmp_path / "root")
    with pytest.raises(ModelFormatError, match=named):
        dataset[0]
    assert not list((tmp_path / "root").rglob("*.png"))


def test_missing_artifact_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ArtifactNotFoundError, match="nowhere"):
        D3HRDataset(tmp_path / "nowhere", tmp_path)


def test_missing_model_is_refused_when_it_is_needed(artifact_copy: Path, tmp_path: Path) -> None:
    shutil.rmtree(artifact_copy / "model")
    dataset = _dataset(artifact_copy, tmp_path / "root")
    with pytest.raises(ModelNotFoundError, match="model"):
        dataset[0]


def test_changed_statistics_are_refused_when_they_are_needed(artifact_copy: Path, tmp_path: Path) -> None:
    dataset = _dataset(artifact_copy, tmp_path / "root")
    flip_byte(artifact_copy / STATISTICS)
    with pytest.raises(ArtifactIntegrityError, match=STATISTICS):
        dataset[0]


def test_image_that_cannot_be_cached_is_an_error(
    tiny_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageCache, "read", lambda *args: None)
    dataset = _dataset(tiny_artifact, tmp_path)
    with pytest.raises(CacheError):
        dataset[0]


def test_materialized_set_is_an_image_folder(filled: D3HRDataset, tmp_path: Path) -> None:
    dataset = _dataset(filled.artifact.folder, tmp_path)
    assert dataset.materialize(progress=False) == dataset.image_folder
    folder = ImageFolder(str(dataset.image_folder))
    assert len(folder) == len(dataset) == 9
    assert folder.targets == dataset.targets
    for index in range(9):
        assert folder[index][0].convert("L").tobytes() == filled[index][0].tobytes()


def test_materializing_goes_on_where_it_was(tiny_artifact: Path, tmp_path: Path) -> None:
    dataset = _dataset(tiny_artifact, tmp_path)
    dataset[4]
    before = {path: path.stat().st_mtime_ns for path in dataset.image_folder.rglob("*.png")}
    dataset.materialize(progress=False)
    assert len(before) == IPC and len(list(dataset.image_folder.rglob("*.png"))) == 9
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_progress_goes_to_stderr_and_only_if_asked_for(
    tiny_artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _dataset(tiny_artifact, tmp_path, ipc=1).materialize(progress=False)
    assert capsys.readouterr() == ("", "")
    dataset = _dataset(tiny_artifact, tmp_path, ipc=1, seed=1)
    dataset.materialize()
    out, err = capsys.readouterr()
    assert out == "" and "3/3" in err
    dataset.materialize()
    assert capsys.readouterr() == ("", "")


def test_default_root_is_the_assets_cache_of_hugging_face(tiny_artifact: Path) -> None:
    dataset = D3HRDataset(tiny_artifact, ipc=1, device="cpu")
    assert dataset.image_folder.is_relative_to(os.environ["HF_ASSETS_CACHE"])


def test_root_may_start_with_the_home_folder(
    tiny_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    dataset = D3HRDataset(tiny_artifact, "~/root", ipc=1, device="cpu")
    assert dataset.image_folder.parent == tmp_path / "root"


def test_repr_says_what_the_set_is(filled: D3HRDataset) -> None:
    text = repr(filled)
    for part in (
        "Number of datapoints: 9",
        "tiny",
        filled.artifact.fingerprint,
        "3, seed 0",
        "moment_matched",
    ):
        assert part in text


def test_folder_name_says_what_the_set_is(filled: D3HRDataset) -> None:
    assert filled.image_folder.name == f"tiny-ipc3-seed0-{filled.fingerprint}"


def test_data_set_is_a_dataset_of_torch(filled: D3HRDataset) -> None:
    assert isinstance(filled, Dataset)


def test_to_pil_maps_the_range_and_takes_the_frame_off() -> None:
    images = torch.full((1, 1, 4, 5), -1.0)
    images[0, 0, 1, 1:4] = torch.tensor([1.0, 0.2, -1.5])
    (image,) = to_pil(images[..., :4], padding=1)
    assert image.mode == "L" and image.size == (2, 2)
    assert list(image.tobytes()) == [255, 153, 0, 0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_to_pil_makes_colour_images(dtype: torch.dtype) -> None:
    images = torch.tensor([1.0, -1.0, 0.0]).view(1, 3, 1, 1).expand(2, 3, 6, 6).to(dtype)
    found = to_pil(images)
    assert [(image.mode, image.size) for image in found] == [("RGB", (6, 6))] * 2
    assert found[1].getpixel((3, 3)) == (255, 0, 128)


def test_pixels_that_are_not_finite_are_refused() -> None:
    images = torch.zeros(2, 1, 4, 4)
    images[1, 0, 2, 2] = float("nan")
    with pytest.raises(ModelFormatError, match="float32"):
        to_pil(images)
