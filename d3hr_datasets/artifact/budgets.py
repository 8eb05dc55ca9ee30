"""Settings by budget of an artifact that is there: rules -> a copy of it that has them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from d3hr_datasets.artifact.artifact import Artifact
from d3hr_datasets.artifact.changed_copies import new_copy
from d3hr_datasets.config.budgets import Budget, complete_budgets
from d3hr_datasets.io.paths import expand_user


def copy_with_budgets(
    artifact: Artifact, budgets: Sequence[Budget | Mapping[str, Any]], folder: str | Path
) -> Artifact:
    """Copy an artifact with other rules for sets of few images per class, and leave it as it is itself.

    The copy has a fingerprint of its own, so its images are cached beside those of the original, also those
    of sets that no rule is for. A card is copied as it is: `d3hr card` writes it anew.

    Args:
        artifact: The artifact; its own rules, if it has some, are not taken over.
        budgets: Rules, or objects as `d3hr.json` has them; what the `decode` of one leaves out is as
            `ArtifactInfo.decode` has it, or as the images of the order were chosen where the rule is one of
            curated images; the method is as `default_sampling`. An empty list takes rules away.
        folder: The folder of the copy, which appears whole; it must be missing or empty.

    Raises:
        ConfigError: A rule is not accepted, or does not fit what is stored; or the folder lies in that of
            the artifact.
        ArtifactIntegrityError: A file is missing or differs from its checksum.
        ExportError: The folder holds something or cannot be written, or this is one of several processes.
    """
    info = artifact.info
    curated = None if info.curation is None else info.curation.decode
    rules = complete_budgets(budgets, info.decode, info.default_sampling, curated)
    changed = dataclasses.replace(info, budgets=rules)
    with new_copy(artifact, folder) as place:
        source = Artifact(artifact.folder, changed, artifact.sha256, artifact.repo_id, artifact.revision)
        source.save_pretrained(place)
    return Artifact.load(expand_user(folder).resolve())
