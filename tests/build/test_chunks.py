from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from d3hr_datasets.build.chunks import Chunk, ChunkMoments, read_chunk, write_chunk

NOTE = {"image": "cat/1.png", "reason": "truncated"}


def _written(path: Path) -> Chunk:
    moments = ChunkMoments((-1, 20), 3, (1, 2, 2))
    moments.update({timestep: torch.randn(3, 1, 2, 2) for timestep in (-1, 20)}, torch.tensor([4, 1, 4]))
    chunk = Chunk(*moments.rows(), pixels=2**255 + 7, last=True, identity="images", unreadable=[NOTE])
    write_chunk(path, chunk)
    return chunk


def test_a_chunk_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = _written(tmp_path / "chunk")
    found = read_chunk(tmp_path / "chunk", (-1, 20), "images")
    assert found is not None and found.rows.tolist() == [1, 4]
    assert (found.pixels, found.last, found.identity) == (2**255 + 7, True, "images")
    assert found.unreadable == [NOTE]
    for timestep, moments in written.moments.items():
        for name, tensor in moments.state_dict().items():
            assert torch.equal(found.moments[timestep].state_dict()[name], tensor)
    assert read_chunk(tmp_path / "chunk", (-1, 20), "others") is None
    assert read_chunk(tmp_path / "chunk", (-1, 40), "images") is None


@pytest.mark.parametrize("without", ["sha256", "d3hr"])
def test_a_chunk_without_its_checksum_or_notes_is_none(without: str, tmp_path: Path) -> None:
    path = tmp_path / "chunk"
    _written(path)
    with safe_open(path, framework="pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    save_file(tensors, path, metadata)
    assert read_chunk(path, (-1, 20), "images") is not None
    save_file(tensors, path, {key: value for key, value in metadata.items() if key != without})
    assert read_chunk(path, (-1, 20), "images") is None
