"""Who makes which chunks of images with random access: a process's place -> the first image of each chunk.

Each process has its share from the start. One that is through with it makes what slower ones have not come
to, so that nobody waits for the slowest machine, and whoever is at a chunk that another has finished gives it
up. They need not talk to each other: a chunk's file says that
it is made, and two that make the same one write the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator


class MadeElsewhereError(Exception):
    """Another process has finished a chunk that this one is at."""


def share(num_images: int, chunk_size: int, rank: int, num_processes: int) -> range:
    """Return the first image of each chunk of one of several processes, in their order."""
    return range(rank * chunk_size, num_images, num_processes * chunk_size)


def left_over(
    num_images: int, chunk_size: int, rank: int, num_processes: int, is_finished: Callable[[int], bool]
) -> Iterator[int]:
    """Yield the first image of each chunk of others that is not finished when it is asked for.

    The last ones come first, since their owners come to them last; and each process begins at another one, so
    that two seldom make the same.
    """
    starts = range(0, num_images, chunk_size)
    others = [start for number, start in enumerate(starts) if number % num_processes != rank][::-1]
    first = len(others) * rank // num_processes
    for start in others[first:] + others[:first]:
        if not is_finished(start):
            yield start


def until_made(
    start: int, is_finished: Callable[[int], bool], advance: Callable[[int], None]
) -> Callable[[int], None]:
    """Return `advance`, which is told the images of each batch, for a chunk that another may make as well.

    What it returns raises `MadeElsewhereError` when the other one has finished the chunk.
    """

    def advance_or_stop(number: int) -> None:
        if number and is_finished(start):
            raise MadeElsewhereError
        advance(number)

    return advance_or_stop
