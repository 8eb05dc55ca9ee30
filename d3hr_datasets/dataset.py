"""The data sets: an artifact -> images and labels, made on first use and cached on disk.

In: a folder with an artifact. Out: a torchvision data set of (PIL image, int).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torchvision.datasets import VisionDataset
from tqdm import tqdm

from d3hr_datasets.artifact import Artifact
from d3hr_datasets.cache import ImageCache
from d3hr_datasets.config import DecodeConfig, GroupSamplingConfig, check_int, check_on_grid
from d3hr_datasets.errors import CacheError, ConfigError, ModelFormatError
from d3hr_datasets.group_sampling import sample_group
from d3hr_datasets.mode_sampling import sample_modes
from d3hr_datasets.registry import embedded_artifact

if TYPE_CHECKING:
    from d3hr_datasets.diffusion import LatentDiffusion

# Raised when the same settings give other pixels than before, so that old caches are not read.
PIXELS_VERSION = 2


class D3HRDataset(VisionDataset):  # type: ignore[type-arg]  # generic from torchvision 0.28 on
    """A distilled data set: `ipc` images for each class of an artifact.

    Images are made class by class when one is first asked for (a group of latents is sampled, denoised
    and decoded together), and read from the cache from then on.

    Source: D3HR (arXiv 2505.18399).

    Args:
        artifact: Folder of an artifact.
        root: Folder of the cache; by default the Hugging Face assets cache.
        ipc: Images per class, at least 1. Any number: the artifact does not fix it.
        seed: Seed of the latents. The same seed gives the same images, in any process and order.
        transform: Applied to the PIL image when an item is read.
        target_transform: Applied to the int label when an item is read.
        classes: Class names to keep, all by default; labels are 0..len(classes)-1 in this order.
        sampling: How groups are sampled: over the modes where the artifact stores them, else moment-matched.
            Its own seed is replaced by `seed`.
        decode: How groups are denoised, the artifact's default otherwise.
        device: Where to generate; CUDA if there is one, else the CPU.
        torch_dtype: Precision of the diffusion model.

    Attributes:
        classes: Class names, by label.
        class_to_idx: Label of each class name.
        class_labels: The model's class label of each label, (K,) int64.
        targets: Label of every image.
        artifact: The artifact.

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
        artifact: str | Path,
        root: str | Path | None = None,
        ipc: int = 10,
        seed: int = 0,
        transform: Callable[[Image.Image], Any] | None = None,
        target_transform: Callable[[int], Any] | None = None,
        *,
        classes: Sequence[str] | None = None,
        sampling: GroupSamplingConfig | None = None,
        decode: DecodeConfig | None = None,
        device: torch.device | str | None = None,
        torch_dtype: torch.dtype = torch.float32,
    ) -> None:
        self.ipc = check_int("ipc", ipc, 1)
        self.seed = check_int("seed", seed, 0)
        self.artifact = Artifact.load(artifact)
        info = self.artifact.info
        self.decode = decode or info.decode
        check_on_grid(
            self.decode.timestep, self.decode.num_inference_steps, info.inversion.num_train_timesteps
        )
        if self.decode.timestep not in info.inversion.timesteps:
            raise ConfigError(
                f"timestep {self.decode.timestep} is not stored; stored: {list(info.inversion.timesteps)}"
            )
        default = GroupSamplingConfig("modes" if info.num_modes > 1 else "moment_matched")
        self.sampling = dataclasses.replace(sampling or default, seed=seed)
        if self.sampling.method == "modes" and info.num_modes == 1:
            raise ConfigError(
                f"the artifact {info.name} stores no modes; use the method 'moment_matched' or 'search'"
            )
        self.classes = _check_classes(classes, info.classes)
        self.class_to_idx = {name: label for label, name in enumerate(self.classes)}
        self.class_labels = torch.tensor([info.classes.index(name) for name in self.classes])
        self.targets = [label for label in range(len(self.classes)) for _ in range(self.ipc)]
        self.device = device
        self.torch_dtype = torch_dtype
        self._model: LatentDiffusion | None = None
        folder = Path(root).expanduser() if root is not None else _default_root()
        name = f"{info.name}-ipc{ipc}-seed{seed}-{self.fingerprint}"
        self.cache = ImageCache(folder, name, self.classes, ipc)
        super().__init__(str(folder), transform=transform, target_transform=target_transform)

    @property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that name the pixels of this set."""
        parts = [
            PIXELS_VERSION,
            self.artifact.fingerprint,
            self.decode.to_dict(),
            self.sampling.to_dict(),
            self.ipc,
            self.class_labels.tolist(),
            str(self.torch_dtype),
        ]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        """Return (image, label), transformed. Generates the image's class group if it is not cached.

        Raises:
            IndexError: `index` is negative or too large.
        """
        if not 0 <= index < len(self):
            raise IndexError(
                f"index {index} is out of range; the data set has {len(self)} images, 0 to {len(self) - 1}"
            )
        label, position = divmod(int(index), self.ipc)
        image: Any = self.cache.read(label, position)
        if image is None:
            self.cache.ensure(label, lambda: self._generate(label))
            image = self.cache.read(label, position)
        if image is None:
            raise CacheError(
                f"{self.cache.path(label, position)} was removed or changed just after it was written"
            )
        target: Any = label
        if self.transform is not None:
            image = self.transform(image)
        if self.target_transform is not None:
            target = self.target_transform(target)
        return image, target

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_model": None}

    def extra_repr(self) -> str:
        """Return the lines that `repr` adds to VisionDataset's."""
        return (
            f"Artifact: {self.artifact.info.name} ({self.artifact.fingerprint})\n"
            f"Images per class: {self.ipc}, seed {self.seed}, {self.sampling.method}\n"
            f"Timestep {self.decode.timestep}, guidance {self.decode.guidance_scale:g}"
        )

    @property
    def image_folder(self) -> Path:
        """Folder of the images, as torchvision's `ImageFolder` reads it; complete after `materialize`."""
        return self.cache.folder

    def materialize(self, progress: bool = True) -> Path:
        """Generate every class that is not cached and undamaged.

        Args:
            progress: Show a progress bar on stderr.

        Returns:
            The folder of the images.
        """
        labels = [label for label in range(len(self.classes)) if not self.cache.is_complete(label)]
        for label in tqdm(labels, desc="generating", unit="class", disable=not progress or not labels):
            self.cache.ensure(label, lambda label=label: self._generate(label))  # type: ignore[misc]
        return self.image_folder

    def sample_latents(self, label: int) -> torch.Tensor:
        """Return the group of inverted latents of a label, (ipc, C, H, W) float32."""
        class_label = int(self.class_labels[label])
        if self.sampling.method == "modes":
            modes = self.artifact.modes(self.decode.timestep, class_label)
            return sample_modes(modes, self.ipc, class_label, self.sampling)
        gaussian = self.artifact.gaussians(self.decode.timestep, class_label)
        return sample_group(gaussian.mean[0], gaussian.variance[0], self.ipc, class_label, self.sampling)

    def model(self) -> LatentDiffusion:
        """Return the diffusion model, loaded on the first call.

        Raises:
            ModelNotFoundError: It is missing.
            ModelFormatError: It does not fit the artifact.
        """
        if self._model is None:
            self._model = load_model(self.artifact, self.device, self.torch_dtype)
        return self._model

    def _generate(self, label: int) -> list[Image.Image]:
        labels = self.class_labels[label].repeat(self.ipc)
        with torch.random.fork_rng(devices=[]):  # loading a model must not move the user's generator
            model = self.model()
            images = model.decode(model.denoise(self.sample_latents(label), labels, self.decode))
        return to_pil(images, self.artifact.info.padding)


