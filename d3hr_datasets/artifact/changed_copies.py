"""Changed copies of an artifact: a folder outside it, which appears whole, written by one process."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from d3hr_datasets.artifact.artifact import Artifact
from d3hr_datasets.artifact.d3hr_json import MOMENTS
from d3hr_datasets.artifact.facts import CARD, MAX_CARD_BYTES
from d3hr_datasets.errors import ConfigError, ExportError
from d3hr_datasets.io.atomic import replace_text
from d3hr_datasets.io.new_folders import new_folder
from d3hr_datasets.io.paths import expand_user
from d3hr_datasets.io.untrusted_files import read_file
from d3hr_datasets.processes import process_share


@contextlib.contextmanager
def new_copy(artifact: Artifact, output: str | Path) -> Iterator[Path]:
    """Yield a folder for a changed copy of an artifact, which becomes `output` if nothing is raised.

    Args:
        artifact: What is copied; it is not changed.
        output: The folder of the copy; it must be missing or empty.

    Raises:
        ConfigError: `output` lies in the folder of the artifact.
        ExportError: `output` holds something or cannot be written, or this is one of several processes.
    """
    output = expand_user(output).resolve()
    if output.is_relative_to(artifact.folder.resolve()):
        raise ConfigError(
            f"{output} is in the folder of the artifact, {artifact.folder}; give one outside it"
        )
    if process_share()[1] > 1:
        raise ExportError(
            "a copy of an artifact is made by one process, this is one of several (WORLD_SIZE, "
            "torch.distributed); make it in one that was started alone"
        )
    with new_folder(output) as folder:
        yield folder


def copy_without_moments(artifact: Artifact, folder: str | Path) -> Artifact:
    """Copy an artifact without the exact sums behind its statistics, as one that may be published.

    It generates the same images, and its card does not speak of sums. It is merged as any artifact without
    sums, and no image is forgotten of it.

    Args:
        artifact: The artifact; it stays as it is.
        folder: The folder of the copy, which appears whole; it must be missing or empty.

    Raises:
        ConfigError: The folder lies in that of the artifact.
        ArtifactIntegrityError: A file is missing or differs from its checksum.
        ExportError: The folder holds something or cannot be written, or this is one of several processes.
    """
    sha256 = {name: digest for name, digest in artifact.sha256.items() if name != MOMENTS}
    with new_copy(artifact, folder) as place:
        copy = Artifact(artifact.folder, artifact.info, sha256).save_pretrained(place)
        if CARD in sha256:
            text = read_file(place / CARD, MAX_CARD_BYTES).decode("utf-8")
            replace_text(place / CARD, re.sub(r"^\| sums \| stored.*\n", "", text, flags=re.MULTILINE))
            Artifact(place, copy.info, {}).write_metadata()
    return Artifact.load(expand_user(folder).resolve())
