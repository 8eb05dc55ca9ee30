"""What an artifact says of the images that are left when some are forgotten: `source` -> `source`.

It tells nobody which images went, and merging whose they were.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from typing import Any

from d3hr_datasets.artifact.artifact import Artifact
from d3hr_datasets.combine.counted_images import CountedImage


def source_left(artifact: Artifact, counted: Sequence[CountedImage], secret: bytes) -> dict[str, Any]:
    """Return what is said of the images that are left; their lineage stays, by which merging knows them."""
    source = {**artifact.info.source, **_fingerprint(artifact, counted, secret)}
    if artifact.info.tolerance is not None:
        source["tolerance"] = artifact.info.tolerance.share
    return source


def _fingerprint(artifact: Artifact, counted: Sequence[CountedImage], secret: bytes) -> dict[str, str]:
    """Return a fingerprint for the images that are left, where there was one.

    Not the sum of what they are, which a build without the images has: less that of before, it would tell the
    pixels of a single image that was taken away to whoever guesses them.
    """
    found = artifact.info.source.get("fingerprint")
    try:
        before = int(str(found), 16)
    except ValueError:
        return {}
    gone = sum(image.pixels * one.copies for image in counted for one in image.members)
    left = ((before - gone) % 2**256).to_bytes(32, "big")
    return {"fingerprint": hmac.new(secret, b"images that are left" + left, hashlib.sha256).hexdigest()}
