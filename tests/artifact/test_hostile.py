"""Artifacts that mean harm: each is refused, by an error of this library, before a tensor of it is used."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save

from d3hr_datasets import D3HRDataset, D3HRError
from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from tests.support.evil import Evil
from tests.support.tampering import (
    METADATA,
    STATISTICS,
    change_info,
    change_statistics,
    read_document,
    refresh_checksum,
    write_document,
)
from tests.support.tiny import tiny_info

SHAPE = (3, 3, 4, 4)
TRANSFORMER, VAE = "model/transformer", "model/vae"
WEIGHTS = "diffusion_pytorch_model.safetensors"
DIGEST = "0" * 64
Attack = Callable[[Path], None]


def listing(name: str, digest: Any = DIGEST) -> Attack:
    def attack(folder: Path) -> None:
        document = read_document(folder)
        document["sha256"][name] = digest
        write_document(folder, document)

    return attack


def info(**changes: Any) -> Attack:
    return lambda folder: change_info(folder, **changes)


def model(**reference: Any) -> Attack:
    return lambda folder: change_info(folder, model=reference)


def raw_metadata(make: Callable[[str], bytes]) -> Attack:
    def attack(folder: Path) -> None:
        data = make((folder / METADATA).read_text(encoding="utf-8"))
        (folder / METADATA).write_bytes(data)

    return attack


def replaced(before: str, after: str) -> Attack:
    def make(text: str) -> bytes:
        assert before in text
        return text.replace(before, after).encode()

    return raw_metadata(make)


def content(name: str, make: Callable[[bytes], bytes]) -> Attack:
    """Replace a file and make its checksum right."""

    def attack(folder: Path) -> None:
        data = make((folder / name).read_bytes())
        (folder / name).unlink()  # it may be mapped into memory
        (folder / name).write_bytes(data)
        refresh_checksum(folder, name)

    return attack


def added(name: str, data: bytes, listed: bool = True) -> Attack:
    def attack(folder: Path) -> None:
        (folder / name).write_bytes(data)
        if listed:
            refresh_checksum(folder, name)

    return attack


def linked(name: str) -> Attack:
    """Move a file or folder out of the artifact and leave a symbolic link, with right checksums."""

    def attack(folder: Path) -> None:
        outside = folder.parent / "outside"
        outside.mkdir()
        target = outside / Path(name).name
        shutil.move(folder / name, target)
        (folder / name).symlink_to(target)

    return attack


def loop(folder: Path) -> None:
    (folder / STATISTICS).unlink()
    (folder / STATISTICS).symlink_to(STATISTICS)


def config(part: str, **changes: Any) -> Attack:
    name = f"{part}/{'scheduler_config' if part.endswith('scheduler') else 'config'}.json"
    return content(name, lambda data: json.dumps({**json.loads(data), **changes}).encode())


def header(make: Callable[[dict[str, Any]], Any]) -> Attack:
    """Replace the header of the statistics, which stays JSON unless bytes are returned."""

    def change(data: bytes) -> bytes:
        (length,) = struct.unpack("<Q", data[:8])
        made = make(json.loads(data[8 : 8 + length]))
        text = made if isinstance(made, bytes) else json.dumps(made).encode()
        return struct.pack("<Q", len(text)) + text + data[8 + length :]

    return content(STATISTICS, change)


def entry(**changes: Any) -> Attack:
    return header(lambda found: {**found, "t400.mean": {**found["t400.mean"], **changes}})


def statistics(**changes: torch.Tensor | None) -> Attack:
    return lambda folder: change_statistics(folder, **changes)


def as_dtype(dtype: torch.dtype) -> Attack:
    def attack(folder: Path) -> None:
        tensors = load_file(folder / STATISTICS)
        data = save({**tensors, "t400.mean": tensors["t400.mean"].to(dtype)})
        content(STATISTICS, lambda _: data)(folder)

    return attack


def as_zip(data: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("../../pwned", data)
    return file.getvalue()


def weights_elsewhere(folder: Path) -> None:
    outside = folder.parent / "outside.safetensors"
    shutil.copy(folder / TRANSFORMER / WEIGHTS, outside)
    tensors = load_file(outside)
    index = {"metadata": {}, "weight_map": dict.fromkeys(tensors, "../../../outside.safetensors")}
    added(f"{TRANSFORMER}/{WEIGHTS}.index.json", json.dumps(index).encode())(folder)


INVERSION, DECODE = tiny_info().inversion.to_dict(), tiny_info().decode.to_dict()
PICKLE = pickle.dumps(Evil())
WITH_NAN = torch.zeros(SHAPE).index_fill(0, torch.tensor([0]), torch.nan)
ATTACKS: dict[str, Attack] = {
    "path: parent": listing("../outside"),
    "path: parent in the middle": listing("model/../../outside"),
    "path: absolute": listing("/etc/passwd"),
    "path: drive": listing("C:\\Windows\\system.ini"),
    "path: backslash": listing("..\\outside"),
    "path: empty": listing(""),
    "path: dot": listing("./statistics"),
    "path: double slash": listing("model//config.json"),
    "path: folder": listing("model/"),
    "path: NUL": listing("model\0.json"),
    "path: home": listing("model/../~root"),
    "checksum: short": listing("more", "0" * 63),
    "checksum: none": listing("more", None),
    "checksum: not hexadecimal": listing("more", "z" * 64),
    "checksum: number": listing("more", 0),
    "model: parent": model(path="../model"),
    "model: parent in the middle": model(path="model/../../outside"),
    "model: absolute": model(path="/etc"),
    "model: artifact itself": model(path="."),
    "model: URL as path": model(path="https://example.org/model"),
    "model: file URL": model(path="file:///etc"),
    "model: URL as repository": model(repo_id="https://example.org/model", revision="a" * 40),
    "model: repository above": model(repo_id="../../model", revision="a" * 40),
    "model: branch": model(repo_id="org/model", revision="main"),
    "model: short commit": model(repo_id="org/model", revision="a" * 7),
    "model: no revision": model(repo_id="org/model"),
    "model: both": model(repo_id="org/model", revision="a" * 40, path="model"),
    "model: code": model(path="model", trust_remote_code=True),
    "model: folder of nothing": model(path="models"),
    "link: statistics": linked(STATISTICS),
    "link: description": linked(METADATA),
    "link: weights": linked(f"{TRANSFORMER}/{WEIGHTS}"),
    "link: folder of the transformer": linked(TRANSFORMER),
    "link: folder of the model": linked("model"),
    "link: loop": loop,
    "JSON: deep": raw_metadata(lambda _: b'{"format": 1, "info": ' + b"[" * 200_000),
    "JSON: large": raw_metadata(lambda text: text.encode() + b" " * (17 * 2**20)),
    "JSON: long number": replaced("1000", "1" * 5000),
    "JSON: NaN": replaced('"guidance_scale": 2.0', '"guidance_scale": NaN'),
    "JSON: infinity": replaced('"guidance_scale": 2.0', '"guidance_scale": 1e999'),
    "JSON: key twice": replaced('"sha256":', '"sha256": {}, "sha256":'),
    "JSON: gzip": raw_metadata(lambda text: gzip.compress(text.encode())),
    "JSON: zip": raw_metadata(lambda text: as_zip(text.encode())),
    "JSON: pickle": raw_metadata(lambda _: PICKLE),
    "JSON: format true": replaced('"format": 1', '"format": true'),
    "bomb: inference steps": info(
        inversion={**INVERSION, "num_inference_steps": 10**9, "num_train_timesteps": 10**9},
        decode={**DECODE, "num_inference_steps": 10**9},
    ),
    "bomb: latent shape": info(latent_shape=[10**9, 10**9, 10**9]),
    "bomb: latent shape in range": info(latent_shape=[4096, 4096, 4096]),
    "bomb: image size": info(image_size=10**9),
    "bomb: modes": info(num_modes=10**9),
    "bomb: layers": config(TRANSFORMER, num_layers=10**6),
    "bomb: layers in range": config(TRANSFORMER, num_layers=50_000),
    "bomb: width": config(TRANSFORMER, num_attention_heads=10**6),
    "bomb: width in range": config(TRANSFORMER, num_attention_heads=60_000),
    "bomb: positions": config(TRANSFORMER, sample_size=60_000),
    "bomb: classes": config(TRANSFORMER, num_embeds_ada_norm=10**12),
    "bomb: channels of the VAE": config(VAE, block_out_channels=[4, 8, 60_000]),
    "bomb: layers of the VAE": config(VAE, layers_per_block=60_000),
    "bomb: timesteps": config("model/scheduler", num_train_timesteps=10**12),
    "config: other widths": config(TRANSFORMER, attention_head_dim=4),
    "config: unknown blocks": config(VAE, down_block_types=["os.system"] * 3),
    "config: list": content(f"{VAE}/config.json", lambda _: b"[]"),
    "config: deep": content(f"{VAE}/config.json", lambda _: b"[" * 200_000),
    "config: pickle": content(f"{VAE}/config.json", lambda _: PICKLE),
    "header: length of everything": content(STATISTICS, lambda data: b"\xff" * 8 + data[8:]),
    "header: too long": content(STATISTICS, lambda data: struct.pack("<Q", 10**6) + data[8:]),
    "header: length zero": content(STATISTICS, lambda data: bytes(8) + data[8:]),
    "header: huge": header(lambda found: json.dumps(found).encode() + b" " * (5 * 2**20)),
    "header: no JSON": header(lambda _: b"\x80\x04" * 20),
    "header: list": header(lambda _: []),
    "header: deep": header(lambda _: b'{"t400.mean": ' + b"[" * 200_000),
    "header: name twice": header(lambda found: b'{"count": 1, ' + json.dumps(found)[1:].encode()),
    "header: place behind the end": entry(data_offsets=[0, 10**12]),
    "header: negative place": entry(data_offsets=[-8, 88]),
    "header: place of another tensor": entry(data_offsets=[0, 288]),
    "header: huge shape": entry(shape=[2**31, 2**31, 2**31, 2]),
    "header: negative shape": entry(shape=[-3, -3, 4, 4]),
    "header: no shape": entry(shape=None),
    "header: unknown type": entry(dtype="OBJECT"),
    "weights: header": content(f"{VAE}/{WEIGHTS}", lambda data: b"\xff" * 8 + data[8:]),
    "weights: truncated": content(f"{VAE}/{WEIGHTS}", lambda data: data[:-100]),
    "weights: of the other part": content(f"{VAE}/{WEIGHTS}", lambda _: save({"x": torch.zeros(2)})),
    "weights: elsewhere by index": weights_elsewhere,
    "tensor: shape": statistics(t400_mean=torch.zeros(3, 3, 4, 5)),
    "tensor: fewer classes": statistics(t400_variance=torch.zeros(2, 3, 4, 4)),
    "tensor: integers": as_dtype(torch.int8),
    "tensor: doubles": as_dtype(torch.float64),
    "tensor: missing": statistics(t400_variance=None),
    "tensor: NaN": statistics(t400_mean=WITH_NAN),
    "tensor: infinity": statistics(t400_variance=torch.full(SHAPE, torch.inf)),
    "tensor: negative variance": statistics(t400_variance=torch.full(SHAPE, -1.0)),
    "tensor: other counts": statistics(count=torch.tensor([5, 4, 4])),
    "pickle: statistics": content(STATISTICS, lambda _: PICKLE),
    "pickle: statistics of torch": content(STATISTICS, lambda _: torch_file()),
    "pickle: weights": content(f"{TRANSFORMER}/{WEIGHTS}", lambda _: torch_file()),
    "pickle: weights beside": added(f"{VAE}/diffusion_pytorch_model.bin", PICKLE),
    "pickle: weights beside, not listed": added(f"{VAE}/diffusion_pytorch_model.bin", PICKLE, listed=False),
    "code: in the model": added("model/pipeline.py", b"open('pwned', 'w')"),
    "code: library in the model": added("model/vae/custom.so", b"\x7fELF"),
    "zip: statistics": content(STATISTICS, as_zip),
    "zip: weights": content(f"{VAE}/{WEIGHTS}", as_zip),
}


def torch_file() -> bytes:
    file = io.BytesIO()
    torch.save({"t400.mean": Evil()}, file)
    return file.getvalue()


@pytest.mark.parametrize("name", ATTACKS)
def test_hostile_artifacts_are_refused(
    name: str, artifact_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def use(*_: object, **__: object) -> None:
        raise AssertionError("a tensor was used")

    monkeypatch.setattr(LatentDiffusion, "denoise", use)
    monkeypatch.setattr(LatentDiffusion, "decode", use)
    ATTACKS[name](artifact_copy)
    with pytest.raises(D3HRError):
        D3HRDataset(artifact_copy, tmp_path / "root", 1, device="cpu", classes=[0])[0]
    assert not list(tmp_path.rglob("pwned"))


def test_there_are_many_and_all_start_from_what_is_accepted(artifact_copy: Path, tmp_path: Path) -> None:
    assert len(ATTACKS) >= 50
    D3HRDataset(artifact_copy, tmp_path / "root", 1, device="cpu", classes=[0])[0]
