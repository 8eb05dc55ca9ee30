"""Exports: a data set -> an image folder, Parquet, or WebDataset shards.

In: a data set. Out: a folder in a form that torchvision, timm, `datasets` or webdataset reads without
this library. Files hold the bytes of the cache's PNG files; transforms are not applied. A folder appears
whole, by one rename, and is never written into.
"""

from __future__ import annotations

import contextlib
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from d3hr_datasets.config.checks import check_int
from d3hr_datasets.dataset.images_on_demand import ImagesOnDemand
from d3hr_datasets.dataset.options import SHARD_SIZE
from d3hr_datasets.errors import CacheError, ExportError
from d3hr_datasets.io import new_folders
from d3hr_datasets.io.extras import needs_extra
from d3hr_datasets.io.paths import expand_user
from d3hr_datasets.processes import process_share

if TYPE_CHECKING:
    import datasets

ROWS_PER_GROUP = 100  # of a Parquet file, as `datasets` writes images
SPLIT = "train"


def export_image_folder(dataset: ImagesOnDemand, output: str | Path, *, progress: bool = True) -> Path:
    """Write one folder per class, for torchvision's `ImageFolder` and timm's folder reader.

    Folders are named by label and class, "003-Dress" (`class_folders`), so that their order is that of the
    labels. `d3hr build` and `d3hr report` take such a folder.

    Args:
        dataset: The data set; what is missing of it is generated first.
        output: The folder to make; it must be missing or empty.
        progress: Show a progress bar on stderr while generating.

    Returns:
        `output`.

    Raises:
        ExportError: `output` holds something, or cannot be written.
    """
    with new_folder(output) as folder:
        dataset.materialize(progress=progress)
        for label, position in _items(dataset):
            target = folder / _name(dataset, label, position)
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(_png(dataset, label, position))
    return expand_user(output)


def export_parquet(dataset: ImagesOnDemand, output: str | Path, *, progress: bool = True) -> Path:
    """Write `data/train-00000-of-00001.parquet`, for `datasets.load_dataset(output)` and the Hub.

    Columns are `image` (`datasets.Image`) and `label` (`datasets.ClassLabel` with the class names).

    Args:
        dataset: The data set; what is missing of it is generated first.
        output: The folder to make; it must be missing or empty.
        progress: Show a progress bar on stderr while generating.

    Returns:
        `output`.

    Raises:
        ExportError: `output` holds something, or cannot be written.
        MissingExtraError: `datasets` is not installed.
    """
    features = _features(dataset)
    import pyarrow
    from pyarrow import parquet

    with new_folder(output) as folder:
        dataset.materialize(progress=progress)
        (folder / "data").mkdir()
        path = folder / "data" / f"{SPLIT}-00000-of-00001.parquet"
        items = _items(dataset)
        with parquet.ParquetWriter(path, features.arrow_schema) as writer:
            for start in range(0, len(items), ROWS_PER_GROUP):
                rows = [_row(dataset, *item) for item in items[start : start + ROWS_PER_GROUP]]
                writer.write_table(pyarrow.Table.from_pylist(rows, schema=features.arrow_schema))
    return expand_user(output)


def to_hf_dataset(dataset: ImagesOnDemand, *, progress: bool = True) -> datasets.Dataset:
    """Return a `datasets.Dataset` of the images, as `export_parquet` writes them, in memory as PNG.

    Args:
        dataset: The data set; what is missing of it is generated first.
        progress: Show a progress bar on stderr while generating.

    Raises:
        MissingExtraError: `datasets` is not installed.
    """
    features = _features(dataset)
    import datasets

    dataset.materialize(progress=progress)
    rows = [_row(dataset, *item) for item in _items(dataset)]
    return datasets.Dataset.from_list(rows, features=features, split=SPLIT)


