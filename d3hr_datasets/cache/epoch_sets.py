"""The sets of epochs: groups that are drawn anew for an epoch, and go when nobody needs them any more.

In: the root of a cache. Out: those of its sets whose `set.json` says that they are of an epoch, and their
removal. A set that was asked for by its seed has no such mark, and is never removed here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from d3hr_datasets.cache.ownership import OwnSet, as_set, real_folders
from d3hr_datasets.cache.removal import Removal, remove, set_parts
from d3hr_datasets.errors import CacheError

MARK = "resampled"  # a key of what `set.json` says of a set: {"seed": of the data set, "epoch": from 1}

logger = logging.getLogger(__name__)


def epoch_of(settings: dict[str, Any]) -> int | None:
    """Return the epoch of a set, by what `set.json` says of how it was generated; None of all others."""
    said = settings.get(MARK)
    epoch = said.get("epoch") if isinstance(said, dict) else None
    return epoch if type(epoch) is int and epoch > 0 else None


def find_epoch_sets(root: Path) -> Iterator[tuple[OwnSet, int]]:
    """Yield the sets of epochs in a cache with their epochs, in the order of their names.

    Raises:
        CacheError: The cache cannot be read.
    """
    for folder in real_folders(root):
        if "-epoch" not in folder.name:
            continue
        found = as_set(folder)
        if found is not None and found.is_proven and found.settings is not None:
            epoch = epoch_of(found.settings["settings"])
            if epoch is not None:
                yield found, epoch


def removal_of(found: OwnSet) -> Removal:
    """Return the removal of a set of an epoch, which is done if nobody uses it then."""
    return Removal(found.folder, "epoch", tuple(set_parts(found)), found.folder.name)


def remove_epoch_sets(root: Path, name_of: Callable[[int], str], needed: Collection[int]) -> None:
    """Remove the sets of the other epochs of a data set, unless another process uses them.

    What cannot be removed stays, and a warning says so.

    Args:
        root: Folder of all sets.
        name_of: An epoch -> the name of its set. Sets of other names are somebody else's.
        needed: Epochs whose sets stay.
    """
    try:
        for found, epoch in find_epoch_sets(root):
            if epoch not in needed and found.folder.name == name_of(epoch):
                remove(root, removal_of(found))
    except (OSError, CacheError) as error:
        logger.warning("sets of earlier epochs stay in %s: %s", root, error)
