"""The images of a data set -> a repository on the Hub, as Parquet."""

from __future__ import annotations

import tempfile
from pathlib import Path

from d3hr_datasets.artifact.facts import CARD, describe_decoding, license_of_data, license_of_model
from d3hr_datasets.dataset.card_head import ImageFiles, card_head
from d3hr_datasets.dataset.export import export_parquet
from d3hr_datasets.dataset.images_on_demand import ImagesOnDemand
from d3hr_datasets.io import hub
from d3hr_datasets.io.markdown import markdown, markdown_table


def publish_images(
    dataset: ImagesOnDemand,
    repo_id: str,
    *,
    private: bool | None = None,
    create_pr: bool = False,
    token: str | bool | None = None,
    progress: bool = True,
) -> hub.Published:
    """Publish images as Parquet with `image` and `label`, for `datasets.load_dataset` and timm's `hfds/`.

    Args:
        dataset: The data set; what is missing of it is generated first.
        repo_id: "ORG/NAME" of the dataset repository, made if it is missing. Not that of the artifact.
        private: Whether a new repository is private; your organisation's default by default.
        create_pr: Open a pull request instead of committing.
        token: Of the Hub; the user's own by default.
        progress: Show a progress bar on stderr while generating.

    Raises:
        MissingExtraError: `datasets` is not installed.
        PublishError: The Hub does not take it.
    """
    with tempfile.TemporaryDirectory() as work:
        folder = export_parquet(dataset, Path(work) / "images", progress=progress)
        files = ImageFiles.of(sorted((folder / "data").iterdir()))
        (folder / CARD).write_text(images_card(dataset, files), encoding="utf-8")
        return hub.upload(
            folder,
            [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()],
            repo_id,
            private=private,
            create_pr=create_pr,
            token=token,
            commit_message=f"Images of {dataset.artifact.info.name}, {dataset.ipc} per class",
        )


def images_card(dataset: ImagesOnDemand, files: ImageFiles) -> str:
    """Return the card of a repository that holds the images of a data set as Parquet files."""
    artifact = dataset.artifact
    title = f"Images of D3HR {artifact.info.source.get('name') or artifact.info.name}"
    head = card_head(artifact, title, "data/train-*.parquet", dataset.classes, files)
    where = f"`{artifact.repo_id}`, commit `{artifact.revision}`" if artifact.repo_id else artifact.info.name
    is_curated = dataset.sampling.method == "curated"
    facts = {
        "artifact": f"{where} ({artifact.fingerprint})",
        **({"order of curated images": artifact.order_fingerprint} if is_curated else {}),
        "images per class": dataset.ipc,
        "seed": dataset.seed,
        **({"epoch": dataset.epoch} if dataset.epoch else {}),
        "sampling": dataset.sampling.method + (", nested" if dataset.nested else ""),
        "decoding": describe_decoding(dataset.decode),
        "fingerprint of the images": dataset.fingerprint,
        "licence of the data": markdown(license_of_data(artifact)),
        "licence of the diffusion model": markdown(license_of_model(artifact)),
    }
    rows = [[key, value] for key, value in facts.items()]
    return (
        f"{head}\n\n# {markdown(title)}\n\n{files.num_images:,} generated images of {len(dataset.classes)} "
        f"classes: columns `image` and `label`.\n\n{markdown_table(['', ''], rows)}\n"
    )