class D3HRFashionMNIST(D3HRDataset):
    """Distilled Fashion-MNIST: 28 x 28 grey images of ten classes, labelled as in torchvision.

    Artifact and diffusion model ship with the package; nothing is downloaded. A drop-in for
    `torchvision.datasets.FashionMNIST`. Arguments are those of `D3HRDataset`, without `artifact`.
    """

    def __init__(
        self,
        root: str | Path | None = None,
        ipc: int = 10,
        seed: int = 0,
        transform: Callable[[Image.Image], Any] | None = None,
        target_transform: Callable[[int], Any] | None = None,
        *,
        classes: Sequence[str] | None = None,
        sampling: GroupSamplingConfig | None = None,
        decode: DecodeConfig | None = None,
        device: torch.device | str | None = None,
        torch_dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(
            embedded_artifact("fashion-mnist"),
            root,
            ipc,
            seed,
            transform,
            target_transform,
            classes=classes,
            sampling=sampling,
            decode=decode,
            device=device,
            torch_dtype=torch_dtype,
        )


def load_model(
    artifact: Artifact, device: torch.device | str | None = None, torch_dtype: torch.dtype = torch.float32
) -> LatentDiffusion:
    """Load the diffusion model an artifact refers to and check that it fits.

    Raises:
        ModelNotFoundError: It is missing.
        ModelFormatError: Its latents, classes, image size or channels are not the artifact's.
    """
    from d3hr_datasets.diffusion import LatentDiffusion

    info = artifact.info
    folder = artifact.model_folder()
    model = LatentDiffusion.from_pretrained(
        folder if folder is not None else str(info.model.repo_id),
        revision=info.model.revision,
        device=device,
        torch_dtype=torch_dtype,
    )
    model.check_fits(info)
    return model


def to_pil(images: torch.Tensor, padding: int = 0) -> list[Image.Image]:
    """Turn float images (B, 1 or 3, H, W) in [-1, 1] into PIL images "L" or "RGB", without the frame.

    Raises:
        ModelFormatError: A pixel is not finite, as when half precision overflows.
    """
    if not images.isfinite().all():
        raise ModelFormatError("the model made pixels that are not finite; use torch_dtype=torch.float32")
    side = images.shape[-1] - padding
    pixels = ((images[..., padding:side, padding:side].float().cpu() + 1) * 127.5).round().clamp(0, 255)
    arrays = pixels.to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(array.squeeze(-1) if array.shape[-1] == 1 else array) for array in arrays]


def _check_classes(wanted: Sequence[str] | None, known: tuple[str, ...]) -> list[str]:
    if wanted is None:
        return list(known)
    unknown = [name for name in wanted if name not in known]
    if unknown or not wanted or len(set(wanted)) != len(wanted):
        reason = f"unknown classes {unknown}" if unknown else "classes must be distinct and at least one"
        raise ConfigError(f"{reason}; known: {list(known[:20])}{' ...' if len(known) > 20 else ''}")
    return list(wanted)


def _default_root() -> Path:
    from huggingface_hub import cached_assets_path

    return Path(cached_assets_path("d3hr_datasets", subfolder="images"))
