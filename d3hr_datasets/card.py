"""The dataset card of an artifact: what it describes -> README.md, a contact sheet, a Parquet preview.

In: an artifact in a folder, with its model. Out: `README.md`, `contact-sheet.png` and `preview/` there, which
`d3hr.json` lists. `datasets.load_dataset` and the Hub's viewer show the preview: neither reads statistics.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

from d3hr_datasets.artifact import Artifact
from d3hr_datasets.card_facts import (
    ACCURACY,
    ImageFiles,
    artifact_facts,
    describe_decoding,
    kept_accuracies,
    preview_ipc_of,
)
from d3hr_datasets.config import check_int
from d3hr_datasets.dataset import D3HRDataset
from d3hr_datasets.errors import ArtifactFormatError, ConfigError
from d3hr_datasets.export import export_parquet, require_parquet
from d3hr_datasets.folders import replaced_folder
from d3hr_datasets.named import named_dataset
from d3hr_datasets.registry import REGISTRY
from d3hr_datasets.safe_files import MAX_JSON_BYTES, is_file, read_file, replace_file
from d3hr_datasets.text import markdown, printable

CARD, SHEET, PREVIEW = "README.md", "contact-sheet.png", "preview/train-00000-of-00001.parquet"
MAX_CARD_BYTES = 4 * 2**20
NOTES = "<!-- notes: what follows is yours and stays when the card is written again -->"
SIDE = 10  # of the contact sheet, in images
LICENSES = (
    "apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0",
    "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "gpl-3.0", "lgpl-3.0", "mpl-2.0",
    "odbl", "odc-by", "pddl", "openrail", "unlicense",
)  # fmt: skip
SIZES = (
    "n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B", "1B<n<10B",
    "10B<n<100B", "100B<n<1T", "n>1T",
)  # fmt: skip


def write_card(
    artifact: Artifact,
    repo_id: str | None = None,
    *,
    preview_ipc: int | None = None,
    results: Path | None = None,
    root: str | Path | None = None,
    device: str | None = None,
    progress: bool = True,
) -> Path:
    """Write the card, its contact sheet and the preview of an artifact, and list them in `d3hr.json`.

    Of a card that is there, text below the line `NOTES` is kept, and accuracies unless there are new ones.

    Args:
        artifact: The artifact, in a folder that can be written.
        repo_id: "ORG/NAME" it will be at, for the snippet; not needed for one that ships with the package.
        preview_ipc: Images per class of the preview, the first ones of nested sets. As many as the preview
            that is there has, or one.
        results: Measured accuracies: a JSON file of `recipes.evaluate_table`; those of the card that is there
            by default.
        root: Cache of the images of sheet and preview, as in `D3HRDataset`.
        device: Where to generate them.
        progress: Show a progress bar on stderr while generating.

    Returns:
        The path of the card.

    Raises:
        ConfigError: There is no `repo_id` to name in the snippet, or `results` is no such file.
        ExportError: `datasets` is not installed.
    """
    if preview_ipc is not None:
        check_int("preview_ipc", preview_ipc, 1)
    folder, num_classes = artifact.folder, len(artifact.info.classes)
    accuracies = accuracy_section(results) if results else kept_accuracies(_split(folder / CARD)[0])
    _use(artifact, repo_id, 0)  # what cannot be written stops this before anything is generated
    require_parquet()
    if preview_ipc is None:
        preview_ipc = preview_ipc_of(folder / PREVIEW, num_classes) or 1
    shown = list(range(0, num_classes, -(-num_classes // SIDE)))
    sheet = D3HRDataset(artifact, root, SIDE, nested=True, device=device, classes=shown)
    preview = D3HRDataset(artifact, root, preview_ipc, nested=True, device=device)
    sheet.materialize(progress=progress)
    with tempfile.TemporaryDirectory() as work:
        data = export_parquet(preview, Path(work) / "preview", progress=progress) / "data"
        with replaced_folder(folder) as new:
            replace_file(new / SHEET, lambda path: contact_sheet(sheet).save(path, "PNG"))
            if (new / PREVIEW).parent.is_symlink():
                (new / PREVIEW).parent.unlink()
            (new / PREVIEW).parent.mkdir(exist_ok=True)
            replace_file(new / PREVIEW, lambda path: shutil.copyfile(data / Path(PREVIEW).name, path))
            notes = _split(folder / CARD)[1]  # also what was written while images were made
            text = card_text(artifact, repo_id, ImageFiles.of([new / PREVIEW]), accuracies)
            replace_file(new / CARD, lambda path: path.write_text(f"{text}\n{NOTES}\n{notes}", "utf-8"))
            Artifact(new, artifact.info, {}).write_metadata()
    artifact.sha256 = Artifact.load(folder).sha256
    return folder / CARD


def card_text(
    artifact: Artifact, repo_id: str | None, preview: ImageFiles, accuracies: str | None = None
) -> str:
    """Return the card without the author's notes: arguments as `write_card`, and a section of accuracies."""
    info = artifact.info
    title = f"D3HR {info.source.get('name') or info.name}"
    sections = [
        _yaml(artifact, title, "preview/*.parquet", list(info.classes), preview) + f"\n\n# {markdown(title)}",
        "A distilled image data set: one Gaussian per class over inverted latents of a diffusion model, "
        f"of {sum(info.counts):,} images of {len(info.classes)} classes. From it, any number of images per "
        "class is made on your machine, once, and cached "
        "(D³HR, [arXiv 2505.18399](https://arxiv.org/abs/2505.18399)).",
        f"![one class a row]({SHEET})",
        _use(artifact, repo_id, preview.num_images),
        "## How it was built\n\n" + markdown_table(["", ""], artifact_facts(artifact)),
    ]
    if accuracies:
        sections.append(accuracies)
    sections.append(
        f"## Licences\n\nData: {markdown(_license_of_data(artifact))}. Diffusion model: "
        f"{markdown(_license_of_model(artifact))}. The statistics describe the data and are useful with that "
        "model only; both licences apply to images made from them."
    )
    return "\n\n".join(sections) + "\n"


