"""Downloads from and uploads to a Hub whose answers go wrong.

    python -m tests.faults.hub --rounds 100 --output hub/results/faults.json

Each round puts one to three faults into the answers, downloads or publishes, and looks at what came of it:
all of it and right, or an error of this library that says what mends it; never a wrong file in the cache,
never half a commit; and once the faults are over, all of it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import random
import shutil
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

from d3hr_datasets.artifact.d3hr_json import METADATA, file_digests, needed_files, read_metadata
from d3hr_datasets.artifact.download import download_artifact
from d3hr_datasets.errors import ArtifactIntegrityError, ArtifactNotFoundError, D3HRError, PublishError
from d3hr_datasets.io import hub
from tests.faults.record import record
from tests.support.hub_server import HubServer, environment
from tests.support.hub_state import Fault

EMBEDDED = Path(__file__).resolve().parent.parent.parent / "hub" / "d3hr-fashion-mnist"
KINDS = ("reset", "cut", "slow", "corrupt", "truncate", 401, 404, 412, 500)
DOWNLOADS = ("^/lfs/", r"/resolve/.*\.json$", f"/{METADATA}$", "/tree/", "/revision/")
UPLOADS = (
    ("PUT", "^/lfs/"),
    ("POST", "/commit/"),
    ("POST", "/preupload/"),
    ("POST", "/batch$"),
    ("POST", "/create$"),
)


class BrokenPromiseError(AssertionError):
    """The library did what it must never do."""


def promise(kept: bool, what: str) -> None:
    if not kept:
        raise BrokenPromiseError(what)


def make_artifact(folder: Path, chance: random.Random) -> None:
    """Write an artifact of the embedded one's files, with other and little content."""
    document = json.loads((EMBEDDED / METADATA).read_text(encoding="utf-8"))
    shutil.rmtree(folder, ignore_errors=True)
    for name in document["sha256"]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(chance.randbytes(chance.randint(1, 20_000)))
    (folder / "README.md").write_text(f"---\nlicense: mit\n---\n# {chance.random()}\n")
    document["sha256"] = file_digests(folder)
    (folder / METADATA).write_text(json.dumps(document), encoding="utf-8")


def check_cache(cache: Path) -> int:
    """See that every blob is what it is named by, and nothing half is left; return how many there are."""
    blobs = [path for path in cache.rglob("blobs/*") if path.is_file()]
    for blob in blobs:
        data = blob.read_bytes()
        git = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        promise(blob.name in {git, hashlib.sha256(data).hexdigest()}, f"{blob} is wrong")
    return len(blobs)


def download_round(server: HubServer, work: Path, chance: random.Random, counts: Counter[str]) -> None:
    """Download with faults, then without; count what came of the first time."""
    cache = work / "cache"
    source = work / "source"
    make_artifact(source, chance)
    server.add_folder("org/faulty", source)
    revision = server.repository("org/faulty").refs["main"]
    server.faults[:] = [
        Fault(chance.choice(KINDS), chance.choice(DOWNLOADS), times=chance.randint(1, 3))  # type: ignore[arg-type]
        for _ in range(chance.randint(1, 3))
    ]
    kinds = {str(fault.kind) for fault in server.faults}
    outcome = "complete"
    try:
        _check_folder(download_artifact("org/faulty", revision, cache_dir=cache), source)
    except (ArtifactNotFoundError, ArtifactIntegrityError) as error:
        promise("org/faulty" in str(error), f"the error names nothing: {error}")
        promise("HF_TOKEN" in str(error) or "checksum" in str(error), f"the error mends nothing: {error}")
        outcome = "a clear error"
    check_cache(cache)
    server.faults.clear()
    _check_folder(download_artifact("org/faulty", revision, cache_dir=cache), source)
    promise(check_cache(cache) > 0, "nothing is cached")
    if chance.random() < 0.5:
        shutil.rmtree(cache)
    counts[f"download: {outcome}"] += 1
    counts.update(f"download: {kind} among the faults, {outcome}" for kind in kinds)


def _check_folder(folder: Path, source: Path) -> None:
    info, sha256 = read_metadata(source)
    found = file_digests(folder)
    for name in needed_files(info, sha256):
        promise(found.get(name) == sha256[name], f"{name} was given wrong")


def upload_round(server: HubServer, work: Path, chance: random.Random, counts: Counter[str]) -> None:
    """Publish with a fault, then without; count what came of the first time."""
    source = work / "source"
    make_artifact(source, chance)
    names = [METADATA, *file_digests(source)]
    repository = server.repositories.get(("datasets", "org/new"))
    before = repository.refs["main"] if repository else None
    method, path = chance.choice(UPLOADS)
    kind = chance.choice(("reset", "cut", "truncate", 401, 403, 412, 500))
    server.faults[:] = [Fault(kind, path, method)]  # type: ignore[arg-type]
    outcome = "complete"
    try:
        hub.upload(source, names, "org/new", commit_message="a round")
    except PublishError as error:
        promise("org/new" in str(error) and "HF_TOKEN" in str(error), f"the error says little: {error}")
        outcome = "a clear error"
    if ("datasets", "org/new") in server.repositories:
        repository = server.repository("org/new")
        head = repository.trees[repository.refs["main"]]
        data = {name: (source / name).read_bytes() for name in names}
        whole = all(name in head and head[name].data == data[name] for name in names)
        first = list(head) == [".gitattributes"]
        promise(whole or first or repository.refs["main"] == before, "half of it was published")
    server.faults.clear()
    hub.upload(source, names, "org/new", commit_message="a round")
    again = hub.upload(source, names, "org/new", commit_message="a round")
    promise(not again.changed, "publishing again changes something")
    counts[f"upload: {outcome}"] += 1
    counts[f"upload: {kind}, {outcome}"] += 1


def main() -> None:
    """Run the campaign and print its counts."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.hub", description=main.__doc__)
    parser.add_argument("--rounds", type=int, default=100, help="downloads; and a fifth of it uploads")
    parser.add_argument("--seed", type=int, default=0, help="of all random choices")
    parser.add_argument("--output", type=Path, help="JSON file that gets the counts")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("d3hr_datasets").setLevel(logging.ERROR)
    chance, counts, begin = random.Random(arguments.seed), Counter[str](), time.monotonic()
    with HubServer() as server, tempfile.TemporaryDirectory(prefix="d3hr-faults-") as folder:
        os.environ.update(environment(server.url, Path(folder) / "home"), HF_HUB_VERBOSITY="critical")
        for index in range(arguments.rounds):
            try:
                download_round(server, Path(folder), chance, counts)
                if index % 5 == 0:
                    upload_round(server, Path(folder), chance, counts)
            except D3HRError as error:
                raise BrokenPromiseError(f"round {index} fails without a fault: {error}") from error
    settings = {"rounds": arguments.rounds, "seed": arguments.seed}
    record(arguments.output, "hub", settings, counts, time.monotonic() - begin)
    for name, count in sorted(counts.items()):
        print(f"{count:6d}  {name}")
    print(f"every promise kept, seed {arguments.seed}, {time.monotonic() - begin:.0f} s")


if __name__ == "__main__":
    main()
