"""Images on the Hub, published to the server of `hub_server`, and what others read there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

from d3hr_datasets import D3HRDataset
from d3hr_datasets.artifact.facts import CARD
from d3hr_datasets.dataset.artifact_registry import embedded_artifact
from tests.support.hub_card import card_errors
from tests.support.hub_server import HubServer, environment
from tests.support.tiny import CLASSES
from tests.support.workers import file_digests

# Of huggingface_hub, which gives a file to its HTTP library in the old way.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


def run_python(code: str, hub_url: str, home: Path, *arguments: object, **changes: str) -> str:
    """Run a program in a process of its own that uses the server; return what it prints."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment(hub_url, home), **changes},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


READ_IMAGES = """
import hashlib, json, sys, datasets
from timm.data.dataset_factory import create_dataset
repo, cache = sys.argv[1:]
table = datasets.load_dataset(repo, split="train", cache_dir=cache)
timms = create_dataset(f"hfds/{repo}", root=cache, split="train", input_img_mode="L")
digest = lambda image: hashlib.sha256(image.tobytes()).hexdigest()
print(json.dumps({
    "names": table.features["label"].names,
    "datasets": [[digest(row["image"]), row["label"]] for row in table],
    "timm": [[digest(image), label] for image, label in timms],
}))
"""


def test_images_on_the_hub_are_read_by_datasets_and_timm(
    hub: HubServer, tiny_artifact: Path, tmp_path: Path
) -> None:
    dataset = D3HRDataset(tiny_artifact, tmp_path / "root", 2, classes=["cat", "ant"], device="cpu")
    published = dataset.push_images_to_hub("org/tiny-images", progress=False)
    assert published.changed
    assert not dataset.push_images_to_hub("org/tiny-images", progress=False).changed
    card = hub.repository("org/tiny-images").trees[published.revision][CARD].data.decode()
    assert card_errors(card) == [] and dataset.fingerprint in card
    found = json.loads(run_python(READ_IMAGES, hub.url, tmp_path, "org/tiny-images", tmp_path / "read"))
    expected = [[_digest(dataset[i][0]), label] for i, label in enumerate(dataset.targets)]
    assert found == {"names": ["cat", "ant"], "datasets": expected, "timm": expected}


def _digest(image: Any) -> str:
    import hashlib

    return hashlib.sha256(image.tobytes()).hexdigest()


def test_to_hf_dataset_has_the_images(tiny_artifact: Path, tmp_path: Path) -> None:
    dataset = D3HRDataset(tiny_artifact, tmp_path, 2, device="cpu")
    table = dataset.to_hf_dataset(progress=False)
    assert table.features == datasets.Features(
        image=datasets.Image(), label=datasets.ClassLabel(names=list(CLASSES))
    )
    assert list(table["label"]) == dataset.targets
    for index, image in enumerate(table["image"]):
        assert np.array_equal(np.asarray(image), np.asarray(dataset[index][0]))


USE = """
import hashlib, json, sys
from d3hr_datasets import D3HRDataset
dataset = D3HRDataset(sys.argv[1], root=sys.argv[2], ipc=int(sys.argv[3]), device="cpu")
assert len(dataset) == 100
images = [dataset[index][0] for index in range(10, 20)]  # one class, to save time
print(json.dumps([hashlib.sha256(image.tobytes()).hexdigest() for image in images]))
"""


def test_from_publishing_to_images_over_http(tmp_path: Path) -> None:
    # The embedded artifact, its own processes, the real commands; then without the server.
    repo, ipc = "org/d3hr-fashion-mnist", 10
    source = embedded_artifact("fashion-mnist")
    with HubServer() as server:
        env = {**os.environ, **environment(server.url, tmp_path / "home")}

        def call(*command: str) -> str:
            done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
            assert done.returncode == 0, done.stderr
            return done.stdout

        run = "import sys; from d3hr_datasets.cli.app import app; sys.argv[0] = 'd3hr'; app()"
        row = call(sys.executable, "-c", run, "publish", str(source), repo, "--with-model")
        (revision,) = re.findall(r'revision="([0-9a-f]{40})"', row)
        hf = str(Path(sys.executable).with_name("hf"))
        printed = call(hf, "download", repo, "--repo-type", "dataset", "--revision", revision, "--quiet")
        snapshot = Path(printed.split()[-1])
        assert file_digests(snapshot).items() >= file_digests(source).items()
        here = D3HRDataset(source, tmp_path / "here", ipc, device="cpu")
        expected = [_digest(here[index][0]) for index in range(10, 20)]
        online = run_python(USE, server.url, tmp_path / "home", repo, tmp_path / "online", ipc)
        assert json.loads(online) == expected
    offline = run_python(
        USE, server.url, tmp_path / "home", repo, tmp_path / "offline", ipc, HF_HUB_OFFLINE="1", HF_TOKEN=""
    )
    assert json.loads(offline) == expected
