"""The options of data sets that are given by name, written once for all classes that take them.

What each of them means is said at `D3HRDataset` and, for those of named sets, at `NamedDataset`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict

from d3hr_datasets.classes.class_list import packaged_subset
from d3hr_datasets.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from d3hr_datasets.artifact.artifact import Artifact
    from d3hr_datasets.config.settings import DecodeConfig, GroupSamplingConfig, GroupSamplingMethod

SHARD_SIZE = 10_000  # images in a shard of WebDataset


Resample = Literal["never", "epoch"]
InMemory = bool | Literal["tensor"]


class ImageOptions(TypedDict, total=False):
    """What decides the images of every data set, and where they are made."""

    classes: Sequence[str | int] | None
    sampling: GroupSamplingConfig | GroupSamplingMethod | None
    decode: DecodeConfig | None
    device: torch.device | str | None
    torch_dtype: torch.dtype
    nested: bool
    in_memory: InMemory
    cpu_offload: bool


class SetOptions(ImageOptions, total=False):
    """What every data set takes by name: `D3HRDataset(artifact, root, ipc, seed, **options)`."""

    resample: Resample
    keep_epochs: int


class NamedSetOptions(SetOptions, total=False):
    """What a named data set takes by name: those of every one, and which artifact and classes are meant."""

    artifact: str | Path | Artifact | None
    subset: str | None


def check_options(kind: type, options: Mapping[str, object]) -> None:
    """Raise `TypeError` where a data set is given an option by a name that is none of `SetOptions`."""
    for name in options:
        if name not in SetOptions.__optional_keys__:
            raise TypeError(f"{kind.__name__} got an unexpected keyword argument {name!r}")


def check_in_memory(value: InMemory) -> InMemory:
    """Return `value` if it is one of `InMemory`; raise `ConfigError` if not."""
    if value is not True and value is not False and value != "tensor":
        raise ConfigError(f"in_memory must be False, True or 'tensor', not {value!r:.80}")
    return value


def chosen_classes(
    name: str, classes: Sequence[str | int] | None, subset: str | None
) -> Sequence[str | int] | None:
    """Return the classes that are kept of a named data set, by `classes` or as its subset; None is all.

    Raises:
        ConfigError: Both are given, or there is no such subset.
    """
    if subset is None:
        return classes
    if classes is not None:
        raise ConfigError(f"give classes or subset, not both: {list(classes)[:5]}, {subset!r}")
    return packaged_subset(name, subset)
