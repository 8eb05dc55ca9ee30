"""The dataset card of an artifact: what it describes -> README.md, a contact sheet, a Parquet preview.

In: an artifact in a folder, with its model. Out: `README.md`, `contact-sheet.png` and `preview/` there, which
`d3hr.json` lists. `datasets.load_dataset` and the Hub's viewer show the preview: neither reads statistics.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from d3hr_datasets.artifact.artifact import Artifact
from d3hr_datasets.artifact.facts import CARD, artifact_facts, license_of_data, license_of_model
from d3hr_datasets.config.checks import check_int
from d3hr_datasets.dataset.artifact_registry import REGISTRY
from d3hr_datasets.dataset.card_head import ImageFiles, card_head
from d3hr_datasets.dataset.contact_sheet import contact_sheet
from d3hr_datasets.dataset.dataset import D3HRDataset
from d3hr_datasets.dataset.export import export_parquet, require_parquet
from d3hr_datasets.dataset.named_datasets import named_dataset
from d3hr_datasets.errors import ConfigError
from d3hr_datasets.io.atomic import replace_file, replaced_folder
from d3hr_datasets.io.markdown import markdown, markdown_table
from d3hr_datasets.publish.earlier_card import (
    NOTES,
    preview_ipc_of,
    split_notes,
)
from d3hr_datasets.publish.measured import measured_sections

SHEET, PREVIEW = "contact-sheet.png", "preview/train-00000-of-00001.parquet"
SIDE = 10  # of the contact sheet, in images
# Facts that the card has in its title and its last section, and what follows from others.
ELSEWHERE = ("name", "licence", "model licence", "image costs")


def write_card(
    artifact: Artifact,
    repo_id: str | None = None,
    *,
    preview_ipc: int | None = None,
    results: Path | None = None,
    report: Path | None = None,
    root: str | Path | None = None,
    device: str | None = None,
    progress: bool = True,
) -> Path:
    """Write the card, its contact sheet and the preview of an artifact, and list them in `d3hr.json`.

    Of a card that is there, text below the line `NOTES` is kept, and measurements unless there are new ones.

    Args:
        artifact: The artifact, in a folder that can be written.
        repo_id: "ORG/NAME" it will be at, for the snippet; not needed for one that ships with the package.
        preview_ipc: Images per class of the preview, the first ones of nested sets. As many as the preview
            that is there has, or one.
        results: Measured accuracies: a JSON file of `recipes.tables.students`; by default those of the card
            that is there.
        report: Near copies of training images: `report.json` of a report on this artifact with real images;
            likewise by default, unless the card that is there says it of another artifact, or of curated
            images in another order.
        root: Cache of the images of sheet and preview, as in `D3HRDataset`.
        device: Where to generate them.
        progress: Show a progress bar on stderr while generating.

    Returns:
        The path of the card.

    Raises:
        ConfigError: There is no `repo_id` to name in the snippet, or `results` or `report` is no such file.
        MissingExtraError: `datasets` is not installed.
    """
    if preview_ipc is not None:
        check_int("preview_ipc", preview_ipc, 1)
    folder, num_classes = artifact.folder, len(artifact.info.classes)
    measured = measured_sections(split_notes(folder / CARD)[0], results, report, artifact)
    use_section(artifact, repo_id, 0)  # what cannot be written stops this before anything is generated
    require_parquet()
    if preview_ipc is None:
        preview_ipc = preview_ipc_of(folder / PREVIEW, num_classes) or 1
    shown = list(range(0, num_classes, -(-num_classes // SIDE)))
    sheet = D3HRDataset(artifact, root, SIDE, nested=True, device=device, classes=shown)
    preview = D3HRDataset(artifact, root, preview_ipc, nested=True, device=device)
    sheet.materialize(progress=progress)
    with tempfile.TemporaryDirectory() as work:
        data = export_parquet(preview, Path(work) / "preview", progress=progress) / "data"
        images = [sheet[index][0] for index in range(len(sheet))]
        with replaced_folder(folder) as new:
            replace_file(new / SHEET, lambda path: contact_sheet(images, SIDE).save(path, "PNG"))
            _place_preview(new, data / Path(PREVIEW).name)
            notes = split_notes(folder / CARD)[1]  # also what was written while images were made
            text = card_text(artifact, repo_id, ImageFiles.of([new / PREVIEW]), *measured)
            replace_file(new / CARD, lambda path: path.write_text(f"{text}\n{NOTES}\n{notes}", "utf-8"))
            Artifact(new, artifact.info, {}).write_metadata()
    artifact.sha256 = Artifact.load(folder).sha256
    return folder / CARD


def _place_preview(folder: Path, file: Path) -> None:
    """Copy the preview into the folder of the artifact, through no link."""
    target = folder / PREVIEW
    if target.parent.is_symlink():
        target.parent.unlink()
    target.parent.mkdir(exist_ok=True)
    replace_file(target, lambda path: shutil.copyfile(file, path))


def card_text(
    artifact: Artifact,
    repo_id: str | None,
    preview: ImageFiles,
    *measured: str,
) -> str:
    """Return the card without the author's notes: arguments as `write_card`, and sections of measurements."""
    info = artifact.info
    rows = [[key, markdown(fact)] for key, fact in artifact_facts(artifact).items() if key not in ELSEWHERE]
    title = f"D3HR {info.source.get('name') or info.name}"
    sections = [
        card_head(artifact, title, "preview/*.parquet", list(info.classes), preview)
        + f"\n\n# {markdown(title)}",
        "A distilled image data set: one Gaussian per class over inverted latents of a diffusion model, "
        f"of {'about ' if info.privacy else ''}{sum(info.counts):,} images of {len(info.classes)} classes. "
        "From it, any number of images per "
        "class is made on your machine, once, and cached "
        "(D³HR, [arXiv 2505.18399](https://arxiv.org/abs/2505.18399)).",
        f"![one class a row]({SHEET})",
        use_section(artifact, repo_id, preview.num_images),
        "## How it was built\n\n" + markdown_table(["", ""], rows),
    ]
    sections += measured
    sections.append(
        f"## Licences\n\nData: {markdown(license_of_data(artifact))}. Diffusion model: "
        f"{markdown(license_of_model(artifact))}. The statistics describe the data and are useful with that "
        f"model only; both licences apply to images made from them.{_terms(artifact)}"
    )
    return "\n\n".join(sections) + "\n"


