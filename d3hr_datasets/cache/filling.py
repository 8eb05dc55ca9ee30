"""Groups on their way to the disk: one thread makes images, others write them meanwhile.

In: labels, and what locks, makes and writes a group. Out: the labels, each as soon as its group is there.

A group holds its lock from before it is made until it is written. Locks are taken in the order of the labels,
so that no two processes wait for each other, and given back by the thread that took them.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, ExitStack

from PIL import Image

from d3hr_datasets.cache.locks import Hold
from d3hr_datasets.errors import CacheError

# Groups, and files of one, that are synced at a time: a disk needs for several hardly longer than for one.
WRITERS = 4

# Images, and groups with their locks, that wait to be written: bounded where the disk is the slower one.
QUEUE, MAX_GROUPS = 256, 64

Made = Generator[tuple[int, Sequence[Image.Image]], None, None]  # labels with their images

logger = logging.getLogger(__name__)


def fill(
    labels: Iterable[int],
    claim: Callable[[int], AbstractContextManager[Hold | None]],
    make: Callable[[Iterator[int]], Made],
    write: Callable[[int, Sequence[Image.Image], Hold], None],
    ipc: int,
) -> Generator[int, None, None]:
    """Have groups written while the next ones are made, and yield each label when its group is there.

    What is made when something goes wrong, or nobody asks for more, is written before this ends.

    Args:
        labels: The groups, in any order.
        claim: Locks a group while it is entered; None if it needs no making.
        make: Takes the labels that are missing, which are locked when it asks for them, and yields each with
            its images.
        write: Writes a group, in another thread.
        ipc: Images of a group.

    Raises:
        CacheError: Other groups were made than were missing, or one of another size; or what `write` raises.
    """
    with _Filling(claim, write, ipc) as filling:
        with contextlib.closing(make(filling.missing(labels))) as groups:
            for label, images in groups:
                filling.put(label, images)
                yield from filling.finished()
        filling.check_all_made()
        yield from filling.finished(all_of_them=True)


class _Filling:
    """The groups that are being made or written, with their locks."""

    def __init__(
        self,
        claim: Callable[[int], AbstractContextManager[Hold | None]],
        write: Callable[[int, Sequence[Image.Image], Hold], None],
        ipc: int,
    ) -> None:
        self._claim, self._write, self._ipc = claim, write, ipc
        self._most = max(1, min(QUEUE // ipc, MAX_GROUPS))
        self._there: list[int] = []
        self._holds: dict[int, Hold] = {}
        self._locks: dict[int, ExitStack] = {}
        self._writes: dict[int, Future[None]] = {}
        self._writers = ThreadPoolExecutor(WRITERS)

    def __enter__(self) -> _Filling:
        return self

    def __exit__(self, *error: object) -> None:
        with ExitStack() as ends:
            # Every lock is given back, whatever goes wrong: else this process would wait for itself later.
            for lock in self._locks.values():
                ends.callback(lock.close)
            # After an interrupt, which waits for what is being written and for nothing else.
            ends.callback(self._writers.shutdown, cancel_futures=True)
            self._writers.shutdown()  # with what is in its queue: groups that are whole
            self._log_errors(error[1])

    def missing(self, labels: Iterable[int]) -> Iterator[int]:
        """Yield the labels that are missing, each with its lock taken."""
        for label in sorted(set(labels)):
            self._collect()  # others may wait for the locks
            with ExitStack() as lock:
                hold = lock.enter_context(self._claim(label))
                if hold is not None:
                    self._holds[label], self._locks[label] = hold, lock.pop_all()
            if hold is None:
                self._there.append(label)
            else:
                yield label

    def put(self, label: int, images: Sequence[Image.Image]) -> None:
        """Have a group written; waits while too many images wait for that."""
        if len(images) != self._ipc:
            raise CacheError(f"{len(images)} images were made of class {label}, a group has {self._ipc}")
        if label not in self._holds:
            raise CacheError(f"images were made of class {label}, which was not asked for")
        waiting = [write for write in self._writes.values() if not write.done()]
        if len(waiting) >= self._most:
            wait(waiting, return_when=FIRST_COMPLETED)
        self._writes[label] = self._writers.submit(self._write, label, images, self._holds.pop(label))

    def finished(self, all_of_them: bool = False) -> list[int]:
        """Return the labels whose groups are there and were not returned before, without their locks.

        Args:
            all_of_them: Wait for those that are being written.
        """
        self._collect(all_of_them)
        done, self._there = self._there, []
        return done

    def check_all_made(self) -> None:
        """Raise `CacheError` where a label was asked for and its images were not made."""
        if self._holds:
            raise CacheError(f"0 images were made of class {min(self._holds)}, a group has {self._ipc}")

    def _collect(self, all_of_them: bool = False) -> None:
        """Give back the locks of the groups that are written, or raise what went wrong with one."""
        for label, write in list(self._writes.items()):
            if all_of_them or write.done():
                write.result()
                self._locks.pop(label).close()
                del self._writes[label]
                self._there.append(label)

    def _log_errors(self, raised: object) -> None:
        """Log what went wrong with groups, but for what is raised."""
        for label, write in self._writes.items():
            error = write.exception()
            if error is not None and error is not raised:
                logger.error("class %d was not written: %s", label, error)
