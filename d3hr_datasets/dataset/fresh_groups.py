"""Other images in every epoch: an artifact gives any number of groups, each epoch gets one of its own.

In: an epoch. Out: its images, made by seed and epoch alone, and those of the next one in the making. Of the
sets that are made for epochs, those that nobody needs are removed from the cache.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import torch
from torch.utils.data import get_worker_info

from d3hr_datasets.artifact.artifact import Artifact
from d3hr_datasets.cache.epoch_sets import remove_epoch_sets
from d3hr_datasets.cache.uses import SetUse
from d3hr_datasets.config.checks import check_choice, check_int
from d3hr_datasets.config.defaults import BATCH_SIZE
from d3hr_datasets.dataset.background import Background
from d3hr_datasets.dataset.background_process import Job
from d3hr_datasets.dataset.images_on_demand import ImagesOnDemand
from d3hr_datasets.dataset.options import Resample
from d3hr_datasets.errors import ConfigError
from d3hr_datasets.numerics.torch_settings import neutral
from d3hr_datasets.processes import generation_device, wait_for_other_processes

if TYPE_CHECKING:
    from d3hr_datasets.dataset.generated_set import GeneratedSet
    from d3hr_datasets.dataset.options import ImageOptions

MAX_EPOCH = 10**9


class FreshGroups(ImagesOnDemand):
    """Images of which there is another group in each epoch. Arguments are described at `D3HRDataset`."""

    def __init__(
        self,
        artifact: str | Path | Artifact,
        root: str | Path | None,
        ipc: int,
        seed: int,
        *,
        resample: Resample = "never",
        keep_epochs: int = 2,
        **options: Unpack[ImageOptions],
    ) -> None:
        check_choice("resample", resample, Resample)
        self.resample = resample  # decides which settings hold
        self.keep_epochs = check_int("keep_epochs", keep_epochs, 1)
        super().__init__(artifact, root, ipc, seed, **options)
        if resample == "epoch" and self.sampling.method == "curated":
            raise ConfigError(
                "resample='epoch' draws another group in every epoch, and of curated images there is one; "
                "leave it out, or give another method of sampling"
            )
        # In shared memory, so that workers of a loader see what this process sets.
        self._epoch = _shared(0) if resample == "epoch" else None
        self._process = os.getpid()
        self._uses: dict[int, SetUse] = {}
        self._background = Background()
        self._done: tuple[int, bool] | None = None  # what `set_epoch` has done last

    @property
    def epoch(self) -> int:
        """The epoch whose images are given; 0 with `resample="never"`."""
        return 0 if self._epoch is None else int(self._epoch)

    @neutral()
    def set_epoch(self, epoch: int, *, prepare_next: bool = True) -> None:
        """Give the images of another epoch, and begin to generate those of the next.

        With `resample="epoch"` all images of the epoch are on disk when this returns: waited for, or made now
        if they were not prepared. Call it before the loader is iterated; its workers follow, also persistent
        ones. Epoch 0 has the images of the plain set, and its cache. Under `torch.distributed` all processes
        call it, and wait for each other; where a launcher started them, call it after
        `init_process_group`, since before that they cannot wait. With `resample="never"` nothing happens, so
        that loops may call it of any data set.

        The next images are made by another process, on the same device, with a model of its own. `close` ends
        it, as does the end of this process. Images of epochs that are not needed are removed from the cache,
        unless another process uses them; those of epoch 0 stay. While this runs, those of the epoch before
        lie there, too, until the new ones are whole. `close` removes the last ones.

        Args:
            epoch: From 0, in any order. The same epoch has the same images in every process.
            prepare_next: Whether those of the next epoch are generated meanwhile; False where none follows.

        Raises:
            ConfigError: `epoch` is not accepted, or this is a worker of a loader.
            BackgroundError: The images could not be generated in the background, with what went wrong there.
            CacheError: The cache cannot be written.
        """
        check_int("epoch", epoch, 0, MAX_EPOCH)
        if self._epoch is None:
            return
        if get_worker_info() is not None:
            raise ConfigError(
                f"set_epoch({epoch}) was called in a worker of a DataLoader; call it in the process that "
                "iterates the loader, whose workers follow"
            )
        self._own_epoch()
        ahead = prepare_next and self.keep_epochs > 1
        if (epoch, ahead) == self._done:  # Accelerate's loaders call this once more
            return
        self._done = None
        chosen = self._set.at(epoch)
        self._use(chosen)
        if self._background.finish(epoch):
            wait_for_other_processes()
        else:
            self._materialize(chosen, BATCH_SIZE, progress=False)
        self._epoch.fill_(epoch)
        self._forget({epoch, epoch + 1} if ahead else {epoch})
        if ahead:
            self._prepare(self._set.at(epoch + 1))
        else:
            self._background.close()
        self._done = epoch, ahead

    def close(self) -> None:
        """End the process that generates ahead, and remove the images of epochs, for when no epoch follows.

        Images that another process or data set uses stay, and so do those of epoch 0. This data set can still
        be used: it makes again what it misses.
        """
        if os.getpid() != self._process:
            return
        self._background.close()
        for use in self._uses.values():
            use.end()
        self._uses, self._done = {}, None
        if self._epoch is not None:
            self._remove_epochs(set())

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_uses": {}, "_background": None, "_done": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._background = Background()
        # A worker that was spawned keeps the epoch that its parent sets; every other copy gets its own.
        if self._epoch is not None and (os.getpid() == self._process or not self._epoch.is_shared()):
            self._epoch, self._process = _shared(int(self._epoch)), os.getpid()

    def _own_epoch(self) -> None:
        """Have an epoch that no other process sets, also in a fork or a process that was given this set."""
        if self._epoch is not None and os.getpid() != self._process and get_worker_info() is None:
            self._epoch, self._process = _shared(int(self._epoch)), os.getpid()
            self._uses, self._background, self._done = {}, Background(), None

    def _current(self) -> GeneratedSet:
        if self._epoch is not None and (epoch := int(self._epoch)) != self._set.generator.epoch:
            self._set, self._images, self._tensor = self._set.at(epoch), {}, None
        return self._set

    def _use(self, images: GeneratedSet) -> None:
        """Have the images of an epoch stay, whatever other processes remove."""
        epoch = images.generator.epoch
        if epoch and epoch not in self._uses:
            self._uses[epoch] = SetUse(images.cache.root, images.cache.folder.name)

    def _forget(self, used: set[int]) -> None:
        """Remove the images of all epochs but those in use, and the last ones as far as they are kept."""
        for epoch in self._uses.keys() - used:
            self._uses.pop(epoch).end()
        newest = max(used)
        needed = used | set(range(newest - self.keep_epochs + 1, newest))
        self._remove_epochs(needed)

    def _remove_epochs(self, needed: set[int]) -> None:
        """Remove the images of all epochs but those that are needed."""
        remove_epoch_sets(self.cache.root, lambda epoch: self._set.at(epoch).cache.folder.name, needed)

    def _prepare(self, images: GeneratedSet) -> None:
        share = self._share()
        self._use(images)
        if not self._background.runs and not images.missing(share):
            return
        device = generation_device(self.device)
        if device.type == "cuda" and device.index is None and torch.cuda.is_initialized():
            device = torch.device("cuda", torch.cuda.current_device())
        how = str(device), torch.get_num_threads(), BATCH_SIZE, self.cpu_offload
        job = Job(images, tuple(share), self.class_list, *how)
        self._background.ask(job, images.generator.epoch)


@neutral()
def _shared(epoch: int) -> torch.Tensor:
    number = torch.tensor(epoch)
    number.share_memory_()
    return number
