"""Reports: what is in them, in numbers and in a browser, and what is said where something is missing."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from d3hr_datasets import D3HRDataset, GroupSamplingConfig, group_score
from d3hr_datasets.cli.app import app
from d3hr_datasets.errors import ConfigError, ExportError, SourceError, UnreadableImageError
from d3hr_datasets.report import write_report
from d3hr_datasets.report.page import missing, page, paragraph, picture, table
from tests.support.labelled import Labelled
from tests.support.tiny import TinyImages

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
IPC = 3
PNG = b"\x89PNG\r\n\x1a\n" + bytes(16)


class Page(HTMLParser):
    """What a page refers to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.images: list[dict[str, str | None]] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in {"href", "src", "srcset", "action"}]
        if tag == "img":
            self.images.append(dict(attrs))


@pytest.fixture(scope="module")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of the tiny artifact's images, and of one more class."""
    folder = tmp_path_factory.mktemp("images")
    names = ("ant", "000-Bee_wasp", "cat")  # "bee/wasp" is no name of a folder
    for index in range(12):
        image, label = TinyImages()[index]
        target = folder / names[label] / f"{index}.png"
        target.parent.mkdir(exist_ok=True)
        image.save(target)
    (folder / "another").mkdir()
    Image.new("L", (14, 14)).save(folder / "another" / "0.png")
    return folder


