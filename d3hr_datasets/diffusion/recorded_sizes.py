"""Sizes of batches that CUDA graphs are recorded of: a batch -> the size it is filled up to.

A CUDA graph is what a GPU was asked to do once, kept so that the host asks for all of it again in one call.
It holds for one size. Recording another one runs the network several times more, and takes memory.
"""

from __future__ import annotations


class RecordedSizes:
    """The sizes that were there, of which there are to be few."""

    def __init__(self) -> None:
        self._sizes: set[int] = set()

    def padded(self, size: int) -> int:
        """Return the size that a batch is to have: a recorded one, less than twice as large, or else its own.

        So the last batch of a set is filled up. One that is far smaller is recorded instead: it would cost
        more to fill it up in every step. So is half a batch that was too large for the memory.
        """
        fitting = [known for known in self._sizes if size <= known < 2 * size]
        if fitting:
            return min(fitting)
        self._sizes.add(size)
        return size
