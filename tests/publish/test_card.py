"""Cards: every fact of the inversion, what is kept when one is written again, and what `datasets` reads."""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import datasets
import pytest

from d3hr_datasets import Artifact, D3HRDataset, DecodeConfig, GroupSamplingConfig, InversionConfig
from d3hr_datasets.artifact.d3hr_json import METADATA
from d3hr_datasets.artifact.facts import CARD, artifact_facts, inversion_facts
from d3hr_datasets.build.reference_import import as_reference, imported_inversion
from d3hr_datasets.cli.artifact import SHOWN
from d3hr_datasets.dataset.artifact_registry import embedded_artifact
from d3hr_datasets.dataset.card_head import ImageFiles
from d3hr_datasets.dataset.export import export_parquet
from d3hr_datasets.dataset.images_to_hub import images_card
from d3hr_datasets.io.markdown import markdown
from d3hr_datasets.publish.card import PREVIEW, SHEET, card_text, write_card
from d3hr_datasets.publish.upload import plan_artifact
from d3hr_datasets.report.page import escape
from d3hr_datasets.report.sections import artifact_table
from tests.cli.test_cli import d3hr
from tests.support.curated import add_order, save_separate_artifact
from tests.support.hub_card import card_errors
from tests.support.tampering import change_info
from tests.support.tiny import tiny_info

REPO = "org/d3hr-tiny"
BASE = InversionConfig((200, 400), 10)
CHANGES: dict[str, Any] = {
    "timesteps": (400,),
    "num_inference_steps": 20,
    "num_train_timesteps": 2000,
    "guidance_scale": 2.0,
    "noise_timestep": "target",
    "latent": "sample",
    "method": "fixed_point",
    "evaluations_per_step": 3,
    "first_timestep": 0,
    "resizing": "bilinear",
    "grid": "scheduler",
    "shift": 3.0,
    "num_steps": 6,
    "spacing": "cubic",
}
ADDED = {
    "budgets",
    "curated",
    "learned",
    "precision",
    "privacy",
    "shrinkage",
    "sums",
    "adapter",
    "prompts",
    "negative prompt",
    "embeddings",
    "model licence",
}  # in format 2, and of builds that keep sums


def _facts(**info: Any) -> dict[str, str]:
    return artifact_facts(Artifact(Path("nowhere"), tiny_info(**info), {}))


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(InversionConfig)])
def test_every_setting_of_the_inversion_is_on_the_card(name: str) -> None:
    changes: dict[str, Any] = {name: CHANGES.get(name)}
    base = BASE
    if name == "seed":
        base, changes = dataclasses.replace(BASE, latent="sample"), {"seed": 7}
    if name == "shift":
        base = InversionConfig((0.25, 0.5), 10, grid="flow", shift=1.0)
    if name == "evaluations_per_step":
        base = dataclasses.replace(BASE, method="fixed_point")
    if name == "spacing":
        base = dataclasses.replace(BASE, num_steps=6)
    changed = dataclasses.replace(base, **changes)
    assert inversion_facts(changed) != inversion_facts(base)


def test_the_card_names_the_method() -> None:
    assert _facts()["inversion"] == "DDIM"
    fixed = _facts(inversion=InversionConfig((400,), 10, method="fixed_point", evaluations_per_step=2))
    assert fixed["inversion"] == "fixed points of DDIM's steps"
    assert fixed["model evaluations"] == "2 per step, at the timestep a step goes to"
    imported = _facts(
        inversion=imported_inversion((400, 600), 1000),
        decode=DecodeConfig(400, 50),
        source={"name": "stats", "imported": "statistics in the format of D3HR's code"},
    )
    assert imported["inverted latents"].startswith("sample of the VAE's posterior, seed 0")
    assert imported["imported"].startswith("statistics in the format of D3HR's code")
    reference = artifact_facts(Artifact(Path("nowhere"), as_reference(tiny_info(inversion=BASE)), {}))
    assert "starting one step above" in reference["decoding"]
    assert "ending at timestep 1" in reference["decoding"]


def _write(folder: Path, **options: Any) -> None:
    write_card(
        Artifact.load(folder), REPO, root=folder.parent / "cache", device="cpu", progress=False, **options
    )


