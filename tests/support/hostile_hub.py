"""A Hub on 127.0.0.1 that lies: about sizes, names of blobs and commits, and what it sends."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "c" * 40
ENOUGH = 3 * 2**30  # what an endless answer ends at, should nobody stop it


@dataclass
class Reply:
    """How a file is answered for. What is not given is told truly.

    Args:
        body: What is sent.
        stated: Its size as stated beforehand.
        etag: The name of its blob.
        later: That name in all answers but the first.
        commit: The name of its commit.
        endless: Zeros follow the body.
        cut: The connection ends in the middle of the body, each time.
        encoding: Of the body.
        location: Where the answer redirects to.
    """

    body: bytes = b""
    stated: int | None = None
    etag: str | None = None
    later: str | None = None
    commit: str = COMMIT
    endless: bool = False
    cut: bool = False
    encoding: str = ""
    location: str = ""
    asked: int = 0

    @property
    def name(self) -> str:
        true = hashlib.sha1(b"blob %d\0" % len(self.body) + self.body).hexdigest()
        etag = self.etag if self.later is None or self.asked < 2 else self.later
        return true if etag is None else etag


class HostileHub:
    """The server: a context manager; `replies` answers for files by their path in the repository."""

    def __init__(self) -> None:
        self.replies: dict[str, Reply] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients that leave
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> HostileHub:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def serve(self, folder: Path, lies: Mapping[str, Reply]) -> None:
        """Answer truly for the files of a folder, but for those in `lies`."""
        paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        self.replies = {path.relative_to(folder).as_posix(): Reply(path.read_bytes()) for path in paths}
        self.replies.update(lies)


class _Handler(BaseHTTPRequestHandler):
    hub: HostileHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        with contextlib.suppress(ConnectionError):
            self._answer()

    def _answer(self) -> None:
        reply = self.hub.replies.get(self.path.partition("/resolve/")[2].partition("/")[2])
        if reply is None:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        reply.asked += 1
        self.send_response(302 if reply.location else 200)
        self.send_header("ETag", f'"{reply.name}"')
        self.send_header("X-Repo-Commit", reply.commit)
        if reply.location:
            self.send_header("Location", reply.location)
            self.send_header("X-Linked-Size", str(len(reply.body)))
            self.send_header("X-Linked-Etag", f'"{reply.name}"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if reply.encoding and self.command == "GET":
            self.send_header("Content-Encoding", reply.encoding)
        if self.command == "HEAD":
            stated = len(reply.body) if reply.stated is None else reply.stated
            if stated >= 0:
                self.send_header("Content-Length", str(stated))
            self.end_headers()
            return
        if reply.endless:
            self.send_header("Connection", "close")
            self.end_headers()
            zeros, sent = bytes(2**20), 0
            self.wfile.write(reply.body)
            while sent < ENOUGH:
                self.wfile.write(zeros)
                sent += len(zeros)
            self.close_connection = True
            return
        self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        self.wfile.write(reply.body[: len(reply.body) // 2] if reply.cut else reply.body)
        self.close_connection = reply.cut
