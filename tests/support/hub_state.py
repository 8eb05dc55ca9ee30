"""What the Hub of the tests keeps: repositories with their commits, LFS files, and faults that wait."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

LFS_SUFFIXES = (".safetensors", ".parquet", ".png", ".bin", ".tar")


def is_lfs(name: str, size: int) -> bool:
    """Say whether LFS keeps a file."""
    return name.endswith(LFS_SUFFIXES) or size > 10_000_000


@dataclass(frozen=True)
class File:
    """A file of a commit."""

    data: bytes
    lfs: bool

    @property
    def oid(self) -> str:
        """Git's name of the blob: of the pointer, where LFS keeps the data."""
        data = self.data
        if self.lfs:
            lines = [
                "version https://git-lfs.github.com/spec/v1",
                f"oid sha256:{self.sha256}",
                f"size {len(data)}",
            ]
            data = "".join(f"{line}\n" for line in lines).encode()
        return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    def tree_entry(self, path: str) -> dict[str, Any]:
        entry: dict[str, Any] = {"type": "file", "path": path, "size": len(self.data), "oid": self.oid}
        if self.lfs:
            entry["lfs"] = {"oid": self.sha256, "size": len(self.data), "pointerSize": 130}
        return entry


@dataclass
class Repository:
    """Commits and what points to them."""

    private: bool = False
    gated: bool = False  # its terms have been accepted by nobody
    trees: dict[str, dict[str, File]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def resolve(self, revision: str) -> str | None:
        """Return the commit of a branch, a pull request or a whole hash."""
        return self.refs.get(revision) or (revision if revision in self.trees else None)

    def commit(self, files: dict[str, File], ref: str = "main") -> str:
        """Add a commit that holds these files alone."""
        names = {path: file.oid for path, file in files.items()}
        sha = hashlib.sha1(json.dumps([names, ref, len(self.trees)]).encode()).hexdigest()
        self.trees[sha] = dict(files)
        self.refs[ref] = sha
        return sha


@dataclass
class Fault:
    """What goes wrong with the next answers to requests that match.

    "reset" breaks the connection in the middle of the body, "cut" ends it there, "slow" sends in pieces,
    "corrupt" changes a byte, "truncate" sends half of the body as if it were all; a number is an HTTP status.
    """

    kind: Literal["reset", "cut", "slow", "corrupt", "truncate"] | int
    path: str  # a regular expression that is searched for in the path
    method: str = "GET"
    times: int = 1


class HubState:
    """All that the Hub keeps, and where it is served."""

    def __init__(self) -> None:
        self.url = self.storage_url = ""  # known once it is served
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.lfs: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.sent: Counter[str] = Counter()  # bytes of bodies, by path
        self.requests: list[tuple[str, str, str]] = []  # method, path, user agent
        self.page_size = 1000
        self.told: dict[str, str] = {}  # headers that it tells about files instead of the right ones
        self.lock = threading.RLock()

    def repository(self, repo_id: str, kind: str = "datasets") -> Repository:
        return self.repositories[kind, repo_id]

    def add_folder(self, repo_id: str, folder: Path, kind: str = "datasets") -> str:
        """Commit exactly the files of a folder, without the client; return the commit."""
        files = {
            path.relative_to(folder).as_posix(): self.file(path.name, path.read_bytes())
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
        with self.lock:
            return self.repositories.setdefault((kind, repo_id), Repository()).commit(files)

    def file(self, name: str, data: bytes) -> File:
        file = File(data, is_lfs(name, len(data)))
        if file.lfs:
            self.lfs[file.sha256] = data
        return file

    def take_fault(self, method: str, path: str) -> Fault | None:
        """Return what goes wrong with this request, once."""
        with self.lock:
            for fault in self.faults:
                if fault.times > 0 and fault.method == method and re.search(fault.path, path):
                    fault.times -= 1
                    return fault
        return None
