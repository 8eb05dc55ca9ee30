"""The data set: an artifact -> images and labels, made on first use and cached on disk.

In: an artifact. Out: a torchvision data set of (PIL image, int).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import torch
from PIL import Image
from torchvision.datasets import DatasetFolder, VisionDataset

from d3hr_datasets.artifact.artifact import Artifact
from d3hr_datasets.dataset.export import to_hf_dataset
from d3hr_datasets.dataset.fresh_groups import FreshGroups
from d3hr_datasets.dataset.images_to_hub import publish_images
from d3hr_datasets.dataset.options import SetOptions, check_options
from d3hr_datasets.dataset.tensor_images import transform_batch

if TYPE_CHECKING:
    import datasets

    from d3hr_datasets.io.hub import Published


class D3HRDataset(FreshGroups, DatasetFolder):
    """A distilled data set: `ipc` images for each class of an artifact.

    Images are made class by class when one is first asked for (a group of latents is sampled, denoised
    and decoded together), and read from the cache from then on. A `DatasetFolder`, so that
    `wrap_dataset_for_transforms_v2` takes it: `samples` are the files of `image_folder`.

    The same seed gives the same images, in any process and order, under any settings of the caller (autocast,
    default dtype and device, gradient mode). Sampled latents are equal to the bit for any number of threads,
    processes and workers on one version of PyTorch and one instruction set of the CPU, elsewhere to 1e-5 (see
    the package `sampling`). Float32 pixels are equal to one grey level: rounding in the model depends on
    threads, device and the shape of a batch. Another `torch_dtype` gives another set, whose folder's name
    says so.

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
        sampling: How groups are sampled; by default what the artifact's budgets say of so many images, else
            over the modes where it stores them, else moment-matched. The name of a method takes the settings
            that the artifact has for it, if any. Its own seed is replaced by `seed`.
            "curated" takes the first images of an order that the artifact stores: `seed` is 0 then, and `ipc`
            at most as many as there are. A budget that says "curated" does not hold for other seeds, nor with
            `resample="epoch"`.
        decode: How groups are denoised; by default what the artifact's budgets say of so many images, else
            its `decode`; of "curated" that which the images were chosen under.
        device: Where to generate; CUDA if there is one (that of `LOCAL_RANK`), else Apple's MPS (which was
            never run by this project), else the CPU.
        torch_dtype: Precision of the diffusion model. Of float32, products are float32, whatever TF32 or
            bfloat16 the caller allows.
        nested: Have the first k images of each class be those of the set with `ipc` = k, so that a set can
            grow: what is cached of another size is copied. Sets that are made apart agree to one grey level.
            The price: moments are matched by tens, no longer over the whole group. The artifact's budgets do
            not hold, whatever the size.
        in_memory: Keep images decoded once they were read. Every process keeps its own: with workers, use
            `persistent_workers=True`. "tensor" keeps all of them as one uint8 tensor, read when the first is
            asked for: items are tensors (C, H, W), and `transform` takes a batch, uint8 (B, C, H, W), and
            returns a tensor (B, ...). What it draws at random it draws once for a batch.
        cpu_offload: Have the parts of the diffusion model take turns on the GPU, and wait in the host's
            memory: slower, for a GPU that is too small for all of them. The images are the same.
        resample: "epoch" to have another group of each class in every epoch, by `set_epoch`; "never" to have
            the same images for ever.
        keep_epochs: Of `resample="epoch"`, how many epochs' images may lie on disk, at least 1, beside those
            of epoch 0. 2 are those in use and the next ones, which are generated meanwhile; with 1 nothing is
            generated ahead; more also keep the last ones. One more lies there while `set_epoch` makes it.

    Attributes:
        classes: Class names, by label.
        class_to_idx: Label of each class name.
        wnids: WordNet IDs, by label; empty if the artifact has none.
        wnid_to_idx: Label of each WordNet ID.
        class_labels: The model's class label of each label, (K,) int64.
        targets: Label of every image; `dataset[i]` gives what stands here.
        weights: Share of its class's real images that each image stands for, (N,) float32 in the order of
            `targets`, with mean 1 over each class: images of a mode share the real images of the mode, by the
            methods "modes" and "curated". Ones by others, and where no modes are stored. Needs no model and
            generates nothing.
        artifact: The artifact.
        epoch: The epoch whose images are given, 0 at first; see `set_epoch`.

    Raises:
        ConfigError: `ipc` or `seed` is not accepted, a class is unknown, or `decode` does not fit.
        ArtifactNotFoundError: There is no artifact at `artifact`.
        ArtifactFormatError: The artifact cannot be read by this version.

    Example:
        >>> dataset = D3HRFashionMNIST(ipc=10)
        >>> image, label = dataset[0]
    """

    def __init__(
        self,
        artifact: str | Path | Artifact,
        root: str | Path | None = None,
        ipc: int = 10,
        seed: int = 0,
        transform: Callable[[Image.Image], Any] | None = None,
        target_transform: Callable[[int], Any] | None = None,
        **options: Unpack[SetOptions],
    ) -> None:
        check_options(type(self), options)
        FreshGroups.__init__(self, artifact, root, ipc, seed, **options)
        self.class_to_idx = {name: label for label, name in enumerate(self.classes)}
        wnids = self.class_list.wnids
        self.wnids = [wnids[label] for label in self.class_labels.tolist()] if wnids else []
        self.wnid_to_idx = {wnid: label for label, wnid in enumerate(self.wnids)}
        self.targets = [label for label in range(len(self.classes)) for _ in range(self.ipc)]
        self.extensions = (".png",)
        # Not DatasetFolder's, which looks for the images: they are not made yet.
        VisionDataset.__init__(
            self, str(self.cache.root), transform=transform, target_transform=target_transform
        )

    def __len__(self) -> int:
        self._own_epoch()  # before a loader starts its workers, which are to see this process's
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        """Return (image, label), transformed. Generates the image's class group if it is not cached.

        A negative index counts from the end: -1 is the last image.

        Raises:
            IndexError: `index` is below -len or at least len.
            TypeError: `index` is no integer.
            CacheMissError: The image is not cached, and this is a forked worker, which cannot use a GPU.
        """
        return self._items([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Any, Any]]:
        """Return the items of a batch, as PyTorch's loaders ask for them.

        With `in_memory="tensor"` the transform is applied to the batch as a whole, uint8 (B, C, H, W).

        Raises:
            IndexError: As `dataset[index]`, like all others.
            ConfigError: The transform does not return a tensor (B, ...), with `in_memory="tensor"`.
        """
        if type(self).__getitem__ is not D3HRDataset.__getitem__:  # a subclass, or torchvision's wrapper
            return [self[index] for index in indices]
        return self._items(indices)

    def _items(self, indices: Sequence[int]) -> list[tuple[Any, Any]]:
        size = len(self)
        places = [operator.index(index) for index in indices]
        for given in places:
            if not -size <= given < size:
                raise IndexError(
                    f"index {given} is out of range; the data set has {size} images, 0 to {size - 1}, or "
                    f"{-size} to -1 from the end"
                )
        places = [place % size for place in places]
        images: Iterable[Any]
        if self.in_memory == "tensor":
            chosen = self._all_images().index_select(0, torch.tensor(places, device="cpu"))
            images = transform_batch(chosen, self.transform).unbind()
        else:
            images = self._images_at(places)
            if self.transform is not None:
                images = map(self.transform, images)
        targets: Iterable[Any] = self._labels(places)
        if self.target_transform is not None:
            targets = map(self.target_transform, targets)
        return list(zip(images, targets, strict=True))

    def _labels(self, places: list[int]) -> list[int]:
        targets: Any = self.targets
        if isinstance(targets, torch.Tensor) and len(places) > 1:  # element by element it is much slower
            targets, places = targets[torch.tensor(places, device="cpu")].tolist(), list(range(len(places)))
        return [int(targets[place]) for place in places]

    def extra_repr(self) -> str:
        """Return the lines that `repr` adds to VisionDataset's."""
        time = "Sigma" if self.decode.grid == "flow" else "Timestep"
        return (
            f"Artifact: {self.artifact.info.name} ({self.artifact.fingerprint})\n"
            f"Images per class: {self.ipc}, seed {self.seed}, {self.sampling.method}\n"
            f"{time} {self.decode.timestep}, guidance {self.decode.guidance_scale:g}"
            + (", nested" if self.nested else "")
            + (f", resampled: epoch {self.epoch}" if self.resample == "epoch" else "")
        )

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

    def to_hf_dataset(self, *, progress: bool = True) -> datasets.Dataset:
        """Return the images as a `datasets.Dataset`; see `export.to_hf_dataset`."""
        return to_hf_dataset(self, progress=progress)

    def push_images_to_hub(self, repo_id: str, **options: Any) -> Published:
        """Publish the images as Parquet, for timm's `hfds/ORG/NAME`; see `images_to_hub.publish_images`."""
        return publish_images(self, repo_id, **options)
