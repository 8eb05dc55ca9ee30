"""Fixtures of the tests of the diffusion model: a tiny one, in memory and saved.

Imported before `pytest_configure` of the suite has run, so heavy imports are in the fixtures.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
    from tests.support.hostile_hub import HostileHub
    from tests.support.kinds import Kinds


@pytest.fixture(scope="module")
def model() -> LatentDiffusion:
    from tests.support.tiny import tiny_model

    return tiny_model()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.support.tiny import tiny_pipeline

    folder = tmp_path_factory.mktemp("model")
    tiny_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture
def model_copy(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "model"))


@pytest.fixture(scope="session")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kinds]:
    """Return tiny models of all kinds, each made when it is first asked for."""
    from d3hr_datasets.diffusion.kinds.flux import Flux
    from tests.support.kinds import Kinds
    from tests.support.tiny_kinds import FLUX_SIDE

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Flux, "side", FLUX_SIDE)
        yield Kinds(tmp_path_factory.mktemp("kinds"))


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HostileHub]:
    """Serve a Hub that lies where it is told to, with an empty cache below the test's folder."""
    from huggingface_hub import close_session, constants

    from tests.support.hostile_hub import HostileHub

    with HostileHub() as server:
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        for name, value in {
            "ENDPOINT": server.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": template,
            "HF_HUB_OFFLINE": False,
            "HF_HUB_DISABLE_XET": True,
            "HF_HUB_CACHE": str(tmp_path / "home" / "hub"),
        }.items():
            monkeypatch.setattr(constants, name, value)
        yield server
        close_session()
