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
import torch
from PIL import Image
from scipy import stats
from torchvision.datasets import VisionDataset
from typer.testing import CliRunner

from d3hr_datasets import D3HRDataset, GroupSamplingConfig, group_score
from d3hr_datasets.classes.class_list import ClassList
from d3hr_datasets.cli.app import app
from d3hr_datasets.errors import ConfigError, ExportError, SourceError, UnreadableImageError
from d3hr_datasets.report import write_report
from d3hr_datasets.report.images import RealImages
from d3hr_datasets.report.inversion import measure_noise
from d3hr_datasets.report.measures import distance_to_stored, normality, standardised_quantiles
from d3hr_datasets.report.page import missing, page, paragraph, picture, table
from tests.support.tiny import CLASSES, TinyImages

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
    assert text.count('class="missing"') == 3
    assert "--images" in text
    assert json.loads((folder / "report.json").read_text(encoding="utf-8"))["inversion"] is None
    assert not {"normality.png", "qq.png", "projection.png"} & {path.name for path in folder.iterdir()}
    with pytest.raises(ExportError, match="no empty folder"):
        write_report(dataset, folder, progress=False)


def test_names_are_text_and_not_html() -> None:
    bad = '"><b onload=alert(1)>'
    parts = paragraph(bad) + missing(bad, bad) + table([bad], [[bad, bad]]) + picture(PNG, bad, bad)
    tags = Page(page(bad, {bad: parts})).tags
    assert {"img", "table", "code", "section"} <= set(tags)
    assert "b" not in tags


def test_normality_is_scipys() -> None:
    latents = torch.randn(50, 2, 3, 3, generator=torch.Generator().manual_seed(0)).exp()
    latents[:, 0, 0, 0] = 1.0  # an element that does not vary
    values = latents.flatten(1).double()[:, 1:].numpy()
    found = normality(latents)
    assert found["skewness"] == pytest.approx(abs(stats.skew(values)).mean())
    assert found["excess_kurtosis"] == pytest.approx(abs(stats.kurtosis(values)).mean())
    matrix = torch.corrcoef(torch.from_numpy(values).T)
    between = matrix[~torch.eye(17, dtype=torch.bool)]
    assert found["correlation"] == pytest.approx(float(between.abs().mean()))
    same = latents[:, :1, :1, 1:2].expand(-1, 2, 1, 1)
    assert normality(same)["correlation"] == pytest.approx(1)


def test_quantiles_of_gaussian_latents_are_normal() -> None:
    latents = 5 + 3 * torch.randn(2000, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    probabilities = torch.tensor([0.025, 0.25, 0.5, 0.975], dtype=torch.float64)
    found = standardised_quantiles(latents, probabilities)
    torch.testing.assert_close(found, torch.special.ndtri(probabilities), atol=0.02, rtol=0)


def test_noise_is_of_as_many_samples_as_each_class_has_images() -> None:
    probabilities = torch.tensor([0.1, 0.9], dtype=torch.float64)
    two, fifty, both, twice = (
        measure_noise(counts, (2, 3, 3), probabilities) for counts in ([2], [50], [2, 50], [50, 50])
    )
    assert two[0]["skewness"] < 1e-6  # two samples lie symmetrically
    assert fifty[0]["skewness"] > 0.1
    assert both[0]["skewness"] == pytest.approx((two[0]["skewness"] + fifty[0]["skewness"]) / 2)
    torch.testing.assert_close(both[1], (two[1] + fifty[1]) / 2)
    assert twice[0] == pytest.approx(fifty[0])


def test_distance_is_in_standard_errors() -> None:
    mean, variance = torch.full((1, 2, 2), 3.0), torch.full((1, 2, 2), 4.0)
    latents = torch.full((100, 1, 2, 2), 3.6)
    assert distance_to_stored(latents, mean, variance) == pytest.approx(3)  # 0.6 / (2 / 10)


class Labelled(VisionDataset[Any]):
    """A data set of torchvision's kind with any classes."""

    def __init__(self, classes: list[Any], targets: list[int]) -> None:
        self.classes, self.targets = classes, targets

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.new("L", (14, 14), 10 * index), self.targets[index]


def test_classes_are_matched_by_name() -> None:
    class_list = ClassList(CLASSES, ("n01", "n02", "n03"))
    images = RealImages(Labelled(["Cat", "n02", "dog"], [0, 1, 2, 1, 0]), class_list)
    assert sorted(images.read(1, 10, 14, "L").flatten(1)[:, 0].tolist()) == [10, 30]
    assert sorted(images.read(2, 10, 14, "L").flatten(1)[:, 0].tolist()) == [0, 40]
    with pytest.raises(ConfigError, match="class label 0 has 0 images"):
        images.read(0, 10, 14, "L")
    labelled: Any = Labelled([("crane",), ("crane", "bird")], [0, 1, 0])  # as torchvision's ImageNet
    labelled.wnids = ["n03", "n01"]
    found = RealImages(labelled, class_list).read(2, 10, 14, "L").flatten(1)[:, 0].tolist()
    assert sorted(found) == [0, 20]
    many = RealImages(Labelled(["dog"], [0] * 20), ClassList(("dog",)))
    values = [many.read(0, count, 14, "L").flatten(1)[:, 0].tolist() for count in (20, 20, 5)]
    # The first ones of a class, which a report shows, are not the first in the folder, even of all of them.
    assert values[0] == values[1] != sorted(values[0]) == list(range(0, 200, 10))
    assert values[2] == values[0][:5]


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
    with pytest.raises(ConfigError, match=r"pip install 'd3hr-datasets\[report\]'"):
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
