"""Ways to change the files of an artifact or a cache behind the library's back."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

METADATA, STATISTICS = "d3hr.json", "statistics.safetensors"


def flip_byte(path: Path, position: int = -1) -> None:
    """Change all bits of one byte of a file."""
    data = bytearray(path.read_bytes())
    data[position] ^= 0xFF
    path.write_bytes(data)


def truncate(path: Path, share: float = 0.5) -> None:
    """Keep only the first `share` of a file."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


def read_document(folder: Path) -> dict[str, Any]:
    """Return the JSON of an artifact."""
    document: dict[str, Any] = json.loads((folder / METADATA).read_text(encoding="utf-8"))
    return document


def write_document(folder: Path, document: Any) -> None:
    """Replace the JSON of an artifact."""
    (folder / METADATA).write_text(json.dumps(document), encoding="utf-8")


def change_info(folder: Path, **changes: Any) -> None:
    """Set fields of the description of an artifact; a value of `...` removes the field."""
    document = read_document(folder)
    document["info"] = {k: v for k, v in {**document["info"], **changes}.items() if v is not ...}
    write_document(folder, document)


def change_statistics(folder: Path, **changes: torch.Tensor | None) -> None:
    """Set tensors of the statistics (None removes one) and make the checksum right again.

    A name is given with "_" for the dot and "m" for the minus: `t400_mean`, `tm1_mean`, `count`. Values in
    float32 are stored in the type of those they replace.
    """
    tensors = dict(load_file(folder / STATISTICS))
    for key, tensor in changes.items():
        name = key.replace("_", ".").replace("tm", "t-")
        before = tensors.pop(name)
        if tensor is not None:
            same_type = (
                tensor.to(before.dtype) if tensor.dtype == torch.float32 and name != "count" else tensor
            )
            tensors[name] = same_type.contiguous()
    (folder / STATISTICS).unlink()  # it may be mapped into memory
    save_file(tensors, folder / STATISTICS)
    refresh_checksum(folder, STATISTICS)


def refresh_checksum(folder: Path, name: str) -> None:
    """Write the checksum that a file of an artifact has now into its JSON."""
    document = read_document(folder)
    document["sha256"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    write_document(folder, document)
