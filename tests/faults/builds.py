"""SIGKILL while one to three processes build an artifact together."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import time
from pathlib import Path

from d3hr_datasets.build.build import build_artifact
from d3hr_datasets.errors import BuildError
from tests.faults.kills import dying
from tests.faults.scene import TIMEOUT, Scene, fork, identities, promise, wait
from tests.support.tampering import STATISTICS
from tests.support.tiny import TinyImages, tiny_info, tiny_model

CHUNK_SIZE = 2  # six chunks
LEFT = 3  # exit code of a process that another one has left alone
MODEL = tiny_model()


def run(scene: Scene, kills: int) -> None:
    """Kill processes of builds, each time with another number of them, and compare what comes out."""
    clean = scene.folder / "clean-build"
    wait(fork(_build, clean, 0, 1, 0), expected=0)
    expected = (clean / "artifact" / STATISTICS).read_bytes()
    killed = 0
    for processes in (2, 3):
        root = scene.folder / f"build-of-{processes}"
        promise(_launch(root, processes) == 0, f"{processes} processes do not build")
        promise((root / "artifact" / STATISTICS).read_bytes() == expected, f"{processes} build another")
        scene.counts[f"build: {processes} processes gave the bits of one"] += 1
    while killed < kills:
        root = scene.folder / "killed-build"
        shutil.rmtree(root, ignore_errors=True)
        for _ in range(scene.random.randint(1, 3)):
            finished = identities(sorted((root / "work").glob("*.safetensors")))
            processes = scene.random.randint(1, 3)
            victim, at = scene.random.randrange(processes), scene.random.randint(1, 8)
            killed += _launch(root, processes, victim, at, scene.random.random() < 0.5)
            promise(identities(list(finished)) == finished, "a finished chunk was lost or made again")
        finished = identities(sorted((root / "work").glob("*.safetensors")))
        processes = scene.random.randint(1, 3)
        promise(_launch(root, processes) == 0, "a build does not go on")
        promise(identities(list(finished)) == finished, "a finished chunk was lost or made again")
        promise((root / "artifact" / STATISTICS).read_bytes() == expected, "the bits are others after a kill")
        scene.counts["build: killed builds that gave the bits of one not killed"] += 1
    scene.counts["build: processes killed"] += killed


def _launch(root: Path, processes: int, victim: int = -1, at: int = 0, after: bool = False) -> int:
    """Run processes as a launcher does: when one dies, all are killed. Return how many killed themselves."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    running = {}
    for rank in range(processes):
        if rank == victim:
            pid = fork(dying, lambda root, rank=rank: _build(root, rank, processes, port), root, at, after)
        else:
            pid = fork(_build, root, rank, processes, port)
        running[pid] = rank
    deadline, killed = time.monotonic() + TIMEOUT, 0
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid in running:
            rank, code = running.pop(pid), os.waitstatus_to_exitcode(status)
            died = rank == victim and code == -signal.SIGKILL
            promise(died or code == 0 or (victim >= 0 and code == LEFT), f"rank {rank} ended with {code}")
            killed += died
            if died:
                for other in running:
                    os.kill(other, signal.SIGKILL)
                    os.waitpid(other, 0)
                break
        promise(time.monotonic() < deadline, f"processes of a build hang for more than {TIMEOUT} s")
        time.sleep(0.005)
    return killed


def _build(root: Path, rank: int, processes: int, port: int) -> None:
    """Be one process of a build, as `torchrun` would start it."""
    from accelerate import PartialState

    PartialState._reset_state()
    if processes > 1:
        os.environ.update(
            RANK=str(rank),
            LOCAL_RANK=str(rank),
            WORLD_SIZE=str(processes),
            OMP_NUM_THREADS="1",
            LOCAL_WORLD_SIZE=str(processes),
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=str(port),
        )
    try:
        build_artifact(
            TinyImages(),
            MODEL,
            root / "artifact",
            tiny_info(dtype="float32"),
            root / "work",
            batch_size=2,
            chunk_size=CHUNK_SIZE,
            progress=False,
        )
    except BuildError:
        os._exit(LEFT)
    state = PartialState()
    promise(state.num_processes == processes and state.process_index == rank, "not joined")
    state.destroy_process_group()
