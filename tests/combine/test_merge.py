"""Merging: what is exact is exact to the last bit, and the rest to its rounding."""

from __future__ import annotations

import dataclasses
import random
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from d3hr_datasets import Artifact, D3HRDataset, GroupSamplingConfig
from d3hr_datasets.artifact.d3hr_json import EMBEDDINGS, MOMENTS
from d3hr_datasets.artifact.embeddings import write_embeddings
from d3hr_datasets.build import KeptSums
from d3hr_datasets.combine import merge_artifacts
from d3hr_datasets.combine.written_artifact import ADAPTED, CARRIED, DROPPED, MADE, REFUSED
from d3hr_datasets.diffusion.conditioning import PromptEmbeddings
from d3hr_datasets.errors import ArtifactIntegrityError, CombineError
from tests.support.combining import FILES, artifact_of, build, file_bytes, latents, of_prompts, quiet
from tests.support.hub_server import HubServer
from tests.support.tampering import change_info
from tests.support.tiny import TIMESTEPS, tiny_info


@pytest.mark.parametrize("number", [2, 3, 10])
@pytest.mark.parametrize("dtype", ["float16", "float32", "int8"])
def test_parts_of_the_same_latents_are_the_whole_to_the_last_bit(
    number: int, dtype: str, tmp_path: Path
) -> None:
    values, labels = latents(120), torch.arange(120) % 3
    whole = artifact_of(tmp_path / "whole", values, labels, dtype=dtype)
    order = torch.tensor(random.Random(number).sample(range(120), 120))
    cuts = [120 * part // number for part in range(number + 1)]
    parts = []
    for place, (start, end) in enumerate(pairwise(cuts)):
        rows = order[start:end]
        parts.append(artifact_of(tmp_path / f"p{place}", values[rows], labels[rows], dtype=dtype))
    merged = merge_artifacts(parts, tmp_path / "merged", notify=quiet)
    assert file_bytes(merged) == file_bytes(whole) and merged.info.counts == whole.info.counts == (40,) * 3
    again = merge_artifacts(parts[::-1], tmp_path / "again", notify=quiet)
    assert file_bytes(again) == file_bytes(whole)
    merged.verify()


def test_merging_in_two_steps_is_merging_at_once(tmp_path: Path) -> None:
    parts = [artifact_of(tmp_path / f"p{n}", latents(30, n), torch.arange(30) % 3) for n in range(3)]
    once = merge_artifacts(parts, tmp_path / "once", notify=quiet)
    pair = merge_artifacts(parts[:2], tmp_path / "pair", notify=quiet)
    twice = merge_artifacts([pair, parts[2]], tmp_path / "twice", notify=quiet)
    assert file_bytes(twice) == file_bytes(once)
    assert twice.info.source["parts"] == once.info.source["parts"]
    with pytest.raises(CombineError, match="would be counted twice"):
        merge_artifacts([pair, parts[1]], tmp_path / "no", notify=quiet)


def test_parts_that_were_built_are_one_build_to_the_last_bit_of_their_latents(tmp_path: Path) -> None:
    whole = build(tmp_path / "whole", range(30), sums=KeptSums())
    parts = [build(tmp_path / f"p{n}", range(n, 30, 2), sums=KeptSums()) for n in range(2)]
    merged = merge_artifacts([part.folder for part in parts], tmp_path / "merged", notify=quiet)
    assert file_bytes(merged) == file_bytes(whole)
    assert merged.info.source["fingerprint"] == whole.info.source["fingerprint"]
    assert (merged.info.name, merged.info.producer[-10:]) == ("merged", "d3hr merge")
    assert [part["counts"] for part in merged.info.source["parts"]] == [[5, 5, 5]] * 2
    same = ("classes", "inversion", "decode", "model", "dtype", "latent_shape", "shrinkage", "counts")
    assert all(getattr(merged.info, name) == getattr(whole.info, name) for name in same)
    names = {name for name in whole.sha256 if name not in FILES}
    assert {name: merged.sha256[name] for name in names} == {name: whole.sha256[name] for name in names}
    made = []
    for folder in (whole.folder, merged.folder):
        dataset = D3HRDataset(folder, tmp_path / "cache", ipc=2, device="cpu")
        images = [np.asarray(dataset[index][0]) for index in range(len(dataset))]
        made.append(images)
    assert np.array_equal(made[0], made[1])


@pytest.mark.parametrize("number", [2, 10])
def test_separate_builds_merge_to_one_build_but_for_how_batches_round(number: int, tmp_path: Path) -> None:
    whole = build(tmp_path / "whole", range(90), sums=KeptSums(), batch_size=13)
    parts = [
        build(
            tmp_path / f"p{n}",
            range(9 * n * 10 // number, 9 * (n + 1) * 10 // number),
            sums=KeptSums(),
            batch_size=4,
        )
        for n in range(number)
    ]
    merged = merge_artifacts(parts, tmp_path / "merged", notify=quiet)
    found, expected = merged.sums().gaussians(), whole.sums().gaussians()
    for time in TIMESTEPS:
        spread = expected[time].variance.mean().sqrt()
        assert (found[time].mean - expected[time].mean).abs().max() <= 1e-6 * spread
        differing = (found[time].variance.sqrt() - expected[time].variance.sqrt()).abs().max()
        assert differing <= 1e-6 * spread


def test_statistics_alone_merge_to_their_rounding_and_images_to_a_grey_level(tmp_path: Path) -> None:
    whole = build(tmp_path / "whole", range(60))
    parts = [build(tmp_path / f"p{n}", [k for k in range(60) if k // 3 % 3 == n]) for n in range(3)]
    said: list[str] = []
    merged = merge_artifacts(parts, tmp_path / "merged", notify=said.append)
    assert MOMENTS not in merged.sha256 and "count with the 11 bits" in said[1]
    for time in TIMESTEPS:
        found, expected = merged.gaussians(time), whole.gaussians(time)
        assert torch.equal(found.count, expected.count)
        step = 2.0**-10 * (expected.mean.abs() + expected.variance.sqrt()) + 1e-6
        assert ((found.mean - expected.mean).abs() <= step).all()
        torch.testing.assert_close(found.variance, expected.variance, rtol=4e-3, atol=1e-5)
    for method in ("moment_matched", "search"):
        images = []
        for folder in (whole.folder, merged.folder):
            sampling = GroupSamplingConfig(method)
            dataset = D3HRDataset(folder, tmp_path / "cache", ipc=3, device="cpu", sampling=sampling)
            images.append([np.asarray(dataset[index][0]).astype(int) for index in range(len(dataset))])
        assert np.abs(np.array(images[0]) - np.array(images[1])).max() <= 1


def test_rounding_to_eight_bits_is_said_to_be_of_channels(tmp_path: Path) -> None:
    parts = [
        artifact_of(tmp_path / f"p{n}", latents(30, n), torch.arange(30) % 3, keep=False, dtype="int8")
        for n in range(2)
    ]
    said: list[str] = []
    merge_artifacts(parts, tmp_path / "merged", notify=said.append)
    assert any("the 7 bits that they were rounded to (of the largest number of their" in one for one in said)
    assert not any("modes" in one for one in said)


def test_classes_of_prompts_are_united_by_their_names(tmp_path: Path) -> None:
    values = latents(40)
    first = artifact_of(tmp_path / "a", values[:20], torch.arange(20) % 2, **of_prompts("cat", "ant"))
    second = artifact_of(tmp_path / "b", values[20:], torch.arange(20) % 2, **of_prompts("bee", "cat"))
    merged = merge_artifacts([first, second], tmp_path / "merged", notify=quiet)
    assert merged.info.classes == ("cat", "ant", "bee") and merged.info.counts == (20, 10, 10)
    assert merged.info.prompts is not None and merged.info.prompts.per_class[2] == "a photo of a bee"
    rows = torch.cat([torch.arange(20) % 2, torch.tensor([2, 0] * 10)])
    whole = artifact_of(tmp_path / "whole", values, rows, **of_prompts("cat", "ant", "bee"))
    assert file_bytes(merged) == file_bytes(whole)
    assert [part["counts"] for part in merged.info.source["parts"]] == [[10, 10, 0], [10, 0, 10]]


def _with_embeddings(
    folder: Path, seed: int, names: tuple[str, ...], length: int = 5, encoder: float = 1.0
) -> Artifact:
    """Save an artifact with embeddings of its prompts, each of its name and a text encoder alone."""
    artifact = artifact_of(folder, latents(20, seed), torch.arange(20) % 2, **of_prompts(*names))
    rows = {
        k: {"encoder_hidden_states": torch.full((1, length, 4), encoder * ord(name[0]))}
        for k, name in enumerate(names)
    }
    negative = {"encoder_hidden_states": torch.full((1, length, 4), encoder)}
    write_embeddings(folder / EMBEDDINGS, PromptEmbeddings(2, rows, negative))
    Artifact(folder, dataclasses.replace(artifact.info, embeddings=True), {}).write_metadata()
    return Artifact.load(folder)


def test_embeddings_go_with_their_classes(tmp_path: Path) -> None:
    first = _with_embeddings(tmp_path / "a", 0, ("cat", "ant"))
    merged = merge_artifacts(
        [first, _with_embeddings(tmp_path / "b", 1, ("bee", "cat"))], tmp_path / "m", notify=quiet
    )
    merged.verify()
    rows = merged.embeddings().embeddings
    assert [chr(int(rows[k]["encoder_hidden_states"][0, 0, 0])) for k in range(3)] == ["c", "a", "b"]
    assert merged.embeddings().negative is not None
    with pytest.raises(CombineError, match="the shape of embeddings is"):
        merge_artifacts([first, _with_embeddings(tmp_path / "c", 2, ("bee", "cat"), 6)], tmp_path / "no")
    rounded = _with_embeddings(tmp_path / "r", 5, ("bee", "cat"), encoder=1 + 2**-10)
    merge_artifacts(
        [_with_embeddings(tmp_path / "f", 6, ("cat", "ant")), rounded], tmp_path / "r2", notify=quiet
    )
    other = _with_embeddings(tmp_path / "d", 3, ("bee", "cat"), encoder=1.1)
    with pytest.raises(
        CombineError, match=r"embeddings of cat are others in .*d than .* another text encoder"
    ):
        merge_artifacts([first, other], tmp_path / "no")
    apart = _with_embeddings(tmp_path / "e", 4, ("bee", "dog"), encoder=1.1)
    with pytest.raises(CombineError, match=r"embeddings of no class are others in .*e than"):
        merge_artifacts([first, apart], tmp_path / "no")
    assert not (tmp_path / "no").exists()


def test_what_was_made_of_a_part_is_left_out_and_said(tmp_path: Path) -> None:
    parts = [artifact_of(tmp_path / f"p{n}", latents(30, n), torch.arange(30) % 3) for n in range(2)]
    (parts[0].folder / "README.md").write_text("accuracy: 99")
    parts[0].write_metadata()
    change_info(
        parts[1].folder, dtype="float16", decode={**parts[1].info.decode.to_dict(), "guidance_scale": 9.0}
    )
    said: list[str] = []
    merged = merge_artifacts([part.folder for part in parts], tmp_path / "merged", notify=said.append)
    assert {*merged.sha256} == {*FILES} and merged.info.decode == parts[0].info.decode
    assert "differ in decode" in said[1] and "README.md" in said[2]


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # of huggingface_hub's uploads
def test_sums_come_from_the_hub_only_where_they_are_asked_for(hub: HubServer, tmp_path: Path) -> None:
    parts = [artifact_of(tmp_path / f"p{n}", latents(30, n), torch.arange(30) % 3) for n in range(2)]
    for number, part in enumerate(parts):
        part.push_to_hub(f"org/part{number}")
    plain = Artifact.from_pretrained("org/part0")
    plain.verify()
    assert not (plain.folder / MOMENTS).exists() and MOMENTS in plain.sha256
    with pytest.raises(ArtifactIntegrityError, match=f"{MOMENTS} is missing"):
        plain.sums()
    merged = merge_artifacts([plain, "org/part1"], tmp_path / "merged", notify=quiet)
    assert file_bytes(merged) == file_bytes(merge_artifacts(parts, tmp_path / "again", notify=quiet))


def test_every_field_of_a_description_is_carried_over_or_made_anew() -> None:
    kept = {*CARRIED, *ADAPTED, *DROPPED, *REFUSED}
    assert kept | {*MADE} == {field.name for field in dataclasses.fields(tiny_info())}
    assert not kept & {*MADE}
