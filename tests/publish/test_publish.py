"""Publishing: cards, artifacts and images, to the server of `hub_server`, and what others read there."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import DatasetCard
from safetensors.torch import save_file
from typer.testing import CliRunner, Result

from d3hr_datasets import Artifact
from d3hr_datasets.artifact.d3hr_json import METADATA
from d3hr_datasets.artifact.facts import CARD
from d3hr_datasets.cli.app import app
from d3hr_datasets.config.model_reference import ModelReference
from d3hr_datasets.dataset.artifact_registry import RegistryRow
from d3hr_datasets.dataset.card_head import ImageFiles
from d3hr_datasets.errors import ArtifactFormatError, ConfigError, PublishError
from d3hr_datasets.publish.card import PREVIEW, SHEET, card_text, write_card
from d3hr_datasets.publish.earlier_card import NOTES
from d3hr_datasets.publish.upload import plan_artifact, publish_artifact
from recipes import release
from tests.support.hub_card import card_errors
from tests.support.hub_server import HubServer
from tests.support.hub_state import Fault
from tests.support.tampering import change_info, flip_byte, truncate
from tests.support.tiny import CLASSES
from tests.support.workers import file_digests

REPO = "org/d3hr-tiny"
# Of huggingface_hub, which gives a file to its HTTP library in the old way.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture(scope="module")
def described(tiny_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the tiny artifact with its card. Tests only read it."""
    folder = Path(shutil.copytree(tiny_artifact, tmp_path_factory.mktemp("described") / "d3hr-tiny"))
    change_info(folder, source={"name": "Tiny images", "split": "train", "license": "Tiny License 1.0"})
    (folder / "model" / CARD).write_text("---\nlicense: mit\n---\n# Model\n")
    write_card(Artifact.load(folder), REPO, root=folder.parent / "cache", device="cpu", progress=False)
    return folder


@pytest.fixture
def folder(described: Path, tmp_path: Path) -> Path:
    """Return the folder of a copy that the test may change."""
    return Path(shutil.copytree(described, tmp_path / "copies" / "d3hr-tiny"))


def d3hr(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="d3hr")


def test_card_says_what_the_artifact_is(described: Path) -> None:
    card = DatasetCard.load(described / CARD)
    assert card_errors(str(card)) == []
    data = card.data.to_dict()
    assert (data["license"], data["license_name"]) == ("other", "tiny-license-1.0")
    assert data["tags"][0] == "dataset-distillation" and data["size_categories"] == ["n<1K"]
    names = data["dataset_info"]["features"][1]["dtype"]["class_label"]["names"]
    assert list(names.values()) == list(CLASSES)
    for text in ("Tiny images, train", "12 images of 3 classes", "Diffusion model: mit", SHEET, NOTES):
        assert text in card.content
    assert Artifact.load(described).sha256.keys() >= {CARD, SHEET, PREVIEW}
    Artifact.load(described).verify()


def test_card_keeps_notes_and_adds_accuracies(folder: Path, tmp_path: Path) -> None:
    before = Artifact.load(folder).fingerprint
    card = folder / CARD
    card.write_text(f"{card.read_text()}My notes.\n")
    results = tmp_path / "results.json"
    top1 = {"mean": 77.25, "std": 0.3, "values": [1, 2]}
    results.write_text(json.dumps({"rows": [{"name": "modes, ipc 10", "top1": top1}]}))
    done = d3hr("card", folder, REPO, "--results", results, "--root", tmp_path / "cache", "--device", "cpu")
    assert done.exit_code == 0 and done.stdout == f"{card}\n", done.output
    assert card.read_text().endswith(f"{NOTES}\nMy notes.\n")
    assert "| modes, ipc 10 | 77.2 ± 0.3 (2 seeds) |" in card.read_text()
    artifact = Artifact.load(folder)
    artifact.verify()
    assert artifact.fingerprint == before


def test_card_needs_a_repository_for_its_snippet(described: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="repo_id"):
        card_text(Artifact.load(described), None, ImageFiles(3, 1, 1))
    with pytest.raises(ConfigError, match="nowhere"):
        write_card(Artifact.load(described), REPO, results=tmp_path / "nowhere.json")


