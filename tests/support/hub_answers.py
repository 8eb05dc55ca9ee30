"""What the Hub of the tests answers to each call of its clients, from what it keeps."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import dataclass
from email.message import Message
from typing import Any
from urllib.parse import SplitResult, parse_qs, unquote

from tests.support.hub_card import card_errors
from tests.support.hub_state import LFS_SUFFIXES, File, HubState, Repository, is_lfs

TOKEN = "hf_tests"
ATTRIBUTES = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LFS_SUFFIXES)
REPOSITORY = r"(?P<repo>[\w.-]+/[\w.-]+?)"
API = re.compile(
    rf"/api/(?P<kind>models|datasets)/{REPOSITORY}(/(?P<call>\w[\w-]*)(/(?P<rev>[^/]+)(/(?P<path>.*))?)?)?"
)
RESOLVE = re.compile(rf"/(?P<prefix>datasets/)?{REPOSITORY}/resolve/(?P<rev>[^/]+)/(?P<path>.+)")
BATCH = re.compile(rf"/(?P<prefix>datasets/)?{REPOSITORY}\.git/info/lfs/objects/batch")


class Answer(Exception):  # noqa: N818 - it is how a call ends
    def __init__(self, status: int, body: Any = b"", **headers: str) -> None:
        super().__init__(status)
        self.status, self.body = status, body
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def error(status: int, code: str, message: str, **headers: str) -> Answer:
    return Answer(status, {"error": message}, X_Error_Code=code, X_Error_Message=message, **headers)


@dataclass
class Call:
    """A request without its body, and the Hub that it is made to."""

    hub: HubState
    command: str
    split: SplitResult
    headers: Message

    def answer(self, path: str, body: bytes) -> Answer:
        try:
            with self.hub.lock:
                if path.startswith("/lfs/"):
                    self._storage(path.removeprefix("/lfs/"), body)
                for pattern, call in ((RESOLVE, self._resolve), (BATCH, self._batch), (API, self._api)):
                    if path == "/api/repos/create":
                        self._create(json.loads(body))
                    if path == "/api/validate-yaml":
                        errors = card_errors(json.loads(body)["content"])
                        raise Answer(400 if errors else 200, {"errors": errors, "warnings": []})
                    if path == "/api/whoami-v2":
                        self._need_token()
                        raise Answer(200, {"type": "user", "name": "tester", "orgs": [{"name": "org"}]})
                    if match := pattern.fullmatch(self.split.path):
                        call({key: unquote(value or "") for key, value in match.groupdict().items()}, body)
            return error(404, "", f"nothing at {path}")
        except Answer as answer:
            return answer

    def _need_token(self) -> None:
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            raise error(401, "", "Invalid credentials in Authorization header")

    def _find(self, kind: str, repo_id: str) -> Repository:
        repository = self.hub.repositories.get((kind, repo_id))
        allowed = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if repository is None or (repository.private and not allowed):
            raise error(404 if allowed else 401, "RepoNotFound", "Repository not found")
        return repository

    def _commit_of(self, repository: Repository, revision: str) -> str:
        sha = repository.resolve(revision)
        if sha is None:
            raise error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return sha

    def _create(self, values: dict[str, Any]) -> None:
        self._need_token()
        kind, repo_id = values.get("type", "model") + "s", f"{values['organization']}/{values['name']}"
        if values["organization"] not in {"org", "tester"}:
            raise error(403, "", f"You don't have the rights to create a repository under {repo_id}")
        url = f"{self.hub.url}/{'datasets/' if kind == 'datasets' else ''}{repo_id}"
        if (kind, repo_id) in self.hub.repositories:
            raise Answer(409, {"error": "You already created this repo", "url": url})
        repository = self.hub.repositories[kind, repo_id] = Repository(values.get("visibility") == "private")
        repository.commit({".gitattributes": self.hub.file(".gitattributes", ATTRIBUTES.encode())})
        raise Answer(200, {"url": url, "name": repo_id, "id": "0" * 24})

    def _resolve(self, parts: dict[str, str], _: bytes) -> None:
        repository = self._find("datasets" if parts["prefix"] else "models", parts["repo"])
        if repository.gated:
            known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
            raise error(403 if known else 401, "GatedRepo", f"Access to {parts['repo']} is restricted")
        sha = self._commit_of(repository, parts["rev"])
        file = repository.trees[sha].get(parts["path"])
        if file is None:
            raise error(404, "EntryNotFound", "Entry not found", X_Repo_Commit=sha)
        if not file.lfs:
            self._give(file.data, **{"ETag": f'"{file.oid}"', "X_Repo_Commit": sha, **self.hub.told})
        headers = {"X_Linked_Etag": f'"{file.sha256}"', "X_Linked_Size": str(len(file.data))}
        location = f"{self.hub.storage_url}/lfs/{file.sha256}"
        raise Answer(302, b"", **{"Location": location, "X_Repo_Commit": sha, **headers, **self.hub.told})

    def _storage(self, oid: str, body: bytes) -> None:
        if "Authorization" in self.headers and self.command != "POST":
            raise error(400, "", "a token was sent to the storage")
        if self.command == "POST":  # verify
            raise Answer(200 if json.loads(body)["oid"] in self.hub.lfs else 404, {})
        if self.command == "PUT":
            if hashlib.sha256(body).hexdigest() != oid:
                raise error(400, "", "the SHA-256 is not that of the content")
            self.hub.lfs[oid] = body
            raise Answer(200)
        if oid not in self.hub.lfs:
            raise error(404, "", "no such object")
        self._give(self.hub.lfs[oid], ETag=f'"{oid}"')

    def _give(self, data: bytes, **headers: str) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked is None:
            raise Answer(200, data, Accept_Ranges="bytes", **headers)
        first, last = int(asked[1]), min(int(asked[2] or len(data)), len(data) - 1)
        if first > last:
            raise error(416, "", "range", Content_Range=f"bytes */{len(data)}")
        given = f"bytes {first}-{last}/{len(data)}"
        raise Answer(206, data[first : last + 1], Content_Range=given, **headers)

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
        raise Answer(200, {"transfer": "basic", "objects": objects})

    def _api(self, parts: dict[str, str], body: bytes) -> None:
        repository, call = self._find(parts["kind"], parts["repo"]), parts["call"]
        if call in {"preupload", "commit"}:
            self._need_token()
        sha = self._commit_of(repository, parts["rev"] or "main")
        files = repository.trees[sha]
        if call in {"", "revision"}:
            siblings = [{"rfilename": path} for path in files]
            values = {"id": parts["repo"], "sha": sha, "private": repository.private, "siblings": siblings}
            raise Answer(200, {**values, "tags": [], "downloads": 0, "likes": 0}, X_Repo_Commit=sha)
        if call == "tree":
            self._tree(files, parts["path"])
        if call == "paths-info":
            paths = set(parse_qs(body.decode())["paths"])
            raise Answer(200, [file.tree_entry(path) for path, file in files.items() if path in paths])
        if call == "preupload":
            raise Answer(
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
            raise error(404, "EntryNotFound", f"{folder} does not exist")
        start = int(query.get("cursor", ["0"])[0])
        page, headers = entries[start : start + self.hub.page_size], {}
        if start + self.hub.page_size < len(entries):
            cursor = f"{self.split.path}?recursive=true&cursor={start + self.hub.page_size}"
            headers["Link"] = f'<{self.hub.url}{cursor}>; rel="next"'
        raise Answer(200, page, **headers)

    def _upload_mode(self, item: dict[str, Any], files: dict[str, File]) -> dict[str, Any]:
        path, known = item["path"], files.get(item["path"])
        mode = {
            "path": path,
            "uploadMode": "lfs" if is_lfs(path, item["size"]) else "regular",
            "shouldIgnore": False,
        }
        return mode if known is None else {**mode, "oid": known.sha256 if known.lfs else known.oid}

    def _commit(self, repository: Repository, parts: dict[str, str], head: str, lines: list[Any]) -> None:
        files, header = dict(repository.trees[head]), lines[0]["value"]
        if header.get("parentCommit", head) != head:
            raise error(412, "", "The branch has moved since its parent commit")
        for line in lines[1:]:
            key, value = line["key"], line["value"]
            path = value["path"]
            if path.startswith("/") or ".." in path.split("/") or ".git" in path.split("/"):
                raise error(400, "", f"invalid path {path}")
            if key == "file":
                files[path] = File(base64.b64decode(value["content"]), lfs=False)
            elif key == "lfsFile":
                if value["oid"] not in self.hub.lfs:
                    raise error(400, "", f"{path}: LFS has no {value['oid']}")
                files[path] = File(self.hub.lfs[value["oid"]], lfs=True)
            elif key == "deletedFile":
                if path not in files:
                    raise error(404, "EntryNotFound", "A file with this name doesn't exist")
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
        raise Answer(200, answer)
