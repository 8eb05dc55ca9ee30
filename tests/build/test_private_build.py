"""Private builds: nothing of the images leaves them but noisy statistics, and each spends its budget."""

from __future__ import annotations

import dataclasses
import json
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest
import torch

from d3hr_datasets import Artifact, D3HRDataset, DecodeConfig, InversionConfig
from d3hr_datasets.artifact.curation import Curation
from d3hr_datasets.artifact.d3hr_json import METADATA
from d3hr_datasets.artifact.facts import artifact_facts
from d3hr_datasets.build import (
    KeptSums,
    plan_build,
)
from d3hr_datasets.build.chunk_builder import ChunkBuilder
from d3hr_datasets.combine import forget_images, merge_artifacts
from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from d3hr_datasets.errors import ArtifactFormatError, CombineError, ConfigError
from d3hr_datasets.privacy import PrivacySettings
from d3hr_datasets.publish.measured import measured_sections
from tests.support.combining import save_pictures
from tests.support.private_builds import SETTINGS, SPENDING, build_private, class_list_options, private_info
from tests.support.tiny import tiny_info, tiny_pipeline
from tests.support.tiny_builds import Relabelled

GIVEN = {"name": "ours", "fingerprint": "ab", "unreadable": [{"image": "secret.png"}]}
ONE_TIME = InversionConfig((400,), num_inference_steps=10)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("private")
    tiny_pipeline().save_pretrained(folder / "artifact" / "model")
    return folder


@pytest.fixture(scope="module")
def model(saved: Path) -> LatentDiffusion:
    return LatentDiffusion.from_pretrained(saved / "artifact" / "model", device="cpu")


@pytest.fixture(scope="module")
def artifact(saved: Path, model: LatentDiffusion) -> Artifact:
    return build_private(model, saved / "artifact", private_info(source=GIVEN))


def test_nothing_that_is_exact_is_in_the_artifact(artifact: Artifact, saved: Path) -> None:
    artifact.verify()
    info, document = artifact.info, json.loads((artifact.folder / METADATA).read_text())
    assert document["format"] == 2 and info.source == {"name": info.name}
    assert set(document["info"]) - set(tiny_info().to_dict()) <= {"privacy", "shrinkage"}
    assert document["info"]["privacy"]["epsilon"] == 5.0 and document["info"]["privacy"]["delta"] == 1e-5
    assert document["info"]["privacy"]["accountant"].startswith("dp-accounting 0.")
    files = {name for name in artifact.sha256 if not name.startswith("model/")}
    assert files == {"statistics.safetensors"}
    assert min(info.counts) >= 2 and artifact.gaussians(400).variance.min() > 0
    facts = artifact_facts(artifact)
    assert facts["built from"] == f"about {sum(info.counts):,} images"
    assert facts["source fingerprint"] == "not given"
    assert "epsilon 5, delta 1e-05, for one image added or removed" in facts["privacy"]
    assert "for images that the model, and its adapter, were not trained on" in facts["privacy"]
    assert len(D3HRDataset(artifact, saved / "cache", ipc=2, device="cpu")) == 6


def test_chunks_are_their_owners_alone_and_every_build_draws_anew(
    artifact: Artifact, model: LatentDiffusion, saved: Path, tmp_path: Path
) -> None:
    work = saved / "artifact.chunks"
    chunks = sorted(work.glob("*.safetensors"))
    assert stat.S_IMODE(work.stat().st_mode) == 0o700
    assert len(chunks) == 3 and {stat.S_IMODE(path.stat().st_mode) for path in chunks} == {0o600}
    again = build_private(
        model, tmp_path / "again", private_info(PrivacySettings(1.0, 1e-6), source=GIVEN), work=work
    )
    assert sorted(work.glob("*.safetensors")) == chunks  # whatever the noise, chunks are the same
    assert not torch.equal(again.gaussians(400).mean, artifact.gaussians(400).mean)
    other = private_info(dataclasses.replace(SPENDING, clip_norm=3.0), source=GIVEN)
    build_private(model, tmp_path / "other", other, work=work)
    assert len(list(work.glob("*.safetensors"))) == 6


def test_chunks_of_other_batches_are_not_taken_over_and_what_they_hang_on_is_said(
    artifact: Artifact, model: LatentDiffusion, saved: Path, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    shutil.copytree(saved / "artifact.chunks", work)
    alone = artifact.info.privacy
    assert alone is not None and alone.batch_size == 1  # each image by itself, unless another number is given
    condition = "does not change with the others of its batch, of up to 3"
    assert condition not in artifact_facts(artifact)["privacy"]
    before = len(list(work.glob("*.safetensors")))
    together = build_private(model, tmp_path / "three", private_info(source=GIVEN), work=work, batch_size=3)
    assert len(list(work.glob("*.safetensors"))) == before + 3
    assert together.info.privacy == dataclasses.replace(alone, batch_size=3)
    assert condition in artifact_facts(together)["privacy"]


def test_a_class_without_images_makes_no_difference_that_can_be_seen(
    model: LatentDiffusion, tmp_path: Path
) -> None:
    found = build_private(model, tmp_path / "artifact", source=Relabelled([0, 2] * 6))
    assert len(found.info.counts) == 3 and min(found.info.counts) >= 2


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_modes": 2}, "num_modes=2 does not go with privacy"),
        ({"inversion": InversionConfig((200, 400), num_inference_steps=10)}, r"timesteps are \[200, 400\]"),
        (
            {"inversion": dataclasses.replace(ONE_TIME, latent="sample")},
            "latent='sample' does not go with privacy",
        ),
        (
            {
                "curation": Curation(
                    DecodeConfig(400, 10),
                    4,
                    2,
                    "herding",
                    "t",
                    "0" * 64,
                    "images",
                    (4, 4, 4),
                    mode_spread=None,
                )
            },
            "an order of curated images that stands for real images does not go with privacy",
        ),
    ],
)
def test_what_would_say_more_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        private_info(**changes)


