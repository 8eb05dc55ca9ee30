"""Settings by budget on the command line: written to a copy or in a build, shown, and taken."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from d3hr_datasets import Artifact, Budget, D3HRDataset, DecodeConfig, GroupSamplingConfig
from d3hr_datasets.cli.dataset_options import SetArguments, make_dataset
from tests.cli.test_cli import d3hr, fail, succeed
from tests.support.tiny import CLASSES, TinyImages, tiny_pipeline

RULES = [
    {"max_ipc": 1, "decode": {"timestep": 200, "guidance_scale": 1}},
    {"max_ipc": 3, "sampling": {"method": "search", "num_candidates": 5}},
]
BUDGETS = (
    Budget(1, DecodeConfig(200, 10, 1.0)),
    Budget(3, sampling=GroupSamplingConfig("search", num_candidates=5)),
)


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file of rules."""
    path = tmp_path_factory.mktemp("rules") / "rules.json"
    path.write_text(json.dumps(RULES))
    return path


@pytest.fixture(scope="module")
def ruled(tiny_artifact: Path, rules: Path) -> Path:
    """Return a copy of the tiny artifact that has the rules."""
    folder = rules.parent / "ruled"
    result = d3hr("budgets", tiny_artifact, rules, "--output", folder)
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"{folder}\n", ""), result.output
    return folder


def test_a_copy_has_the_rules_and_info_shows_them(ruled: Path, tiny_artifact: Path) -> None:
    artifact = Artifact.load(ruled)
    artifact.verify()
    assert artifact.info == dataclasses.replace(Artifact.load(tiny_artifact).info, budgets=BUDGETS)
    assert succeed("info", ruled)["budgets"] == [rule.to_dict() for rule in BUDGETS]
    assert "budgets" not in succeed("info", tiny_artifact)
    line = next(line for line in d3hr("info", ruled).stdout.splitlines() if line.startswith("budgets "))
    assert "up to 1 per class: from timestep 200, 10 steps, guidance 1; " in line
    assert "up to 3 per class: sampled by search (num candidates 5); " in line


def test_rules_lie_below_the_home_folder(
    rules: Path, tiny_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(rules.parent))
    result = d3hr("budgets", tiny_artifact, f"~/{rules.name}", "--output", tmp_path / "copy")
    assert result.exit_code == 0, result.output
    assert Artifact.load(tmp_path / "copy").info.budgets == BUDGETS


def test_a_card_that_is_copied_is_said_to_be_old(artifact_copy: Path, rules: Path, tmp_path: Path) -> None:
    (artifact_copy / "README.md").write_text("a card")
    Artifact.load(artifact_copy).write_metadata()
    result = d3hr("budgets", artifact_copy, rules, "--output", tmp_path / "copy", "--json")
    assert result.exit_code == 0 and f"`d3hr card {tmp_path / 'copy'}` writes it anew" in result.stderr
    assert json.loads(result.stdout)["fingerprint"] == Artifact.load(tmp_path / "copy").fingerprint


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[{", "the file of budgets"),
        ("{}", "budgets must be a list of rules"),
        ('[{"max_ipc": 1}]', "budgets[0]: it sets nothing"),
        (
            '[{"max_ipc": 1, "decode": {"num_inference_steps": 0}}]',
            "budgets[0].decode.num_inference_steps must",
        ),
        ('[{"max_ipc": 1, "decode": {"timestep": 300}}]', "budgets[0].decode.timestep 300 is not stored"),
        (
            '[{"max_ipc": 1, "sampling": {"method": "modes"}}]',
            "budgets[0].sampling: the artifact tiny stores no",
        ),
    ],
)
def test_rules_that_do_not_fit_are_refused(text: str, said: str, tiny_artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "rules.json").write_text(text)
    line = fail(1, "budgets", tiny_artifact, tmp_path / "rules.json", "--output", tmp_path / "copy")
    assert said in line and line.count("\n") == 1 and not (tmp_path / "copy").exists()
    assert "cannot be read" in fail(
        1, "budgets", tiny_artifact, tmp_path / "no.json", "--output", tmp_path / "copy"
    )


def test_commands_make_what_the_rule_says(ruled: Path, tmp_path: Path) -> None:
    def made(ipc: int, **options: object) -> D3HRDataset:
        return make_dataset(SetArguments(str(ruled), None, ipc, root=tmp_path, device="cpu", **options))  # type: ignore[arg-type]

    plain, (small, large) = Artifact.load(ruled).info.decode, BUDGETS
    assert made(1).decode == small.decode and made(2).sampling == large.sampling
    assert (made(4).decode, made(4).sampling) == (plain, GroupSamplingConfig())
    assert made(1, guidance_scale=3.0).decode == DecodeConfig(200, 10, 3.0)
    assert made(1, nested=True).decode == plain
    assert made(2, sampling="moment_matched").sampling == GroupSamplingConfig()
    values = succeed("materialize", "--artifact", ruled, "--ipc", 1, "--root", tmp_path, "--device", "cpu")
    assert values["fingerprint"] == made(1).fingerprint != made(1, guidance_scale=2.0).fingerprint


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with `model`, `images` and `list.json`."""
    folder = tmp_path_factory.mktemp("build")
    tiny_pipeline().save_pretrained(folder / "model")
    for index in range(12):
        image, label = TinyImages()[index]
        (folder / "images" / CLASSES[label].replace("/", "_")).mkdir(parents=True, exist_ok=True)
        image.save(folder / "images" / CLASSES[label].replace("/", "_") / f"{index:02d}.png")
    (folder / "list.json").write_text(json.dumps(CLASSES))
    return folder


def _build(scene: Path, output: Path, rules: Path) -> list[object]:
    command = ["build", scene / "images", "--model", scene / "model", "--output", output, "--budgets", rules]
    options = ["--timestep", 200, "--timestep", 400, "--steps", 10, "--image-size", 14, "--device", "cpu"]
    return [*command, *options, "--class-list", scene / "list.json"]


def test_a_build_stores_the_rules(scene: Path, rules: Path, tmp_path: Path) -> None:
    succeed(*_build(scene, tmp_path / "out", rules), "--modes", 2, "--decode-guidance-scale", 2)
    info = Artifact.load(tmp_path / "out").info
    assert (info.budgets, info.num_modes, info.decode) == (BUDGETS, 2, DecodeConfig(400, 10, 2.0))


def test_a_build_refuses_rules_before_it_begins(scene: Path, rules: Path, tmp_path: Path) -> None:
    (tmp_path / "modes.json").write_text('[{"max_ipc": 1, "sampling": {"method": "modes"}}]')
    line = fail(1, *_build(scene, tmp_path / "out", tmp_path / "modes.json"), "--modes", 1)
    assert "budgets[0].sampling: " in line and "stores no modes" in line
    (tmp_path / "steps.json").write_text('[{"max_ipc": 1, "decode": {"num_inference_steps": 0}}]')
    line = fail(1, *_build(scene, tmp_path / "out", tmp_path / "steps.json"), "--modes", 1)
    assert "budgets[0].decode.num_inference_steps must be from 1 to" in line
    assert "cannot be read" in fail(1, *_build(scene, tmp_path / "out", tmp_path / "none.json"))
    line = fail(1, *_build(scene, tmp_path / "out", rules)[:8], "--reference")
    assert "--reference sets what --budgets would" in line
    assert not (tmp_path / "out").exists()
