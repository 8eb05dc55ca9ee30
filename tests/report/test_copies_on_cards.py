"""What a card says of near copies: of which report, and of which images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from d3hr_datasets import Artifact, D3HRDataset
from d3hr_datasets.artifact.facts import CARD
from d3hr_datasets.config.settings import GroupSamplingConfig
from d3hr_datasets.errors import ConfigError
from d3hr_datasets.publish.card import write_card
from d3hr_datasets.report import write_report
from tests.cli.test_cli import d3hr
from tests.support.copied_images import noise, save
from tests.support.curated import add_order, save_separate_artifact
from tests.support.tampering import change_info


def test_the_card_says_what_a_report_found(
    dataset: D3HRDataset, artifact_copy: Path, copied: Path, held_out: Path, tmp_path: Path
) -> None:
    folders: dict[str, dict[str, Any]] = {"told": {"images": copied, "held_out": held_out}, "without": {}}
    for name, options in folders.items():
        write_report(dataset, tmp_path / name, progress=False, **options)

    def card(*options: Any) -> Any:
        return d3hr("card", artifact_copy, "org/tiny", "--root", dataset.root, "--device", "cpu", *options)

    assert card().exit_code == 0
    assert "## Near copies" not in (artifact_copy / CARD).read_text(encoding="utf-8")
    done = card("--report", tmp_path / "told" / "report.json")
    assert done.exit_code == 0, done.output
    text = (artifact_copy / CARD).read_text(encoding="utf-8")
    section = text[text.index("## Near copies") : text.index("## Licences")]
    assert "More near copies of training images than among held-out images" in section
    assert f"Of the set `{dataset.fingerprint}` of 3 classes, 4 images each: sampling moment" in section
    assert "seed 0, decoded from timestep 400, " in section
    assert "12 generated images and 15 held-out images" in section
    assert "| pixels, ratio | 12 | 12 | 100 | 16.7 |" in section
    assert text.index("## How it was built") < text.index("## Near copies")
    assert card().exit_code == 0
    assert (artifact_copy / CARD).read_text(encoding="utf-8") == text  # what is there is kept
    for path, message in [
        (tmp_path / "without" / "report.json", "without real images"),
        (tmp_path / "none.json", "cannot be read"),
        (artifact_copy / "d3hr.json", "is no report of this version"),
    ]:
        refused = card("--report", path)
        assert refused.exit_code == 1 and message in refused.stderr, refused.output
    numbers = json.loads((tmp_path / "told" / "report.json").read_text(encoding="utf-8"))
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"fingerprint": "0" * 16}, "is a report on the artifact '0000000000000000', not on this one"),
        ({"order": "0" * 16}, "is a report on curated images in the order '0000000000000000', and this"),
        ({"copies": {**numbers["copies"], "spaces": {"pixels": {}}}}, "is no report of this version"),
        ({"copies": {**numbers["copies"], "spaces": {}}}, "is no report of this version"),
        ({"sampling": {"method": "by hand"}}, "is no report of this version"),
    ]
    for changes, message in wrong:
        (tmp_path / "other.json").write_text(json.dumps({**numbers, **changes}))
        with pytest.raises(ConfigError, match=message):
            write_card(
                Artifact.load(artifact_copy),
                "org/tiny",
                report=tmp_path / "other.json",
                root=dataset.root,
                progress=False,
            )
    assert (artifact_copy / CARD).read_text(encoding="utf-8") == text


def test_a_card_keeps_near_copies_of_its_own_images_only(held_out: Path, tmp_path: Path) -> None:
    folder = save_separate_artifact(tmp_path / "separate").folder
    artifact = add_order(folder)
    curated = D3HRDataset(
        artifact, tmp_path / "root", 2, device="cpu", sampling=GroupSamplingConfig("curated")
    )
    plain = D3HRDataset(artifact, tmp_path / "root", 2, seed=3, device="cpu")
    training = save(tmp_path / "training", noise(30, 2), [n % 3 for n in range(30)])
    for name, dataset in (("curated", curated), ("plain", plain)):
        write_report(dataset, tmp_path / name, training, held_out=held_out, progress=False)

    def card(report: str | None = None) -> str:
        path = None if report is None else tmp_path / report / "report.json"
        options: dict[str, Any] = {"root": tmp_path / "root", "device": "cpu", "progress": False}
        return write_card(Artifact.load(folder), "org/x", report=path, **options).read_text(encoding="utf-8")

    assert f"sampling curated in the order `{artifact.order_fingerprint}`, seed 0" in card("curated")
    assert card("curated") == card()  # kept
    add_order(folder, torch.arange(12).repeat(3, 1))
    assert "## Near copies" not in card()
    with pytest.raises(
        ConfigError, match=f"in the order '{artifact.order_fingerprint}', and this artifact's"
    ):
        card("curated")
    text = card("plain")
    assert f"Of the set `{plain.fingerprint}`" in text and "seed 3, decoded" in text
    add_order(folder)
    assert card() == text  # no order decides these images
    change_info(folder, decode={**artifact.info.decode.to_dict(), "guidance_scale": 3.0})
    assert "## Near copies" not in card()
