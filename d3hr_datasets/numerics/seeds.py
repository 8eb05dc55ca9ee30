"""Seeds of what is drawn: parts -> one number for PyTorch's generator."""

from __future__ import annotations

import hashlib


def derive_seed(*parts: int | str) -> int:
    """Return a 32-bit seed that mixes `parts` (torch's CPU generator uses 32 bits of a seed)."""
    text = "/".join(map(str, parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
