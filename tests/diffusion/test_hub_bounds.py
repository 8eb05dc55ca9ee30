"""Hubs that lie, and models that are larger than they look, in folders and on the Hub."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from d3hr_datasets import Artifact, D3HRDataset
from d3hr_datasets.artifact.d3hr_json import METADATA, STATISTICS
from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from d3hr_datasets.diffusion.untrusted_models import count_parameters
from d3hr_datasets.errors import (
    ArtifactIntegrityError,
    ModelFormatError,
    ModelNotFoundError,
)
from tests.support.hostile_hub import COMMIT, HostileHub, Reply
from tests.support.tampering import change_info
from tests.support.tiny import tiny_pipeline

WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"
CONFIG = "transformer/config.json"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tiny_pipeline().save_pretrained(folder)
    return folder


def cached(home: Path) -> list[Path]:
    return [path for path in (home / "home").rglob("*") if path.is_file() and path.stat().st_size > 2**20]


def test_what_a_hub_tells_truly_is_taken(hostile: HostileHub, tiny_artifact: Path, model: Path) -> None:
    hostile.serve(tiny_artifact, {})
    Artifact.from_pretrained(f"org/name@{COMMIT}").verify()
    hostile.serve(model, {})
    found = LatentDiffusion.from_pretrained("org/model", revision=COMMIT, device="cpu")
    assert found.num_classes == 3


@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize("etag", ["..", ".", "../../../victim", "/{victim}", "", "x" * 64, "a" * 5000])
def test_blobs_are_named_by_digits(
    etag: str, later: bool, hostile: HostileHub, tiny_artifact: Path, tmp_path: Path
) -> None:
    """Also where the first answer is well behaved: the client asks twice."""
    victim = tmp_path / "victim"
    victim.write_text("mine")
    etag = etag.replace("/{victim}", str(victim))
    lie = {"later": etag, "etag": "a" * 40} if later else {"etag": etag}
    hostile.serve(tiny_artifact, {METADATA: Reply((tiny_artifact / METADATA).read_bytes(), **lie)})  # type: ignore[arg-type]
    before = set(tmp_path.rglob("*"))
    with pytest.raises(ArtifactIntegrityError, match="calls a file"):
        Artifact.from_pretrained("org/name")
    new = {path for path in set(tmp_path.rglob("*")) - before if not path.is_relative_to(tmp_path / "home")}
    assert victim.read_text() == "mine" and not new
    assert not any(path.name == METADATA for path in tmp_path.rglob("*"))


@pytest.mark.parametrize("commit", ["..", "../../x", "/tmp", "", "main", "g" * 40])
def test_commits_are_named_by_digits(commit: str, hostile: HostileHub, tiny_artifact: Path) -> None:
    hostile.serve(tiny_artifact, {METADATA: Reply(b"{}", commit=commit)})
    with pytest.raises(ArtifactIntegrityError, match="calls a file"):
        Artifact.from_pretrained("org/name")


@pytest.mark.parametrize("name", [METADATA, STATISTICS])
@pytest.mark.parametrize(
    "reply",
    [
        Reply(b"{}", stated=10**10),
        Reply(b"{}", stated=100, endless=True),
        Reply(b"{}", stated=-1, endless=True),
        Reply(b"x" * 10_000_000),
    ],
    ids=["states much", "sends more than stated", "states nothing, sends without end", "is large"],
)
def test_sizes_are_bounded_before_and_while_they_are_sent(
    name: str, reply: Reply, hostile: HostileHub, tiny_artifact: Path, tmp_path: Path
) -> None:
    hostile.serve(tiny_artifact, {name: reply})
    start = time.monotonic()
    with pytest.raises(ArtifactIntegrityError, match=r"accepted: at most|sends more"):
        Artifact.from_pretrained("org/name")
    assert time.monotonic() - start < 10 and not cached(tmp_path)


TRANSFORMER = {
    "num_attention_heads": 60_000,
    "num_layers": 50_000,
    "sample_size": 1025,
    "attention_head_dim": 60_000,
    "num_embeds_ada_norm": 10**9,
    "patch_size": 10**9,
}


@pytest.mark.parametrize(
    "part, key, value",
    [
        *[("transformer", key, value) for key, value in TRANSFORMER.items()],
        ("transformer", "num_layers", 5000),
        ("transformer", "num_layers", 97),
        ("transformer", "activation_fn", [1] * 9),
        ("vae", "block_out_channels", [8] * 30_000),
        ("vae", "layers_per_block", 9),
        ("vae", "down_block_types", ["DownEncoderBlock2D"] * 9),
        ("vae", "quantization_config", {}),
        ("scheduler", "num_train_timesteps", 10**9),
        ("scheduler", "trained_betas", [0.1] * 70_000),
    ],
)
@pytest.mark.parametrize("on_hub", [False, True])
def test_models_are_as_large_as_models_are(
    part: str, key: str, value: Any, on_hub: bool, hostile: HostileHub, model: Path, tmp_path: Path
) -> None:
    name = f"{part}/{'scheduler_config' if part == 'scheduler' else 'config'}.json"
    text = json.dumps({**json.loads((model / name).read_text()), key: value})
    start = time.monotonic()
    if on_hub:
        hostile.serve(model, {name: Reply(text.encode())})
        with pytest.raises(ModelFormatError):
            LatentDiffusion.from_pretrained("org/model", revision=COMMIT, device="cpu")
    else:
        pipeline = tmp_path / "model"
        tiny_pipeline().save_pretrained(pipeline)
        (pipeline / name).write_text(text)
        with pytest.raises(ModelFormatError):
            LatentDiffusion.from_pretrained(pipeline, device="cpu")
    assert time.monotonic() - start < 10


@pytest.mark.parametrize(
    "name, reply",
    [
        (CONFIG, Reply(b"{}", endless=True, stated=2)),
        (CONFIG, Reply(b"[" * 200_000)),
        (WEIGHTS, Reply(b"", stated=10**10)),
        (WEIGHTS, Reply(b"", stated=-1, endless=True)),
        (WEIGHTS, Reply(b"", etag="..")),
    ],
)
def test_weights_are_bounded_by_what_is_described(
    name: str, reply: Reply, hostile: HostileHub, model: Path, tmp_path: Path
) -> None:
    hostile.serve(model, {name: reply})
    with pytest.raises(ModelFormatError, match=r"not accepted|no JSON"):
        LatentDiffusion.from_pretrained("org/model", revision=COMMIT, device="cpu")
    assert not cached(tmp_path)


@pytest.mark.parametrize("shard", ["../../../x.safetensors", "/etc/passwd", "x.bin", "a/b.safetensors"])
def test_shards_lie_beside_their_index(shard: str, hostile: HostileHub, model: Path) -> None:
    index = json.dumps({"weight_map": {"x": shard}}).encode()
    hostile.serve(model, {f"{WEIGHTS}.index.json": Reply(index)})
    del hostile.replies[WEIGHTS]
    with pytest.raises(ModelFormatError, match="files beside it"):
        LatentDiffusion.from_pretrained("org/model", revision=COMMIT, device="cpu")


def test_a_model_that_is_not_there_is_said_to_be_missing(hostile: HostileHub, model: Path) -> None:
    hostile.serve(model, {})
    for name in (CONFIG, WEIGHTS, "scheduler/scheduler_config.json"):
        reply = hostile.replies.pop(name)
        with pytest.raises(ModelNotFoundError, match=r"Entry Not Found|404"):
            LatentDiffusion.from_pretrained(f"org/{len(name)}", revision=COMMIT, device="cpu")
        hostile.replies[name] = reply


def test_the_model_of_an_artifact_is_compared_with_it_before_it_is_brought(
    hostile: HostileHub, artifact_copy: Path, model: Path, tmp_path: Path
) -> None:
    change_info(artifact_copy, model={"repo_id": "org/model", "revision": COMMIT})
    dataset = D3HRDataset(artifact_copy, tmp_path / "root", 1, device="cpu")
    hostile.serve(model, {})
    right = dataset.model()
    assert right.num_classes == 3
    for key, value in (("sample_size", 8), ("in_channels", 4), ("num_embeds_ada_norm", 10)):
        text = json.dumps({**json.loads((model / CONFIG).read_text()), key: value})
        hostile.serve(model, {CONFIG: Reply(text.encode())})
        change_info(artifact_copy, model={"repo_id": f"org/{key}", "revision": COMMIT})
        with pytest.raises(ModelFormatError, match=f"says {key} = {value}"):
            D3HRDataset(artifact_copy, tmp_path / "root", 1, device="cpu").model()
    assert not [path for path in (tmp_path / "home").rglob(Path(WEIGHTS).name) if "sample_size" in str(path)]


def test_real_models_are_accepted(tmp_path: Path) -> None:
    """facebook/DiT-XL-2 of 256 and 512 pixels, with the VAE of Stable Diffusion."""
    from diffusers import AutoencoderKL, DiTTransformer2DModel

    transformer = {
        "num_attention_heads": 16,
        "attention_head_dim": 72,
        "in_channels": 4,
        "out_channels": 8,
        "num_layers": 28,
        "patch_size": 2,
        "num_embeds_ada_norm": 1000,
        "norm_type": "ada_norm_zero",
    }
    vae = {
        "block_out_channels": [128, 256, 512, 512],
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "layers_per_block": 2,
        "latent_channels": 4,
        "sample_size": 1024,
    }
    for kind, config, expected in (
        (DiTTransformer2DModel, {**transformer, "sample_size": 32}, 750e6),
        (DiTTransformer2DModel, {**transformer, "sample_size": 64}, 750e6),
        (AutoencoderKL, vae, 84e6),
    ):
        (tmp_path / "config.json").write_text(json.dumps(config))
        assert count_parameters(kind, tmp_path) == pytest.approx(expected, rel=0.01)
