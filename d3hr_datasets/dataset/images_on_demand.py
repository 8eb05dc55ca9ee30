"""The images of a set, made class by class when they are first asked for, and read from the cache then.

In: an artifact and the settings of a set. Out: PIL images by index, and the folder of the cache that holds
them. Labels, transforms and what else torchvision expects are `D3HRDataset`'s.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from d3hr_datasets.artifact.artifact import Artifact
from d3hr_datasets.artifact.model import load_model
from d3hr_datasets.cache.files import default_root
from d3hr_datasets.classes.class_list import ClassList
from d3hr_datasets.config.checks import check_bool, check_int
from d3hr_datasets.config.defaults import BATCH_SIZE
from d3hr_datasets.config.settings import MAX_IPC, DecodeConfig, GroupSamplingConfig, GroupSamplingMethod
from d3hr_datasets.dataset.generated_set import GeneratedSet
from d3hr_datasets.dataset.generation_progress import GenerationProgress
from d3hr_datasets.dataset.generation_settings import resolve_settings
from d3hr_datasets.dataset.image_generator import ImageGenerator
from d3hr_datasets.dataset.options import InMemory, Resample, check_in_memory
from d3hr_datasets.dataset.tensor_images import stack_images
from d3hr_datasets.errors import CacheError
from d3hr_datasets.io.paths import expand_user
from d3hr_datasets.numerics.allocator import kept_memory
from d3hr_datasets.numerics.torch_settings import neutral
from d3hr_datasets.processes import check_may_generate, process_share, wait_for_other_processes

if TYPE_CHECKING:
    from d3hr_datasets.cache.image_cache import ImageCache
    from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion


class ImagesOnDemand:
    """The images of a set. Arguments and attributes are described at `D3HRDataset`."""

    resample: Resample = "never"  # `FreshGroups` sets another before it calls the constructor

    @neutral()
    def __init__(
        self,
        artifact: str | Path | Artifact,
        root: str | Path | None,
        ipc: int,
        seed: int,
        *,
        classes: Sequence[str | int] | None = None,
        sampling: GroupSamplingConfig | GroupSamplingMethod | None = None,
        decode: DecodeConfig | None = None,
        device: torch.device | str | None = None,
        torch_dtype: torch.dtype = torch.float32,
        nested: bool = False,
        in_memory: InMemory = False,
        cpu_offload: bool = False,
    ) -> None:
        self.ipc = check_int("ipc", ipc, 1, MAX_IPC)
        self.seed = check_int("seed", seed, 0)
        if not isinstance(artifact, Artifact):
            artifact = Artifact.from_pretrained(artifact)
        self.artifact = artifact
        self.sampling, self.decode = resolve_settings(
            artifact.info, self.ipc, nested, sampling, decode, seed, self.resample == "epoch"
        )
        class_list = self.class_list
        labels = class_list.labels(classes)
        self.class_labels = torch.tensor(labels)
        self.classes = [class_list.names[label] for label in labels]
        self.device = device
        self.torch_dtype = torch_dtype
        self.nested = nested
        self.in_memory = check_in_memory(in_memory)
        self.cpu_offload = check_bool("cpu_offload", cpu_offload)
        self._images: dict[int, Image.Image] = {}
        self._tensor: torch.Tensor | None = None
        self._model: LatentDiffusion | None = None
        generator = ImageGenerator(
            artifact, self.class_labels, self.ipc, self.sampling, self.decode, nested, torch_dtype
        )
        root = default_root() if root is None else expand_user(root)
        # Absolute: this process may change its folder, one that generates ahead keeps its own.
        self._set = GeneratedSet.of(generator, root.absolute())

    def _current(self) -> GeneratedSet:
        """Return the set whose images are given."""
        return self._set

    @property
    def _generator(self) -> ImageGenerator:
        return self._current().generator

    @property
    def cache(self) -> ImageCache:
        """The images of this set on disk."""
        return self._current().cache

    @property
    def class_list(self) -> ClassList:
        """Every class of the model by class label, also those that are not kept."""
        return self.artifact.info.class_list

    @property
    def epoch(self) -> int:
        """The epoch whose images are given; 0 where there are no others."""
        return self._generator.epoch

    @property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that name the pixels of this set."""
        return self._generator.fingerprint

    @property
    def image_folder(self) -> Path:
        """Folder of the images, as torchvision's `ImageFolder` reads it; complete after `materialize`."""
        return self.cache.folder

    def _images_at(self, indices: Iterable[int]) -> Iterator[Image.Image]:
        """Yield images of one epoch, with as little as can be done for those that are kept."""
        self._current()
        kept = self._images
        for index in indices:
            yield kept[index].copy() if index in kept else self._image(index)

    def _image(self, index: int) -> Image.Image:
        current = self._current()
        if index in self._images:
            return self._images[index].copy()
        image = self._read(current, index)
        if self.in_memory is True:
            self._images[index] = image.copy()
        return image

    def _read(self, current: GeneratedSet, index: int) -> Image.Image:
        label, position = divmod(index, self.ipc)
        image = current.cache.read(label, position)
        if image is None:
            self._make(current, [label], BATCH_SIZE)
            image = current.cache.read(label, position)
        if image is None:
            raise CacheError(
                f"{current.cache.path(label, position)} was removed or changed just after it was written"
            )
        return image

    def _all_images(self) -> torch.Tensor:
        """Return every image, (N, C, H, W) uint8, read when it is first asked for; missing ones are made."""
        current = self._current()
        if self._tensor is None:
            labels, read = range(len(self.classes)), current.cache.read
            if missing := [label for label in labels if read(label, 0) is None]:
                self._make(current, missing, BATCH_SIZE)
            self._tensor = stack_images(
                lambda index: read(*divmod(index, self.ipc)),
                lambda index: self._read(current, index),
                len(labels) * self.ipc,
            )
        return self._tensor

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_model": None, "_images": {}, "_tensor": None}

    @neutral()
    def materialize(
        self, batch_size: int | None = None, progress: bool = True, torch_compile: bool = False
    ) -> Path:
        """Generate every class that is not cached and undamaged; batches go across classes.

        Images are written while the model makes the next ones; on CUDA a batch is decoded while the next one
        is denoised. A run that was stopped goes on where it was.
        With `torch.distributed`, or RANK and WORLD_SIZE in the environment (`torchrun`, `accelerate launch`),
        each process generates its share of the classes; with the former, all return when all have finished.

        Rounding depends on the shape of a batch: images made so may differ by one grey level from those of
        classes that were made one by one.

        Args:
            batch_size: Images in the model at a time; halved where a GPU's memory is too small for so many.
                By default 64, and on CUDA as many more as fit into half of the free memory. Of at most 64
                classes, which are locked meanwhile (on CUDA those of two batches): so with few images per
                class a batch is smaller.
            progress: Say on stderr how many images are made, how many a second, and how long it takes.
            torch_compile: Compile the model first, which takes a minute and pays off for large sets; it
                stays compiled. On CUDA it is recorded as CUDA graphs, too, and the last batch is filled up to
                the size of the others. To one grey level, the images are the same.

        Returns:
            The folder of the images.

        Raises:
            ConfigError: `batch_size` is no positive integer, RANK and WORLD_SIZE are no numbers, there is no
                compiler, or not even one image fits into memory.
            CacheError: The cache cannot be written, or there are other images in the folders of the set.
        """
        if batch_size is not None:
            check_int("batch_size", batch_size, 1)
        return self._materialize(self._current(), batch_size, progress, torch_compile)

    def _share(self) -> range:
        """Return the labels that this process generates."""
        rank, size = process_share()
        return range(rank, len(self.classes), size)

    def _materialize(
        self, images: GeneratedSet, batch_size: int | None, progress: bool, torch_compile: bool = False
    ) -> Path:
        labels = images.missing(self._share())
        if torch_compile and labels:
            with torch.random.fork_rng(devices=[]):
                self.model().compile()
        if labels:
            with GenerationProgress(len(labels) * self.ipc, progress) as shown:
                self._make(images, labels, batch_size, shown)
        wait_for_other_processes()
        return images.cache.folder

    @neutral()
    def sample_latents(self, label: int) -> torch.Tensor:
        """Return the group of inverted latents of a label, (ipc, C, H, W) float32."""
        return self._generator.latents(label)

    @functools.cached_property
    @neutral()
    def weights(self) -> torch.Tensor:
        """Share of its class's real images that each image stands for, in the order of `targets`.

        (N,) float32, with mean 1 over each class. Images of a mode share the real images of the mode, by the
        methods "modes" and "curated"; by others, and where no modes are stored, all weights are 1. Reads
        statistics on first use, and generates nothing.
        """
        return self._generator.weights()

    @neutral()
    def model(self) -> LatentDiffusion:
        """Return the diffusion model, loaded on the first call.

        Raises:
            ModelNotFoundError: It is missing.
            ModelFormatError: It does not fit the artifact.
        """
        if self._model is None:
            labels = self.class_labels.tolist()  # prompts of other classes are not read
            how = self.device, self.torch_dtype, self.class_list, labels, self.cpu_offload
            self._model = load_model(self.artifact, *how)
        return self._model

    @neutral()
    def _make(
        self,
        images: GeneratedSet,
        labels: list[int],
        batch_size: int | None,
        progress: GenerationProgress | None = None,
    ) -> None:
        check_may_generate(self.device, f"class {self.classes[labels[0]]!r}")
        with kept_memory(), contextlib.closing(images.make(labels, batch_size, self.model, progress)) as made:
            for _ in made:
                pass