def test_cards_snippet_runs(
    hub: HubServer, described: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_artifact(Artifact.load(described), REPO, with_model=True)
    monkeypatch.setattr("huggingface_hub.constants.HF_ASSETS_CACHE", str(tmp_path / "assets"))
    snippet = re.search(r"```python\n(.*?)```", (described / CARD).read_text(), re.DOTALL)
    assert snippet is not None
    names: dict[str, Any] = {}
    exec(snippet[1], names)
    assert len(names["dataset"]) == 30 and names["image"].size == (14, 14) and names["label"] == 0


def test_dry_run_lists_exactly_what_goes_up(hub: HubServer, described: Path) -> None:
    done = d3hr("publish", described, REPO, "--with-model", "--dry-run")
    assert done.exit_code == 0 and hub.requests == [], done.output
    listed = {line.split()[1]: int(line.split()[0].replace(",", "")) for line in done.stdout.splitlines()}
    assert listed == {name: (described / name).stat().st_size for name in file_digests(described)}
    done = d3hr("publish", described, REPO, "--with-model", "--json")
    sha = json.loads(done.stdout)["revision"]
    sent = {name: len(file.data) for name, file in hub.repository(REPO).trees[sha].items()}
    del sent[".gitattributes"]
    assert sent == listed


def test_publishing_twice_makes_one_commit(hub: HubServer, described: Path) -> None:
    first = d3hr("publish", described, REPO, "--with-model", "--private")
    again = d3hr("publish", described, REPO, "--with-model")
    assert first.exit_code == again.exit_code == 0, first.output + again.output
    repository = hub.repository(REPO)
    sha = repository.refs["main"]
    digest = file_digests(described)[METADATA]
    row = f'RegistryRow("tiny", repo_id="{REPO}", revision="{sha}", num_images=12, sha256="{digest}"),\n'
    assert first.stdout == again.stdout == row
    (pinned,) = eval(row, {"RegistryRow": RegistryRow})  # the registry takes it
    assert (pinned.revision, pinned.sha256) == (sha, digest)
    assert "nothing to change" in again.stderr and repository.private and len(repository.trees) == 2
    assert Artifact.from_pretrained(f"{REPO}@{sha}").fingerprint == Artifact.load(described).fingerprint


def test_pull_request_leaves_the_branch(hub: HubServer, described: Path) -> None:
    done = d3hr("publish", described, REPO, "--with-model", "--create-pr")
    assert done.exit_code == 0 and "/discussions/1" in done.stderr, done.output
    repository = hub.repository(REPO)
    assert list(repository.trees[repository.refs["main"]]) == [".gitattributes"]
    assert Artifact.from_pretrained(REPO, revision="refs/pr/1").info.name == "tiny"


def test_what_is_not_fit_is_not_published(hub: HubServer, folder: Path) -> None:
    def refused(text: str, kind: type[Exception] = PublishError, with_model: bool = True) -> None:
        with pytest.raises(kind, match=text):
            plan_artifact(Artifact.load(folder), with_model=with_model)

    refused("give with_model=True", with_model=False)
    (folder / "diary.txt").write_text("mine")
    refused(r"diary\.txt")
    (folder / "diary.txt").unlink()
    (folder / CARD).write_text("# No YAML\n")
    refused(CARD)
    Artifact.load(folder).write_metadata()
    refused("names no license")
    (folder / CARD).unlink()
    Artifact.load(folder).write_metadata()
    refused("d3hr card")
    flip_byte(folder / "model" / "vae" / "diffusion_pytorch_model.safetensors", 3)
    Artifact.load(folder).write_metadata()
    refused("header", ArtifactFormatError)
    assert hub.requests == []


def test_model_elsewhere_is_only_referred_to(hub: HubServer, folder: Path) -> None:
    shutil.rmtree(folder / "model")
    change_info(folder, model=ModelReference(repo_id="org/model", revision="a" * 40).to_dict())
    artifact = Artifact.load(folder)
    artifact.write_metadata()
    with pytest.raises(PublishError, match="leave out --with-model"):
        plan_artifact(artifact, with_model=True)
    published = publish_artifact(artifact, REPO)
    names = set(hub.repository(REPO).trees[published.revision])
    assert names == {".gitattributes", METADATA, *artifact.sha256}
    assert not any(name.startswith("model/") for name in names)


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (Fault(401, "/api/repos/create", "POST"), "HF_TOKEN"),
        (Fault(403, "/commit/", "POST"), "403"),
        (Fault(412, "/commit/", "POST"), "412"),
        (Fault(500, "/commit/", "POST"), "500"),
        (Fault(400, "/lfs/", "PUT"), "400"),
    ],
    ids=str,
)
def test_refusals_of_the_hub_are_clear_errors(
    fault: Fault, text: str, hub: HubServer, described: Path
) -> None:
    artifact = Artifact.load(described)
    hub.faults.append(Fault(fault.kind, fault.path, fault.method))
    with pytest.raises(PublishError, match=rf"(?s){REPO}.*{text}"):
        publish_artifact(artifact, REPO, with_model=True)
    assert publish_artifact(artifact, REPO, with_model=True).changed


