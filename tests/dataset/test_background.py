"""The next epoch in the making: by another process, which ends when it should, and whose errors are told."""

from __future__ import annotations

import contextlib
import os
import pickle
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from d3hr_datasets import D3HRDataset
from d3hr_datasets.dataset.background import Background
from d3hr_datasets.dataset.background_process import Answer, Job, _Background
from d3hr_datasets.errors import BackgroundError
from tests.dataset.test_fresh_groups import fresh_set
from tests.support.image_groups import left_over
from tests.support.sets import image_digests

REPOSITORY = Path(__file__).resolve().parents[2]
SECONDS = 120.0  # to start or end a process on a busy machine


def _process(dataset: D3HRDataset) -> subprocess.Popen[bytes]:
    process = dataset._background._process
    assert process is not None
    return process


def _wait_for(path: Path) -> None:
    end = time.monotonic() + SECONDS
    while not path.exists():
        assert time.monotonic() < end, path
        time.sleep(0.05)


def _is_alive(pid: int) -> bool:
    """Say whether a process runs; one that has ended and whose parent is gone does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def test_the_next_epoch_is_made_meanwhile(
    tiny_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = fresh_set(tiny_artifact, tmp_path / "alone")
    dataset = fresh_set(tiny_artifact, tmp_path / "root", keep_epochs=2)
    dataset.set_epoch(0)

    def refuse(*args: object) -> None:
        raise AssertionError("generated in this process")

    torch.manual_seed(3)
    expected = torch.rand(6).tolist()
    torch.manual_seed(3)
    drawn = []
    with monkeypatch.context() as patch:
        patch.setattr("d3hr_datasets.dataset.images_on_demand.load_model", refuse)
        dataset._model = None
        for epoch in range(1, 7):
            drawn.append(torch.rand(()).item())
            dataset.set_epoch(epoch)
            on_disk = list((tmp_path / "root").glob("*-epoch*"))
            assert len(on_disk) <= 2 and dataset.image_folder in on_disk
            images = image_digests(dataset)
    assert drawn == expected
    alone.set_epoch(6)
    assert images == image_digests(alone)
    process = _process(dataset)
    process.send_signal(signal.SIGSTOP)
    dataset.set_epoch(20)  # was not prepared
    process.kill()
    with pytest.raises(BackgroundError, match=r"epoch 21 were not generated: .* has ended, exit status -9"):
        dataset.set_epoch(21)
    assert dataset.epoch == 20
    dataset.set_epoch(21)  # made here, and another process is started
    last = _process(dataset)
    assert (last.pid != process.pid, dataset.epoch) == (True, 21)
    dataset.set_epoch(22, prepare_next=False)
    assert last.returncode is not None and len(image_digests(dataset)) == 6
    dataset.close()
    assert left_over(tmp_path / "root") == []


class _Answers:
    """A connection on which answers wait; to ask for more than there are is an error: it would never end."""

    def __init__(self, *numbers: int) -> None:
        self.answers = [pickle.dumps(Answer(number)) for number in numbers]
        self.sent: list[object] = []

    def poll(self) -> bool:
        return bool(self.answers)

    def recv_bytes(self) -> bytes:
        return self.answers.pop(0)

    def send_bytes(self, data: bytes) -> None:
        self.sent.append(pickle.loads(data))


@pytest.mark.parametrize(
    ("epoch", "there", "given_up", "is_made"),
    [(20, (1, 2), True, False), (20, (1, 2, 3), False, False), (11, (1, 2, 3), False, True)],
)
def test_what_is_not_wanted_any_more_is_not_waited_for(
    epoch: int, there: tuple[int, ...], given_up: bool, is_made: bool
) -> None:
    connection, background = _Answers(*there), Background()
    background._connection = connection  # type: ignore[assignment]
    background._asked, background._epoch = 3, 11
    assert background.finish(epoch) == is_made
    assert connection.sent == ([None] if given_up else []) and connection.answers == []


def test_an_error_of_what_is_not_wanted_any_more_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    for epoch, is_raised in ((20, False), (11, True)):
        connection, background = _Answers(), Background()
        connection.answers = [pickle.dumps(Answer(3, "no space", "traceback"))]
        background._connection = connection  # type: ignore[assignment]
        background._asked, background._epoch = 3, 11
        if is_raised:
            with pytest.raises(BackgroundError, match=r"of epoch 11 could not be generated .* no space"):
                background.finish(epoch)
        else:
            assert not background.finish(epoch)
            assert "the images of epoch 11 could not be generated: no space" in caplog.text


def test_after_an_interrupt_nobody_waits_for_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(data: bytes) -> None:
        raise KeyboardInterrupt

    connection, background = _Answers(), Background()
    background._connection = connection  # type: ignore[assignment]
    monkeypatch.setattr(connection, "send_bytes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        background.ask(Job(None, (), None, "cpu", 1, 1), 1)  # type: ignore[arg-type]
    assert not background.finish(1)


def test_memory_is_kept_while_it_generates(monkeypatch: pytest.MonkeyPatch) -> None:
    kept, found = [], []

    @contextlib.contextmanager
    def keep() -> Iterator[None]:
        kept.append(1)
        yield
        kept.pop()

    class Images:
        def missing(self, labels: tuple[int, ...]) -> list[int]:
            return list(labels)

        def make(self, missing: list[int], *others: object) -> Iterator[int]:
            for label in missing:
                found.append((label, list(kept)))
                yield label

    monkeypatch.setattr("d3hr_datasets.numerics.allocator.kept_memory", keep)
    background = object.__new__(_Background)  # without the thread that listens
    background._received = 1
    background._do(1, Job(Images(), (0, 1), None, "cpu", 1, 1))  # type: ignore[arg-type]
    assert (found, kept) == ([(0, [1]), (1, [1])], [])


def test_errors_of_the_background_are_told(artifact_copy: Path, tmp_path: Path) -> None:
    dataset = fresh_set(artifact_copy, tmp_path / "root", keep_epochs=2)
    weights = artifact_copy / "model" / "vae" / "diffusion_pytorch_model.safetensors"
    dataset.set_epoch(0, prepare_next=False)
    shutil.move(weights, tmp_path / "weights")
    dataset.set_epoch(0)
    with pytest.raises(
        BackgroundError, match=r"epoch 1 could not be generated in the background: \w+Error: .*keep_epochs=1"
    ) as caught:
        dataset.set_epoch(1)
    assert "Traceback" in str(caught.value.__cause__) and dataset.epoch == 0
    shutil.move(tmp_path / "weights", weights)
    dataset.set_epoch(1, prepare_next=False)
    assert len(image_digests(dataset)) == 6


END = """
import os, signal, sys, time
from pathlib import Path
from d3hr_datasets import D3HRDataset

