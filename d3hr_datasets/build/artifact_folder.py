"""What a build puts into an artifact's folder beside the statistics: the diffusion model and the licence.

In: a model's folder, and what writes the statistics. Out: the artifact's folder, whole or as it was before.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path

from d3hr_datasets.artifact.artifact import Artifact
from d3hr_datasets.artifact.d3hr_json import METADATA
from d3hr_datasets.artifact.facts import CARD
from d3hr_datasets.build.model_facts import model_reference
from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from d3hr_datasets.diffusion.layout import INDEX, PARTS
from d3hr_datasets.errors import ArtifactIntegrityError, ForeignFileError, ModelFormatError
from d3hr_datasets.io.atomic import completed_folder, renewed_folder
from d3hr_datasets.io.paths import expand_user
from d3hr_datasets.io.untrusted_files import check_file, path_inside


@contextlib.contextmanager
def written_folder(
    output: Path, model: str, diffusion: LatentDiffusion, license_name: str | None
) -> Iterator[Path]:
    """Yield a folder to write statistics and `d3hr.json` into; the model is in it, the licence is added.

    An artifact that is there stays as it is until all is written.

    Args:
        output: Folder of the artifact.
        model: A folder in diffusers' layout, or "ORG/NAME@COMMIT".
        diffusion: The same, loaded.
        license_name: Licence of the images, which is no part of what names the chunks.

    Raises:
        ModelFormatError: As `copy_model`.
    """
    with completed_folder(output, METADATA) as place:
        copy_model(model, diffusion, place)
        yield place
        if license_name is not None:
            info = Artifact.load(place).info
            source = {**info.source, "license": license_name}
            Artifact(place, dataclasses.replace(info, source=source), {}).write_metadata()


def copy_model(model: str, diffusion: LatentDiffusion, output: Path) -> None:
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
    with renewed_folder(target) as new:
        for part, names in PARTS.items():
            (new / part).mkdir()
            for name in names:
                for path in sorted((source / part).glob(name)):
                    _copy(source, f"{part}/{path.name}", new)
        for part, module in (("transformer", diffusion.transformer), ("vae", diffusion.vae)):
            if not list((new / part).glob("*.safetensors")):
                module.save_pretrained(new / part)
        for name in (INDEX, CARD):
            if (source / name).exists():
                _copy(source, name, new)


def _copy(source: Path, name: str, target: Path) -> None:
    try:
        path = path_inside(source, name)
        check_file(path)
    except (ArtifactIntegrityError, ForeignFileError) as error:
        raise ModelFormatError(f"the model's {name} does not become part of an artifact: {error}") from error
    shutil.copy(path, target / name)
