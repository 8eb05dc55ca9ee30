"""What a class is to a model: a label that it was trained with, or a prompt that text encoders have read.

In: class labels of a batch. Out: the network's further inputs, of conditional and unconditional halves.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch

from d3hr_datasets.diffusion.kinds.kind import Inputs
from d3hr_datasets.errors import ConfigError


class Conditioning(ABC):
    """What a network is told of the class of each latent.

    Attributes:
        num_classes: Number of classes.
    """

    num_classes: int

    @abstractmethod
    def inputs(self, class_labels: torch.Tensor, guided: bool) -> Inputs:
        """Return a network's inputs for labels (B,), and after them those of no class where `guided` (2B)."""

    @abstractmethod
    def fingerprint_bytes(self) -> bytes:
        """Return what tells this conditioning from another of the same network; empty for labels."""


class ClassLabels(Conditioning):
    """The labels that a network was trained with.

    Args:
        num_classes: Number of classes; the label of no class comes after the last one, where diffusers'
            `LabelEmbedding` keeps it.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes

    @property
    def null_class_label(self) -> int:
        """The label of no class."""
        return self.num_classes

    def inputs(self, class_labels: torch.Tensor, guided: bool) -> Inputs:
        """Return `class_labels`, (B,) or (2B,) int64."""
        if guided:
            class_labels = torch.cat([class_labels, torch.full_like(class_labels, self.null_class_label)])
        return {"class_labels": class_labels}

    def fingerprint_bytes(self) -> bytes:
        """Return nothing: the network's weights say what a label means."""
        return b""


class PromptEmbeddings(Conditioning):
    """What text encoders made of a prompt for each class.

    Args:
        num_classes: Number of classes, also of those without an embedding here.
        embeddings: Inputs of the network by class label, each (1, ...); those of the classes in use suffice.
        negative: The same of the negative prompt; None where the network takes no guidance by a second pass.
    """

    def __init__(
        self, num_classes: int, embeddings: Mapping[int, Inputs], negative: Inputs | None = None
    ) -> None:
        self.num_classes = num_classes
        self.embeddings = dict(embeddings)
        self.negative = negative

    def inputs(self, class_labels: torch.Tensor, guided: bool) -> Inputs:
        """Return each input of a batch, on the device of the labels.

        Raises:
            ConfigError: A class has no embedding here, or guidance needs a negative prompt that is none.
        """
        labels = class_labels.tolist()
        missing = sorted(set(labels) - set(self.embeddings))
        if missing:
            raise ConfigError(
                f"the prompts of class labels {missing[:10]} have not been encoded; load the model with them"
            )
        rows = [self.embeddings[label] for label in labels]
        if guided:
            if self.negative is None:
                raise ConfigError("there is no negative prompt to guide by; use guidance_scale=1")
            rows += [self.negative] * len(labels)
        names = rows[0] if rows else {}
        return {name: torch.cat([row[name] for row in rows]).to(class_labels.device) for name in names}

    def fingerprint_bytes(self) -> bytes:
        """Return a digest of all embeddings."""
        digest = hashlib.sha256()
        for label, inputs in sorted(self.embeddings.items()):
            digest.update(f"class {label}".encode())
            _update(digest, inputs)
        if self.negative is not None:
            digest.update(b"negative")
            _update(digest, self.negative)
        return digest.digest()


def _update(digest: hashlib._Hash, inputs: Inputs) -> None:
    for name, tensor in sorted(inputs.items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
