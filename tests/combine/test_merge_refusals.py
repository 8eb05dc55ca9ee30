"""Merging: what does not add up is refused by its name, and nothing is written."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from d3hr_datasets import Artifact, ModelReference, Prompts
from d3hr_datasets.artifact.d3hr_json import MOMENTS, STATISTICS
from d3hr_datasets.build import KeptSums
from d3hr_datasets.combine import merge_artifacts
from d3hr_datasets.errors import ArtifactNotFoundError, CombineError, ConfigError
from tests.support.combining import artifact_of, build, clumps, file_bytes, latents, of_prompts, quiet
from tests.support.tampering import change_info, change_statistics


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        (
            {},
            {"model": ModelReference("org/model", "1" * 40)},
            "the model is 'org/model@0{40}'.*'org/model@1{40}'",
        ),
        ({}, {"latent_shape": (3, 4, 5)}, r"latent_shape is \(3, 4, 4\).*\(3, 4, 5\)"),
        ({}, {"image_size": 12}, "image_size is 14.*and 12"),
        ({}, {"image_mode": "RGB"}, "image_mode is 'L'.*'RGB'"),
        ({}, {"padding": 2}, "padding is 1.*and 2"),
        ({}, {"inversion": {"guidance_scale": 2.0}}, r"inversion.guidance_scale is 1.0.*and 2.0"),
        (
            {},
            {"inversion": {"timesteps": [-1, 400]}},
            r"inversion.timesteps is \[-1, 200, 400\].*\[-1, 400\]",
        ),
        ({}, {"inversion": {"latent": "sample"}}, "inversion.latent is 'mean'.*'sample'"),
        ({}, {"classes": ["ant", "cat", "bee/wasp"]}, "classes is .*'bee/wasp', 'cat'.*'cat', 'bee/wasp'"),
        ({"wnids": ["n1", "n2", "n3"]}, {}, "wnids is .*n1.*None"),
        ({}, {"model": {"path": "model"}}, "the model is 'org/model@0+'.*'inside, SHA-256"),
        (
            {"source": {"torch_dtype": "bfloat16"}},
            {},
            "the precision of the build is 'bfloat16'.*'float32'",
        ),
    ],
)
def test_what_must_agree_is_refused_by_its_name(
    first: dict[str, Any], second: dict[str, Any], said: str, tmp_path: Path
) -> None:
    parts = []
    for place, changes in enumerate((first, second)):
        artifact = artifact_of(tmp_path / str(place), latents(30, place), torch.arange(30) % 3)
        values = artifact.info.to_dict()
        changed = {
            name: {**values[name], **value} if name == "inversion" else _json(value)
            for name, value in changes.items()
        }
        change_info(artifact.folder, **changed)
        parts.append(artifact.folder)
    with pytest.raises(CombineError, match=said):
        merge_artifacts(parts, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def _json(value: Any) -> Any:
    return (
        dataclasses.asdict(value)
        if dataclasses.is_dataclass(value) and not isinstance(value, type)
        else value
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"prompts": ("a photo of a cat", "a bee")}, "prompt of class 'bee' is 'a photo of a bee'.*'a bee'"),
        ({"wnids": ("n1", "n2")}, "wnids are given in .*b and none in .*a"),
    ],
)
def test_classes_that_mean_two_things_are_refused(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    first = artifact_of(tmp_path / "a", latents(20), torch.arange(20) % 2, **of_prompts("cat", "bee"))
    second = artifact_of(tmp_path / "b", latents(20, 1), torch.arange(20) % 2, **of_prompts("cat", "bee"))
    if "prompts" in changes:
        changes = {"prompts": {"per_class": list(changes["prompts"])}}
    change_info(second.folder, **changes)
    with pytest.raises(CombineError, match=said):
        merge_artifacts([first.folder, second.folder], tmp_path / "merged")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"adapter": True}, "the adapter is 'none' in .*a and 'inside, SHA-256 .*' in .*b"),
        ({"prompts": Prompts(("a", "b", "c"))}, "what classes are to the model is 'labels' .*'prompts'"),
    ],
)
def test_what_a_model_is_told_must_agree(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    first = artifact_of(tmp_path / "a", latents(30), torch.arange(30) % 3)
    second = artifact_of(tmp_path / "b", latents(30, 1), torch.arange(30) % 3, **changes)
    with pytest.raises(CombineError, match=said):
        merge_artifacts([first, second], tmp_path / "merged")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"prompts": {"per_class": ["a photo of a cat", "a photo of a bee"], "negative": "ugly"}},
            "negative prompt",
        ),
        ({"embeddings": True}, "embeddings is False .* and True"),
    ],
)
def test_what_prompts_are_guided_by_must_agree(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    first = artifact_of(tmp_path / "a", latents(20), torch.arange(20) % 2, **of_prompts("cat", "bee"))
    second = artifact_of(tmp_path / "b", latents(20, 1), torch.arange(20) % 2, **of_prompts("cat", "bee"))
    change_info(second.folder, **changes)
    with pytest.raises(CombineError, match=said):
        merge_artifacts([first.folder, second.folder], tmp_path / "merged")


def test_names_that_only_look_the_same_are_refused(tmp_path: Path) -> None:
    first = artifact_of(tmp_path / "a", latents(20), torch.arange(20) % 2, **of_prompts("caf\u00e9", "b"))
    second = artifact_of(
        tmp_path / "b", latents(20, 1), torch.arange(20) % 2, **of_prompts("cafe\u0301", "b")
    )
    with pytest.raises(CombineError, match=r"written otherwise .*'caf\\xe9'.*'cafe\\u0301'"):
        merge_artifacts([first, second], tmp_path / "merged")


def test_names_that_differ_in_case_are_refused_unless_both_are_classes_of_a_part(tmp_path: Path) -> None:
    labels = torch.arange(20) % 2
    first, second, both = (
        artifact_of(tmp_path / "".join(names), latents(20, seed), labels, **of_prompts(*names))
        for seed, names in enumerate([("tree_frog", "b"), ("Tree frog", "b"), ("Polish", "polish")])
    )
    with pytest.raises(CombineError, match=r"'Tree frog' is written otherwise .*'tree_frog'"):
        merge_artifacts([first, second], tmp_path / "merged")
    third = artifact_of(tmp_path / "c", latents(20, 3), labels, **of_prompts("Polish", "b"))
    for number, order in enumerate(([both, third], [third, both])):
        merged = merge_artifacts(order, tmp_path / f"m{number}", notify=quiet)
        assert sorted(merged.info.classes) == ["Polish", "b", "polish"]


def test_what_others_say_of_parts_is_taken_for_counts_only_where_it_is(tmp_path: Path) -> None:
    """A list of counts for each of many parts would take the memory of all classes for each."""
    parts = [artifact_of(tmp_path / str(n), latents(30, n), torch.arange(30) % 3) for n in range(2)]
    said = [{"counts": []}, {"counts": [["x"], 1, 1]}, {"counts": [1, 2, 3]}, {"counts": 7}, {"counts": "x"}]
    change_info(parts[0].folder, source={"fingerprint": "0" * 64, "parts": said})
    merged = merge_artifacts([parts[0].folder, parts[1]], tmp_path / "merged", notify=quiet)
    found = [one.get("counts") for one in merged.info.source["parts"]]
    assert found == [None, None, [1, 2, 3], 7, None, [10, 10, 10]]
    change_info(parts[0].folder, source={"fingerprint": "0" * 64, "parts": said * 6000})
    merged = merge_artifacts([parts[0].folder, parts[1]], tmp_path / "many", notify=quiet)
    assert [one.get("counts") for one in merged.info.source["parts"]][-4:] == [6, 7, None, 30]


def test_wordnet_ids_tell_classes_as_names_do(tmp_path: Path) -> None:
    def part(name: str, names: tuple[str, ...], wnids: tuple[str, ...]) -> Artifact:
        return artifact_of(
            tmp_path / name, latents(20, len(name)), torch.arange(20) % 2, **of_prompts(*names), wnids=wnids
        )

    first = part("a", ("cat", "bee"), ("n1", "n2"))
    merged = merge_artifacts([first, part("bb", ("ant", "cat"), ("n3", "n1"))], tmp_path / "m", notify=quiet)
    assert (merged.info.classes, merged.info.wnids) == (("cat", "bee", "ant"), ("n1", "n2", "n3"))
    with pytest.raises(CombineError, match=r"WordNet ID of class 'cat' is 'n1'.*'n4'"):
        merge_artifacts([first, part("ccc", ("ant", "cat"), ("n3", "n4"))], tmp_path / "no")
    with pytest.raises(CombineError, match="WordNet ID 'n1' is that of 'cat' and of 'kitty'"):
        merge_artifacts([first, part("dddd", ("ant", "kitty"), ("n3", "n1"))], tmp_path / "no")


def test_shrunk_variances_are_computed_anew_and_cannot_be_merged_without_sums(tmp_path: Path) -> None:
    whole = build(tmp_path / "whole", range(30), sums=KeptSums(), shrinkage="auto")
    halves = [range(n, 30, 2) for n in range(2)]
    parts = [
        build(tmp_path / f"p{n}", half, sums=KeptSums(), shrinkage="auto") for n, half in enumerate(halves)
    ]
    merged = merge_artifacts(parts, tmp_path / "merged", notify=quiet)
    assert merged.info.shrinkage == whole.info.shrinkage != () and file_bytes(merged) == file_bytes(whole)
    plain = merge_artifacts(parts, tmp_path / "plain", shrinkage="none", notify=quiet)
    assert plain.info.shrinkage == () and file_bytes(plain, MOMENTS) == file_bytes(whole, MOMENTS)
    (parts[1].folder / MOMENTS).unlink()
    parts[1].write_metadata()
    with pytest.raises(CombineError, match=r"p1 stores no sums .*drawn towards"):
        merge_artifacts([part.folder for part in parts], tmp_path / "no")


@pytest.mark.parametrize("name", ["t400_mean", "t400_variance", "t200_modes_mean"])
def test_sums_that_are_not_those_of_the_statistics_are_refused(name: str, tmp_path: Path) -> None:
    _, parts = clumps(tmp_path)
    before = parts[0].modes(200).mean if "modes" in name else getattr(parts[0].gaussians(400), name[5:])
    change_statistics(parts[0].folder, **{name: before * 1.01 + 0.01})
    with pytest.raises(
        CombineError, match=rf"t\d+.{name.partition('_')[2].replace('_', '.')} would be another"
    ):
        merge_artifacts([part.folder for part in parts], tmp_path / "no")
    assert not (tmp_path / "no").exists()


def test_what_is_there_is_never_written_to(tmp_path: Path) -> None:
    parts = [artifact_of(tmp_path / f"p{n}", latents(30, n), torch.arange(30) % 3) for n in range(2)]
    for output, said in (
        (parts[0].folder, "is there already"),
        (parts[1].folder / "in", "lies in the artifact"),
    ):
        with pytest.raises(ConfigError, match=said):
            merge_artifacts(parts, output)
    with pytest.raises(CombineError, match="1 artifact is given"):
        merge_artifacts(parts[:1], tmp_path / "merged")
    with pytest.raises(CombineError, match="would be counted twice"):
        merge_artifacts([parts[0], parts[0].folder], tmp_path / "merged")
    with pytest.raises(ArtifactNotFoundError):
        merge_artifacts([parts[0], tmp_path / "nowhere"], tmp_path / "merged")
    (parts[1].folder / STATISTICS).write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"SHA-256 differs|bytes"):
        merge_artifacts(parts, tmp_path / "merged")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p0", "p1", "working-directory"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_a_merge_that_is_cut_short_leaves_nothing(
    error: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = [artifact_of(tmp_path / f"p{n}", latents(30, n), torch.arange(30) % 3) for n in range(2)]
    before = sorted(tmp_path.rglob("*"))

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("d3hr_datasets.artifact.artifact.write_moments", fail)
    with pytest.raises((KeyboardInterrupt, CombineError), match=r"No space left|^$"):
        merge_artifacts(parts, tmp_path / "merged")
    assert sorted(tmp_path.rglob("*")) == before