dataset = D3HRDataset(sys.argv[1], sys.argv[2], 2, device="cpu", resample="epoch")
dataset.set_epoch(0)
print(dataset._background._process.pid, flush=True)
folder = dataset.image_folder.parent
while sys.argv[4] == "busy" and not any(folder.glob("*-epoch*")):
    time.sleep(0.05)
if sys.argv[3] == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[3] == "interrupt":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has jobs in the background ignore it
    os.kill(os.getpid(), signal.SIGINT)
raise ValueError("the training failed")
"""


@pytest.mark.parametrize(
    ("how", "when", "code"),
    [("kill", "busy", -9), ("raise", "soon", 1), ("interrupt", "soon", -2)],
)
def test_no_process_is_left_behind(
    how: str, when: str, code: int, tiny_artifact: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", END, str(tiny_artifact), str(tmp_path / "root"), how, when]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    pid = int(done.stdout)
    end = time.monotonic() + SECONDS
    while _is_alive(pid) and how == "kill":
        assert time.monotonic() < end
        time.sleep(0.05)
    assert not _is_alive(pid)
    root = tmp_path / "root"
    dataset = fresh_set(tiny_artifact, root)
    for epoch in (1, 2):
        dataset.set_epoch(epoch)
    assert [path.name for path in root.glob("*-epoch*")] == [dataset.image_folder.name]
    assert not any((root / ".partial").iterdir())


def test_a_fork_does_not_end_the_process_of_its_parent(tiny_artifact: Path, tmp_path: Path) -> None:
    dataset = fresh_set(tiny_artifact, tmp_path, keep_epochs=2)
    dataset.set_epoch(0)
    process = _process(dataset)
    child = os.fork()
    if child == 0:
        try:
            dataset.close()
            len(dataset)  # has its own from here on
            dataset.set_epoch(4, prepare_next=False)
            os._exit(dataset.epoch)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 4
    assert process.poll() is None and dataset.epoch == 0
    dataset.set_epoch(1, prepare_next=False)
    assert process.returncode == 0


def test_the_next_epoch_goes_where_the_first_went_after_the_working_folder_changed(
    tiny_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "first")
    dataset = fresh_set(tiny_artifact, Path("root"), keep_epochs=2)
    dataset.set_epoch(0)
    monkeypatch.chdir(tmp_path / "second")
    dataset.set_epoch(1, prepare_next=False)
    assert dataset.image_folder.parent == tmp_path / "first/root"
    assert len([dataset[index] for index in range(6)]) == len(dataset)
    assert not any((tmp_path / "second").iterdir())
    dataset.close()


def test_a_process_that_finds_no_descriptor_free_says_so() -> None:
    job = Job(None, (), None, "cpu", 1, 1)  # type: ignore[arg-type]
    background = Background()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = [os.open(os.devnull, os.O_RDONLY) for _ in range(3)]
    for descriptor in free:
        os.close(descriptor)
    try:
        for number in (0, 1, 2):  # no socket; one of two; no pipe to the process
            resource.setrlimit(resource.RLIMIT_NOFILE, (free[number], limits[1]))
            with pytest.raises(BackgroundError, match=r"Too many open files.*keep_epochs=1"):
                background.ask(job, 1)
            assert not background.runs
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    again = [os.open(os.devnull, os.O_RDONLY) for _ in range(3)]
    for descriptor in again:
        os.close(descriptor)
    assert again == free  # none is left open
