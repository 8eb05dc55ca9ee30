"""The data set: an artifact -> images and labels, made on first use and cached on disk.

In: an artifact. Out: a torchvision data set of (PIL image, int).
"""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torchvision.datasets import DatasetFolder, VisionDataset
from tqdm import tqdm

from d3hr_datasets.artifact.artifact import Artifact
from d3hr_datasets.artifact.model import load_model
from d3hr_datasets.cache.files import default_root
from d3hr_datasets.cache.together import ensure_together
from d3hr_datasets.classes.class_list import ClassList
from d3hr_datasets.config.checks import check_int
from d3hr_datasets.config.settings import DecodeConfig, GroupSamplingConfig
from d3hr_datasets.dataset.generated_set import GeneratedSet
from d3hr_datasets.errors import CacheError
from d3hr_datasets.io.paths import expand_user
from d3hr_datasets.numerics.ambient import neutral
from d3hr_datasets.processes import check_may_generate, process_share, wait_for_other_processes
from d3hr_datasets.sampling.drawing import resolve_settings

if TYPE_CHECKING:
    import datasets

    from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
    from d3hr_datasets.io.hub import Published

MAX_IPC = 100_000  # images per class; the names of their files have five digits
CHUNK = 64  # images in the model at a time


class D3HRDataset(DatasetFolder):
    """A distilled data set: `ipc` images for each class of an artifact.

    Images are made class by class when one is first asked for (a group of latents is sampled, denoised
    and decoded together), and read from the cache from then on. A `DatasetFolder`, so that
    `wrap_dataset_for_transforms_v2` takes it: `samples` are the files of `image_folder`.

    The same seed gives the same images, in any process and order, under any settings of the caller (autocast,
    default dtype and device, gradient mode). Sampled latents are equal to the bit for any number of threads,
    processes and workers on one version of PyTorch and one instruction set of the CPU, elsewhere to 1e-5 (see
    `group_sampling`). Float32 pixels are equal to one grey level: rounding in the model depends on threads,
    device and the shape of a batch. Another `torch_dtype` gives another set, whose folder's name says so.

    Source: D3HR (arXiv 2505.18399).

    Args:
        artifact: Folder of an artifact, "ORG/NAME" or "ORG/NAME@REVISION" on the Hub, or an `Artifact`.
        root: Folder of the cache; by default the Hugging Face assets cache.
        ipc: Images per class, at least 1. Any number: the artifact does not fix it.
        seed: Seed of the latents. What the same seed promises is said above.
        transform: Applied to the PIL image when an item is read.
        target_transform: Applied to the int label when an item is read.
        classes: Classes to keep, by name, WordNet ID or class label of the model; all by default. Labels
            are 0..len(classes)-1 in this order.
        sampling: How groups are sampled: over the modes where the artifact stores them, else moment-matched.
            Its own seed is replaced by `seed`.
        decode: How groups are denoised, the artifact's default otherwise.
        device: Where to generate; CUDA if there is one (that of `LOCAL_RANK`), else the CPU.
        torch_dtype: Precision of the diffusion model. Of float32, products are float32, whatever TF32 or
            bfloat16 the caller allows.
        nested: Have the first k images of each class be those of the set with `ipc` = k, so that a set can
            grow: what is cached of another size is copied. The price: moments are matched by tens, no
            longer over the whole group, and `materialize` cannot batch across classes.
        in_memory: Keep images decoded once they were read. Every process keeps its own: with workers, use
            `persistent_workers=True`.

    Attributes:
        classes: Class names, by label.
        class_to_idx: Label of each class name.
        wnids: WordNet IDs, by label; empty if the artifact has none.
        wnid_to_idx: Label of each WordNet ID.
        class_labels: The model's class label of each label, (K,) int64.
        targets: Label of every image; `dataset[i]` gives what stands here.
        artifact: The artifact.

    Raises:
        ConfigError: `ipc` or `seed` is not accepted, a class is unknown, or `decode` does not fit.
        ArtifactNotFoundError: There is no artifact at `artifact`.
        ArtifactFormatError: The artifact cannot be read by this version.

    Example:
        >>> dataset = D3HRFashionMNIST(ipc=10)
        >>> image, label = dataset[0]
    """

    @neutral()
    def __init__(
        self,
        artifact: str | Path | Artifact,
        root: str | Path | None = None,
        ipc: int = 10,
        seed: int = 0,
        transform: Callable[[Image.Image], Any] | None = None,
        target_transform: Callable[[int], Any] | None = None,
        *,
        classes: Sequence[str | int] | None = None,
        sampling: GroupSamplingConfig | None = None,
        decode: DecodeConfig | None = None,
        device: torch.device | str | None = None,
        torch_dtype: torch.dtype = torch.float32,
        nested: bool = False,
        in_memory: bool = False,
    ) -> None:
        self.ipc = check_int("ipc", ipc, 1, MAX_IPC)
        self.seed = check_int("seed", seed, 0)
        if not isinstance(artifact, Artifact):
            artifact = Artifact.from_pretrained(artifact)
        self.artifact = artifact
        info = self.artifact.info
        self.sampling, self.decode = resolve_settings(info, sampling, decode, seed)
        class_list = self.class_list
        labels = class_list.labels(classes)
        self.class_labels = torch.tensor(labels)
        self.classes = [class_list.names[label] for label in labels]
        self.class_to_idx = {name: label for label, name in enumerate(self.classes)}
        self.wnids = [class_list.wnids[label] for label in labels] if class_list.wnids else []
        self.wnid_to_idx = {wnid: label for label, wnid in enumerate(self.wnids)}
        self.targets = [label for label in range(len(self.classes)) for _ in range(self.ipc)]
        self.device = device
        self.torch_dtype = torch_dtype
        self.nested = nested
        self.in_memory = in_memory
        self._images: dict[int, Image.Image] = {}
        self._model: LatentDiffusion | None = None
        folder = expand_user(root) if root is not None else default_root()
        self._set = GeneratedSet(
            artifact, self.class_labels, self.ipc, self.sampling, self.decode, nested, torch_dtype
        )
        self.cache = self._set.cache(folder)
        self.extensions = (".png",)
        # Not DatasetFolder's, which looks for the images: they are not made yet.
        VisionDataset.__init__(self, str(folder), transform=transform, target_transform=target_transform)

    @property
    def class_list(self) -> ClassList:
        """Every class of the model by class label, also those that are not kept."""
        return self.artifact.info.class_list

    @property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that name the pixels of this set."""
        return self._set.fingerprint

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        """Return (image, label), transformed. Generates the image's class group if it is not cached.

        A negative index counts from the end: -1 is the last image.

        Raises:
            IndexError: `index` is below -len or at least len.
            TypeError: `index` is no integer.
            CacheMissError: The image is not cached, and this is a forked worker without CUDA.
        """
        given, size = operator.index(index), len(self)
        if not -size <= given < size:
            raise IndexError(
                f"index {given} is out of range; the data set has {size} images, 0 to {size - 1}, or "
                f"{-size} to -1 from the end"
            )
        index = given % size
        image: Any = self._image(index)
        target: Any = int(self.targets[index])
        if self.transform is not None:
            image = self.transform(image)
        if self.target_transform is not None:
            target = self.target_transform(target)
        return image, target

    def _image(self, index: int) -> Image.Image:
        if index in self._images:
            return self._images[index].copy()
        label, position = divmod(index, self.ipc)
        image = self.cache.read(label, position)
        if image is None:
            self._make([label], CHUNK)
            image = self.cache.read(label, position)
        if image is None:
            raise CacheError(
                f"{self.cache.path(label, position)} was removed or changed just after it was written"
            )
        if self.in_memory:
            self._images[index] = image.copy()
        return image

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_model": None, "_images": {}}

    def extra_repr(self) -> str:
        """Return the lines that `repr` adds to VisionDataset's."""
        return (
            f"Artifact: {self.artifact.info.name} ({self.artifact.fingerprint})\n"
            f"Images per class: {self.ipc}, seed {self.seed}, {self.sampling.method}\n"
            f"Timestep {self.decode.timestep}, guidance {self.decode.guidance_scale:g}"
            + (", nested" if self.nested else "")
        )

    @property
    def image_folder(self) -> Path:
        """Folder of the images, as torchvision's `ImageFolder` reads it; complete after `materialize`."""
        return self.cache.folder

    @property
    def samples(self) -> list[tuple[str, int]]:  # type: ignore[override]  # a plain attribute there
        """(path, label) of every image, as in `DatasetFolder`; a file exists once its class is generated."""
        return [
            (str(self.cache.path(label, index)), label)
            for label in range(len(self.classes))
            for index in range(self.ipc)
        ]

    @staticmethod
    def loader(path: str) -> Image.Image:
        """Read one of `samples`, unchecked."""
        with Image.open(path, formats=("PNG",)) as image:
            image.load()
            return image

    @neutral()
    def materialize(
        self, batch_size: int = CHUNK, progress: bool = True, torch_compile: bool = False
    ) -> Path:
        """Generate every class that is not cached and undamaged, several classes at a time.

        A run that was stopped goes on where it was. With `torch.distributed`, or RANK and WORLD_SIZE in the
        environment (`torchrun`, `accelerate launch`), each process generates its share of the classes; with
        the former, all return when all have finished.

        Rounding depends on the shape of a batch: classes generated together may differ by one grey level
        from those generated one by one. Whole groups of more than half of `batch_size` are never joined.

        Args:
            batch_size: Images in the model at a time.
            progress: Show a progress bar on stderr.
            torch_compile: Compile the model first, which takes a minute and pays off for large sets; it
                stays compiled. To one grey level, the images are the same.

        Returns:
            The folder of the images.

        Raises:
            ConfigError: `batch_size` is no positive integer, RANK and WORLD_SIZE are no numbers, or there is
                no compiler.
            CacheError: The cache cannot be written, or there are other images in the folders of the set.
        """
        check_int("batch_size", batch_size, 1)
        rank, size = process_share()
        share = range(rank, len(self.classes), size)
        self.cache.check(share)
        labels = [label for label in share if not self.cache.is_complete(label)]
        step = 1 if self.nested else max(1, min(batch_size // self.ipc, CHUNK))  # each class holds a lock
        if torch_compile and labels:
            with torch.random.fork_rng(devices=[]):
                self.model().compile()
        # Even a bar that shows nothing takes a lock that a killed sibling may hold for ever.
        bar = tqdm(total=len(labels), desc="generating", unit="class") if progress and labels else None
        with bar or contextlib.nullcontext():
            for start in range(0, len(labels), step):
                self._make(labels[start : start + step], batch_size)
                if bar is not None:
                    bar.update(len(labels[start : start + step]))
        wait_for_other_processes()
        return self.image_folder

    def to_hf_dataset(self, *, progress: bool = True) -> datasets.Dataset:
        """Return the images as a `datasets.Dataset`; see `export.to_hf_dataset`."""
        from d3hr_datasets.dataset.export import to_hf_dataset

        return to_hf_dataset(self, progress=progress)

    def push_images_to_hub(self, repo_id: str, **options: Any) -> Published:
        """Publish the images as Parquet, for timm's `hfds/ORG/NAME`; see `publish.publish_images`."""
        from d3hr_datasets.dataset.hub_images import publish_images

        return publish_images(self, repo_id, **options)

    @neutral()
    def sample_latents(self, label: int) -> torch.Tensor:
        """Return the group of inverted latents of a label, (ipc, C, H, W) float32."""
        return self._set.latents(label)[: self.ipc]

    @neutral()
    def model(self) -> LatentDiffusion:
        """Return the diffusion model, loaded on the first call.

        Raises:
            ModelNotFoundError: It is missing.
            ModelFormatError: It does not fit the artifact.
        """
        if self._model is None:
            self._model = load_model(self.artifact, self.device, self.torch_dtype, self.class_list)
        return self._model

    @neutral()
    def _make(self, labels: list[int], batch_size: int) -> None:
        check_may_generate(self.device, f"class {self.classes[labels[0]]!r}")
        ensure_together(self.cache, labels, lambda missing: self._generate(missing, batch_size))

    def _generate(self, labels: list[int], batch_size: int) -> dict[int, list[Image.Image]]:
        with torch.random.fork_rng(devices=[]):  # loading a model must not move the user's generator
            model = self.model()  # says what does not fit before the statistics do
            return self._set.generate(model, labels, batch_size, self.cache.root)
