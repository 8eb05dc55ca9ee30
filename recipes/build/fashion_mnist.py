"""Build the embedded default: all 60,000 training images + the trained model -> `hub/d3hr-fashion-mnist`.

    python -m recipes.build.fashion_mnist

Goes on from finished chunks in `runs/build-fashion-mnist` when it was interrupted.
"""

from __future__ import annotations

import argparse
import dataclasses
import shutil
from pathlib import Path
from typing import get_args

from torch.utils.data import Subset

from d3hr_datasets import Artifact, __version__
from d3hr_datasets.build import BuildPlan, BuildSettings, ClassOptions, ModelOptions, plan_build
from d3hr_datasets.config.decode_steps import Spacing
from d3hr_datasets.config.settings import InversionMethod
from d3hr_datasets.diffusion.layout import INDEX, PARTS
from d3hr_datasets.image_sets.real_images import HELD_OUT, fashion_mnist, split_indices
from d3hr_datasets.io.atomic import replace_file, replaced_folder
from d3hr_datasets.sources.user_datasets import TorchvisionLike
from recipes.common.prerequisites import need, training_of
from recipes.common.program import program

# One image would be the mean of its class, which is unlike any image. At guidance 7 the nearest of many draws
# trains better students; chosen in recipes/configs/tables/selection-one-image.yaml.
BUDGETS = ({"max_ipc": 1, "sampling": {"method": "search", "num_candidates": 2000}},)


def put_model(source: Path, target: Path) -> None:
    """Replace the parts of a model; its card stays."""
    for part in PARTS:
        shutil.rmtree(target / part, ignore_errors=True)
        if (source / part).is_dir():
            shutil.copytree(source / part, target / part)
    replace_file(target / INDEX, lambda path: shutil.copyfile(source / INDEX, path))


@program
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=Path("runs/dit-fashion-mnist-longer/model"))
    parser.add_argument("--output", type=Path, default=Path("hub/d3hr-fashion-mnist"))
    parser.add_argument("--work", type=Path, default=Path("runs/build-fashion-mnist"))
    parser.add_argument("--timesteps", type=int, nargs="+", default=[200, 400])
    parser.add_argument("--steps", type=int, help="of a uniform grid, instead of --num-steps of inversion")
    parser.add_argument("--num-steps", type=int, help="of inversion; 6 by default")
    parser.add_argument("--spacing", choices=get_args(Spacing), help="of --num-steps; cubic by default")
    parser.add_argument("--method", choices=get_args(InversionMethod), default="fixed_point")
    parser.add_argument(
        "--evaluations-per-step", type=int, default=1, help="more than 1 for fixed_point only"
    )
    parser.add_argument("--decode-num-steps", type=int, default=4, help="of DPM-Solver++, quadratic in time")
    parser.add_argument("--timestep", type=int, default=400, help="default timestep to decode from")
    parser.add_argument("--modes", type=int, default=50, help="modes per class; 1 stores none")
    parser.add_argument("--guidance-scale", type=float, default=7.0, help="default guidance to decode with")
    parser.add_argument(
        "--select",
        type=int,
        metavar="N",
        help="use N training images outside the held-out part, to choose settings",
    )
    parser.add_argument(
        "--compile", action="store_true", help="use torch.compile, which needs a C++ compiler"
    )
    parser.add_argument("--download", action="store_true", help="let torchvision download Fashion-MNIST")
    arguments = parser.parse_args()
    for part in ("transformer", "vae", "scheduler", "model_index.json"):
        need(arguments.model / part, training_of(arguments.model.parent, "train.diffusion"))
    plan = plan_images(arguments)
    # A build puts its own model and nothing else into a folder; here the card and the pictures stay.
    with replaced_folder(arguments.output) as folder:
        if arguments.model.resolve() != (arguments.output / "model").resolve():
            put_model(arguments.model, folder / "model")
        dataclasses.replace(plan, model=str(folder / "model"), output=folder).run()
    print(Artifact.load(arguments.output))


def plan_images(arguments: argparse.Namespace) -> BuildPlan:
    """Return the build of the training images, or of some of them."""
    images = fashion_mnist(train=True, download=arguments.download)
    source: TorchvisionLike = images
    if arguments.select:
        indices = split_indices(len(images), HELD_OUT, "train")[: arguments.select]
        source = Subset(images, indices.tolist())
    settings = BuildSettings(
        timesteps=tuple(arguments.timesteps),
        num_inference_steps=arguments.steps,
        num_steps=arguments.num_steps,
        spacing=arguments.spacing,
        method=arguments.method,
        evaluations_per_step=arguments.evaluations_per_step,
        num_modes=arguments.modes,
        decode_timestep=arguments.timestep,
        decode_guidance_scale=arguments.guidance_scale,
        decode_solver="dpm++2m",
        decode_num_steps=arguments.decode_num_steps,
        decode_spacing="quadratic",
        budgets=BUDGETS,
        image_size=28,
        name="fashion-mnist",
        producer=f"d3hr-datasets {__version__}, recipes.build.fashion_mnist",
    )
    plan = plan_build(
        source,
        arguments.model,
        arguments.work / "artifact",  # it goes where the recipe says
        settings,
        work=arguments.work,
        class_options=ClassOptions(class_list="fashion-mnist", same_order=True),
        model_options=ModelOptions(torch_compile=arguments.compile),
    )
    described = {"name": "Fashion-MNIST", "split": f"train, {len(source)} images", "license": "MIT"}
    return dataclasses.replace(plan, info=dataclasses.replace(plan.info, source=described))


if __name__ == "__main__":
    main()
