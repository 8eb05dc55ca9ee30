"""Generating ahead: what is wanted next -> the same in the cache, made by another process meanwhile.

A process of its own, no thread: a thread would share with the training its random state, its default dtype
and the precision of its products, which generation has to set, and the lock of the interpreter. It is no fork
either (a GPU does not survive one), and it does not import the user's script.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import pickle
import subprocess
import sys
import weakref
from multiprocessing.connection import Connection

from d3hr_datasets.dataset.background_process import GRACE, Answer, Job
from d3hr_datasets.errors import BackgroundError

logger = logging.getLogger(__name__)

_CODE = "import sys; sys.path[:] = {path!r}; from {module} import main; main({descriptor}, {parent})"


class Background:
    """A process that does one job at a time, the newest. It starts with the first one."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._end: weakref.finalize[..., Background] | None = None
        self._asked, self._epoch = 0, 0

    @property
    def runs(self) -> bool:
        """Whether there is a process."""
        return self._process is not None

    def ask(self, job: Job, epoch: int) -> None:
        """Have a set generated; what was asked for before is given up, if it is not done.

        Raises:
            BackgroundError: The process cannot be started, or has died.
        """
        self._send(pickle.dumps(job))
        self._epoch = epoch

    def finish(self, epoch: int) -> bool:
        """Wait for the set of an epoch, if it is what was asked for, and say whether it is there.

        What was asked for and is not wanted any more is given up.

        Raises:
            BackgroundError: It could not be generated.
        """
        wanted, self._epoch = self._epoch, 0
        if not wanted or self._connection is None:
            return False
        answer: Answer | None = None  # or one of what was given up before, of which several may wait
        while answer is None or answer.number != self._asked:
            if wanted != epoch and not self._connection.poll():
                self._send(pickle.dumps(None))
                return False
            answer = self._answer(wanted)
        if answer.error and wanted != epoch:
            logger.warning("the images of epoch %d could not be generated: %s", wanted, answer.error)
            return False
        if answer.error:
            raise BackgroundError(
                f"the images of epoch {wanted} could not be generated in the background: {answer.error}. "
                "Mend that and call set_epoch again, or give keep_epochs=1, which generates in this process"
            ) from RuntimeError(f"in the background:\n{answer.details}")
        return wanted == epoch

    def close(self) -> None:
        """End the process."""
        if self._end is not None:
            self._end()
        self._process = self._connection = self._end = None
        self._asked = self._epoch = 0

    def _send(self, data: bytes) -> None:
        connection = self._connection or self._start()
        self._asked += 1
        try:
            connection.send_bytes(data)
        except OSError as error:
            raise self._died() from error
        except BaseException:  # nobody knows what was sent of it, and its answer would be waited for
            self.close()
            raise

    def _answer(self, epoch: int) -> Answer:
        assert self._connection is not None
        try:
            answer: Answer = pickle.loads(self._connection.recv_bytes())
        except (EOFError, OSError) as error:
            raise self._died(epoch) from error
        return answer

    def _died(self, epoch: int = 0) -> BackgroundError:
        code = None
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = self._process.wait(GRACE)
        self.close()
        what = f"of epoch {epoch} were not generated" if epoch else "of the next epoch cannot be generated"
        return BackgroundError(
            f"the images {what}: the process in the background has ended, exit status {code} (a negative one "
            "is a signal; -9 may mean that memory was short). Call set_epoch again, which goes on where it "
            "stopped, or give keep_epochs=1, which generates in this process"
        )

    def _start(self) -> Connection:
        ours: Connection | None = None
        try:
            ours, theirs = multiprocessing.Pipe()
            with theirs:
                code = _CODE.format(
                    path=[str(place) for place in sys.path],
                    module=Job.__module__,
                    descriptor=theirs.fileno(),
                    parent=os.getpid(),
                )
                self._process = subprocess.Popen(
                    [sys.executable, "-c", code],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                )
        except OSError as error:
            if ours is not None:
                ours.close()
            raise BackgroundError(
                f"no process could be started to generate in the background: {error}. Give keep_epochs=1, "
                "which generates in this process"
            ) from error
        self._connection = ours
        self._end = weakref.finalize(self, _end, self._process, ours, os.getpid())
        return ours


def _end(process: subprocess.Popen[bytes], connection: Connection, owner: int) -> None:
    """End the process, unless this is a fork of the one that started it."""
    if os.getpid() != owner:
        process.returncode = 0  # not this process's child, which need not warn that it runs
        return
    with contextlib.suppress(OSError):
        connection.send_bytes(b"")
    connection.close()
    try:
        process.wait(2 * GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
