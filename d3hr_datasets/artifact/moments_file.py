"""`moments.safetensors`: the sums behind the statistics of an artifact, which not all have <-> one file.

    count          (K, M) int64, images of each mode of each class
    tT.sum         (K, M, C, H, W) int64 per time T, in units of 2^-32
    tT.squares     (K, C, H, W) int64 per time T, of whole classes, in units of 2^-36

Merging and forgetting read them; making images does not. The statistics follow from them alone.
"""

from __future__ import annotations

import math
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from d3hr_datasets.artifact.info import ArtifactInfo
from d3hr_datasets.artifact.latent_sums import LatentSums
from d3hr_datasets.errors import ArtifactFormatError
from d3hr_datasets.io.atomic import replace_file
from d3hr_datasets.io.untrusted_files import MAX_HEADER_BYTES, read_header
from d3hr_datasets.numerics.torch_settings import neutral


def moments_bytes(info: ArtifactInfo) -> int:
    """Return the bytes of the sums of an artifact, without the file's header."""
    elements = len(info.classes) * math.prod(info.latent_shape)
    return 8 * (len(info.inversion.timesteps) * elements * (info.num_modes + 1) + _num_counts(info))


def max_moments_bytes(info: ArtifactInfo) -> int:
    """Return the size that the file has at most."""
    return moments_bytes(info) + MAX_HEADER_BYTES


@neutral()
def write_moments(path: Path, sums: LatentSums | None) -> None:
    """Write the sums of an artifact, or remove the file of earlier ones where there are none."""
    if sums is None:
        path.unlink(missing_ok=True)
        return
    tensors = {"count": sums.count.contiguous()}
    for time in sums.sums:
        tensors[f"t{time}.sum"] = sums.sums[time].contiguous()
        tensors[f"t{time}.squares"] = sums.squares[time].contiguous()
    replace_file(path, lambda temporary: save_file(tensors, temporary))


@neutral()
def read_moments(path: Path, info: ArtifactInfo) -> LatentSums:
    """Read the sums of an artifact.

    Raises:
        ArtifactFormatError: A tensor is missing or not what `info` says, or counts are not its counts.
        StatisticsError: No latents have such sums.
    """
    classes, modes, shape = len(info.classes), info.num_modes, info.latent_shape
    expected: dict[str, tuple[int, ...]] = {"count": (classes, modes)}
    for time in info.inversion.timesteps:
        expected |= {f"t{time}.sum": (classes, modes, *shape), f"t{time}.squares": (classes, *shape)}
    read_header(path)
    tensors = {}
    try:
        with safe_open(path, framework="pt") as file:
            for name, wanted in expected.items():
                found = file.get_slice(name)
                if tuple(found.get_shape()) != wanted or found.get_dtype() != "I64":
                    raise ArtifactFormatError(
                        f"{path}: {name} is {found.get_dtype()} {found.get_shape()}; accepted: I64 "
                        f"{list(wanted)}"
                    )
                tensors[name] = file.get_tensor(name)
    except (SafetensorError, OSError) as error:
        raise ArtifactFormatError(f"{path}: {error}; download the artifact again") from error
    times = info.inversion.timesteps
    sums = LatentSums(
        tensors["count"],
        {time: tensors[f"t{time}.sum"] for time in times},
        {time: tensors[f"t{time}.squares"] for time in times},
    )
    if tuple(sums.count.sum(dim=1).tolist()) != info.counts:
        raise ArtifactFormatError(
            f"{path}: counts are not those of the description, {list(info.counts[:10])}; download the "
            "artifact again"
        )
    return sums


def _num_counts(info: ArtifactInfo) -> int:
    return len(info.classes) * info.num_modes