@pytest.fixture(scope="module")
def dataset(tiny_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> D3HRDataset:
    """Return a generated data set of two classes, not in the order of the artifact."""
    root = tmp_path_factory.mktemp("root")
    dataset = D3HRDataset(tiny_artifact, root, IPC, classes=["cat", "bee/wasp"], device="cpu")
    dataset.materialize(progress=False)
    return dataset


@pytest.fixture(scope="module")
def report(dataset: D3HRDataset, image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a report with real images."""
    output = tmp_path_factory.mktemp("report") / "report"
    assert write_report(dataset, output, image_folder, progress=False) == output / "index.html"
    return output


def test_the_page_needs_nothing_else(report: Path) -> None:
    text = (report / "index.html").read_text(encoding="utf-8")
    found = Page(text)
    assert not {"script", "link", "iframe", "object"} & set(found.tags)
    assert found.links
    assert all(link.startswith("data:image/png;base64,") for link in found.links)
    assert "url(" not in text
    embedded = [base64.b64decode(str(image["src"]).partition(",")[2]) for image in found.images]
    files = sorted(path.name for path in report.iterdir())
    assert sorted(embedded) == sorted((report / name).read_bytes() for name in files if name.endswith("png"))
    for image, data in zip(found.images, embedded, strict=True):
        assert len(str(image["alt"])) > 10
        Image.open(io.BytesIO(data)).load()
    assert files == [
        "class-001-generated.png",
        "class-001-mean.png",
        "class-001-real.png",
        "class-002-generated.png",
        "class-002-mean.png",
        "class-002-real.png",
        "copies-pixels.png",
        "copies.png",
        "index.html",
        "normality.png",
        "projection.png",
        "qq.png",
        "report.json",
        "samplers.png",
    ]


def browser() -> str:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        message = f"no browser: none of {BROWSERS} is installed (`apt-get install chromium`)"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    return str(found)


def browse(path: Path, profile: Path) -> tuple[str, list[str]]:
    """Return the document a browser makes of a page, and what it wrote to the console."""
    command = [
        browser(),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        f"--user-data-dir={profile}",
        "--enable-logging=stderr",
        "--virtual-time-budget=2000",
        "--dump-dom",
        path.as_uri(),
    ]
    environment = {**os.environ, "HOME": str(profile)}
    environment.pop("LD_PRELOAD", None)
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300, env=environment)
    return done.stdout, [line for line in done.stderr.splitlines() if ":CONSOLE" in line]


def test_a_browser_shows_the_page_without_complaints(report: Path, tmp_path: Path) -> None:
    document, console = browse(report / "index.html", tmp_path / "profile")
    assert console == []
    assert Page(document).tags.count("img") == len(list(report.glob("*.png")))
    assert "Latents and sampled groups" in document
    # What would be wrong is seen: the page's policy forbids other sources, and the console says so.
    spoilt = tmp_path / "spoilt.html"
    text = (report / "index.html").read_text(encoding="utf-8")
    spoilt.write_text(text.replace("<main>", '<main><img alt="" src="missing.png">'), encoding="utf-8")
    assert browse(spoilt, tmp_path / "profile")[1]


def test_the_numbers_are_those_of_the_library(report: Path, dataset: D3HRDataset) -> None:
    numbers = json.loads((report / "report.json").read_text(encoding="utf-8"))
    assert numbers["classes"] == ["cat", "bee/wasp"]
    assert numbers["fingerprint"] == dataset.artifact.fingerprint
    scores = numbers["sampler_scores"]
    assert list(scores) == ["independent", "search, best of 1,000", "moment_matched"]
    config = GroupSamplingConfig()
    losses = []
    for label, class_label in enumerate(dataset.class_labels.tolist()):
        gaussian = dataset.artifact.gaussians(400, class_label)
        losses.append(
            float(group_score(dataset.sample_latents(label), gaussian.mean[0], gaussian.variance[0], config))
        )
    assert scores["moment_matched"]["loss"] == pytest.approx(sum(losses) / 2, abs=1e-5)
    assert scores["moment_matched"]["mean"] < 1e-5
    for score in scores.values():
        expected = score["mean"] + score["std"] + 0.5 * score["skewness"]
        assert score["loss"] == pytest.approx(expected)
    assert scores["moment_matched"]["loss"] < scores["search, best of 1,000"]["loss"]
    assert scores["search, best of 1,000"]["loss"] < scores["independent"]["loss"]
    assert numbers["num_bytes"]["source_pixels"] == 2 * 4 * 14 * 14
    assert numbers["num_bytes"]["generated_png"] == sum(Path(p).stat().st_size for p, _ in dataset.samples)
    assert numbers["num_bytes"]["model"] > numbers["num_bytes"]["statistics"] > 0


def test_the_images_are_inverted_as_the_artifacts_were(report: Path, dataset: D3HRDataset) -> None:
    inversion = json.loads((report / "report.json").read_text(encoding="utf-8"))["inversion"]
    assert inversion["num_images"] == 8  # of two classes; "another" is none of the artifact's
    assert set(inversion["normality"]) == {"-1", "100", "200", "300", "400", "500", "700", "900"}
    # The images are exactly those behind the artifact; what is left is the statistics' half precision.
    assert inversion["distance_to_stored"] < 0.01


def test_a_report_without_images_says_what_is_missing(
    dataset: D3HRDataset, tmp_path: Path, tiny_artifact: Path
) -> None:
    folder = tmp_path / "report"
    command = [
        "report",
        str(tiny_artifact),
        "--output",
        str(folder),
        "--root",
        str(dataset.root),
        "--ipc",
        str(IPC),
        "--classes",
        "cat",
        "--classes",
        "bee/wasp",
        "--device",
        "cpu",
    ]
    done = CliRunner().invoke(app, command)
    assert (done.exit_code, done.stdout.strip()) == (0, str(folder / "index.html")), done.output
    text = (folder / "index.html").read_text(encoding="utf-8")
    assert text.count('class="missing"') == 4
    assert "--images" in text
    assert json.loads((folder / "report.json").read_text(encoding="utf-8"))["inversion"] is None
    assert json.loads((folder / "report.json").read_text(encoding="utf-8"))["copies"] is None
    assert not {"copies.png", "normality.png", "qq.png", "projection.png"} & {
        path.name for path in folder.iterdir()
    }
    with pytest.raises(ExportError, match="no empty folder"):
        write_report(dataset, folder, progress=False)


def test_names_are_text_and_not_html() -> None:
    bad = '"><b onload=alert(1)>'
    parts = paragraph(bad) + missing(bad, bad) + table([bad], [[bad, bad]]) + picture(PNG, bad, bad)
    tags = Page(page(bad, {bad: parts})).tags
    assert {"img", "table", "code", "section"} <= set(tags)
    assert "b" not in tags


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (Labelled(["dog", "cow"], [0, 1]), "no class of the images is one of the artifact"),
        (Labelled(["cat", "002-cat"], [0, 1]), "could be several classes"),
        (object(), "has no `targets`"),
        ("nowhere", "there is no folder 'nowhere' of images"),
        ("torchvision:FashionMNIST:nowhere", "cannot be opened in 'nowhere'"),
        ("torchvision:NothingLikeThis:x", "has no data set 'NothingLikeThis'"),
        ("torchvision:load_image:x", "has no data set 'load_image'"),
    ],
)
def test_wrong_images_are_refused(source: Any, message: str, dataset: D3HRDataset, tmp_path: Path) -> None:
    with pytest.raises((ConfigError, SourceError), match=message):
        write_report(dataset, tmp_path / "report", source, progress=False)
    assert not list(tmp_path.glob("report*"))


def test_unreadable_images_are_named(dataset: D3HRDataset, image_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(image_folder, tmp_path / "images")
    damaged = folder / "cat" / "2.png"
    damaged.write_bytes(damaged.read_bytes()[:60])
    with pytest.raises(UnreadableImageError, match=re.escape(str(damaged))):
        write_report(dataset, tmp_path / "report", folder, progress=False)


def test_missing_libraries_are_named(
    dataset: D3HRDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ConfigError, match="the extra 'report'"):
        write_report(dataset, tmp_path / "report", progress=False)


def test_the_command_writes_the_same_report(
    report: Path, tiny_artifact: Path, image_folder: Path, tmp_path: Path
) -> None:
    command = [
        "report",
        str(tiny_artifact),
        "--output",
        str(tmp_path / "again"),
        "--ipc",
        str(IPC),
        "--classes",
        "cat",
        "--classes",
        "bee/wasp",
        "--device",
        "cpu",
        "--root",
        str(tmp_path / "root"),
    ]
    done = CliRunner().invoke(app, [*command, "--images", str(image_folder), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == json.loads((report / "report.json").read_text(encoding="utf-8"))
    for path in report.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), path.name
    wrong = CliRunner().invoke(app, [*command, "--images-per-class", "1"])
    assert (wrong.exit_code, wrong.stdout) == (2, "")
