"""The head of a dataset card: what the Hub and `datasets` read, in YAML.

In: an artifact, and Parquet files of images. Out: YAML.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from d3hr_datasets.artifact.artifact import Artifact
from d3hr_datasets.artifact.facts import license_of_data

LICENSES = (
    "apache-2.0",
    "mit",
    "bsd-2-clause",
    "bsd-3-clause",
    "cc0-1.0",
    "cc-by-4.0",
    "cc-by-sa-4.0",
    "cc-by-nc-4.0",
    "cc-by-nc-sa-4.0",
    "gpl-3.0",
    "lgpl-3.0",
    "mpl-2.0",
    "odbl",
    "odc-by",
    "pddl",
    "openrail",
    "unlicense",
)


SIZES = (
    "n<1K",
    "1K<n<10K",
    "10K<n<100K",
    "100K<n<1M",
    "1M<n<10M",
    "10M<n<100M",
    "100M<n<1B",
    "1B<n<10B",
    "10B<n<100B",
    "100B<n<1T",
    "n>1T",
)


@dataclass(frozen=True)
class ImageFiles:
    """What `datasets` wants to know of Parquet files of images.

    Args:
        num_images: Rows.
        num_bytes: Bytes of the rows in memory, as Arrow holds them.
        download_size: Bytes of the files.
    """

    num_images: int
    num_bytes: int
    download_size: int

    @classmethod
    def of(cls, paths: Sequence[Path]) -> ImageFiles:
        """Read the files; one group of rows is in memory at a time."""
        from pyarrow import parquet

        num_images = num_bytes = 0
        for path in paths:
            with parquet.ParquetFile(path) as file:
                num_images += file.metadata.num_rows
                num_bytes += sum(file.read_row_group(i).nbytes for i in range(file.num_row_groups))
        return cls(num_images, num_bytes, sum(path.stat().st_size for path in paths))

    def dataset_info(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the field `dataset_info` of a card."""
        split = {"name": "train", "num_bytes": self.num_bytes, "num_examples": self.num_images}
        return {
            "features": features,
            "splits": [split],
            "download_size": self.download_size,
            "dataset_size": self.num_bytes,
        }


def card_head(artifact: Artifact, title: str, files: str, classes: list[str], images: ImageFiles) -> str:
    """Return the head of a dataset card.

    Args:
        artifact: The artifact of the images.
        title: What the Hub shows.
        files: Pattern of the Parquet files in the repository.
        classes: Class names by label.
        images: What is known of the files.
    """
    from huggingface_hub import DatasetCardData

    features: list[dict[str, Any]] = [
        {"name": "image", "dtype": "image"},
        {
            "name": "label",
            "dtype": {"class_label": {"names": {str(label): name for label, name in enumerate(classes)}}},
        },
    ]
    values = DatasetCardData(
        **_license(license_of_data(artifact)),
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


def _license(name: str) -> dict[str, Any]:
    """Return the card's fields for a licence, which the Hub knows by names of its own."""
    if name.lower() in LICENSES or name == "unknown":
        return {"license": name.lower()}
    return {"license": "other", "license_name": _slug(name)}


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", str(name).lower()).strip("-")


def _size_category(number: int) -> str:
    return SIZES[min(max(len(str(number)) - 3, 0), len(SIZES) - 1)]