def export_webdataset(
    dataset: ImagesOnDemand, output: str | Path, shard_size: int = SHARD_SIZE, *, progress: bool = True
) -> Path:
    """Write shards `train-000000.tar`, ... of KEY.png and KEY.cls, and `_info.json`, which timm reads.

    Images are in turns of all classes (the first of each, the second of each, ...), so that every part of
    a shard has all of them. The same data set gives the same bytes.

    Args:
        dataset: The data set; what is missing of it is generated first.
        output: The folder to make; it must be missing or empty.
        shard_size: Images per shard, at least 1; the last one may have fewer.
        progress: Show a progress bar on stderr while generating.

    Returns:
        `output`.

    Raises:
        ConfigError: `shard_size` is not accepted.
        ExportError: `output` holds something, or cannot be written.
    """
    check_int("shard_size", shard_size, 1)
    with new_folder(output) as folder:
        dataset.materialize(progress=progress)
        items = sorted(_items(dataset), key=lambda item: item[::-1])
        lengths: dict[str, int] = {}
        for start in range(0, len(items), shard_size):
            part = items[start : start + shard_size]
            name = f"{SPLIT}-{len(lengths):06d}.tar"
            lengths[name] = len(part)
            with tarfile.open(folder / name, "w", format=tarfile.USTAR_FORMAT) as shard:
                for index, (label, position) in enumerate(part, start):
                    _add(shard, f"{index:08d}.png", _png(dataset, label, position))
                    _add(shard, f"{index:08d}.cls", str(label).encode())
        split = {
            "name": SPLIT,
            "num_samples": len(items),
            "filenames": list(lengths),
            "shard_lengths": list(lengths.values()),
        }
        info = {
            "name": dataset.artifact.info.name,
            "classes": list(dataset.classes),
            "splits": {SPLIT: split},
        }
        text = json.dumps(info, indent=1, ensure_ascii=False) + "\n"
        (folder / "_info.json").write_text(text, encoding="utf-8")
    return expand_user(output)


def require_parquet() -> None:
    """Raise `MissingExtraError` where Parquet files cannot be written, as `datasets` is not installed."""
    with needs_extra("export", "Parquet needs the library datasets"):
        import datasets  # noqa: F401
        import pyarrow  # noqa: F401


def _features(dataset: ImagesOnDemand) -> datasets.Features:
    require_parquet()
    import datasets

    return datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=list(dataset.classes))}
    )


def _items(dataset: ImagesOnDemand) -> list[tuple[int, int]]:
    """Return (label, position in its group) of every image, in the order of the data set."""
    return [(label, position) for label in range(len(dataset.classes)) for position in range(dataset.ipc)]


def _name(dataset: ImagesOnDemand, label: int, position: int) -> str:
    path = dataset.cache.path(label, position)
    return f"{path.parent.name}/{path.name}"


def _png(dataset: ImagesOnDemand, label: int, position: int) -> bytes:
    path = dataset.cache.path(label, position)
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise CacheError(f"{path} was removed while it was exported; export again") from error


def _row(dataset: ImagesOnDemand, label: int, position: int) -> dict[str, Any]:
    image = {"bytes": _png(dataset, label, position), "path": _name(dataset, label, position)}
    return {"image": image, "label": label}


def _add(shard: tarfile.TarFile, name: str, data: bytes) -> None:
    """Add a file without time or owner: `TarInfo` has zeros there, and mode 0644."""
    member = tarfile.TarInfo(name)
    member.size = len(data)
    shard.addfile(member, io.BytesIO(data))


@contextlib.contextmanager
def new_folder(output: str | Path) -> Iterator[Path]:
    """Yield a temporary folder beside `output` that takes its place if nothing is raised."""
    if process_share()[1] > 1:
        raise ExportError(
            "an export is written by one process, this is one of several (WORLD_SIZE, torch.distributed); "
            "call `materialize` in all of them, then export in one that was started alone"
        )
    with new_folders.new_folder(output) as folder:
        yield folder