def test_writing_a_card_again_loses_nothing(artifact_copy: Path, tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    row = {"name": "modes", "top1": {"mean": 77.25, "std": 0.3, "values": [1, 2]}}
    results.write_text(json.dumps({"rows": [row]}))
    _write(artifact_copy, preview_ipc=2, results=results)
    before = (artifact_copy / CARD).read_bytes()
    preview = (artifact_copy / PREVIEW).read_bytes()
    assert b"| modes | 77.2 " in before and b"num_examples: 6" in before
    done = d3hr("card", artifact_copy, REPO, "--root", tmp_path / "cache", "--device", "cpu")
    assert done.exit_code == 0, done.output
    assert (artifact_copy / CARD).read_bytes() == before
    assert (artifact_copy / PREVIEW).read_bytes() == preview
    row["top1"] = {"mean": 80.0, "std": None, "values": [1]}
    results.write_text(json.dumps({"rows": [row]}))
    _write(artifact_copy, preview_ipc=1, results=results)
    text = (artifact_copy / CARD).read_text()
    assert "| modes | 80.0 (1 seeds) |" in text and "77.2" not in text and "num_examples: 3" in text
    (artifact_copy / PREVIEW).write_bytes(b"no Parquet")
    _write(artifact_copy)
    assert "num_examples: 3" in (artifact_copy / CARD).read_text()


def _loaded(folder: Path, cache: Path, caplog: pytest.LogCaptureFixture) -> datasets.Dataset:
    """Load a folder as `datasets` does, and see that it warns of nothing."""
    logger = logging.getLogger("datasets")
    logger.addHandler(caplog.handler)
    try:
        found = datasets.load_dataset(str(folder), cache_dir=str(cache))["train"]
    finally:
        logger.removeHandler(caplog.handler)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []
    return found


def test_notes_that_are_written_meanwhile_stay(artifact_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(artifact_copy)

    def export_and_note(*arguments: Any, **options: Any) -> Path:
        with (artifact_copy / CARD).open("a", encoding="utf-8") as file:
            file.write("precious\n")
        return export_parquet(*arguments, **options)

    monkeypatch.setattr("d3hr_datasets.publish.card.export_parquet", export_and_note)
    _write(artifact_copy)
    assert (artifact_copy / CARD).read_text(encoding="utf-8").endswith("precious\n")


def test_datasets_reads_the_cards_without_a_warning(
    artifact_copy: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _write(artifact_copy, preview_ipc=2)
    dataset = D3HRDataset(artifact_copy, tmp_path / "cache", 4, device="cpu")
    images = export_parquet(dataset, tmp_path / "images")
    files = ImageFiles.of(sorted((images / "data").iterdir()))
    (images / CARD).write_text(images_card(dataset, files))
    for folder in (artifact_copy, images):
        info = datasets.load_dataset_builder(str(folder), cache_dir=str(tmp_path / "stated")).info
        found = _loaded(folder, tmp_path / folder.name, caplog)
        # What datasets itself counts, without a card.
        plain = shutil.copytree(
            folder / ("data" if folder == images else "preview"), tmp_path / f"plain-{folder.name}"
        )
        counted = _loaded(plain, tmp_path / "plain", caplog).info
        assert info.splits is not None and counted.splits is not None
        assert info.splits["train"].num_bytes == counted.splits["train"].num_bytes == info.dataset_size
        assert info.splits["train"].num_examples == len(found)
        assert info.download_size == counted.download_size


def test_a_card_of_images_says_which_they_are(tmp_path: Path) -> None:
    folder = save_separate_artifact(tmp_path / "artifact").folder
    fresh = D3HRDataset(folder, tmp_path / "cache", 2, device="cpu", resample="epoch", keep_epochs=1)
    files = ImageFiles(6, 1, 1)
    first = images_card(fresh, files)
    assert first == images_card(D3HRDataset(folder, tmp_path / "cache", 2, device="cpu"), files)
    assert "| epoch |" not in first and "order of curated" not in first
    fresh.set_epoch(2)
    assert "| epoch | 2 |" in images_card(fresh, files)
    order = add_order(folder).order_fingerprint
    for sampling, stated in ((GroupSamplingConfig("curated"), True), (None, False)):
        dataset = D3HRDataset(folder, tmp_path / "cache", 2, device="cpu", sampling=sampling)
        assert (f"| order of curated images | {order} |" in images_card(dataset, files)) is stated


def test_a_card_without_sizes_would_be_noticed(
    artifact_copy: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _write(artifact_copy)
    card = artifact_copy / CARD
    card.write_text("".join(line for line in card.read_text().splitlines(True) if "num_bytes" not in line))
    with pytest.raises(AssertionError, match="malformed"):
        _loaded(artifact_copy, tmp_path / "cache", caplog)


def test_sections_stand_in_their_order(tiny_artifact: Path) -> None:
    text = card_text(Artifact.load(tiny_artifact), REPO, ImageFiles(3, 1, 1), "## Accuracy\n\nhigh")
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    assert headings == ["## Use", "## How it was built", "## Accuracy", "## Licences"]


def test_embedded_artifact_is_fit_to_be_published() -> None:
    artifact = Artifact.load(embedded_artifact("fashion-mnist"))
    names = {file.name for file in plan_artifact(artifact, with_model=True)}
    assert names >= {METADATA, CARD, SHEET, PREVIEW}
    assert card_errors((artifact.folder / CARD).read_text()) == []


def test_card_report_and_info_say_the_same_facts(artifact_copy: Path, tmp_path: Path) -> None:
    change_info(
        artifact_copy, source={"name": "a_b", "license": "MIT", "imported": "statistics", "fingerprint": "00"}
    )
    facts = artifact_facts(Artifact.load(artifact_copy))
    assert (facts["source"], facts["frame"], facts["built from"]) == (
        "a_b",
        "1 black pixels, while it is encoded",
        "12 images",
    )
    card = card_text(Artifact.load(artifact_copy), REPO, ImageFiles(3, 1, 1))
    page = artifact_table(D3HRDataset(artifact_copy, tmp_path, 2, device="cpu"))
    printed = d3hr("info", artifact_copy).stdout.splitlines()
    for key, fact in facts.items():
        assert f"| {key} | {markdown(fact)} |" in card or key in ("name", "licence", "image costs")
        assert f'<th scope="row">{key}</th><td>{escape(fact)}</td>' in page
        assert f"{key:<12} {fact}" in printed or key not in SHOWN
    assert set(SHOWN) - ADDED <= set(facts) and not ADDED & set(facts)