def images_card(dataset: D3HRDataset, files: ImageFiles) -> str:
    """Return the card of a repository that holds the images of a data set as Parquet files."""
    artifact = dataset.artifact
    title = f"Images of D3HR {artifact.info.source.get('name') or artifact.info.name}"
    head = _yaml(artifact, title, "data/train-*.parquet", dataset.classes, files)
    where = f"`{artifact.repo_id}`, commit `{artifact.revision}`" if artifact.repo_id else artifact.info.name
    facts = {
        "artifact": f"{where} ({artifact.fingerprint})",
        "images per class": dataset.ipc,
        "seed": dataset.seed,
        "sampling": dataset.sampling.method + (", nested" if dataset.nested else ""),
        "decoding": describe_decoding(dataset.decode),
        "fingerprint of the images": dataset.fingerprint,
        "licence of the data": markdown(_license_of_data(artifact)),
        "licence of the diffusion model": markdown(_license_of_model(artifact)),
    }
    rows = [[key, value] for key, value in facts.items()]
    return (
        f"{head}\n\n# {markdown(title)}\n\n{len(dataset):,} generated images of {len(dataset.classes)} "
        f"classes: columns `image` and `label`.\n\n{markdown_table(['', ''], rows)}\n"
    )


def contact_sheet(dataset: D3HRDataset) -> Image.Image:
    """Return all images of a data set as one, one class a row."""
    first = dataset.cache.read(0, 0)
    if first is None:
        raise ConfigError("the data set has no images yet; call materialize()")
    step = first.width + 2
    size = (dataset.ipc * step + 2, len(dataset.classes) * step + 2)
    sheet = Image.new(first.mode, size, "white")
    for index in range(len(dataset)):
        row, column = divmod(index, dataset.ipc)
        image = dataset.cache.read(row, column)
        if image is not None:
            sheet.paste(image, (2 + column * step, 2 + row * step))
    return sheet