def test_builds_that_would_keep_or_say_more_are_refused(
    artifact: Artifact, model: LatentDiffusion, tmp_path: Path
) -> None:
    for options, said in (
        ({"sums": KeptSums()}, "moments=True does not go with privacy"),
        ({"shrinkage": 0.5}, "shrinkage=0.5 does not go with privacy"),
        ({"tolerance": 0.5}, "tolerance=0.5 does not go with privacy"),
        ({"info": dataclasses.replace(private_info(), name="x", privacy=_weaker())}, "and 1 is promised"),
    ):
        with pytest.raises(ConfigError, match=said):
            build_private(model, tmp_path / "no", **options)
    with pytest.raises(ConfigError, match="spends the budget again; give a new --output"):
        build_private(model, artifact.folder)
    assert not list(tmp_path.glob("no*"))


def _weaker() -> Any:
    return dataclasses.replace(SPENDING.mechanism(48, 1.0), epsilon=1.0)


def test_private_artifacts_are_not_merged_nor_forgotten_of(artifact: Artifact, tmp_path: Path) -> None:
    with pytest.raises(CombineError, match="is a private artifact"):
        merge_artifacts([artifact, artifact.folder], tmp_path / "merged")
    with pytest.raises(CombineError, match="is a private artifact"):
        forget_images(artifact, tmp_path, tmp_path / "left", membership=tmp_path / "none")


def test_a_card_takes_no_report_on_private_images(artifact: Artifact, tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text("{}")
    with pytest.raises(ConfigError, match="a report with real images on the card does not go with privacy"):
        measured_sections("", None, tmp_path / "report.json", artifact)


def test_a_record_that_is_none_is_no_artifact(artifact: Artifact, tmp_path: Path) -> None:
    document = json.loads((artifact.folder / METADATA).read_text())
    for change in ({"epsilon": 0}, {"unit": "person"}, {"extra": 1}, {"noise_sums": -1}, {"accountant": 7}):
        broken = {**document, "info": {**document["info"]}}
        broken["info"]["privacy"] = {**document["info"]["privacy"], **change}
        (tmp_path / METADATA).write_text(json.dumps(broken))
        with pytest.raises(ArtifactFormatError, match=r"privacy\.|Privacy does not know"):
            Artifact.load(tmp_path)


def test_a_plan_says_what_is_spent_and_stores_no_modes(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = save_pictures(tmp_path / "images", range(12))
    settings, options, model = SETTINGS, class_list_options(tmp_path), saved / "artifact" / "model"
    plan = plan_build(images, model, tmp_path / "out", settings, privacy=PrivacySettings(2.0, 0.2), **options)
    notes = " ".join(plan.notes)
    assert "spends epsilon 2 and delta 0.2 for each image, once" in notes
    assert "delta 0.2 is one in the number of images or more" in notes
    assert "were not trained on, and nothing here checks that" in notes and "out.chunks" in notes
    assert "modes" not in notes and "variances" not in notes
    built = plan.run(progress=False)
    planned = plan.info.privacy
    assert planned is not None and built.info.privacy == dataclasses.replace(planned, batch_size=1)
    assert "fingerprint" not in built.info.source
    assert built.info.source["name"] == "out"  # and not that of the folder of images
    with pytest.raises(ConfigError, match="give a new --output"):
        plan.run(progress=False)
    other = {**options, "work": tmp_path / "out.chunks", "privacy": PrivacySettings(3.0, 0.2)}
    again = plan_build(images, model, tmp_path / "other", settings, **other)
    monkeypatch.setattr(ChunkBuilder, "_invert_batch", None)  # finished chunks are taken up
    assert again.run(progress=False).info.source["name"] == "other"
    for changes, said in (
        ({"moments": True}, "moments=True does not go"),
        ({"num_modes": 3}, "num_modes=3 does not go"),
        ({"latent": "sample"}, "latent='sample' does not go"),
        ({"tolerance": 0.5}, "tolerance=0.5 does not go"),
    ):
        with pytest.raises(ConfigError, match=said):
            plan_build(
                images,
                model,
                tmp_path / "no",
                dataclasses.replace(settings, **changes),
                privacy=SPENDING,
                **options,
            )


def test_the_working_folder_is_refused_before_anything_runs(
    model: LatentDiffusion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="is the working folder or holds it"):
        build_private(model, tmp_path, work=tmp_path.with_name("chunks-of-nothing"))
    assert not tmp_path.with_name("chunks-of-nothing").exists()
