"""File systems that fill up or cannot be written, and files of other versions."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from d3hr_datasets import D3HRDataset, D3HRError
from d3hr_datasets.cache.files import SETTINGS
from d3hr_datasets.cache.inspection import list_cached_sets, verify_cached_set
from d3hr_datasets.cache.prune import prune_cache
from d3hr_datasets.errors import ArtifactFormatError, CacheError
from tests.faults.scene import (
    IPC,
    Scene,
    empty_folder,
    fork,
    identities,
    intact_files,
    leftovers,
    mount,
    own_mounts,
    promise,
    wait,
)
from tests.support.tampering import read_document, write_document
from tests.support.workers import file_digests

NOBODY = 65534
REFUSED = 3  # exit code of a process whose generation did not fit at first
VERSIONS: tuple[Any, ...] = (0, 3, 99, "1", "2", 1.5, None, [1], {})


def fill_disk(scene: Scene, rounds: int, mounts: bool) -> None:
    """Generate on small file systems, then give them room."""
    if not mounts:
        scene.counts["disk full: SKIPPED small file systems: mounting is not permitted here"] += 1
    folder = empty_folder(scene.folder / "small")
    for _ in range(rounds if mounts else 0):
        blocks, inodes = scene.random.randint(6, 30), scene.random.randint(8, 40)
        _count(scene, "small file systems", wait(fork(_fill_mount, scene, folder, blocks, inodes)))
    for _ in range(rounds):
        root = empty_folder(scene.folder / "full")
        limit = scene.random.randint(0, 400)
        _count(scene, "limits on the size of a file", wait(fork(_limit_files, scene, root, limit)))
        scene.generate(root)
    for _ in range(rounds):
        root = empty_folder(scene.folder / "full")
        _count(scene, "ENOSPC injected", REFUSED if _inject(scene, root) else 0)
    shutil.rmtree(scene.folder / "full")


def _count(scene: Scene, fault: str, code: int) -> None:
    promise(code in (0, REFUSED), f"{fault}: a process ended with {code}")
    scene.counts[f"disk full: {fault}, {'refused at first' if code else 'room enough'}"] += 1


def _fill_mount(scene: Scene, folder: Path, blocks: int, inodes: int) -> None:
    own_mounts()
    mount("-t", "tmpfs", "-o", f"size={4 * blocks}k,nr_inodes={inodes}", "tmpfs", str(folder))
    refused = _refused_for_space(scene, folder)
    intact = intact_files(scene.dataset(folder))
    mount("-o", "remount,size=16m,nr_inodes=1000", str(folder))
    scene.generate(folder)
    promise(identities(list(intact)) == intact, "what was complete was lost when the disk filled up")
    promise(verify_cached_set(folder, scene.dataset(folder).cache.folder.name) == [], "not sound")
    os._exit(REFUSED if refused else 0)


def _limit_files(scene: Scene, root: Path, limit: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    os._exit(REFUSED if _refused_for_space(scene, root) else 0)


def _inject(scene: Scene, root: Path) -> bool:
    at, calls = scene.random.randint(1, 45), 0

    def failing(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls >= at:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return function(*arguments, **options)

        return call

    with contextlib.ExitStack() as patches:
        for name in ("fsync", "mkdir", "rename", "replace"):
            patches.enter_context(mock.patch.object(os, name, failing(getattr(os, name))))
        refused = _refused_for_space(scene, root)
    intact = intact_files(scene.dataset(root))
    scene.generate(root)
    promise(identities(list(intact)) == intact, "what was complete was lost when the disk filled up")
    return refused


def _refused_for_space(scene: Scene, root: Path) -> bool:
    """Generate; see that nothing is left or wrong. Say whether it did not fit, which needs a clear error."""
    refused = False
    try:
        scene.generate(root)
    except CacheError as error:
        refused = True
        promise("Free some space" in str(error), f"the error does not say what mends it: {error}")
    scene.check_what_is_there(root)
    promise(leftovers(root, ".partial") == leftovers(root, ".locks") == [], "something is left behind")
    return refused


def deny(scene: Scene, mounts: bool) -> None:
    """Use caches that cannot be written or read."""
    complete, incomplete = scene.folder / "complete", scene.folder / "incomplete"
    scene.generate(complete)
    shutil.copytree(complete, incomplete)
    shutil.rmtree(incomplete / _set_name(scene) / scene.dataset(incomplete).cache.class_folders[1])
    if mounts:
        wait(fork(_read_only_mount, scene, complete, incomplete), expected=0)
        scene.counts["denied: read-only file system, complete and incomplete"] += 1
    else:
        scene.counts["denied: SKIPPED read-only file system: mounting is not permitted here"] += 1
    for path in [scene.folder, *scene.folder.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    if os.getuid() == 0 and wait(fork(_reach_as_other_user, scene)) == 0:
        wait(fork(_other_user, scene, complete, incomplete), expected=0)
        scene.counts["denied: another user's cache, complete and incomplete"] += 1
        secret = complete / _set_name(scene) / scene.dataset(complete).cache.class_folders[0] / "00000.png"
        secret.chmod(0)
        wait(fork(_unreadable, scene, complete, secret), expected=0)
        scene.counts["denied: an image that cannot be read"] += 1
    else:
        scene.counts["denied: SKIPPED another user's cache: not root, or TMPDIR is root's alone"] += 1
    shutil.rmtree(complete)
    shutil.rmtree(incomplete)


def _read_only_mount(scene: Scene, complete: Path, incomplete: Path) -> None:
    own_mounts()
    for folder in (complete, incomplete):
        mount("--bind", str(folder), str(folder))
        mount("-o", "remount,bind,ro", str(folder))
    _use_read_only(scene, complete, incomplete)


def _become_other_user() -> None:
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)


def _reach_as_other_user(scene: Scene) -> None:
    _become_other_user()
    os._exit(0 if os.access(scene.artifact, os.R_OK) else REFUSED)


def _other_user(scene: Scene, complete: Path, incomplete: Path) -> None:
    _become_other_user()
    _use_read_only(scene, complete, incomplete)


def _use_read_only(scene: Scene, complete: Path, incomplete: Path) -> None:
    before = file_digests(incomplete)
    scene.generate(complete)
    dataset = scene.dataset(complete)
    for label in range(len(dataset.classes)):
        dataset.cache.ensure(label, _never)
    promise(verify_cached_set(complete, _set_name(scene)) == [], "a read-only cache is not sound")
    promise(list_cached_sets(complete)[0].num_complete_groups == 3, "a read-only cache is not listed")
    _expect(CacheError, "materialize", lambda: scene.generate(incomplete))
    _expect(CacheError, "materialize", lambda: scene.read(incomplete))
    _expect(CacheError, "cannot be written", lambda: prune_cache(incomplete, [_set_name(scene)]))
    promise(scene.check_what_is_there(incomplete) == 2 * IPC, "what is complete cannot be read")
    promise(file_digests(incomplete) == before, "a read-only cache was changed")


def _unreadable(scene: Scene, root: Path, secret: Path) -> None:
    _become_other_user()
    _expect(CacheError, str(secret), lambda: scene.read(root))
    _expect(CacheError, str(secret), lambda: verify_cached_set(root, _set_name(scene)))


def other_versions(scene: Scene) -> None:
    """Open caches and artifacts of other format versions."""
    root = scene.folder / "versions"
    scene.generate(root)
    folder = root / _set_name(scene)
    document = json.loads((folder / SETTINGS).read_text())
    for version in VERSIONS:
        for keep in (True, False):
            changed = {**document, "format": version}
            if not keep:
                del changed["sha256"]
            (folder / SETTINGS).write_text(json.dumps(changed))
            before = file_digests(folder)
            if keep:  # damaged, as its checksum tells: it is not believed, and written again
                promise(verify_cached_set(root, folder.name) == [folder / SETTINGS], "damage is not found")
                scene.generate(root)
                promise(verify_cached_set(root, folder.name) == [], "a damaged set.json does not come back")
                before[SETTINGS] = file_digests(folder)[SETTINGS]
            else:
                _expect(CacheError, "format", lambda: scene.generate(root))
                _expect(CacheError, "format", lambda: scene.read(root))
                _expect(CacheError, "format", lambda: verify_cached_set(root, folder.name))
                prune_cache(root, damaged=True)
                promise(list_cached_sets(root)[0].num_complete_groups == 0, "another format counts")
            promise(file_digests(folder) == before, "a set of another format was changed")
            scene.counts["versions: cache"] += 1
    shutil.rmtree(root)
    artifact = Path(shutil.copytree(scene.artifact, scene.folder / "other-version"))
    original = read_document(artifact)
    for version in VERSIONS:
        write_document(artifact, {**original, "format": version})
        _expect(ArtifactFormatError, "format", lambda: D3HRDataset(artifact, root, ipc=IPC, device="cpu"))
        scene.counts["versions: artifact"] += 1
    shutil.rmtree(artifact)


def _set_name(scene: Scene) -> str:
    return scene.dataset(scene.folder).cache.folder.name


def _expect(kind: type[D3HRError], text: str, work: Callable[[], object]) -> None:
    try:
        work()
    except kind as error:
        promise(text in str(error), f"the error does not say {text!r}: {error}")
        return
    promise(False, f"no {kind.__name__} about {text!r}")


def _never() -> list[Any]:
    raise AssertionError("made again")
