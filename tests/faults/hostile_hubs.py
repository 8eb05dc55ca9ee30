"""The cases of Hubs that lie, and of models that are no models, for the campaign `hostile`."""

from __future__ import annotations

import functools
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from d3hr_datasets import D3HRDataset
from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from tests.faults.hostile import Case
from tests.support.hostile_hub import COMMIT, HostileHub, Reply
from tests.support.tampering import METADATA, STATISTICS

WEIGHTS = "diffusion_pytorch_model.safetensors"
ETAGS = (
    "..",
    ".",
    "",
    "/",
    "../../../../others/id_rsa",
    "{others}/id_rsa",
    "{others}/new",
    "a" * 5000,
    "\\..\\x",
    "x" * 40,
    "A" * 40,
    "a" * 39,
    "a b",
)
CONFIGS: dict[str, dict[str, list[Any]]] = {
    "transformer": {
        "num_layers": [50_000, 5000, 97, 0, -1, 1.5, "x", None],
        "num_attention_heads": [60_000, 10**9, 0],
        "attention_head_dim": [65_536, 10**9],
        "sample_size": [1024, 60_000, 0, [1] * 10**5],
        "num_embeds_ada_norm": [10**9, 65_536],
        "in_channels": [65_536, 10**12],
        "patch_size": [10**9, 0],
        "norm_type": ["x"],
        "activation_fn": [["x"] * 10**5],
        "quantization_config": [{"quant_method": "x"}],
    },
    "vae": {
        "block_out_channels": [[8] * 30_000, [8] * 9, [60_000] * 3, []],
        "layers_per_block": [60_000, 9, 0],
        "down_block_types": [["DownEncoderBlock2D"] * 30_000, ["os.system"] * 3],
        "latent_channels": [10**9],
        "up_block_types": [["UpDecoderBlock2D"] * 9],
        "scaling_factor": [0, float("inf"), "x"],
        "norm_num_groups": [0, 10**9],
    },
    "scheduler": {
        "num_train_timesteps": [10**9, 10**12, 65_536, 0],
        "trained_betas": [[0.1] * 70_000, [2.0] * 1000],
        "beta_end": [5.0, -1.0],
        "prediction_type": ["velocity"],
        "beta_schedule": ["x"],
    },
}


def configs() -> dict[str, tuple[str, str, Any]]:
    return {
        f"{part}, {key} = {value!r:.30}": (
            f"{part}/{'scheduler_config' if part == 'scheduler' else 'config'}.json",
            key,
            value,
        )
        for part, keys in CONFIGS.items()
        for key, values in keys.items()
        for value in values
    }


def hubs(work: Path) -> dict[str, Case]:
    artifact, model = work / "artifact", work / "model"
    true = (artifact / METADATA).read_bytes()
    cases: dict[str, Case] = {}
    for etag in ETAGS:
        cases[f"blob {etag[:30]!r}"] = _served(artifact, {METADATA: {"body": true, "etag": etag}})
        lie = {"body": true, "etag": "a" * 40, "later": etag}
        cases[f"blob {etag[:30]!r} the second time"] = _served(artifact, {METADATA: lie})
    for commit in ("..", "../../../../others", "{others}", "", "main", "c" * 39, "c" * 5000):
        cases[f"commit {commit[:30]!r}"] = _served(artifact, {METADATA: {"body": true, "commit": commit}})
    sizes: dict[str, dict[str, Any]] = {
        "states 10 GB": {"body": true, "stated": 10**10},
        "states 10^18": {"body": true, "stated": 10**18},
        "sends without end": {"body": true, "endless": True},
        "states nothing, sends without end": {"body": true, "stated": -1, "endless": True},
        "is large": {"body": b"x" * 2**23},
        "is empty": {"body": b""},
        "is another": {"body": b"{}"},
        "is a bomb": {"body": gzip.compress(bytes(5 * 10**8)), "encoding": "gzip"},
    }
    for what, lie in sizes.items():
        for name in (METADATA, STATISTICS, "model/vae/config.json", f"model/transformer/{WEIGHTS}"):
            if not (what in {"states 10 GB", "is large"} and name.endswith(WEIGHTS) and name != STATISTICS):
                cases[f"{name} {what}"] = _served(artifact, {name: lie})
    for location in ("file:///etc/passwd", "ftp://example.org/x", "//"):
        cases[f"leads to {location}"] = _served(artifact, {METADATA: {"body": true, "location": location}})
    for what, lie in sizes.items():
        if what not in {"is another"}:
            for name in ("scheduler/scheduler_config.json", "transformer/config.json", f"vae/{WEIGHTS}"):
                cases[f"model: {name} {what}"] = _served(model, {name: lie}, _load)
    for what, (name, key, value) in configs().items():
        if what not in {
            "transformer, sample_size = 1024",
            "scheduler, num_train_timesteps = 65536",
        }:  # can be
            text = json.dumps({**json.loads((model / name).read_text(encoding="utf-8")), key: value})
            cases[f"model: {what}"] = _served(model, {name: {"body": text.encode()}}, _load)
    for shard in ("../../../../others/config.json", "/etc/passwd", "a/b.safetensors", "x.bin", ".."):
        index = json.dumps({"weight_map": {"x": shard}}).encode()
        lies: dict[str, dict[str, Any] | None] = {
            f"vae/{WEIGHTS}.index.json": {"body": index},
            f"vae/{WEIGHTS}": None,
        }
        cases[f"model: shard {shard}"] = _served(model, lies, _load)
    return cases


def _load(_: Path) -> object:
    return LatentDiffusion.from_pretrained("org/name", revision=COMMIT, device="cpu")


def _download(folder: Path) -> object:
    return D3HRDataset("org/name", folder / "cache", 1, device="cpu", classes=[0])[0]


def _served(source: Path, lies: dict[str, Any], use: Callable[[Path], object] = _download) -> Case:
    """Return a case of a Hub that serves a folder with lies: fields of a `Reply`, None for a missing file."""

    def case(folder: Path) -> Callable[[], object]:
        from huggingface_hub import constants

        server = HostileHub()
        replies: dict[str, Reply] = {}
        for name, fields in lies.items():
            found: dict[str, Any] = {
                key: value.replace("{others}", str(folder / "others")) if isinstance(value, str) else value
                for key, value in (fields or {}).items()
            }
            replies[name] = Reply(**found)
        server.serve(source, replies)
        for name, fields in lies.items():
            if fields is None:
                del server.replies[name]
        server.__enter__()
        constants.ENDPOINT, constants.HF_HUB_OFFLINE = server.url, False
        constants.HUGGINGFACE_CO_URL_TEMPLATE = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        constants.HF_HUB_DISABLE_XET = constants.HF_HUB_DISABLE_PROGRESS_BARS = True
        constants.HF_HUB_CACHE = str(folder / "home" / "hub")
        return functools.partial(use, folder)

    return case
