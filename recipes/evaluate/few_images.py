"""Compare a handful of real images of a class with what an artifact made of them trains.

    python -m recipes.evaluate.few_images

Draws 10, 30 and 99 images of each class of Fashion-MNIST, builds an artifact of them by the embedded model,
with and without shrinking the variances, and trains students by DC's recipe: on those images, on as many
distilled ones, and on 100 of each class. All students see as many images, in about as many steps. The
embedded model was trained on all the images of these classes, as a large model has seen many photos of
whatever you photograph. So this says what statistics of few images are worth beside a model that knows the
classes. Writes `hub/results/few_images.json`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from d3hr_datasets.build import BuildSettings, ClassOptions, plan_build
from d3hr_datasets.build.shrinkage_choice import NamedShrinkage
from d3hr_datasets.classes.folders import class_folders
from d3hr_datasets.experiments.table_rows import Row
from d3hr_datasets.experiments.train_table import students_at_a_time, summarize, train_all
from d3hr_datasets.image_sets.real_images import fashion_mnist
from d3hr_datasets.io.markdown import format_score
from recipes.common.prerequisites import need_artifact
from recipes.common.program import program
from recipes.common.results import write_results

MODEL = Path("hub/d3hr-fashion-mnist")
PROTOCOL = "dc/fashion-mnist-ipc10.yaml"
NUMBERS = (10, 30, 99)
MANY = 100  # distilled images per class beside as many as there are real ones
VIEWS = 990  # of each class, a multiple of all numbers but the last
WIDTH = 32
BATCH_SIZE = 100  # of ten classes: about as many steps in all rows, as many as views of a class over ten


def save_images(folder: Path, number: int) -> Path:
    """Write so many images of each class, drawn by one seed; fewer are the first of more."""
    images = fashion_mnist(train=True)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    labels = images.targets[order]
    for label, name in enumerate(class_folders(images.classes)):
        place = folder / name
        place.mkdir(parents=True, exist_ok=True)
        for index in order[labels == label][:number].tolist():
            images[index][0].save(place / f"{index:05d}.png")
    return folder


def build(images: Path, output: Path, shrinkage: NamedShrinkage) -> Path:
    """Build an artifact of some images, unless it is there."""
    if not output.exists():
        settings = BuildSettings(
            timesteps=(400,),
            num_inference_steps=25,
            method="ddim",
            num_modes=1,
            decode_guidance_scale=3.0,
            image_size=28,
            shrinkage=shrinkage,
            name="fashion-mnist",
        )
        options = ClassOptions(class_list="fashion-mnist")
        plan_build(images, MODEL / "model", output, settings, class_options=options).run()
    return output


def rows_of(number: int, work: Path, views: int) -> list[Row]:
    """Return the rows of so many images of each class, which are written and built first."""
    images = save_images(work / f"images-{number}", number)
    built = {
        shrinkage: build(images, work / f"artifact-{number}-{shrinkage}", shrinkage)
        for shrinkage in ("none", "auto")
    }
    shared: dict[str, Any] = {
        "output": str(work / "students"),
        "batch_size": BATCH_SIZE,
        "student_args": {"first_padding": 3, "width": WIDTH},
    }

    def row(name: str, ipc: int, **settings: Any) -> Row:
        values = {**shared, **settings, "ipc": ipc, "epochs": max(1, round(views / ipc))}
        return Row(f"{number} images, {name}", values, PROTOCOL)

    return [
        row("real", number, source=f"images:{images}"),
        row("distilled", number, artifact=str(built["none"])),
        row("distilled, shrunk", number, artifact=str(built["auto"])),
        row(f"{MANY} distilled, shrunk", MANY, artifact=str(built["auto"])),
    ]


@program
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--numbers", type=int, nargs="+", default=list(NUMBERS), help="of images per class")
    parser.add_argument("--views", type=int, default=VIEWS, help="of each class, for every student")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, help="students at a time; all cores, on a GPU 1")
    parser.add_argument("--work", default="runs/few-images", help="folder of images, artifacts and students")
    parser.add_argument("--output", default="hub/results/few_images.json")
    arguments = parser.parse_args()
    need_artifact(MODEL)
    rows = [
        row for number in arguments.numbers for row in rows_of(number, Path(arguments.work), arguments.views)
    ]
    trained = train_all(rows, arguments.seeds, arguments.jobs or students_at_a_time())
    results = {row.name: summarize(row, arguments.seeds, trained) for row in rows}
    settings = {key: getattr(arguments, key) for key in ("numbers", "views", "seeds")}
    settings |= {"protocol": PROTOCOL, "width": WIDTH, "batch_size": BATCH_SIZE}
    write_results(arguments.output, settings, results)
    for name, found in results.items():
        print(f"{name}: {format_score(found['top1'])}")


if __name__ == "__main__":
    main()
