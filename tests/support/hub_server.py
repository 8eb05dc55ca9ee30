"""A Hugging Face Hub on 127.0.0.1, for the unmodified `huggingface_hub` client and the `hf` command.

    python -m tests.support.hub_server [PORT]

Repositories are kept in memory: commits, branches, pull requests, regular and LFS files. What LFS keeps is on
another port, as on the Hub it is on another host, so that a token must not be sent there. Faults are put into
answers on demand. Xet is not offered: a client that has `hf_xet` needs HF_HUB_DISABLE_XET=1 to upload.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import struct
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, quote, unquote, urlsplit

from tests.support.hub_card import card_errors

TOKEN = "hf_tests"
LFS_SUFFIXES = (".safetensors", ".parquet", ".png", ".bin", ".tar")
ATTRIBUTES = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LFS_SUFFIXES)
REPOSITORY = r"(?P<repo>[\w.-]+/[\w.-]+?)"
API = re.compile(
    rf"/api/(?P<kind>models|datasets)/{REPOSITORY}(/(?P<call>\w[\w-]*)(/(?P<rev>[^/]+)(/(?P<path>.*))?)?)?"
)
RESOLVE = re.compile(rf"/(?P<prefix>datasets/)?{REPOSITORY}/resolve/(?P<rev>[^/]+)/(?P<path>.+)")
BATCH = re.compile(rf"/(?P<prefix>datasets/)?{REPOSITORY}\.git/info/lfs/objects/batch")


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


class HubServer:
    """The Hub: use it as a context manager; `url` is its HF_ENDPOINT."""

    def __init__(self, port: int = 0) -> None:
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.lfs: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.sent: Counter[str] = Counter()  # bytes of bodies, by path
        self.requests: list[tuple[str, str, str]] = []  # method, path, user agent
        self.page_size = 1000
        self.told: dict[str, str] = {}  # headers that it tells about files instead of the right ones
        self.lock = threading.RLock()
        self._servers = [ThreadingHTTPServer(("127.0.0.1", number), self._handler()) for number in (port, 0)]
        self.url, self.storage_url = (f"http://127.0.0.1:{server.server_port}" for server in self._servers)

    def _handler(self) -> type[_Handler]:
        return type("Handler", (_Handler,), {"hub": self})

    def __enter__(self) -> HubServer:
        for server in self._servers:
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

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
        file = File(data, name.endswith(LFS_SUFFIXES) or len(data) > 10_000_000)
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


class _Answer(Exception):  # noqa: N818 - it is how a call ends
    def __init__(self, status: int, body: Any = b"", **headers: str) -> None:
        super().__init__(status)
        self.status, self.body = status, body
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def _error(status: int, code: str, message: str, **headers: str) -> _Answer:
    return _Answer(status, {"error": message}, X_Error_Code=code, X_Error_Message=message, **headers)


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_HEAD(self) -> None:
        self._handle()

    do_GET = do_POST = do_PUT = do_HEAD  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _handle(self) -> None:
        self.split = urlsplit(self.path)
        path = unquote(self.split.path)
        with self.hub.lock:
            self.hub.requests.append((self.command, path, self.headers.get("User-Agent", "")))
        try:
            body = self._read_body()
            fault = self.hub.take_fault(self.command, path)
            answer = self._answer(path, body, fault)
            self._send(path, answer, fault.kind if fault else None)
        except (ConnectionError, BrokenPipeError):
            self.close_connection = True

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _answer(self, path: str, body: bytes, fault: Fault | None) -> _Answer:
        if fault is not None and isinstance(fault.kind, int):
            codes = {401: "", 404: "EntryNotFound"}
            return _error(fault.kind, codes.get(fault.kind, ""), f"fault {fault.kind} on demand")
        try:
            with self.hub.lock:
                if path.startswith("/lfs/"):
                    self._storage(path.removeprefix("/lfs/"), body)
                for pattern, call in ((RESOLVE, self._resolve), (BATCH, self._batch), (API, self._api)):
                    if path == "/api/repos/create":
                        self._create(json.loads(body))
                    if path == "/api/validate-yaml":
                        errors = card_errors(json.loads(body)["content"])
                        raise _Answer(400 if errors else 200, {"errors": errors, "warnings": []})
                    if path == "/api/whoami-v2":
                        self._need_token()
                        raise _Answer(200, {"type": "user", "name": "tester", "orgs": [{"name": "org"}]})
                    if match := pattern.fullmatch(self.split.path):
                        call({key: unquote(value or "") for key, value in match.groupdict().items()}, body)
            return _error(404, "", f"nothing at {path}")
        except _Answer as answer:
            return answer

    def _send(self, path: str, answer: _Answer, fault: str | int | None) -> None:
        body = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        if not isinstance(answer.body, bytes):
            answer.headers.setdefault("Content-Type", "application/json")
        if fault == "truncate":
            body = body[: len(body) // 2]
        if fault == "corrupt" and body:
            middle = len(body) // 2
            body = body[:middle] + bytes([body[middle] ^ 0xFF]) + body[middle + 1 :]
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        pieces = [body]
        if fault == "slow":
            step = max(1, -(-len(body) // 20))
            pieces = [body[start : start + step] for start in range(0, len(body), step)]
        if fault in {"reset", "cut"}:
            pieces = [body[: len(body) // 2]]
        for piece in pieces:
            self.wfile.write(piece)
            with self.hub.lock:
                self.hub.sent[path] += len(piece)
            if fault == "slow":
                time.sleep(0.01)
        if fault in {"reset", "cut"}:
            self.close_connection = True
            if fault == "reset":
                linger = struct.pack("ii", 1, 0)
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                self.connection.close()

    def _need_token(self) -> None:
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            raise _error(401, "", "Invalid credentials in Authorization header")

    def _find(self, kind: str, repo_id: str) -> Repository:
        repository = self.hub.repositories.get((kind, repo_id))
        allowed = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if repository is None or (repository.private and not allowed):
            raise _error(404 if allowed else 401, "RepoNotFound", "Repository not found")
        return repository

    def _commit_of(self, repository: Repository, revision: str) -> str:
        sha = repository.resolve(revision)
        if sha is None:
            raise _error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return sha

    def _create(self, values: dict[str, Any]) -> None:
        self._need_token()
        kind, repo_id = values.get("type", "model") + "s", f"{values['organization']}/{values['name']}"
        if values["organization"] not in {"org", "tester"}:
            raise _error(403, "", f"You don't have the rights to create a repository under {repo_id}")
        url = f"{self.hub.url}/{'datasets/' if kind == 'datasets' else ''}{repo_id}"
        if (kind, repo_id) in self.hub.repositories:
            raise _Answer(409, {"error": "You already created this repo", "url": url})
        repository = self.hub.repositories[kind, repo_id] = Repository(values.get("visibility") == "private")
        repository.commit({".gitattributes": self.hub.file(".gitattributes", ATTRIBUTES.encode())})
        raise _Answer(200, {"url": url, "name": repo_id, "id": "0" * 24})

    def _resolve(self, parts: dict[str, str], _: bytes) -> None:
        repository = self._find("datasets" if parts["prefix"] else "models", parts["repo"])
        sha = self._commit_of(repository, parts["rev"])
        file = repository.trees[sha].get(parts["path"])
        if file is None:
            raise _error(404, "EntryNotFound", "Entry not found", X_Repo_Commit=sha)
        if not file.lfs:
            self._give(file.data, **{"ETag": f'"{file.oid}"', "X_Repo_Commit": sha, **self.hub.told})
        headers = {"X_Linked_Etag": f'"{file.sha256}"', "X_Linked_Size": str(len(file.data))}
        location = f"{self.hub.storage_url}/lfs/{file.sha256}"
        raise _Answer(302, b"", **{"Location": location, "X_Repo_Commit": sha, **headers, **self.hub.told})

    def _storage(self, oid: str, body: bytes) -> None:
        if "Authorization" in self.headers and self.command != "POST":
            raise _error(400, "", "a token was sent to the storage")
        if self.command == "POST":  # verify
            raise _Answer(200 if json.loads(body)["oid"] in self.hub.lfs else 404, {})
        if self.command == "PUT":
            if hashlib.sha256(body).hexdigest() != oid:
                raise _error(400, "", "the SHA-256 is not that of the content")
            self.hub.lfs[oid] = body
            raise _Answer(200)
        if oid not in self.hub.lfs:
            raise _error(404, "", "no such object")
        self._give(self.hub.lfs[oid], ETag=f'"{oid}"')

    def _give(self, data: bytes, **headers: str) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked is None:
            raise _Answer(200, data, Accept_Ranges="bytes", **headers)
        first, last = int(asked[1]), min(int(asked[2] or len(data)), len(data) - 1)
        if first > last:
            raise _error(416, "", "range", Content_Range=f"bytes */{len(data)}")
        given = f"bytes {first}-{last}/{len(data)}"
        raise _Answer(206, data[first : last + 1], Content_Range=given, **headers)

    def _batch(self, parts: dict[str, str], body: bytes) -> None:
        self._need_token()
        self._find("datasets" if parts["prefix"] else "models", parts["repo"])
        objects = []
        for item in json.loads(body)["objects"]:
            actions = {
                "upload": {"href": f"{self.hub.storage_url}/lfs/{item['oid']}"},
                "verify": {"href": f"{self.hub.url}/lfs/verify"},
            }
            objects.append(item if item["oid"] in self.hub.lfs else {**item, "actions": actions})
        raise _Answer(200, {"transfer": "basic", "objects": objects})

    def _api(self, parts: dict[str, str], body: bytes) -> None:
        repository, call = self._find(parts["kind"], parts["repo"]), parts["call"]
        if call in {"preupload", "commit"}:
            self._need_token()
        sha = self._commit_of(repository, parts["rev"] or "main")
        files = repository.trees[sha]
        if call in {"", "revision"}:
            siblings = [{"rfilename": path} for path in files]
            values = {"id": parts["repo"], "sha": sha, "private": repository.private, "siblings": siblings}
            raise _Answer(200, {**values, "tags": [], "downloads": 0, "likes": 0}, X_Repo_Commit=sha)
        if call == "tree":
            self._tree(files, parts["path"])
        if call == "paths-info":
            paths = set(parse_qs(body.decode())["paths"])
            raise _Answer(200, [file.tree_entry(path) for path, file in files.items() if path in paths])
        if call == "preupload":
            raise _Answer(
                200, {"files": [self._upload_mode(item, files) for item in json.loads(body)["files"]]}
            )
        if call == "commit":
            self._commit(repository, parts, sha, [json.loads(line) for line in body.splitlines()])

    def _tree(self, files: dict[str, File], folder: str) -> None:
        query = parse_qs(self.split.query)
        prefix = f"{folder}/" if folder else ""
        entries = [file.tree_entry(path) for path, file in files.items() if path.startswith(prefix)]
        folders = {
            "/".join(e["path"].split("/")[:n]) for e in entries for n in range(1, e["path"].count("/") + 1)
        }
        entries += [
            {"type": "directory", "path": path, "size": 0, "oid": "0" * 40} for path in sorted(folders)
        ]
        if query.get("recursive", [""])[0].lower() not in {"true", "1"}:
            entries = [entry for entry in entries if "/" not in entry["path"].removeprefix(prefix)]
        if folder and not entries:
            raise _error(404, "EntryNotFound", f"{folder} does not exist")
        start = int(query.get("cursor", ["0"])[0])
        page, headers = entries[start : start + self.hub.page_size], {}
        if start + self.hub.page_size < len(entries):
            cursor = f"{self.split.path}?recursive=true&cursor={start + self.hub.page_size}"
            headers["Link"] = f'<{self.hub.url}{cursor}>; rel="next"'
        raise _Answer(200, page, **headers)

    def _upload_mode(self, item: dict[str, Any], files: dict[str, File]) -> dict[str, Any]:
        path, known = item["path"], files.get(item["path"])
        lfs = path.endswith(LFS_SUFFIXES) or item["size"] > 10_000_000
        mode = {"path": path, "uploadMode": "lfs" if lfs else "regular", "shouldIgnore": False}
        return mode if known is None else {**mode, "oid": known.sha256 if known.lfs else known.oid}

    def _commit(self, repository: Repository, parts: dict[str, str], head: str, lines: list[Any]) -> None:
        files, header = dict(repository.trees[head]), lines[0]["value"]
        if header.get("parentCommit", head) != head:
            raise _error(412, "", "The branch has moved since its parent commit")
        for line in lines[1:]:
            key, value = line["key"], line["value"]
            path = value["path"]
            if path.startswith("/") or ".." in path.split("/") or ".git" in path.split("/"):
                raise _error(400, "", f"invalid path {path}")
            if key == "file":
                files[path] = File(base64.b64decode(value["content"]), lfs=False)
            elif key == "lfsFile":
                if value["oid"] not in self.hub.lfs:
                    raise _error(400, "", f"{path}: LFS has no {value['oid']}")
                files[path] = File(self.hub.lfs[value["oid"]], lfs=True)
            elif key == "deletedFile":
                if path not in files:
                    raise _error(404, "EntryNotFound", "A file with this name doesn't exist")
                del files[path]
            else:
                files = {
                    name: file for name, file in files.items() if not name.startswith(path.rstrip("/") + "/")
                }
        number = sum(ref.startswith("refs/pr/") for ref in repository.refs) + 1
        as_request = parse_qs(self.split.query).get("create_pr") == ["1"]
        sha = repository.commit(files, f"refs/pr/{number}" if as_request else parts["rev"])
        url = f"{self.hub.url}/{parts['kind']}/{parts['repo']}"
        answer = {"commitOid": sha, "commitUrl": f"{url}/commit/{sha}", "success": True}
        if as_request:
            answer["pullRequestUrl"] = f"{url}/discussions/{number}"
        raise _Answer(200, answer)


def environment(url: str, home: Path) -> dict[str, str]:
    """Return what a process needs to use the server at `url` as its Hub, with a cache of its own."""
    return {
        "HF_ENDPOINT": url,
        "HF_HUB_DISABLE_XET": "1",
        "HF_TOKEN": TOKEN,
        "HF_HUB_OFFLINE": "0",
        "HF_HOME": str(home),
        "HF_HUB_CACHE": str(home / "hub"),
        "HF_ASSETS_CACHE": str(home / "assets"),
        "HF_DATASETS_CACHE": str(home / "datasets"),
        "HF_XET_CACHE": str(home / "xet"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }


if __name__ == "__main__":
    with HubServer(int(sys.argv[1]) if len(sys.argv) > 1 else 0) as served:
        print(
            f"export HF_ENDPOINT={quote(served.url, safe=':/')} HF_HUB_DISABLE_XET=1 HF_TOKEN={TOKEN}",
            flush=True,
        )
        threading.Event().wait()
