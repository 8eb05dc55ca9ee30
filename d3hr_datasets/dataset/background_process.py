"""The process that generates sets ahead: jobs from the process that trains -> images in the cache.

In: pickled `Job`s over a socket. Out: one answer for each, what went wrong or that nothing did. Nothing heavy
is imported before the first job has come.

It ends when its parent says so, or has died. A job is given up, between batches, when another one comes.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import signal
import threading
import time
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from d3hr_datasets.classes.class_list import ClassList
    from d3hr_datasets.dataset.generated_set import GeneratedSet
    from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion

GRACE = 5.0  # seconds to end in, before the process is ended
_LOOK = 0.5  # seconds after which it is seen that the parent has died


@dataclass(frozen=True)
class Job:
    """What is to be generated.

    Args:
        images: The set.
        labels: Those labels of it that are this process's.
        class_list: Every class of the model.
        device: Where, as PyTorch names it.
        threads: Of the process that trains, so that rounding is the same.
        batch_size: Images in the model at a time.
        cpu_offload: Whether parts of the model wait in the host's memory.
    """

    images: GeneratedSet
    labels: tuple[int, ...]
    class_list: ClassList
    device: str
    threads: int
    batch_size: int
    cpu_offload: bool = False


@dataclass(frozen=True)
class Answer:
    """What became of a job.

    Args:
        number: Of the job, from 1.
        error: What went wrong, on one line; empty if nothing did.
        details: Where it went wrong.
    """

    number: int
    error: str = ""
    details: str = ""


def main(descriptor: int, parent: int) -> None:
    """Do what comes over a socket until it is closed.

    Args:
        descriptor: Of the socket.
        parent: Number of the process that started this one.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which then ends this process
    signal.signal(signal.SIGTERM, _leave)
    try:
        with contextlib.suppress(SystemExit, BrokenPipeError, ConnectionResetError):
            _Background(Connection(descriptor), parent).run()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)  # without the end of the interpreter, which may wait for threads of libraries


def _leave(*signal_and_frame: Any) -> None:
    raise SystemExit(0)  # what is half written is removed on the way


class _Background:
    """The loop of the process, and a thread that listens meanwhile."""

    def __init__(self, connection: Connection, parent: int) -> None:
        self._connection, self._parent = connection, parent
        self._received = 0
        self._jobs: queue.SimpleQueue[tuple[int, bytes]] = queue.SimpleQueue()
        self._model: LatentDiffusion | None = None
        threading.Thread(target=self._listen, daemon=True).start()

    def run(self) -> None:
        """Do one job after the other."""
        while True:
            number, data = self._jobs.get()
            if number != self._received:
                continue
            try:
                self._do(number, pickle.loads(data))
                answer = Answer(number)
            except Exception as error:  # whatever it is, the parent tells it to the user
                text = f"{type(error).__name__}: {' '.join(str(error).split())}"
                answer = Answer(number, text, traceback.format_exc())
            self._connection.send_bytes(pickle.dumps(answer))

    def _do(self, number: int, job: Job | None) -> None:
        import torch

        from d3hr_datasets.numerics.allocator import kept_memory

        if job is None:
            return
        torch.set_num_threads(job.threads)
        missing = job.images.missing(job.labels)
        making = contextlib.closing(job.images.make(missing, job.batch_size, lambda: self._loaded(job)))
        with kept_memory(), making as made:
            while number == self._received and next(made, None) is not None:
                pass

    def _loaded(self, job: Job) -> LatentDiffusion:
        from d3hr_datasets.artifact.model import load_model

        if self._model is None:
            generator = job.images.generator
            labels = generator.class_labels.tolist()
            how = job.device, generator.torch_dtype, job.class_list, labels, job.cpu_offload
            self._model = load_model(generator.artifact, *how)
        return self._model

    def _listen(self) -> None:
        with contextlib.suppress(EOFError, OSError):
            while os.getppid() == self._parent:
                if self._connection.poll(_LOOK):
                    data = self._connection.recv_bytes()
                    if not data:
                        break
                    self._received += 1
                    self._jobs.put((self._received, data))
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)  # wakes it where it waits
        time.sleep(GRACE)
        os._exit(1)