def test_card_the_hub_finds_wrong_is_not_published(hub: HubServer, folder: Path) -> None:
    (folder / CARD).write_text("---\nlicense: my own\n---\n# Card\n")
    artifact = Artifact.load(folder)
    artifact.write_metadata()
    with pytest.raises(PublishError, match='"license" must be'):
        publish_artifact(artifact, REPO, with_model=True)
    with pytest.raises(ConfigError, match="ORG/NAME"):
        artifact.push_to_hub("just-a-name")


@pytest.mark.parametrize(
    ("number", "size"),
    [
        (999, "n<1K"),
        (1_000, "1K<n<10K"),
        (999_999, "100K<n<1M"),
        (1_000_000, "1M<n<10M"),
        (10**8 - 1, "10M<n<100M"),
        (10**9, "1B<n<10B"),
        (10**12 - 1, "100B<n<1T"),
        (10**12, "n>1T"),
        (10**14, "n>1T"),
    ],
)
def test_card_names_the_size_as_the_hub_does(number: int, size: str, described: Path) -> None:
    card = DatasetCard(card_text(Artifact.load(described), REPO, ImageFiles(number, 1, 1)))
    assert card.data.get("size_categories") == [size] and card_errors(str(card)) == []


def test_release_publishes_all_of_the_folder(
    hub: HubServer, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["release", "org", "--hub", str(folder.parent), "--dry-run"])
    release.main()
    listed = {line.split()[1] for line in capsys.readouterr().out.splitlines()}
    assert listed == {f"org/d3hr-tiny/{name}" for name in file_digests(folder)} and not hub.requests
    sys.argv.pop()
    release.main()
    assert str(Artifact.from_pretrained("org/d3hr-tiny").revision) in capsys.readouterr().out


@pytest.fixture
def teacher(folder: Path) -> Path:
    """Return a folder with a model of timm, beside that of the artifact."""
    path = folder.parent / "tiny-teacher"
    path.mkdir()
    (path / "config.json").write_text('{"architecture": "convnet3"}')
    save_file({"weight": torch.zeros(3)}, path / "model.safetensors")
    (path / CARD).write_text("---\nlicense: apache-2.0\ntags: [timm]\n---\n# Teacher\n")
    (path / ".gitignore").touch()
    return path


def test_release_publishes_models_of_timm(
    hub: HubServer, teacher: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["release", "org", "--hub", str(teacher.parent)])
    release.main()
    row, name = capsys.readouterr().out.splitlines()
    files = {name: (teacher / name).read_bytes() for name in (CARD, "config.json", "model.safetensors")}
    repository = hub.repository("org/tiny-teacher", "models")
    sha = repository.refs["main"]
    published = {path: file.data for path, file in repository.trees[sha].items() if path != ".gitattributes"}
    assert (
        published == files and name == f"hf-hub:org/tiny-teacher@{sha}" and 'repo_id="org/d3hr-tiny"' in row
    )
    release.main()
    assert capsys.readouterr().out.splitlines() == [row, name]  # no commit was made
    hub.requests.clear()
    sys.argv.append("--dry-run")
    release.main()
    listed = {line.split()[1] for line in capsys.readouterr().out.splitlines()}
    assert listed >= {f"org/tiny-teacher/{name}" for name in files} and not hub.requests


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda folder: (folder / "model.safetensors").unlink(), "is exactly"),
        (lambda folder: (folder / "weights.bin").touch(), "weights.bin"),
        (lambda folder: truncate(folder / "model.safetensors", 0.99), "damaged"),
        (lambda folder: (folder / "config.json").write_text("{"), "damaged"),
        (lambda folder: (folder / CARD).write_text("---\ntags: [timm]\n---\n"), "names no license"),
    ],
)
def test_release_refuses_a_model_before_anything_goes_up(
    change: Callable[[Path], Any], said: str, hub: HubServer, teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(teacher)
    monkeypatch.setattr(sys, "argv", ["release", "org", "--hub", str(teacher.parent)])
    with pytest.raises(SystemExit, match=said) as raised:
        release.main()
    assert isinstance(raised.value.__cause__, PublishError) and not hub.requests
