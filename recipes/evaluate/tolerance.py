"""What builds to a stated precision cost, and what they lose: `d3hr build --tolerance`.

    python -m recipes.evaluate.tolerance --work runs/tolerance

For ImageNet-1K it is computed: so many images of each class are inverted, of 1,281,167 in classes of 732 to
1,300. For Fashion-MNIST, or `--source` with `--model`, artifacts are built with each tolerance and of all
images, and what is reported is how many images they took, and by how much their means are off those of the
full build, in units of the spread of a class. Writes `hub/results/tolerance.json`.

The artifacts stay in the folder of `--work`, beside the chunks from which a build goes on; students of them
are trained by `d3hr train student` or a table, as of any artifact.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

from d3hr_datasets import Artifact
from d3hr_datasets.artifact.tolerance import least_images
from d3hr_datasets.build import BuildSettings, ClassOptions, plan_build
from d3hr_datasets.image_sets.real_images import fashion_mnist
from recipes.common.prerequisites import need_artifact
from recipes.common.program import program
from recipes.common.results import write_results

CLASSES, IMAGES, SMALLEST, LARGEST = 1000, 1_281_167, 732, 1300  # of ImageNet-1K's training images


def imagenet_images(per_class: int) -> tuple[int, int]:
    """Return how many images of ImageNet-1K are at least and at most inverted, where a class takes so many.

    Its classes have 732 to 1,300 images, 1,281,167 in all. The fewest are used if each is of one of these two
    sizes, as far as the sum allows; the most if all are of one size.
    """
    large = (IMAGES - CLASSES * SMALLEST) / (LARGEST - SMALLEST)  # classes of the largest size
    least = large * min(per_class, LARGEST) + (CLASSES - large) * min(per_class, SMALLEST)
    return math.floor(least), min(CLASSES * per_class, IMAGES)


def imagenet_costs(tolerance: float, num_modes: int) -> dict[str, Any]:
    """Return what ImageNet-1K costs: images a class takes, images in all, share of all.

    The means of modes take `num_modes` times as many images as that of the class, at most: so many if the
    classes are spread within modes as they are in all.
    """
    per_class = num_modes * least_images(tolerance)
    least, most = imagenet_images(per_class)
    return {
        "images_a_class_takes": per_class,
        "images": [least, most],
        "share_of_all_images": [round(number / IMAGES, 4) for number in (least, most)],
        "error_of_means_of_1300_against_all_of_them": expected_error(min(per_class, LARGEST), LARGEST),
    }


def expected_error(used: int, available: int) -> float:
    """Return by how much the mean of some images, chosen at random, is off that of all, in spreads."""
    return round(math.sqrt(1 / used - 1 / available), 5)


def errors_of_means(found: Artifact, full: Artifact) -> dict[str, float]:
    """Return root mean square errors of means against the full build's, in units of the spread of a class.

    Those of modes are weighted by the images of each in the full build. All are the worst over timesteps.
    """
    errors: dict[str, list[float]] = {"classes": [], "modes": []}
    here, there = found.sums(), full.sums()
    for time, expected in there.gaussians().items():
        spread = expected.variance.flatten(1).mean(dim=1)
        off = (here.gaussians()[time].mean - expected.mean).square().flatten(1).mean(dim=1)
        errors["classes"].append(float((off / spread).mean().sqrt()))
        if there.num_modes > 1:
            modes = there.modes()[time]
            off = (here.modes()[time].mean - modes.mean).square().flatten(2).mean(dim=2)
            share = modes.count / modes.count.sum(dim=1, keepdim=True)
            errors["modes"].append(float(((share * off).sum(dim=1) / spread).mean().sqrt()))
    return {name: max(values) for name, values in errors.items() if values}


def build(arguments: argparse.Namespace, tolerance: float | None) -> Artifact:
    """Build with a tolerance, or of all images."""
    source = fashion_mnist(train=True, download=False) if arguments.source is None else arguments.source
    settings = BuildSettings(
        timesteps=tuple(arguments.timesteps),
        num_inference_steps=arguments.steps,
        num_modes=arguments.modes,
        seed=arguments.seed,
        image_size=arguments.image_size,
        moments=True,  # means without the rounding of what is stored
        tolerance=tolerance,
    )
    name = "all" if tolerance is None else f"tolerance-{tolerance:g}"
    plan = plan_build(
        source,
        arguments.model,
        arguments.work / name,
        settings,
        class_options=ClassOptions(class_list=arguments.class_list, same_order=arguments.source is None),
    )
    return plan.run()


def built_costs(artifact: Artifact, full: Artifact) -> dict[str, Any]:
    """Return what an artifact took, and by how much it is off the full one."""
    used, available = artifact.info.counts, full.info.counts
    expected = [expected_error(*pair) ** 2 for pair in zip(used, available, strict=True)]
    stated = artifact.info.tolerance
    return {
        "images": sum(used),
        "images_per_class": [min(used), max(used)],
        "share_of_all_images": round(sum(used) / sum(available), 4),
        "classes_that_fell_short": 0 if stated is None else len(stated.not_reached),
        "error_of_means": errors_of_means(artifact, full),
        "expected_error_of_class_means": round(math.sqrt(sum(expected) / len(expected)), 5),
        "folder": artifact.folder.name,
    }


@program
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tolerances", type=float, nargs="+", default=[0.03, 0.02, 0.01])
    parser.add_argument("--work", type=Path, help="folder of the builds; without it, none is made")
    parser.add_argument("--source", help="as `d3hr build` takes it; Fashion-MNIST by default")
    parser.add_argument("--model", default="hub/d3hr-fashion-mnist/model")
    parser.add_argument("--class-list", default="fashion-mnist")
    parser.add_argument("--timesteps", type=int, nargs="+", default=[400])
    parser.add_argument("--steps", type=int, help="of a DDIM grid; by default as `d3hr build` inverts")
    parser.add_argument("--modes", type=int, default=1, help="modes per class; 1 stores none")
    parser.add_argument("--image-size", type=int, default=28)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", default="hub/results/tolerance.json")
    arguments = parser.parse_args()
    results: dict[str, Any] = {
        "ImageNet-1K": {
            f"{100 * tolerance:g} %, {modes} mode{'' if modes == 1 else 's'} per class": imagenet_costs(
                tolerance, modes
            )
            for tolerance in arguments.tolerances
            for modes in (1, 10, 50)
        }
    }
    if arguments.work is not None:
        need_artifact(arguments.model)
        full = build(arguments, None)
        results["builds"] = {"all images": {"images": sum(full.info.counts)}} | {
            f"{100 * tolerance:g} %": built_costs(build(arguments, tolerance), full)
            for tolerance in arguments.tolerances
        }
    settings = {
        name: str(value) if isinstance(value, Path) else value for name, value in vars(arguments).items()
    }
    write_results(arguments.output, settings, results)
    print(results)


if __name__ == "__main__":
    main()