def markdown_table(header: list[str], rows: list[list[Any]]) -> str:
    """Return a Markdown table; floats with three significant digits."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(format_cell(cell) for cell in line) + " |" for line in lines)


def format_cell(value: Any) -> str:
    """Return a value for a table."""
    return f"{value:.3g}" if isinstance(value, float) else str(value).replace("|", "\\|")


def format_score(score: dict[str, Any]) -> str:
    """Return mean and standard deviation over seeds."""
    spread = "" if score["std"] is None else f" ± {score['std']:.1f}"
    return f"{score['mean']:.1f}{spread} ({len(score['values'])} seeds)"


def _use(artifact: Artifact, repo_id: str | None, num_preview: int) -> str:
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
        "## Use\n\n`pip install d3hr-datasets`, then\n\n```python\n"
        f"from d3hr_datasets import {imported}\n\ndataset = {made}{comment}\n"
        f'image, label = dataset[0]  # PIL image, "{mode}", {side} x {side}, and an int\n```\n\n'
    )
    where = repo_id or "ORG/NAME"
    return text + (
        f'`D3HRDataset("{where}@COMMIT", ipc=10)` pins a commit of this repository. The viewer and '
        f'`datasets.load_dataset("{where}")` show a preview of {num_preview} images, not the data set.'
    )


def _yaml(artifact: Artifact, title: str, files: str, classes: list[str], images: ImageFiles) -> str:
    from huggingface_hub import DatasetCardData

    features: list[dict[str, Any]] = [
        {"name": "image", "dtype": "image"},
        {
            "name": "label",
            "dtype": {"class_label": {"names": {str(label): name for label, name in enumerate(classes)}}},
        },
    ]
    values = DatasetCardData(
        **_license(_license_of_data(artifact)),
        pretty_name=title,
        task_categories=["image-classification"],
        size_categories=[_size_category(images.num_images)],
        source_datasets=[f"extended|other-{_slug(artifact.info.source.get('name') or artifact.info.name)}"],
        annotations_creators=["machine-generated"],
        tags=["dataset-distillation", "d3hr", "diffusion"],
        configs=[{"config_name": "default", "data_files": [{"split": "train", "path": files}]}],
        dataset_info=images.dataset_info(features),
    )
    return f"---\n{values.to_yaml()}\n---"


def _license_of_data(artifact: Artifact) -> str:
    return str(artifact.info.source.get("license") or "unknown")


def _license(name: str) -> dict[str, Any]:
    """Return the card's fields for a licence, which the Hub knows by names of its own."""
    if name.lower() in LICENSES or name == "unknown":
        return {"license": name.lower()}
    return {"license": "other", "license_name": _slug(name)}


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", str(name).lower()).strip("-")


def _license_of_model(artifact: Artifact) -> str:
    from huggingface_hub import ModelCard

    model = artifact.info.model
    if model.path is None:
        return f"that of {model.repo_id}"
    card = artifact.folder / model.path / CARD
    found = None
    if is_file(card):
        try:
            data: Any = ModelCard(read_file(card, MAX_CARD_BYTES).decode("utf-8")).data
            found = data.license
        except Exception as error:  # of YAML, of what the card says in it, of reading it
            raise ArtifactFormatError(
                f"{card} has no head in YAML, which names the licence: {printable(error)}; mend or remove it"
            ) from error
    return str(found or artifact.info.source.get("model_license") or "not given")


def _size_category(number: int) -> str:
    return SIZES[min(max(len(str(number)) - 3, 0), len(SIZES) - 1)]


def accuracy_section(path: Path) -> str:
    """Return the accuracies that `recipes.evaluate_table` measured, as a section of a card.

    Raises:
        ConfigError: The file is none of that recipe's.
    """
    try:
        rows = json.loads(read_file(path, MAX_JSON_BYTES))["rows"]
        cells = [[row["name"], format_score(row["top1"])] for row in rows]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f'{path} has no {{"rows": [{{"name", "top1": {{"mean", "std", "values"}}}}]}}: {error!r}; '
            "`python -m recipes.evaluate_table` writes such a file"
        ) from error
    return f"{ACCURACY}\n\n" + markdown_table(["training set", "accuracy, %"], cells)


def _split(card: Path) -> tuple[str, str]:
    """Return what an earlier card says, and its notes."""
    text = read_file(card, MAX_CARD_BYTES).decode("utf-8", "replace") if is_file(card) else ""
    written, _, notes = text.partition(f"{NOTES}\n")
    return written, notes
