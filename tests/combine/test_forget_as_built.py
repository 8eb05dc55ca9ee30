"""Forgetting goes on as the artifact was built, and leaves an artifact with its membership, or neither."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from d3hr_datasets.artifact.d3hr_json import CURATION
from d3hr_datasets.artifact.membership import read_membership, write_membership
from d3hr_datasets.build import KeptSums
from d3hr_datasets.combine import ForgetOptions, forget, forget_images, inverted_again, merge_artifacts
from d3hr_datasets.config.budgets import Budget
from d3hr_datasets.config.settings import GroupSamplingConfig
from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from d3hr_datasets.errors import CombineError, ConfigError
from tests.support import combining
from tests.support.combining import Pictures, artifact_of, build, latents, quiet

CPU = ForgetOptions(device="cpu")
LABELS = torch.arange(30) % 3


def test_the_precision_is_that_of_the_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def in_bfloat16() -> LatentDiffusion:
        return LatentDiffusion.from_pretrained(
            tmp_path / "all" / "model", device="cpu", torch_dtype=torch.bfloat16
        )

    noted = tmp_path / "m"
    monkeypatch.setattr(combining, "tiny_model", in_bfloat16)
    artifact = build(tmp_path / "all", range(30), sums=KeptSums(noted))
    given: dict[str, Any] = {"membership": noted, "notify": quiet}
    for dtype in (torch.float32, torch.float16):
        options = dataclasses.replace(CPU, torch_dtype=dtype)
        with pytest.raises(CombineError, match="is not the precision of the build, 'bfloat16'"):
            forget_images(artifact, Pictures([0]), tmp_path / "no", options=options, **given)
    made = forget_images(artifact, Pictures([0, 1]), tmp_path / "left", options=CPU, **given)
    assert read_membership(tmp_path / "left.membership").torch_dtype == "bfloat16"
    without = build(tmp_path / "without", range(2, 30), sums=KeptSums())
    for time, sums in made.sums().sums.items():  # to the last unit: batches of one round alike
        assert int((sums - without.sums().sums[time]).abs().max()) <= 2**12


@pytest.mark.parametrize("rule", ["auto", "none", 0.25])
def test_the_rule_of_shrinkage_is_that_of_the_build(rule: Any, tmp_path: Path) -> None:
    artifact = build(tmp_path / "all", range(330), sums=KeptSums(tmp_path / "m"), shrinkage=rule)
    assert artifact.info.shrinkage == {"auto": (), "none": (), 0.25: (0.25,) * 3}[rule]
    said: list[str] = []
    made = forget_images(
        artifact,
        Pictures(range(0, 60, 3)),
        tmp_path / "left",
        membership=tmp_path / "m",
        options=CPU,
        notify=said.append,
    )
    assert made.info.counts == (90, 110, 110)
    shares = made.info.shrinkage
    if rule == "auto":
        assert shares[0] > 0 and shares[1:] == (0, 0)
    else:
        assert shares == artifact.info.shrinkage
    assert any(f"by the rule {rule!r}: as in the build" in line for line in said)
    assert read_membership(tmp_path / "left.membership").shrinkage == rule


@pytest.mark.parametrize(
    ("shares", "rule"),
    [((0.5,) * 3, 0.5), ((1.0,) * 3, "auto"), ((0.2, 0.5, 0.3), "auto"), ((), "none")],
)
def test_merging_says_by_which_rule_variances_are_drawn(
    shares: tuple[float, ...], rule: Any, tmp_path: Path
) -> None:
    parts = [build(tmp_path / f"p{n}", range(n, 30, 2), sums=KeptSums()) for n in range(2)]
    parts = [_with_shares(part, shares) for part in parts]
    said: list[str] = []
    merged = merge_artifacts(parts, tmp_path / "merged", notify=said.append)
    assert any(f"by the rule {rule!r}: as far as can be told" in line for line in said)
    assert len(merged.info.shrinkage) == (0 if rule == "none" else 3)
    said.clear()
    if rule == 0.5:
        assert merged.info.shrinkage == shares
    told = merge_artifacts(parts, tmp_path / "told", shrinkage=0.75, notify=said.append)
    assert told.info.shrinkage == (0.75,) * 3 and any("rule 0.75: as asked for" in line for line in said)


def _with_shares(part: Any, shares: tuple[float, ...]) -> Any:
    """Save an artifact anew with variances that were drawn by some shares."""
    from d3hr_datasets import Artifact
    from d3hr_datasets.build.shrinkage import draw_variances

    sums = part.sums()
    gaussians, modes = sums.statistics()
    if shares:
        gaussians = {time: draw_variances(one, shares) for time, one in gaussians.items()}
    info = dataclasses.replace(part.info, shrinkage=shares)
    return Artifact.save(part.folder, info, gaussians, modes, sums)


def test_budgets_are_carried_and_a_curated_order_is_not(tmp_path: Path) -> None:
    kept, curated = (
        Budget(2, sampling=GroupSamplingConfig("search")),
        Budget(1, sampling=GroupSamplingConfig("curated")),
    )
    parts = [artifact_of(tmp_path / f"p{n}", latents(30, n), LABELS) for n in range(2)]
    order = curation_of(parts[0].info.decode)
    info = dataclasses.replace(parts[0].info, budgets=(curated, kept), curation=order)
    (parts[0].folder / CURATION).write_bytes(b"")
    parts[0].info = info
    parts[0].write_metadata()
    (parts[1].folder / CURATION).write_bytes(b"")
    parts[1].info = dataclasses.replace(parts[1].info, curation=order)
    parts[1].write_metadata()
    said: list[str] = []
    merged = merge_artifacts(parts, tmp_path / "merged", notify=said.append)
    assert merged.info.budgets == (kept,) and merged.info.curation is None
    assert CURATION not in merged.sha256
    assert sum("order of curated images" in line and "is left out" in line for line in said) == 2
    assert any("for at most 1 images per class are left out" in line for line in said)
    assert any("differ in budgets" in line for line in said)


def curation_of(decode: Any) -> Any:
    from d3hr_datasets.artifact.curation import Curation

    return Curation(decode, 4, 2, "method", "teacher", "0" * 64, "candidates", (2, 2, 2))


def test_an_artifact_is_left_with_its_membership_or_neither(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted = tmp_path / "m"
    artifact = build(tmp_path / "all", range(30), sums=KeptSums(noted))
    (tmp_path / "file").write_text("")
    given: dict[str, Any] = {"membership": noted, "options": CPU, "notify": quiet}
    nowhere: dict[str, Any] = {**given, "options": ForgetOptions(device="nowhere")}  # said before it is used
    with pytest.raises(CombineError, match=r"new_membership=.* cannot be written: "):
        forget_images(
            artifact, Pictures([0]), tmp_path / "no", new_membership=tmp_path / "file" / "m", **nowhere
        )
    too_long = tmp_path / ("m" * 250)  # room for its name, and for none beside it
    with pytest.raises(CombineError, match=r"new_membership=.* cannot be written: File name too long"):
        forget_images(artifact, Pictures([0]), tmp_path / "no", new_membership=too_long, **given)
    assert not (tmp_path / "no").exists() and not too_long.exists()
    made = forget_images(
        artifact, Pictures([0]), tmp_path / "left", new_membership=tmp_path / "new" / "m", **given
    )
    assert read_membership(tmp_path / "new" / "m").moments == made.sha256["moments.safetensors"]
    original = Path.rename

    def full(path: Path, target: Any) -> Path:
        if Path(target).name == "gone":
            raise OSError(28, "No space left on device")
        return original(path, target)

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(CombineError, match="No space left"):
        forget_images(artifact, Pictures([0]), tmp_path / "gone", **given)
    assert not (tmp_path / "gone").exists() and not (tmp_path / "gone.membership").exists()


def test_a_membership_that_is_written_meanwhile_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = build(tmp_path / "all", range(30), sums=KeptSums(tmp_path / "m"))
    inverted = inverted_again.inverted_sums

    def meanwhile(*arguments: Any, **options: Any) -> Any:
        (tmp_path / "new").write_text("of another command")
        return inverted(*arguments, **options)

    monkeypatch.setattr(forget, "inverted_sums", meanwhile)
    with pytest.raises(ConfigError, match="is there already"):
        forget_images(
            artifact,
            Pictures([0]),
            tmp_path / "left",
            membership=tmp_path / "m",
            new_membership=tmp_path / "new",
            options=CPU,
            notify=quiet,
        )
    assert (tmp_path / "new").read_text() == "of another command" and not (tmp_path / "left").exists()


def test_a_class_or_mode_that_is_none_of_the_artifact_is_refused(tmp_path: Path) -> None:
    noted = tmp_path / "m"
    artifact = build(tmp_path / "all", range(30), sums=KeptSums(noted))
    found = read_membership(noted)
    changes: list[dict[str, Any]] = [{"label": 3}, {"mode": 1}]
    for change in changes:
        rows = (*found.members[:-1], dataclasses.replace(found.members[-1], **change))
        write_membership(noted, dataclasses.replace(found, members=tuple(sorted(rows))))
        with pytest.raises(CombineError, match="3 classes of 1 modes; the file is damaged"):
            forget_images(artifact, Pictures([0]), tmp_path / "no", membership=noted, options=CPU)
