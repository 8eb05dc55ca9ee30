"""Data sets of the library `datasets`: Parquet, image folders, WebDataset shards, on the Hub or on disk.

In: a name, a folder or a file. Out: images with random access, or, where streaming is asked for, a stream of
the shards, which is read from a given image on without decoding those before it.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any

from PIL import Image, ImageOps

from d3hr_datasets.errors import SourceError
from d3hr_datasets.io.extras import needs_extra
from d3hr_datasets.io.paths import expand_user
from d3hr_datasets.io.untrusted_files import is_file, is_folder
from d3hr_datasets.sources.image_files import MAX_IMAGE_BYTES, file_state, open_image
from d3hr_datasets.sources.records import ImageRecord, Images, IndexedImages, StreamedImages

FILES = {".parquet": "parquet", ".tar": "webdataset"}
LABEL_COLUMNS = ("label", "labels", "cls")  # where no column is one of classes


def open_dataset(
    name: str,
    split: str,
    streaming: bool = False,
    image_column: str | None = None,
    label_column: str | None = None,
) -> tuple[Images, tuple[str, ...] | None, dict[str, Any], bool]:
    """Open a data set.

    Args:
        name: "ORG/NAME" or "ORG/NAME@REVISION" on the Hub, a folder, or a Parquet or tar file.
        split: Its split.
        streaming: Read it as a stream of shards; nothing is stored.
        image_column: Its column of images, if there is more than one.
        label_column: Its column of labels: of classes, integers or strings.

    Returns:
        Images, class names where labels are integers that have some or strings, a description, and whether
        the names are those that occur.

    Raises:
        MissingExtraError: `datasets` is not installed.
        SourceError: It cannot be opened, or its columns are not clear.
    """
    with needs_extra("build", "'datasets:' needs the library datasets"):
        import datasets
    path = expand_user(name)
    is_local = is_file(path) or is_folder(path)
    description = {"name": path.name if is_local else name, "split": split}
    data, features, commit = _load(name, path, split, streaming)
    if not features:
        raise SourceError(f"the data set {name!r} does not say which columns it has; store it as Parquet")
    image, label = _choose_columns(name, features, image_column, label_column)
    kind = features[label]
    try:
        data = data.select_columns([image, label]).cast_column(image, datasets.Image(decode=False))
    except Exception as error:  # whatever the library and its formats raise
        raise SourceError(f"the column {image!r} of {name!r} has no images: {error}") from error
    classes = tuple(kind.names) if isinstance(kind, datasets.ClassLabel) else None
    folder = (path if is_folder(path) else path.parent) if is_local else None
    decode = _Decoder(folder, name.partition("@")[0])
    if streaming:
        identity = f"{image} {label} {_state(path) if is_local else commit}"
        shards = _Shards(data, name, decode, image, label).images(split, identity)
        return shards, classes, description, is_folder(path)
    labels, occurring = list(data[label]), is_folder(path)  # which may have a folder for each class
    if "string" in _dtype(kind) and classes is None:
        classes, occurring = tuple(sorted(map(str, data.unique(label)))), True
        places = {text: place for place, text in enumerate(classes)}
        labels = [places[str(text)] for text in labels]
    read = partial(_read_row, data, decode, image, labels)
    identity = str(data._fingerprint)  # of the files and of all that was done to them
    return IndexedImages(len(labels), read, labels, identity=identity), classes, description, occurring


def _load(name: str, path: Path, split: str, streaming: bool) -> tuple[Any, Any, str]:
    """Return a data set of `datasets`, its columns, and the commit of one on the Hub that is streamed."""
    import datasets

    commit = ""
    try:
        if is_file(path):
            kind = FILES.get(path.suffix)
            if kind is None:
                raise SourceError(f"{path} is no data set; accepted: a folder or one of {list(FILES)}")
            data = datasets.load_dataset(kind, data_files=str(path), split=split, streaming=streaming)
        elif is_folder(path):
            data = datasets.load_dataset(str(path), split=split, streaming=streaming)
        else:
            repository, _, commit = name.partition("@")
            if streaming:
                commit = _commit(repository, commit)  # so that a build goes on with the same images
            data = datasets.load_dataset(
                repository, split=split, streaming=streaming, revision=commit or None
            )
        features = data.features
    except SourceError:
        raise
    except Exception as error:  # whatever the library and its formats raise
        raise SourceError(
            f"the data set {name!r:.300} cannot be opened, split {split!r}: {error!s:.1000}. Accepted: "
            "'ORG/NAME' or 'ORG/NAME@REVISION' on the Hub, a folder, or a Parquet or tar file"
        ) from error
    return data, features, commit


def _choose_columns(
    name: str, features: Any, image_column: str | None, label_column: str | None
) -> tuple[str, str]:
    """Return the columns of images and of labels: those that are wanted, or the only ones there are."""
    import datasets

    found = [key for key, kind in features.items() if isinstance(kind, datasets.Image)]
    image = _column(name, "image", image_column, features, found)
    of_classes = [key for key, kind in features.items() if isinstance(kind, datasets.ClassLabel)]
    usual = [key for key in LABEL_COLUMNS if key in features]
    label = _column(name, "label", label_column, features, of_classes or usual)
    kind, dtype = features[label], _dtype(features[label])
    if not isinstance(kind, datasets.ClassLabel) and not dtype.startswith(
        ("int", "uint", "string", "large_s")
    ):
        raise SourceError(f"column {label!r} of {name!r} is {dtype}; accepted: classes, integers, strings")
    return image, label


def _commit(repository: str, revision: str) -> str:
    """Return the commit that a revision of a data set on the Hub is now."""
    from huggingface_hub import HfApi

    return str(HfApi().dataset_info(repository, revision=revision or None).sha)


def _state(path: Path) -> str:
    """Return what tells the files of a folder, or a file, from ones that replace them."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    states = [f"{file.relative_to(path)}\0{file_state(file)}" for file in files if file.is_file()]
    return hashlib.sha256("\n".join(states).encode(errors="surrogateescape")).hexdigest()


