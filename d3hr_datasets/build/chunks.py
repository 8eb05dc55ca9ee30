"""Finished chunks of a build: moments of a run of images <-> one file, written whole or not at all.

Only the rows that occur are held and stored, so that a chunk is no larger than its images ask for, however
many classes and modes there are. A file that is damaged counts as missing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from d3hr_datasets.artifact.membership import CHUNK_DIGESTS
from d3hr_datasets.build.exact_moments import ExactMoments
from d3hr_datasets.build.moments import RunningMoments
from d3hr_datasets.io.atomic import replace_file
from d3hr_datasets.io.untrusted_files import check_file

Moments = RunningMoments | ExactMoments
DIGEST_BYTES = 32


@dataclass
class Chunk:
    """Moments of a run of images by timestep, and what names its images.

    Args:
        rows: (R,) int64: what the rows of `moments` are of, class label x modes + mode.
        moments: By timestep, R rows; exact ones where the sums are kept.
        pixels: Sum modulo 2^256 of the SHA-256 of each image's pixels and label: sums of chunks add up to
            the same for any batch and chunk size.
        last: No image comes after these, in their shard.
        identity: What the source says of these images without reading them, and the digest of the centroids.
        unreadable: Images that were left out, each with "image" and "reason".
        members: Keyed digest of each image and the row it was counted in, where membership is noted.
    """

    rows: torch.Tensor
    moments: Mapping[float, Moments]
    pixels: int
    last: bool = False
    identity: str = ""
    unreadable: list[dict[str, str]] = field(default_factory=list)
    members: list[tuple[bytes, int]] = field(default_factory=list)


class ChunkMoments:
    """Moments of at most `size` images, in room for as many rows as these can have.

    Args:
        timesteps: Timesteps that are kept.
        size: Images at most.
        shape: Shape of a latent, (C, H, W).
        kind: Running moments, or exact ones.
    """

    def __init__(
        self,
        timesteps: Sequence[float],
        size: int,
        shape: tuple[int, ...],
        kind: type[Moments] = RunningMoments,
    ) -> None:
        self._slots: dict[int, int] = {}
        self._moments = {timestep: kind(size, shape) for timestep in timesteps}

    def update(self, latents: Mapping[float, torch.Tensor], rows: torch.Tensor) -> None:
        """Add a batch: latents (B, C, H, W) by timestep, and the rows (B,) they belong to."""
        slots = torch.tensor([self._slots.setdefault(row, len(self._slots)) for row in rows.tolist()])
        for timestep, moments in self._moments.items():
            moments.update(latents[timestep], slots)

    def rows(self) -> tuple[torch.Tensor, dict[float, Moments]]:
        """Return the rows that occurred, ascending, and their moments by timestep."""
        rows = torch.tensor(sorted(self._slots), dtype=torch.int64)
        slots = torch.tensor([self._slots[row] for row in rows.tolist()], dtype=torch.int64)
        moments: dict[float, Moments] = {
            timestep: moments.from_state_dict(
                {name: tensor[slots] for name, tensor in moments.state_dict().items()}
            )
            for timestep, moments in self._moments.items()
        }
        return rows, moments


def write_chunk(path: Path, chunk: Chunk, private: bool = False) -> None:
    """Write a chunk; a private one, as one that notes members, for its owner alone."""
    tensors = {
        f"{timestep}.{name}": tensor
        for timestep, moments in chunk.moments.items()
        for name, tensor in moments.state_dict().items()
    }
    tensors["rows"] = chunk.rows
    if chunk.members:
        digests = bytearray(b"".join(digest for digest, _ in chunk.members))
        tensors[CHUNK_DIGESTS] = torch.tensor(digests, dtype=torch.uint8).view(-1, DIGEST_BYTES)
        tensors["members.row"] = torch.tensor([row for _, row in chunk.members], dtype=torch.int64)
    tensors["pixels"] = torch.tensor(list(chunk.pixels.to_bytes(32, "big")), dtype=torch.uint8)
    notes = {"last": chunk.last, "identity": chunk.identity, "unreadable": chunk.unreadable}
    save_tensors(path, tensors, {"d3hr": json.dumps(notes)}, private=private or bool(chunk.members))


def read_chunk(
    path: Path, timesteps: Sequence[float], identity: str = "", kind: type[Moments] = RunningMoments
) -> Chunk | None:
    """Return a finished chunk, or None if there is none, it is damaged or of other images."""
    loaded = load_tensors(path)
    if loaded is None:
        return None
    tensors, metadata = loaded
    try:
        notes = json.loads(metadata["d3hr"])
        if notes["identity"] != identity:
            return None
        moments: dict[float, Moments] = {
            timestep: kind.from_state_dict({name: tensors[f"{timestep}.{name}"] for name in kind.PARTS})
            for timestep in timesteps
        }
        pixels = int.from_bytes(bytes(tensors["pixels"].tolist()), "big")
        members: list[tuple[bytes, int]] = []
        if "members.row" in tensors:
            digests = map(bytes, tensors[CHUNK_DIGESTS].tolist())
            members = list(zip(digests, tensors["members.row"].tolist(), strict=True))
        return Chunk(tensors["rows"], moments, pixels, notes["last"], identity, notes["unreadable"], members)
    except (KeyError, TypeError, ValueError):
        return None


def save_tensors(
    path: Path,
    tensors: dict[str, torch.Tensor],
    metadata: Mapping[str, str] | None = None,
    *,
    private: bool = False,
) -> None:
    """Write a safetensors file with its checksum, whole or not at all; a private one for its owner alone."""
    whole = {**(metadata or {}), "sha256": digest_tensors(tensors)}
    replace_file(path, lambda temporary: save_file(tensors, temporary, whole), private=private)


def load_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]] | None:
    """Return tensors and metadata of a file of `save_tensors`, or None if it is missing or damaged."""
    try:
        check_file(path)
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError):
        return None
    return (tensors, metadata) if metadata.get("sha256") == digest_tensors(tensors) else None


def digest_tensors(tensors: Mapping[str, torch.Tensor]) -> str:
    """Return the SHA-256 of names and bytes of tensors in hexadecimal."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode())
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
