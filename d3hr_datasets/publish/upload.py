"""Publishing an artifact: its folder -> a dataset repository of the Hub.

In: a folder that is looked at first. Out: a commit, and the row that pins it in the registry.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from d3hr_datasets.artifact.artifact import Artifact
from d3hr_datasets.artifact.d3hr_json import METADATA, MOMENTS, file_digests
from d3hr_datasets.artifact.facts import CARD, MAX_CARD_BYTES
from d3hr_datasets.artifact.membership import check_nothing_private
from d3hr_datasets.errors import ConfigError, PublishError
from d3hr_datasets.io import hub
from d3hr_datasets.io.text import printable
from d3hr_datasets.io.untrusted_files import file_sha256, read_file
from d3hr_datasets.privacy.release import check_promise


@dataclass(frozen=True)
class PlannedFile:
    """A file that goes up.

    Args:
        name: Its path in the repository.
        num_bytes: Its size.
    """

    name: str
    num_bytes: int


def plan_artifact(artifact: Artifact, *, with_model: bool = False) -> list[PlannedFile]:
    """Check that an artifact is fit to be published, and return exactly the files that go up.

    Args:
        artifact: The artifact.
        with_model: The model inside is the author's own and goes up too. A model elsewhere is referred to.

    Raises:
        PublishError: It promises more privacy than its noise keeps, a file says which images are behind it,
            files are not those that `d3hr.json` lists, the card is missing or wrong, or the model is inside
            and not meant to go up, or the other way round.
        ArtifactFormatError: As `Artifact.verify`.
        MissingExtraError: It promises privacy, and dp-accounting is not installed, which checks that.
    """
    from huggingface_hub import DatasetCard

    model = artifact.info.model
    if with_model and model.path is None:
        raise PublishError(
            f"the artifact refers to the model {model.repo_id} and has none inside; leave out --with-model"
        )
    if not with_model and model.path is not None:
        raise PublishError(
            f"the artifact's diffusion model is inside it ({model.path}/). If it is yours to publish: "
            "give with_model=True; otherwise build with ModelReference(repo_id=..., revision=...)"
        )
    if artifact.info.privacy is not None:
        try:
            check_promise(artifact.info.privacy, math.prod(artifact.info.latent_shape))
        except ConfigError as error:
            raise PublishError(f"{artifact.folder} does not keep what it promises: {error}") from error
    check_nothing_private(artifact.folder, artifact.info, artifact.sha256)
    found = file_digests(artifact.folder)
    if found != artifact.sha256:
        names = sorted(name for name, _ in set(found.items()) ^ set(artifact.sha256.items()))
        raise PublishError(
            f"{list(dict.fromkeys(names))} in {artifact.folder} changed, came or went since {METADATA} was "
            "written. If that is meant: `d3hr card`, or Artifact.load(FOLDER).write_metadata()"
        )
    artifact.verify()
    try:
        card: Any = DatasetCard(read_file(artifact.folder / CARD, MAX_CARD_BYTES).decode("utf-8"))
    except Exception as error:  # of YAML, of what the card says in it, of reading it
        raise PublishError(
            f"the artifact has no card: {printable(error)}. Write it: `d3hr card {artifact.folder}`"
        ) from error
    if not card.data.to_dict().get("license"):
        raise PublishError(f"{artifact.folder / CARD} names no license; write it anew with `d3hr card`")
    return [
        PlannedFile(name, (artifact.folder / name).stat().st_size)
        for name in sorted([METADATA, *artifact.sha256])
    ]


def publish_artifact(
    artifact: Artifact,
    repo_id: str,
    *,
    with_model: bool = False,
    private: bool | None = None,
    create_pr: bool = False,
    token: str | bool | None = None,
) -> hub.Published:
    """Publish an artifact after `plan_artifact`; a second time changes nothing.

    Raises:
        PublishError: It is not fit to be published, or the Hub does not take it.
        ArtifactFormatError: As `Artifact.verify`.
    """
    plan_artifact(artifact, with_model=with_model)
    return artifact.push_to_hub(repo_id, private=private, create_pr=create_pr, token=token)


def moments_notice(artifact: Artifact) -> str | None:
    """Return what is to be known where the sums behind the statistics go up, if they do."""
    if MOMENTS not in artifact.sha256:
        return None
    return (
        f"{MOMENTS} goes up, too: exact sums, by whose differences the latent of a single image can be found "
        "if another artifact of the same images but for a few is or becomes public, as the parts of "
        "a merged one, or one from before images were forgotten. Give --no-moments where that must not be"
    )


def registry_row(artifact: Artifact, published: hub.Published) -> str:
    """Return the line of `artifact_registry` that pins what was published."""
    info = artifact.info
    return (
        f'RegistryRow("{info.name}", repo_id="{published.repo_id}", revision="{published.revision}", '
        f'num_images={sum(info.counts):_}, sha256="{file_sha256(artifact.folder / METADATA)}"),'
    )
