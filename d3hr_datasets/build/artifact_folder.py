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
from d3hr_datasets.build.model_facts import model_reference
from d3hr_datasets.diffusion.latent_diffusion import LatentDiffusion
from d3hr_datasets.diffusion.loading import INDEX, WEIGHTS
from d3hr_datasets.errors import ArtifactIntegrityError, ForeignFileError, ModelFormatError
from d3hr_datasets.io.atomic import completed_folder
from d3hr_datasets.io.paths import expand_user
from d3hr_datasets.io.untrusted_files import check_file, path_inside

# What diffusers writes of a model and reads; a folder may hold anything else, which is nobody's business.
PARTS = {
    "transformer": ("config.json", f"{WEIGHTS}.safetensors", f"{WEIGHTS}.safetensors.index.json"),
    "vae": ("config.json", f"{WEIGHTS}.safetensors", f"{WEIGHTS}.safetensors.index.json"),
    "scheduler": ("scheduler_config.json",),
}
CARD = "README.md"  # it says which licence the model has


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
    new, old = output / ".model-new", output / ".model-old"  # those of a killed run go, too
    if old.exists() and not target.exists():  # killed between the two renames below
        old.rename(target)
    for folder in (new, old):
        if folder.is_symlink():
            folder.unlink()
        shutil.rmtree(folder, ignore_errors=True)
    try:
        for part, patterns in PARTS.items():
            (new / part).mkdir(parents=True)
            for pattern in patterns:
                for path in sorted((source / part).glob(pattern)):
                    _copy(source, f"{part}/{path.name}", new)
        for part, module in (("transformer", diffusion.transformer), ("vae", diffusion.vae)):
            if not list((new / part).glob("*.safetensors")):
                module.save_pretrained(new / part)
        for name in (INDEX, CARD):
            if (source / name).exists():
                _copy(source, name, new)
        if target.is_symlink():
            target.unlink()
        elif target.exists():
            target.rename(old)
        new.rename(target)
    finally:
        if old.exists() and not target.exists():
            old.rename(target)
        shutil.rmtree(new, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def _copy(source: Path, name: str, target: Path) -> None:
    try:
        path = path_inside(source, name)
        check_file(path)
    except (ArtifactIntegrityError, ForeignFileError) as error:
        raise ModelFormatError(f"the model's {name} does not become part of an artifact: {error}") from error
    shutil.copy(path, target / name)
