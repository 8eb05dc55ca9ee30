"""Choose how private artifacts are decoded, by public images alone: timestep and guidance.

And check that the model was trained on these alone.

No budget covers a choice that looked at private images. So statistics of some public images are decoded in
several ways, and students of each are tested on other public images.
"""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from torchvision.transforms.v2.functional import pil_to_tensor

from d3hr_datasets.artifact.d3hr_json import METADATA
from d3hr_datasets.build import BuildSettings, ClassOptions, plan_build
from d3hr_datasets.classes.folders import without_number
from d3hr_datasets.experiments.table_rows import Row
from d3hr_datasets.experiments.train_table import summarize, train_all
from d3hr_datasets.image_sets.real_images import folder_images
from d3hr_datasets.io.atomic import replace_text
from d3hr_datasets.runs.settings_files import read_yaml
from recipes.common.errors import RecipeError
from recipes.common.made_artifacts import check_made
from recipes.common.prerequisites import need
from recipes.common.small_artifacts import FEW_STEPS

TIMESTEPS = (200, 400, 600)
GUIDANCE = (1.0, 3.0, 7.0)
PROTOCOL = "dc/fashion-mnist-ipc10.yaml"
COMMAND = "python -m recipes.evaluate.privacy"


def student_args(width: int) -> dict[str, int]:
    """Return the arguments of DC's ConvNet of some width."""
    return {"width": width, "first_padding": 3}


def choose(
    work: Path, model: Path, numbers: tuple[int, int], students: dict[str, Any], seeds: int, jobs: int
) -> None:
    """Write what is chosen to `choice.json` in `work`, with the accuracy of each way.

    Args:
        work: Folder with `public`, images with a folder per class.
        model: The diffusion model.
        numbers: Public images of each class that statistics are of, and others that students are tested on.
        students: Settings of students.
        seeds: Students of each way.
        jobs: Students at a time.
    """
    root = work / "choice"
    split(work / "public", root, numbers)
    settings = BuildSettings(
        timesteps=TIMESTEPS, num_modes=1, image_size=28, name="fashion-mnist", **FEW_STEPS
    )
    artifact, names = root / "artifact", root / "classes.json"
    folders = sorted(path.name for path in (root / "train").iterdir())
    replace_text(names, json.dumps([without_number(name) for name in folders]))  # as students are tested on
    options = ClassOptions(class_list=str(names))
    planned = plan_build(root / "train", model, artifact, settings, class_options=options)
    if (artifact / METADATA).exists():
        check_made(artifact, planned)
    else:
        planned.run()
    pixels = normalisation(root / "train")
    shared = {"artifact": str(artifact), "dataset": str(root), "ipc": 10, **pixels, **students}
    shared |= {"output": str(work / "students"), "torch_compile": True}
    rows = {
        (time, scale): Row(
            f"timestep {time}, guidance {scale:g}",
            {**shared, "source": "moment_matched", "timestep": time, "guidance_scale": scale},
            PROTOCOL,
        )
        for time, scale in itertools.product(TIMESTEPS, GUIDANCE)
    }
    trained = train_all([*rows.values()], seeds, jobs)
    found = {key: summarize(row, seeds, trained)["top1"] for key, row in rows.items()}
    time, scale = max(found, key=lambda key: float(found[key]["mean"]))
    chosen: dict[str, Any] = {"timestep": time, "guidance_scale": scale, **pixels}
    chosen["accuracies"] = {rows[key].name: score for key, score in found.items()}
    replace_text(work / "choice.json", json.dumps(chosen, indent=1) + "\n")


def split(public: Path, root: Path, numbers: tuple[int, int]) -> None:
    """Copy the first images of each class to `train`, and the last ones to `val`."""
    first, last = numbers
    for place in sorted(path for path in public.iterdir() if path.is_dir()):
        files = sorted(place.iterdir())
        for part, chosen in (("train", files[:first]), ("val", files[-last:])):
            (root / part / place.name).mkdir(parents=True, exist_ok=True)
            for file in chosen:
                if not (copy := root / part / place.name / file.name).exists():
                    shutil.copyfile(file, copy)


def normalisation(images: Path) -> dict[str, list[float]]:
    """Return mean and standard deviation of the pixels of a folder, as students take them."""
    found = folder_images(images, "").images
    grey = torch.stack([pil_to_tensor(found[index][0].convert("L")) for index in range(len(found))])
    values = grey.double() / 255
    return {"mean": [round(float(values.mean()), 4)], "std": [round(float(values.std()), 4)]}


def public_model(model: Path, public: Path) -> dict[str, Any]:
    """Return how a diffusion model and its VAE were trained, if on public images alone.

    Raises:
        RecipeError: One was trained on others, or does not say on which.
    """
    found: dict[str, Any] = {}
    run = model.parent
    for name in ("diffusion model", "VAE"):
        said = need(run / "settings.yaml", f"{COMMAND} --do images`, then the trainings of `{COMMAND} --help")
        settings = read_yaml(said)
        if Path(settings["source"]).resolve() != public.resolve():
            raise RecipeError(
                f"the {name} in {run} was trained on {settings['source']}, and the private images may be in "
                f"it; train it on {public}, as `{COMMAND} --help` says"
            )
        if others := [settings[key] for key in ("model", "decoder_of") if settings.get(key)]:
            raise RecipeError(
                f"the {name} in {run} started from {others[0]}, and the private images may be in it; train "
                f"it from nothing, as `{COMMAND} --help` says"
            )
        found[name] = {key: settings[key] for key in ("source", "epochs", "learning_rate", "batch_size")}
        run = Path(settings.get("vae", "")).parent
    return found