def _dtype(feature: Any) -> str:
    return str(getattr(feature, "dtype", feature))


def _column(name: str, what: str, wanted: str | None, features: Any, found: list[str]) -> str:
    if wanted is not None and wanted not in features:
        raise SourceError(f"the data set {name!r} has no column {wanted!r}; it has {sorted(features)}")
    if wanted is None and len(found) != 1:
        raise SourceError(
            f"the data set {name!r} has {len(found)} columns that may be the {what} ({found}); give "
            f"--{what}-column, one of {sorted(features)}"
        )
    return found[0] if wanted is None else wanted


class _Decoder:
    """Reads images as `datasets` does, of the formats that are meant, and from the data set alone.

    Args:
        folder: Folder of a data set on disk; None of one on the Hub.
        repository: "ORG/NAME" of the latter.
    """

    def __init__(self, folder: Path | None, repository: str) -> None:
        self._folder = folder
        self._repository = repository

    def __call__(self, value: Any) -> Image.Image:
        """Return the image of {"bytes", "path"}, turned as its EXIF data says."""
        data, path = value["bytes"], value["path"]
        image = open_image(self._find(str(path)) if data is None else io.BytesIO(data))
        return ImageOps.exif_transpose(image)

    def _find(self, path: str) -> Path | IO[bytes]:
        """Return the file, or the content, that a row names: a row may name any file of this machine."""
        from datasets import config
        from datasets.utils.file_utils import is_local_path, xopen
        from huggingface_hub import constants

        if is_local_path(path):
            found = Path(path).resolve()
            places = [self._folder, config.HF_DATASETS_CACHE, constants.HF_HUB_CACHE]
            if any(place is not None and found.is_relative_to(Path(place).resolve()) for place in places):
                return found
        elif self._folder is None and f"hf://datasets/{self._repository}" in path:
            with xopen(path, "rb") as file:
                return io.BytesIO(file.read(MAX_IMAGE_BYTES))
        raise SourceError(
            f"a row of the data set names {path!r}, which is no part of it; store the images in it"
        )


def _read_row(
    data: Any, decode: _Decoder, image: str, labels: Sequence[int], number: int
) -> tuple[Image.Image, int]:
    return decode(data[number][image]), labels[number]


class _Shards:
    """The shards of a streamed data set."""

    def __init__(self, data: Any, name: str, decode: _Decoder, image: str, label: str) -> None:
        self._data = data
        self._name = name
        self._decode = decode
        self._image = image
        self._label = label
        self._num_shards = int(data.num_shards)

    def images(self, split: str, identity: str) -> StreamedImages:
        """Return the images of the split, which was streamed; `identity` tells them from others."""
        splits = self._data.info.splits or {}
        num_images = splits[split].num_examples if split in splits else None
        return StreamedImages(self._num_shards, num_images, self.records, identity)

    def records(self, shard: int, start: int) -> Iterator[ImageRecord]:
        """Yield the images of a shard from number `start` on."""
        number = start
        try:
            for row in self._data.shard(self._num_shards, shard).skip(start):
                name = f"shard {shard}, image {number}"
                yield ImageRecord(name, name, partial(self._read, row))
                number += 1
        except Exception as error:  # whatever the library and its formats raise; no image is read here
            raise SourceError(
                f"shard {shard} of {self._name!r} cannot be read from image {number} on: {error}. Check the "
                "connection or the file and run the build again; finished chunks are kept"
            ) from error

    def _read(self, row: dict[str, Any]) -> tuple[Any, Any]:
        return self._decode(row[self._image]), row[self._label]
