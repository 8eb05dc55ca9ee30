"""Images, statistics and cards of others: formats, links, zip bombs, tensors that are none, broken YAML."""

from __future__ import annotations

import io
import os
import re
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from d3hr_datasets import Artifact
from d3hr_datasets.build.reference_import import TIMESTEPS, import_statistics, imported_inversion
from d3hr_datasets.config.settings import DecodeConfig
from d3hr_datasets.dataset.card_head import ImageFiles
from d3hr_datasets.errors import (
    ArtifactFormatError,
    ConfigError,
    D3HRError,
    DivergenceError,
    SoftLabelsError,
    SourceError,
    StatisticsError,
    UnreadableImageError,
)
from d3hr_datasets.io.untrusted_files import read_json_argument
from d3hr_datasets.publish.card import card_text
from d3hr_datasets.sources.image_files import open_image
from d3hr_datasets.sources.opening import open_source
from d3hr_datasets.sources.resizing import read_pixels
from tests.support.tampering import change_info
from tests.support.tiny import tiny_info

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n(pwned) print\nshowpage\n"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Return a folder of three classes of four images."""
    for name in ("ant", "bee", "cat"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(4):
            Image.new("L", (8, 8), number).save(tmp_path / "images" / name / f"{number}.png")
    return tmp_path / "images"


def first_class(folder: Path) -> list[int]:
    source = open_source(str(folder)).images
    records = [next(source.records(0, index)) for index in range(4)]
    return [int(read_pixels(record, 8, "L")[0].max()) for record in records]


def test_only_formats_of_images_are_read(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow reads an EPS by running Ghostscript, whatever the file is called."""
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *_: pytest.fail("a program was run"))
    (images / "ant" / "1.png").write_bytes(EPS)
    with pytest.raises(UnreadableImageError, match=r"1\.png.*cannot identify"):
        first_class(images)
    for kind in ("PNG", "JPEG", "WEBP", "BMP", "PPM", "TIFF", "GIF"):
        buffer = io.BytesIO()
        Image.new("L", (8, 8), 7).save(buffer, kind)
        assert open_image(io.BytesIO(buffer.getvalue())).size == (8, 8)


def test_a_fifo_is_no_image(images: Path) -> None:
    (images / "ant" / "1.png").unlink()
    os.mkfifo(images / "ant" / "1.png")
    with pytest.raises(UnreadableImageError, match="no regular file"):
        first_class(images)


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("ant/loop", "ant"),
        ("ant/up", "."),
        ("bee/other", "ant"),
        ("dog", "ant"),
        ("bee/x.png", "ant/0.png"),
        ("ant/self", "ant/self"),
    ],
)
def test_what_is_there_twice_is_refused(link: str, target: str, images: Path) -> None:
    (images / link).symlink_to(images / target)
    if target == link:  # leads nowhere, and is no image
        assert open_source(str(images)).images.num_images == 12
        return
    with pytest.raises(SourceError, match="remove the link"):
        open_source(str(images))


def test_links_to_images_are_read_once(images: Path, tmp_path: Path) -> None:
    Image.new("L", (8, 8), 99).save(tmp_path / "outside.png")
    (images / "ant" / "4.png").symlink_to(tmp_path / "outside.png")
    assert open_source(str(images)).images.num_images == 13
    (images / "bee" / "4.png").symlink_to(tmp_path / "outside.png")
    with pytest.raises(SourceError, match="remove the link"):
        open_source(str(images))


def test_many_loops_end_at_once(images: Path) -> None:
    for name in "abcdefgh":
        (images / "ant" / name).symlink_to(images)
    with pytest.raises(SourceError, match="remove the link"):
        open_source(str(images))


def test_rows_of_a_data_set_name_no_files_of_this_machine(images: Path, tmp_path: Path) -> None:
    import datasets

    secret = tmp_path / "secret.png"
    Image.new("L", (8, 8), 50).save(secret)
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    rows = {"image": [{"bytes": None, "path": str(secret)}] * 4, "label": [0, 0, 1, 1]}
    (tmp_path / "data").mkdir()
    path = tmp_path / "data" / "train.parquet"
    datasets.Dataset.from_dict(rows, features=features.copy()).cast_column(
        "image", datasets.Image(decode=False)
    ).cast_column("image", datasets.Image()).to_parquet(str(path))
    import pyarrow.parquet as pq

    table = pq.read_table(path).to_pylist()
    for row in table:  # to_parquet embeds the bytes
        row["image"] = {"bytes": None, "path": str(secret)}
    datasets.Dataset.from_list(
        table, features=datasets.Features({**features, "image": datasets.Image(decode=False)})
    ).to_parquet(str(path))
    opened = open_source(
        f"datasets:{path}",
    )
    with pytest.raises((SourceError, UnreadableImageError), match="no part of it"):
        next(opened.images.records(0, 0)).read()


SHAPE = (len(TIMESTEPS), 48)
GOOD = {"mean": torch.zeros(SHAPE).half(), "variance": torch.ones(SHAPE).half()}


def import_of(folder: Path, target: Path) -> Artifact:
    info = tiny_info(
        inversion=imported_inversion((600,), 1000), decode=DecodeConfig(600), wnids=("n1", "n2", "n3")
    )
    return import_statistics(folder, target, info)


@pytest.fixture
def statistics(tmp_path: Path) -> Path:
    (tmp_path / "statistics").mkdir()
    for name in ("n1", "n2", "n3"):
        torch.save(GOOD, tmp_path / "statistics" / f"{name}.pt")
    return tmp_path / "statistics"


def deflated(path: Path) -> None:
    torch.save({**GOOD, "more": torch.zeros(2**22)}, path)
    with zipfile.ZipFile(path) as archive:
        parts = {part.filename: archive.read(part) for part in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    assert path.stat().st_size < 2**17


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def quantized(path: Path) -> None:
    torch.save({**GOOD, "mean": torch.quantize_per_tensor(torch.zeros(SHAPE), 1.0, 0, torch.quint8)}, path)


def saved(**changes: Any) -> Any:
    return lambda path: torch.save({**GOOD, **changes}, path)


ATTACKS: dict[str, Any] = {
    "deflated": deflated,
    "FIFO": fifo,
    "large": saved(more=torch.zeros(2**22)),
    "sparse": saved(mean=torch.zeros(SHAPE).to_sparse()),
    "meta": saved(mean=torch.zeros(SHAPE, device="meta")),
    "quantized": quantized,
    "complex": saved(mean=torch.zeros(SHAPE, dtype=torch.complex64)),
    "bool": saved(mean=torch.zeros(SHAPE, dtype=torch.bool)),
    "pickle": lambda path: path.write_bytes(b"\x80\x02}q\x00."),
    "legacy": lambda path: torch.save(GOOD, path, _use_new_zipfile_serialization=False),
    "no zip": lambda path: path.write_bytes(b"PK\3\4" + bytes(100)),
    "folder": lambda path: (path.unlink(), path.mkdir()),
    "missing": lambda path: path.unlink(),
}


@pytest.mark.filterwarnings("ignore")  # of torch, about kinds of tensors
@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_statistics_are_dense_tensors_in_files_of_their_size(
    attack: Any, statistics: Path, tmp_path: Path
) -> None:
    attack(statistics / "n2.pt")
    with pytest.raises(StatisticsError, match=r"n2\.pt"):
        import_of(statistics, tmp_path / "artifact")
    assert not (tmp_path / "artifact").exists()


def test_right_statistics_are_imported(statistics: Path, tmp_path: Path) -> None:
    import_of(statistics, tmp_path / "artifact").gaussians(600)


@pytest.mark.parametrize(
    "text", ["---\nlicense: [\n---\n", "---\n!!python/object:os.system x\n---\n", "---\n- 1\n---\n", "\ud800"]
)
def test_a_models_card_with_bad_yaml_is_an_error_that_says_so(text: str, artifact_copy: Path) -> None:
    (artifact_copy / "model" / "README.md").write_bytes(text.encode(errors="surrogatepass"))
    with pytest.raises(ArtifactFormatError, match=r"README\.md has no head in YAML"):
        card_text(Artifact.load(artifact_copy), "org/name", ImageFiles(3, 30, 20))


def test_texts_mean_nothing_to_markdown(artifact_copy: Path) -> None:
    text = "<script>alert(1)</script> [x](http://example.org) | `code`"
    change_info(artifact_copy, source={"name": text, "license": text, "fingerprint": text}, producer=text)
    card = card_text(Artifact.load(artifact_copy), "org/name", ImageFiles(3, 30, 20))
    body = re.sub("`.*?`", "", card.partition("\n---\n")[2].replace("\\`", ""))  # code shows what it is
    assert "<script>" not in body and "[x](http" not in body
    rows = [line for line in body.splitlines() if line.startswith(("| source", "| built by"))]
    assert len(rows) == 3 and all(row.replace("\\|", "").count("|") == 3 for row in rows)


def test_texts_mean_nothing_to_figures_and_pages(artifact_copy: Path, tmp_path: Path) -> None:
    from d3hr_datasets.report import figures
    from d3hr_datasets.report.page import heading, paragraph

    names = [r"a $\frac{ b$", "_hidden", r"c\$d$ $x^2$"]
    latents = torch.randn(6, 2, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    assert figures.projection_figure({-1: (latents, latents)}, labels, labels, names).startswith(b"\x89PNG")
    assert "\x1b" not in paragraph("a\x1b[1m\u202e") and "\u202e" not in heading("\u202e")


def test_errors_of_students_are_of_this_library(tmp_path: Path) -> None:
    from d3hr_datasets.students.scores import label_robust_score
    from d3hr_datasets.students.soft_labels import SoftLabels

    assert issubclass(DivergenceError, (D3HRError, FloatingPointError)) and issubclass(
        DivergenceError, D3HRError
    )
    with pytest.raises(ConfigError, match="fractions"):
        label_robust_score(64.0, 50.0, 0.1, 0.1)
    labels = SoftLabels.from_logits(torch.zeros(2, 3), ["a", "b", "c"], "teacher", "digest")
    labels.save(tmp_path / "labels")
    assert SoftLabels.load(tmp_path / "labels").classes == ("a", "b", "c")
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(SoftLabelsError):
        SoftLabels.load(tmp_path / "fifo")


def test_files_beside_a_build_are_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "map.json")
    for path in (tmp_path / "map.json", Path("x" * 5000), tmp_path):
        with pytest.raises(ConfigError, match="class map"):
            read_json_argument(path, "class map")


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b'{"a": 1, "a": 2}', "twice"), (b"[NaN]", "NaN"), (b"{", "Expecting"), (b'"\xff"', "decode")],
)
def test_json_that_can_be_read_in_two_ways_is_refused(data: bytes, reason: str, tmp_path: Path) -> None:
    (tmp_path / "map.json").write_bytes(data)
    with pytest.raises(ConfigError, match=rf"class map .*{reason}"):
        read_json_argument(tmp_path / "map.json", "class map")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_json_of_any_editor_is_read(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "map.json").write_bytes('{"ä": null}'.encode(encoding))
    assert read_json_argument(str(tmp_path / "map.json"), "class map") == {"ä": None}
