"""Which images are behind an artifact, so that they can be forgotten: its owner's file, never part of it.

In: images as a model is given them, and the owner's secret key. Out: a file of keyed digests (HMAC-SHA256 of
the pixels), each with class label and mode. Without the key, nobody can look up an image in it. File and key
lie outside the artifact, readable by their owner alone, and an artifact that holds one is not published.

    membership.digest      (N, 32) uint8, ascending
    membership.label       (N,) int64; likewise `membership.mode` and `membership.copies`, images of these
    pixels membership.forgotten   (F, 32) uint8, of images that have been taken out

Its notes also say how the artifact was built where `d3hr.json` does not: precision and rule of shrinkage.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from d3hr_datasets.artifact.d3hr_json import needed_files
from d3hr_datasets.artifact.info import ArtifactInfo
from d3hr_datasets.errors import ArtifactFormatError, ConfigError, D3HRError, PublishError
from d3hr_datasets.io.atomic import replace_file
from d3hr_datasets.io.untrusted_files import is_file, open_file, read_file, read_header
from d3hr_datasets.numerics.torch_settings import neutral

CHUNK_DIGESTS = "members.digest"  # the same of the images of a finished chunk, see `build.chunks`
COLUMNS = ("label", "mode", "copies")
KEY_MARK = "d3hr-membership-key "
SHRINKAGE = ("auto", "none")  # or a share
DEFAULT_KEY = "membership.key"  # in the folder of the file
LINEAGE = "lineage"  # in `source` of an artifact: what names its images, and stays when some are forgotten
PRECISIONS = ("float16", "bfloat16", "float32", "float64")  # that images are inverted in


@dataclass(frozen=True, order=True)
class Member:
    """Images of the same pixels, as they were counted.

    Args:
        digest: Of their pixels, with the owner's key.
        label: Class label.
        mode: Mode; 0 where there are none.
        copies: How many there are.
    """

    digest: bytes
    label: int
    mode: int
    copies: int = 1


@dataclass(frozen=True)
class Membership:
    """The images behind an artifact.

    Args:
        members: By digest, label and mode, ascending; no two are the same in all three.
        moments: SHA-256 of the artifact's sums, which tells it from others.
        key_id: What tells the key from others, and nothing of it.
        torch_dtype: Precision in which images were inverted, as PyTorch names it.
        shrinkage: The rule by which variances were drawn: "auto", "none" or a share.
        forgotten: Digests of images that were taken out, ascending.
    """

    members: tuple[Member, ...]
    moments: str
    key_id: str
    torch_dtype: str
    shrinkage: str | float
    forgotten: tuple[bytes, ...] = ()


def count_members(
    members: Iterable[Member],
    moments: str,
    key: bytes,
    torch_dtype: torch.dtype = torch.float32,
    shrinkage: str | float = "none",
) -> Membership:
    """Return the membership of images one by one: those of the same pixels, label and mode become one row."""
    copies: dict[tuple[bytes, int, int], int] = {}
    for one in members:
        place = (one.digest, one.label, one.mode)
        copies[place] = copies.get(place, 0) + one.copies
    rows = tuple(Member(*place, copies[place]) for place in sorted(copies))
    return Membership(rows, moments, key_id(key), str(torch_dtype).removeprefix("torch."), shrinkage)


@neutral()
def member_digest(key: bytes, image: torch.Tensor) -> bytes:
    """Return the keyed digest of an image (C, S, S) as a model is given it, frame included."""
    return hmac.digest(key, image.contiguous().numpy().tobytes(), "sha256")


def key_id(key: bytes) -> str:
    """Return what tells a key from others."""
    return sha256(b"d3hr membership" + key).hexdigest()[:16]


def lineage(key: bytes, fingerprint: str) -> str:
    """Return what names the images of a build, and stays when some of them are forgotten.

    It tells nobody without the key anything of them.
    """
    return hmac.new(key, b"d3hr lineage" + fingerprint.encode(), sha256).hexdigest()


def default_key(path: Path) -> Path:
    """Return where the key of a file of membership is, unless it is said."""
    return path.with_name(DEFAULT_KEY)


def open_key(path: Path, *, make: bool = False) -> bytes:
    """Return the key of a file; with `make`, a new random one is written where there is none.

    Raises:
        ConfigError: The file holds no key, or is missing and none is to be made.
    """
    if make and not is_file(path):
        if path.is_symlink():
            raise ConfigError(
                f"the key {path} of the membership is a link to nothing; give back what it leads to (is a "
                "drive missing?), or remove the link to have a new key"
            )
        _make_key(path)
    try:
        found = re.fullmatch(rf"{KEY_MARK}([0-9a-f]{{64}})\s*", read_file(path, 1000).decode("ascii"))
    except (D3HRError, UnicodeDecodeError) as error:
        raise ConfigError(f"the key {path} of the membership cannot be read: {error}") from error
    if found is None:
        raise ConfigError(
            f"{path} holds no key of a membership; accepted: the file that `d3hr build --membership` made"
        )
    return bytes.fromhex(found[1])


def _make_key(path: Path) -> None:
    """Write a new random key, unless another process has just done so."""
    text = f"{KEY_MARK}{secrets.token_hex(32)}\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        replace_file(path, lambda to: to.write_text(text, encoding="ascii"), private=True, must_be_new=True)


@neutral()
def write_membership(path: Path, found: Membership, *, must_be_new: bool = False) -> None:
    """Write the images behind an artifact, for their owner alone to read; `must_be_new` replaces no file."""
    tensors = {
        f"membership.{name}": torch.tensor([getattr(one, name) for one in found.members], dtype=torch.int64)
        for name in COLUMNS
    }
    tensors["membership.digest"] = _as_tensor([one.digest for one in found.members])
    tensors["membership.forgotten"] = _as_tensor(found.forgotten)
    notes = {
        "moments": found.moments,
        "key": found.key_id,
        "torch_dtype": found.torch_dtype,
        "shrinkage": found.shrinkage,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"d3hr": json.dumps(notes)}
    replace_file(path, lambda to: save_file(tensors, to, metadata), private=True, must_be_new=must_be_new)


@neutral()
def read_membership(path: Path) -> Membership:
    """Return the images behind an artifact.

    Raises:
        ConfigError: There is no such file, or it is none of a membership.
    """
    try:
        read_header(path)
        with safe_open(path, framework="pt") as file:
            notes = json.loads((file.metadata() or {})["d3hr"])
            columns = [_as_integers(file.get_tensor(f"membership.{name}"), name) for name in COLUMNS]
            digests = _as_bytes(file.get_tensor("membership.digest"))
            forgotten = _as_bytes(file.get_tensor("membership.forgotten"))
        members = tuple(Member(*values) for values in zip(digests, *columns, strict=True))
        _check_rows([(one.digest, one.label, one.mode) for one in members], "rows")
        _check_rows(forgotten, "forgotten digests")
        dtype, shrinkage = _checked_notes(notes)
        return Membership(members, str(notes["moments"]), str(notes["key"]), dtype, shrinkage, forgotten)
    except (
        ArtifactFormatError,
        OSError,
        SafetensorError,
        KeyError,
        TypeError,
        ValueError,
        RecursionError,
    ) as error:
        raise ConfigError(
            f"{path} is no file of a membership, as `d3hr build --membership` writes: {error}"
        ) from error


def is_membership(path: Path) -> bool:
    """Say whether a file is a membership, or a chunk of a build that notes one."""
    return bool({"membership.digest", CHUNK_DIGESTS} & _tensors(path))


def is_chunk(path: Path) -> bool:
    """Say whether a file is a finished chunk of a build."""
    return _tensors(path) >= {"rows", "pixels"}


def _tensors(path: Path) -> set[str]:
    """Return the names of the tensors of a file, none of one that holds none."""
    try:
        return {*read_header(path)}
    except D3HRError:
        return set()


def is_key(path: Path) -> bool:
    """Say whether a file is the key of a membership."""
    try:
        with open_file(path) as file:
            return file.read(len(KEY_MARK)) == KEY_MARK.encode()
    except D3HRError:
        return False


def check_nothing_private(folder: Path, info: ArtifactInfo, sha256: dict[str, str]) -> None:
    """Check that no file of an artifact says which images are behind it, whatever its name is.

    Raises:
        PublishError: One does, or is a key; or a private artifact holds tensors that are not its own.
    """
    private = sorted(name for name in sha256 if is_membership(folder / name) or is_key(folder / name))
    if private:
        raise PublishError(
            f"{private} in {folder} tell which images are behind the artifact (a membership, or its key) and "
            "are never published; move them out of the folder, then `d3hr card`, or "
            "Artifact.load(FOLDER).write_metadata()"
        )
    if info.privacy is None:
        return
    own = needed_files(info, sha256)
    others = [
        name
        for name in sha256
        if (name.endswith(".safetensors") and name not in own) or is_chunk(folder / name)
    ]
    if others:
        raise PublishError(
            f"{sorted(others)[:5]} in {folder} are no part of a private artifact; finished chunks of its "
            "build hold exact sums of the images, which no budget covers: move them out of the folder, then "
            "`d3hr card`, or Artifact.load(FOLDER).write_metadata()"
        )


def _as_tensor(digests: Sequence[bytes]) -> torch.Tensor:
    return torch.tensor(bytearray(b"".join(digests)), dtype=torch.uint8).view(-1, 32)


def _as_bytes(digests: torch.Tensor) -> tuple[bytes, ...]:
    if digests.dtype != torch.uint8 or digests.dim() != 2 or digests.shape[1] != 32:
        raise ValueError(f"digests are {digests.dtype} {tuple(digests.shape)}")
    return tuple(map(bytes, digests.tolist()))


def _as_integers(values: torch.Tensor, name: str) -> list[int]:
    least = 1 if name == "copies" else 0
    if values.dtype != torch.int64 or values.dim() != 1:
        raise ValueError(f"{name} is {values.dtype} {tuple(values.shape)}")
    if len(values) and int(values.min()) < least:
        raise ValueError(f"{name} has {int(values.min())}; accepted: at least {least}")
    found: list[int] = values.tolist()
    return found


def _check_rows(rows: Sequence[object], name: str) -> None:
    if any(not before < after for before, after in pairwise(rows)):  # type: ignore[operator]
        raise ValueError(f"{name} are not ascending, each once")


def _checked_notes(notes: dict[str, object]) -> tuple[str, str | float]:
    """Return precision and rule of shrinkage."""
    dtype, shrinkage = notes["torch_dtype"], notes["shrinkage"]
    if dtype not in PRECISIONS:
        raise ValueError(f"torch_dtype is {dtype!r:.80}")
    is_share = isinstance(shrinkage, int | float) and not isinstance(shrinkage, bool) and 0 <= shrinkage <= 1
    if shrinkage not in SHRINKAGE and not is_share:
        raise ValueError(f"shrinkage is {shrinkage!r:.80}")
    return str(dtype), shrinkage  # type: ignore[return-value]
