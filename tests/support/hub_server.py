"""A Hugging Face Hub on 127.0.0.1, for the unmodified `huggingface_hub` client and the `hf` command.

    python -m tests.support.hub_server [PORT]

Repositories are kept in memory: commits, branches, pull requests, regular and LFS files. What LFS keeps is on
another port, as on the Hub it is on another host, so that a token must not be sent there. Faults are put into
answers on demand. Xet is not offered: a client that has `hf_xet` needs HF_HUB_DISABLE_XET=1 to upload.
"""

from __future__ import annotations

import json
import socket
import struct
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from tests.support.hub_answers import TOKEN, Answer, Call, error
from tests.support.hub_state import Fault, HubState

__all__ = ["TOKEN", "Fault", "HubServer", "environment"]


class HubServer(HubState):
    """The Hub: use it as a context manager; `url` is its HF_ENDPOINT."""

    def __init__(self, port: int = 0) -> None:
        super().__init__()
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

    def _answer(self, path: str, body: bytes, fault: Fault | None) -> Answer:
        if fault is not None and isinstance(fault.kind, int):
            codes = {401: "", 404: "EntryNotFound"}
            return error(fault.kind, codes.get(fault.kind, ""), f"fault {fault.kind} on demand")
        return Call(self.hub, self.command, self.split, self.headers).answer(path, body)

    def _send(self, path: str, answer: Answer, fault: str | int | None) -> None:
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
