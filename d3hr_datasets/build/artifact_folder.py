"""What a build puts into an artifact's folder beside the statistics: model, adapter, embeddings and licences.

In: a model's folder, and what writes the statistics. Out: the artifact's folder, whole or as it was before.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from d3hr_datasets.artifact.artifact import Artifact
from d3hr_datasets.artifact.d3hr_json import ADAPTER, EMBEDDINGS, METADATA
from d3hr_datasets.artifact.embeddings import write_embeddings
from d3hr_datasets.artifact.facts import CARD
from d3hr_datasets.build.model_facts import model_reference
from d3hr_datasets.diffusion.adapters import FILES as ADAPTER_FILES
from d3hr_datasets.diffusion.conditioning import PromptEmbeddings
from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from d3hr_datasets.diffusion.layout import INDEX, files_of
from d3hr_datasets.errors import ArtifactIntegrityError, ForeignFileError, ModelFormatError
from d3hr_datasets.io.atomic import completed_folder, renewed_folder
from d3hr_datasets.io.paths import expand_user
from d3hr_datasets.io.untrusted_files import check_file, is_folder, path_inside


@contextlib.contextmanager
def written_folder(
    output: Path,
    model: str,
    diffusion: LatentDiffusion,
    *,
    adapter: Path | None = None,
    with_embeddings: bool = False,
    noted: Mapping[str, str] | None = None,
) -> Iterator[Path]:
    """Yield a folder to write statistics and `d3hr.json` into; the model is in it, what is noted is added.

    An artifact that is there stays as it is until all is written.

    Args:
        output: Folder of the artifact.
        model: A folder in diffusers' layout, or "ORG/NAME@COMMIT".
        diffusion: The same, loaded.
        adapter: Folder of the adapter of the model, if there is one.
        with_embeddings: Store what the model's text encoders made of its prompts, and not the encoders.
        noted: What else `source` says that is no part of what names the chunks, such as licences.

    Raises:
        ModelFormatError: As `copy_model`.
    """
    with completed_folder(output, METADATA) as place:
        copy_model(model, diffusion, place, with_encoders=not with_embeddings)
        copy_adapter(adapter, place)
        (place / EMBEDDINGS).unlink(missing_ok=True)  # of an artifact that was here
        embeddings = diffusion.conditioning
        if with_embeddings and isinstance(embeddings, PromptEmbeddings):
            place.mkdir(parents=True, exist_ok=True)
            write_embeddings(place / EMBEDDINGS, embeddings)
        yield place
        if noted:
            info = Artifact.load(place).info
            described = dataclasses.replace(info, source={**info.source, **noted})
            Artifact(place, described, {}).write_metadata()


def copy_model(model: str, diffusion: LatentDiffusion, output: Path, with_encoders: bool = True) -> None:
    """Put a model folder into an artifact as `model/`; does nothing for a model on the Hub.

    What was in `model/` before is replaced as a whole, so that nothing of another model stays; a copy that is
    cut short changes nothing. Only the files of a model are copied, and none that lies outside its folder.
    Weights that are .bin files are saved as safetensors.

    Raises:
        ModelFormatError: A file of the model is a link out of its folder, or no regular file.
    """
    if model_reference(model).path is None:
        return
    source, target = expand_user(model), output / "model"
    if source.resolve() == target.resolve():
        return
    parts = [diffusion.kind.network[0], "vae", "scheduler"]
    parts += [part for part in diffusion.kind.encoders if with_encoders and is_folder(source / part)]
    with renewed_folder(target) as new:
        for part, names in files_of(parts).items():
            (new / part).mkdir()
            for name in names:
                for path in sorted((source / part).glob(name)):
                    _copy(source, f"{part}/{path.name}", new)
        for part, module in ((diffusion.kind.network[0], diffusion.network), ("vae", diffusion.vae)):
            if not list((new / part).glob("*.safetensors")):
                module.save_pretrained(new / part)
        for name in (INDEX, CARD):
            if (source / name).exists():
                _copy(source, name, new)


def copy_adapter(adapter: Path | None, output: Path) -> None:
    """Put an adapter into an artifact as `adapter/`: its files alone, in the place of one before it.

    Raises:
        ModelFormatError: A file of it is missing, a link out of its folder, or no regular file.
    """
    target = output / ADAPTER
    if adapter is None:
        if target.is_symlink():
            target.unlink()
        elif target.exists():
            shutil.rmtree(target)
        return
    if adapter.resolve() == target.resolve():
        return
    with renewed_folder(target) as new:
        for name in ADAPTER_FILES:
            _copy(adapter, name, new, "adapter")


def _copy(source: Path, name: str, target: Path, what: str = "model") -> None:
    try:
        path = path_inside(source, name)
        check_file(path)
    except (ArtifactIntegrityError, ForeignFileError) as error:
        raise ModelFormatError(f"the {what}'s {name} does not become part of an artifact: {error}") from error
    shutil.copy(path, target / name)
