"""A private artifact is released once and whole, not over another one; what is killed is a release, too."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from d3hr_datasets import Artifact
from d3hr_datasets.artifact.d3hr_json import METADATA
from d3hr_datasets.build import plan_build
from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from d3hr_datasets.errors import ArtifactFormatError, ConfigError
from d3hr_datasets.io import atomic
from tests.support.combining import save_pictures
from tests.support.private_builds import SETTINGS, SPENDING, build_private, class_list_options
from tests.support.tiny import TinyImages, tiny_pipeline


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("private") / "model"
    tiny_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def model(model_folder: Path) -> LatentDiffusion:
    return LatentDiffusion.from_pretrained(model_folder, device="cpu")


def _copy_of_model(folder: Path) -> Path:
    tiny_pipeline().save_pretrained(folder / "model")
    return folder


def test_a_process_that_is_killed_while_it_writes_leaves_a_release(
    model: LatentDiffusion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file has its contents before it has its name."""
    output = _copy_of_model(tmp_path / "artifact")
    pid = os.fork()
    if pid == 0:
        monkeypatch.setattr(
            atomic, "sync", lambda path: time.sleep(60) if "statistics" in path.name else None
        )
        build_private(model, output)
        os._exit(1)
    deadline = time.monotonic() + 60
    while not (left := list(tmp_path.glob(".artifact.*.tmp/.statistics.safetensors.*.tmp"))):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(0.2)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert left[0].stat().st_size > 0 and not (output / METADATA).exists()
    with pytest.raises(ConfigError, match=r"statistics\.safetensors.*spends the budget again; give a new"):
        build_private(model, output)


class _Meanwhile(TinyImages):
    """Images, while which are read another build releases its artifact."""

    def __init__(self, model: LatentDiffusion, output: Path) -> None:
        self.model, self.output = model, output
        self.released: Artifact | None = None
        self.lock = threading.Lock()  # several threads read

    def __getitem__(self, index: int) -> Any:
        with self.lock:
            if self.released is None:
                self.released = build_private(self.model, self.output, work=self.output.with_name("theirs"))
        return super().__getitem__(index)


def test_a_build_that_ends_later_replaces_nothing(model: LatentDiffusion, tmp_path: Path) -> None:
    output = _copy_of_model(tmp_path / "artifact")
    images = _Meanwhile(model, output)
    with pytest.raises(ConfigError, match="a private artifact takes the place of none"):
        build_private(model, output, source=images)
    assert images.released is not None
    found = Artifact.load(output)
    found.verify()
    assert torch.equal(found.gaussians(400).mean, images.released.gaussians(400).mean)


def test_licences_are_in_what_is_released_at_once(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, options = save_pictures(tmp_path / "images", range(12)), class_list_options(tmp_path)
    settings = dataclasses.replace(SETTINGS, license_name="MIT")
    plan = plan_build(images, model_folder, tmp_path / "out", settings, privacy=SPENDING, **options)
    seen: list[dict[str, Any]] = []
    exchange, rename = atomic.exchange, Path.rename

    def noted(new: Path) -> None:
        if (new / METADATA).is_file():
            seen.append(json.loads((new / METADATA).read_text())["info"]["source"])

    def renamed(self: Path, target: Any) -> Any:
        noted(self)
        return rename(self, target)

    def exchanged(new: Path, old: Path) -> None:
        noted(new)
        exchange(new, old)

    monkeypatch.setattr(atomic, "exchange", exchanged)
    monkeypatch.setattr(Path, "rename", renamed)
    built = plan.run(progress=False)
    assert [source["license"] for source in seen] == ["MIT"] and built.info.source["license"] == "MIT"


@pytest.mark.parametrize("what", ["moments", "fingerprint", "unreadable", "tolerance"])
def test_an_artifact_that_breaks_its_promise_is_none(
    what: str, model: LatentDiffusion, tmp_path: Path
) -> None:
    artifact = build_private(model, _copy_of_model(tmp_path / "artifact"))
    document = json.loads((artifact.folder / METADATA).read_text())
    if what == "moments":
        document["sha256"]["moments.safetensors"] = "0" * 64
    elif what == "tolerance":
        document["info"]["tolerance"] = {"share": 0.1, "num_images": 1000}
    else:
        document["info"]["source"][what] = "ab"
    (artifact.folder / METADATA).write_text(json.dumps(document))
    with pytest.raises(ArtifactFormatError, match=f"{what}.*come from the images"):
        Artifact.load(artifact.folder)