def _terms(artifact: Artifact) -> str:
    """Return where the terms of a model on the Hub stand, which whoever makes images accepts."""
    repo_id = artifact.info.model.repo_id
    if repo_id is None:
        return ""
    page = f"https://huggingface.co/{repo_id}"
    return (
        f" The terms of the model [{markdown(repo_id)}]({page}), with what they say of uses, apply to "
        "everybody "
        "who makes images with it: they are read, and of a gated model accepted, there."
    )


def use_section(artifact: Artifact, repo_id: str | None, num_preview: int) -> str:
    """Return the snippet that makes the data set, and what the preview is.

    Raises:
        ConfigError: There is no `repo_id` to name in it.
    """
    row = REGISTRY.get(artifact.info.name)
    if row is not None and row.folder is not None:
        kind = named_dataset(artifact.info.name).__name__
        imported, made, comment = kind, f"{kind}(ipc=10)", "  # this artifact, as it ships with the package"
    elif repo_id is not None:
        imported, made, comment = (
            "D3HRDataset",
            f'D3HRDataset("{repo_id}", ipc=10)',
            "  # any number per class",
        )
    else:
        raise ConfigError("the card's snippet names the repository: give repo_id='ORG/NAME'")
    mode, side = artifact.info.image_mode, artifact.info.image_size
    text = (
        "## Use\n\nInstall d3hr-datasets from its wheel or a clone (`pip install PATH`), then\n\n```python\n"
        f"from d3hr_datasets import {imported}\n\ndataset = {made}{comment}\n"
        f'image, label = dataset[0]  # PIL image, "{mode}", {side} x {side}, and an int\n```\n\n'
    )
    where = repo_id or "ORG/NAME"
    return text + (
        f'`D3HRDataset("{where}@COMMIT", ipc=10)` pins a commit of this repository. The viewer and '
        f'`datasets.load_dataset("{where}")` show a preview of {num_preview} images, not the data set.'
    )
