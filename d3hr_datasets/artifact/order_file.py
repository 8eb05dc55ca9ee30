"""The file of an order: the numbers of the curated images of each class <-> one safetensors file.

It holds `order` (K, N) int32, four bytes an image, the best images first.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from d3hr_datasets.artifact.curation import Curation
from d3hr_datasets.errors import ArtifactFormatError
from d3hr_datasets.io.atomic import replace_file
from d3hr_datasets.io.untrusted_files import MAX_HEADER_BYTES, read_header
from d3hr_datasets.numerics.torch_settings import neutral

ORDER = "order"


def order_bytes(num_classes: int, curation: Curation) -> int:
    """Return the size that the file of an order has at most."""
    return 4 * num_classes * curation.num_kept + MAX_HEADER_BYTES


def write_order(path: Path, order: torch.Tensor) -> None:
    """Write the numbers of the chosen candidates, (K, N), the best ones first."""
    stored = {ORDER: order.to(torch.int32).contiguous()}
    replace_file(path, lambda temporary: save_file(stored, temporary))


@neutral()
def read_order(
    path: Path, curation: Curation, num_classes: int, class_label: int | None = None
) -> torch.Tensor:
    """Read an order, (K, N) int64, or that of one class, (1, N).

    Raises:
        ArtifactFormatError: It has another shape or type than `curation` says, or a number twice, or one that
            is no candidate's.
    """
    read_header(path)
    rows = slice(None) if class_label is None else slice(class_label, class_label + 1)
    shape = [num_classes, curation.num_kept]
    try:
        with safe_open(path, framework="pt") as file:
            stored = file.get_slice(ORDER)
            if list(stored.get_shape()) != shape or stored.get_dtype() != "I32":
                raise ArtifactFormatError(
                    f"{path}: {ORDER} is {stored.get_dtype()} {stored.get_shape()}; accepted: I32 {shape}"
                )
            order: torch.Tensor = stored[rows].long()
    except (SafetensorError, OSError) as error:
        raise ArtifactFormatError(f"{path}: {error}; download the artifact again") from error
    beyond = order[(order < 0) | (order >= curation.num_candidates)]
    if len(beyond):
        raise ArtifactFormatError(
            f"{path}: {ORDER} has the number {int(beyond[0])}; accepted: 0 to {curation.num_candidates - 1}, "
            "the numbers of candidates; download the artifact again"
        )
    ascending = order.sort(dim=1).values
    twice = ascending[:, 1:][ascending[:, 1:] == ascending[:, :-1]]
    if len(twice):
        raise ArtifactFormatError(
            f"{path}: {ORDER} has the number {int(twice[0])} twice in one class; every image stands there "
            "once: download the artifact again"
        )
    return order
