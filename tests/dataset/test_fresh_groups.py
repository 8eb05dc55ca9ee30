"""Another group in every epoch: which images, for whom, and what becomes of those of earlier epochs."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import multiprocessing
from torch.utils.data import DataLoader, get_worker_info
from torchvision.transforms.functional import pil_to_tensor

from d3hr_datasets import D3HRDataset
from d3hr_datasets.cache.inspection import list_cached_sets
from d3hr_datasets.cache.prune import plan_prune, prune_cache
from d3hr_datasets.errors import CacheError, ConfigError
from d3hr_datasets.numerics.seeds import derive_seed
from tests.support.sets import image_digests, tiny_set
from tests.support.workers import set_epochs


def fresh_set(artifact: Path, root: Path, **options: Any) -> D3HRDataset:
    """Return a set of two images per class that is resampled, in this process alone."""
    return tiny_set(artifact, root, **{"ipc": 2, "resample": "epoch", "keep_epochs": 1, **options})


def _epochs_on_disk(root: Path) -> list[int]:
    return sorted(found.epoch for found in list_cached_sets(root) if found.epoch is not None)


def _files(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


def test_every_epoch_has_images_of_its_own_and_the_first_has_those_of_the_plain_set(
    tiny_artifact: Path, tmp_path: Path
) -> None:
    plain = tiny_set(tiny_artifact, tmp_path / "plain", ipc=2)
    dataset = fresh_set(tiny_artifact, tmp_path / "root")
    assert dataset.image_folder.name == plain.image_folder.name
    assert image_digests(dataset) == image_digests(plain)
    before = (len(dataset), dataset.targets, dataset.classes)
    digests = {}
    for epoch in (1, 2, 10**9):
        dataset.set_epoch(epoch)
        assert (dataset.epoch, all(map(dataset.cache.is_complete, range(3)))) == (epoch, True)
        digests[epoch] = image_digests(dataset)
        assert (len(dataset), dataset.targets, dataset.classes) == before
        assert [path for path, _ in dataset.samples if not Path(path).exists()] == []
    images = [image for epoch in digests.values() for image in epoch] + image_digests(plain)
    assert len(set(images)) == 4 * 6
    again = fresh_set(tiny_artifact, tmp_path / "again")  # in any order, as after a restart
    for epoch in (2, 1):
        again.set_epoch(epoch)
        assert image_digests(again) == digests[epoch]
    assert "resampled: epoch 1" in repr(again) and "resampled" not in repr(plain)
    other = fresh_set(tiny_artifact, tmp_path / "other", seed=10**30)
    other.set_epoch(1)
    assert not set(image_digests(other)) & set(images)


def test_an_epoch_is_drawn_from_a_seed_of_its_own(tiny_artifact: Path, tmp_path: Path) -> None:
    dataset = fresh_set(tiny_artifact, tmp_path, seed=3)
    dataset.set_epoch(5)
    seed = derive_seed("epoch", 3, 5)
    plain = tiny_set(tiny_artifact, tmp_path, ipc=2, seed=seed)
    assert plain.fingerprint == dataset.fingerprint and plain.image_folder != dataset.image_folder
    assert image_digests(plain) == image_digests(dataset)
    assert torch.equal(plain.sample_latents(1), dataset.sample_latents(1))
    settings = json.loads((dataset.image_folder / "set.json").read_text())["settings"]
    assert (settings["seed"], settings["resampled"]) == (seed, {"seed": 3, "epoch": 5})
    assert "resampled" not in json.loads((plain.image_folder / "set.json").read_text())["settings"]
    dataset.set_epoch(6)
    assert all(map(plain.cache.is_complete, range(3))) and _epochs_on_disk(tmp_path) == [6]


def test_nested_sets_are_resampled(tiny_artifact: Path, tmp_path: Path) -> None:
    small, large = (fresh_set(tiny_artifact, tmp_path, ipc=ipc, nested=True, classes=[1]) for ipc in (2, 3))
    first = image_digests(small)
    small.set_epoch(1)
    large.set_epoch(1)
    assert image_digests(large)[:2] == image_digests(small) != first


@pytest.mark.parametrize("keep", [1, 3])
def test_the_cache_is_bounded_and_what_is_not_of_an_epoch_stays(
    keep: int, tiny_artifact: Path, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    dataset = fresh_set(tiny_artifact, root, keep_epochs=keep)
    for epoch in range(3):
        dataset.set_epoch(epoch, prepare_next=False)
    second = dataset.image_folder
    (second / "mine.txt").write_text("kept")
    (second / "000-ant" / "notes").write_text("kept")
    shutil.copytree(second, tmp_path / "elsewhere")
    link = root / second.name.replace("-epoch2-", "-epoch7-")
    link.symlink_to(tmp_path / "elsewhere")
    copied = root / f"{second.name}-copy"  # marked, but not of a name that an epoch has
    shutil.copytree(second, copied)
    other = fresh_set(tiny_artifact, root, seed=1)
    other.set_epoch(1)
    of_another_seed = other.image_folder
    del other  # and so unused
    folders = [
        copied,
        tmp_path / "elsewhere",
        of_another_seed,
        fresh_set(tiny_artifact, root).image_folder,
    ]
    before = [_files(folder) for folder in folders]
    for epoch in range(3, 9):
        dataset.set_epoch(epoch, prepare_next=False)
        own = {path.parent for path in root.glob("tiny-ipc2-seed0-epoch*/set.json")} - {link, copied}
        assert dataset.image_folder in own and len(own) <= keep
    assert [_files(folder) for folder in folders] == before and link.is_symlink()
    assert _files(second) == {"mine.txt", "000-ant/notes"}


def test_two_jobs_at_different_epochs_leave_each_other_alone(tiny_artifact: Path, tmp_path: Path) -> None:
    one, two = (fresh_set(tiny_artifact, tmp_path) for _ in range(2))
    two.set_epoch(5)
    images = _files(two.image_folder)
    for epoch in (1, 2, 3):
        one.set_epoch(epoch)
        assert _epochs_on_disk(tmp_path) == [epoch, 5]
    assert _files(two.image_folder) == images
    with pytest.raises(CacheError, match="another process trains on it"):
        prune_cache(tmp_path, [two.image_folder.name])
    assert plan_prune(tmp_path).removals == ()
    two.set_epoch(3)  # both use it
    one.set_epoch(4)
    assert _epochs_on_disk(tmp_path) == [3, 4]
    two.close()
    one.set_epoch(5)
    assert _epochs_on_disk(tmp_path) == [5]
    name = one.image_folder.name
    del one  # whoever forgets its data set does not use it any more
    report = prune_cache(tmp_path)
    assert report.removed == (tmp_path / name,) and _epochs_on_disk(tmp_path) == []
    assert not any((tmp_path / ".locks").iterdir())


def test_sets_stay_where_the_file_system_has_no_locks(
    tiny_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*args: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", refuse)
    dataset = fresh_set(tiny_artifact, tmp_path)
    with caplog.at_level(logging.WARNING, "d3hr_datasets"):
        for epoch in (1, 2):
            dataset.set_epoch(epoch)
    assert _epochs_on_disk(tmp_path) == [1, 2] and "sets of earlier epochs stay" in caplog.text


def _numbered(items: Sequence[tuple[Any, int]]) -> tuple[int, list[bytes]]:
    """Return the worker that this is, and pixels."""
    worker = get_worker_info()
    assert worker is not None
    return worker.seed, [image.numpy().tobytes() for image, _ in items]


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_persistent_workers_follow(context: str, tiny_artifact: Path, tmp_path: Path) -> None:
    dataset = fresh_set(tiny_artifact, tmp_path, in_memory=True, transform=pil_to_tensor)
    loader: DataLoader[Any] = DataLoader(
        dataset,
        batch_size=6,
        num_workers=1,
        persistent_workers=True,
        multiprocessing_context=context,
        collate_fn=_numbered,
        timeout=600,
    )
    seen, workers = [], set()
    for epoch in range(3):
        dataset.set_epoch(epoch)
        ((worker, images),) = list(loader)
        assert images == [dataset[index][0].numpy().tobytes() for index in range(6)]
        seen += images
        workers.add(worker)
    assert len(set(seen)) == 18 and len(workers) == 1
    del loader


def test_a_worker_does_not_set_the_epoch(tiny_artifact: Path, tmp_path: Path) -> None:
    dataset = fresh_set(tiny_artifact, tmp_path)
    loader: DataLoader[Any] = DataLoader(
        dataset,
        num_workers=1,
        multiprocessing_context="fork",
        worker_init_fn=lambda _: dataset.set_epoch(1),
        timeout=600,
    )
    with pytest.raises(ConfigError, match="in a worker of a DataLoader"):
        next(iter(loader))


@pytest.mark.parametrize("keep", [1, 2])
def test_a_finished_run_leaves_no_images_of_epochs(keep: int, tiny_artifact: Path, tmp_path: Path) -> None:
    for seed in (0, 1):
        dataset = fresh_set(tiny_artifact, tmp_path, seed=seed, keep_epochs=keep)
        for epoch in (0, 1, 2):
            dataset.set_epoch(epoch)
        expected = image_digests(dataset)
        dataset.close()
        assert _epochs_on_disk(tmp_path) == []
        assert len(list_cached_sets(tmp_path)) == 1 + seed  # of epoch 0
    assert (dataset.epoch, image_digests(dataset)) == (2, expected)  # made again
    other = fresh_set(tiny_artifact, tmp_path, seed=1)
    other.set_epoch(2)
    dataset.close()
    assert _epochs_on_disk(tmp_path) == [2], "it is used by another data set"
    other.close()
    assert _epochs_on_disk(tmp_path) == []


def test_copies_have_an_epoch_of_their_own(tiny_artifact: Path, tmp_path: Path) -> None:
    dataset = fresh_set(tiny_artifact, tmp_path)
    dataset.set_epoch(1)
    expected = image_digests(dataset)
    for again in (pickle.loads(pickle.dumps(dataset)), copy.copy(dataset), copy.deepcopy(dataset)):
        assert again.epoch == 1 and image_digests(again) == expected
        again.set_epoch(2)
        assert (dataset.epoch, image_digests(dataset)) == (1, expected) != (2, image_digests(again))
        again.close()


def test_processes_have_epochs_of_their_own_and_share_the_classes(
    tiny_artifact: Path, tmp_path: Path
) -> None:
    dataset = fresh_set(tiny_artifact, tmp_path / "root")
    context = multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    arguments = (dataset, str(tmp_path / "store"), results)
    processes = [context.Process(target=set_epochs, args=(rank, *arguments)) for rank in range(2)]
    try:
        for process in processes:
            process.start()
        for process in processes:
            process.join(timeout=600)
    finally:
        for process in processes:
            process.kill()
    assert [process.exitcode for process in processes] == [0, 0] and dataset.epoch == 0
    found = dict(results.get() for _ in range(2))
    assert [found[rank]["made"] for rank in (0, 1)] == [[0, 2, 0, 2], [1, 1]]
    assert found[0]["digests"] == found[1]["digests"]
    assert [found[rank]["alone"] for rank in (0, 1)] == [7, 8]
    dataset.set_epoch(2)
    assert image_digests(dataset) == found[0]["digests"]


def test_what_is_no_epoch_is_refused(tiny_artifact: Path, tmp_path: Path) -> None:
    values: list[Any] = [-1, 1.0, "1", True, 10**12]
    for dataset in (fresh_set(tiny_artifact, tmp_path), tiny_set(tiny_artifact, tmp_path)):
        for value in values:
            with pytest.raises(ConfigError, match="epoch"):
                dataset.set_epoch(value)
    for options in ({"resample": "always"}, {"keep_epochs": 0}):
        with pytest.raises(ConfigError, match=next(iter(options))):
            fresh_set(tiny_artifact, tmp_path, **options)


def test_a_plain_set_is_the_same_in_every_epoch(tiny_artifact: Path, tmp_path: Path) -> None:
    dataset = tiny_set(tiny_artifact, tmp_path / "root")
    dataset.set_epoch(3)
    assert dataset.epoch == 0 and not (tmp_path / "root").exists()
