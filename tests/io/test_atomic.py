"""A folder is replaced whole, or not at all: kills at any call, and what is put into it meanwhile."""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from d3hr_datasets.errors import ConfigError
from d3hr_datasets.io import atomic
from d3hr_datasets.io.atomic import LEFT_SECONDS, added_folder, renewed_folder, replace_file, replaced_folder

REPOSITORY = Path(__file__).resolve().parents[2]

KILLS = """
import logging, os, sys
from pathlib import Path
from d3hr_datasets.io import atomic

root = Path(sys.argv[1])
folder = root / "folder"

def lay(text):
    (folder / "inner").mkdir(parents=True)
    for name in ("a", "b", "inner/c"):
        (folder / name).write_text(text)

def contents():
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}

OLD, NEW = ({name: text for name in ("a", "b", "inner/c")} for text in ("old", "new"))

def replace(at, after):
    calls = 0
    def counted(function):
        def call(*arguments, **options):
            nonlocal calls
            calls += 1
            if calls == at and not after:
                os._exit(9)
            result = function(*arguments, **options)
            if calls == at:
                os._exit(9)
            return result
        return call
    for name in ("link", "mkdir", "rename", "replace", "unlink", "rmdir", "open"):
        setattr(os, name, counted(getattr(os, name)))
    atomic.exchange = counted(atomic.exchange)
    with atomic.replaced_folder(folder) as new:
        for name in ("a", "b", "inner/c"):
            (new / name).unlink()
            (new / name).write_text("new")

lay("old")
seen = {"old": 0, "new": 0}
at = 0
while True:
    at += 1
    codes = []
    for after in (False, True):
        pid = os.fork()
        if pid == 0:
            replace(at, after)
            os._exit(0)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        found = contents()
        assert found in (OLD, NEW), (at, after, found)
        seen["old" if found == OLD else "new"] += 1
        if found == NEW:
            for name in NEW:
                (folder / name).write_text("old")
    if codes == [0, 0]:
        break
print(at, seen["old"], seen["new"])
"""


def test_a_kill_at_any_call_leaves_a_whole_folder(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", KILLS, str(tmp_path)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    calls, old, new = map(int, done.stdout.split())
    assert calls > 10 and old > 10 and new > 2


@pytest.mark.parametrize("at_once", [True, False])
def test_two_folders_change_places(at_once: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not at_once:
        monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: object())
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    atomic.exchange(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "a" / "b").exists() and (tmp_path / "b" / "a").exists()
    with pytest.raises(FileNotFoundError):
        atomic.exchange(tmp_path / "a", tmp_path / "missing")
    assert (tmp_path / "a" / "b").exists() and len(list(tmp_path.iterdir())) <= 3


def test_what_is_put_into_a_folder_meanwhile_is_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, linked = tmp_path / "folder", tmp_path / "linked"
    folder.mkdir()
    (folder / "a").write_text("old")
    linked.symlink_to(folder)
    with replaced_folder(linked) as new:
        (folder / "mine").write_text("mine")
        (new / "a").unlink()
        (new / "a").write_text("new")
    assert linked.is_symlink() and (linked / "a").read_text() == "new" and "was changed" in caplog.text
    (kept,) = tmp_path.glob("folder.*.old")
    assert {path.name: path.read_text() for path in kept.iterdir()} == {"a": "old", "mine": "mine"}
    before = sorted(tmp_path.iterdir())
    with pytest.raises(KeyboardInterrupt), replaced_folder(folder) as new:
        raise KeyboardInterrupt
    assert sorted(tmp_path.iterdir()) == before
    with replaced_folder(tmp_path / "new" / "folder") as new:
        (new / "a").write_text("new")
    assert (tmp_path / "new" / "folder" / "a").read_text() == "new"


def test_the_working_folder_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder" / "below").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "folder" / "below")
    with pytest.raises(ConfigError, match="working folder"), replaced_folder(tmp_path / "folder"):
        pass
    assert Path.cwd().is_dir()


def test_files_are_written_for_whom_the_user_lets_read(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        replace_file(tmp_path / "x.safetensors", lambda path: save_file({"a": torch.zeros(1)}, path))
    finally:
        os.umask(before)
    assert (tmp_path / "x.safetensors").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("has_links", [True, False])
def test_a_file_that_must_be_new_replaces_none(
    has_links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(source: Path, target: Path) -> None:
        raise OSError(95, "Operation not supported")

    if not has_links:
        monkeypatch.setattr(os, "link", no_links)
    path = tmp_path / "folder" / "file"
    path.parent.mkdir()
    replace_file(path, lambda to: to.write_text("first"), must_be_new=True)
    with pytest.raises(FileExistsError):
        replace_file(path, lambda to: to.write_text("second"), must_be_new=True)
    assert path.read_text() == "first" and list(path.parent.iterdir()) == [path]


def test_a_full_disk_is_an_error_of_the_system_for_safetensors_too(tmp_path: Path) -> None:
    from safetensors import SafetensorError

    (tmp_path / "in").mkdir()

    def fail(_: Path) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    with pytest.raises(OSError, match="No space left on device"):
        replace_file(tmp_path / "in" / "file", fail)
    with (
        pytest.raises(OSError, match="No space left on device"),
        renewed_folder(tmp_path / "in/folder") as new,
    ):
        fail(new)
    assert not list((tmp_path / "in").iterdir())


ADDED = """
import os, sys, time
from pathlib import Path
from d3hr_datasets.io.atomic import added_folder

with added_folder(Path(sys.argv[1])) as new:
    (new / "file").write_text("half")
    old = time.time() - 7200
    os.utime(new, (old, old))
    print(new, flush=True)
    sys.stdin.readline()
    (new / "file").write_text("whole")
"""


@pytest.mark.parametrize("killed", [False, True])
def test_what_a_killed_process_left_of_a_new_folder_goes_and_that_of_a_living_one_stays(
    killed: bool, tmp_path: Path
) -> None:
    folder = tmp_path / "in" / "new"
    strangers = [folder.with_name(".new.notes.tmp"), folder.with_name(f".new.{'0' * 32}.tmp2")]
    for stranger in strangers:
        stranger.mkdir(parents=True)
        os.utime(stranger, (0, 0))
    command = [sys.executable, "-c", ADDED, str(folder)]
    with subprocess.Popen(
        command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        left = Path(process.stdout.readline().strip())
        assert left.stat().st_mtime < time.time() - LEFT_SECONDS
        if killed:
            process.kill()
            process.wait()
        with contextlib.suppress(ValueError), added_folder(folder):
            assert left.exists() != killed
            raise ValueError
        if not killed:
            process.communicate("\n")
    assert (folder / "file").exists() != killed
    assert sorted(folder.parent.iterdir()) == sorted([*strangers, *([] if killed else [folder])])
