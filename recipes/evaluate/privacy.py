"""Measure what privacy costs, and what an attack finds out with it and without it.

    python -m recipes.evaluate.privacy --do images
    python -m recipes.train.vae recipes/configs/vae_fashion_mnist.yaml PUBLIC --set output=runs/privacy-vae
    python -m recipes.train.diffusion recipes/configs/dit_fashion_mnist.yaml PUBLIC VAE
        --set output=runs/privacy-dit
    python -m recipes.evaluate.privacy

PUBLIC is `--set source=runs/privacy/public`, and VAE is `--set vae=runs/privacy-vae/vae`.

Fashion-MNIST is cut in two: 3,000 images of each class are public, and the model must be trained on them
alone; the others are private. Artifacts are built of 300 and of 3,000 private images of each class, for
several budgets and for none, and train students by DC's recipe. The attack, `membership_advantage`, is
on inverted latents of the same images, which are made once; each of its builds has a random half of them. So
it is of half as many images as the artifact, by the noise of the same mechanism. Without noise, an attacker
who knows all other images has the last one by subtraction: 1 by construction, and marked so.

Network, timestep, steps and guidance were chosen on all images of Fashion-MNIST, the private ones among them.
No budget covers such a choice, so the accuracies may be better than with settings chosen on others.

Smaller: `--numbers 30 --ipc 10 --seeds 1 --epochs 10 --attacked 1`. Writes `hub/results/privacy.json`.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from d3hr_datasets import Artifact
from d3hr_datasets.artifact.d3hr_json import METADATA
from d3hr_datasets.artifact.model import load_model
from d3hr_datasets.artifact.privacy import Privacy
from d3hr_datasets.build import BuildPlan, BuildSettings, ClassOptions, plan_build
from d3hr_datasets.build.private_build import with_privacy
from d3hr_datasets.build.reading_ahead import read_record
from d3hr_datasets.classes.folders import class_folders
from d3hr_datasets.experiments.table_rows import Row
from d3hr_datasets.experiments.train_table import students_at_a_time, summarize, train_all
from d3hr_datasets.image_sets.real_images import fashion_mnist
from d3hr_datasets.io.markdown import format_score
from d3hr_datasets.privacy import PrivacySettings, membership_advantage
from d3hr_datasets.privacy.attack import Others
from recipes.common.errors import RecipeError
from recipes.common.prerequisites import need
from recipes.common.program import program
from recipes.common.results import write_results
from recipes.common.tensor_cache import cached_tensors

PUBLIC = 3000  # images of each class; the others are private
PROTOCOL = "dc/fashion-mnist-ipc{ipc}.yaml"
BATCH = 100
CHOSEN_ON_ALL = ["network", "timestep", "num_inference_steps", "decode_guidance_scale"]
OTHERS: tuple[Others, ...] = ("unknown", "known")
COMMAND = "python -m recipes.evaluate.privacy"
STEPS = ("images", "attack", "students")


def save_images(work: Path, numbers: list[int]) -> None:
    """Write the public images, and so many private ones of each class: fewer are the first of more."""
    images = fashion_mnist(train=True)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    labels = images.targets[order]
    for label, name in enumerate(class_folders(images.classes)):
        found = order[labels == label].tolist()
        parts = {"public": found[:PUBLIC]}
        parts |= {f"private-{number}": found[PUBLIC : PUBLIC + number] for number in numbers}
        for part, chosen in parts.items():
            place = work / part / name
            place.mkdir(parents=True, exist_ok=True)
            for index in chosen:
                if not (place / f"{index:05d}.png").exists():
                    images[index][0].save(place / f"{index:05d}.png")


def plan(images: Path, model: Path, output: Path, privacy: PrivacySettings | None) -> BuildPlan:
    """Plan an artifact without modes; with privacy or without, all else is the same."""
    settings = BuildSettings(
        timesteps=(400,),
        num_inference_steps=25,
        num_modes=1,
        decode_guidance_scale=3.0,
        image_size=28,
        name="fashion-mnist",
    )
    options = ClassOptions(class_list="fashion-mnist")
    return plan_build(images, model, output, settings, class_options=options, privacy=privacy)


def inverted(planned: BuildPlan, path: Path) -> dict[str, torch.Tensor]:
    """Return the inverted latents of each class by its label, made once for a model."""

    def make() -> dict[str, torch.Tensor]:
        records = planned.images.records(0, 0)
        items = [read_record(record, planned.info) for record in tqdm(records, "reading images")]
        labels = torch.tensor([label for _, label in items])
        found = []
        for first in tqdm(range(0, len(items), BATCH), "inverting images"):
            batch = torch.stack([image for image, _ in items[first : first + BATCH]])
            clean = planned.diffusion.encode(batch)
            times = planned.diffusion.invert(clean, labels[first : first + BATCH], planned.info.inversion)
            found += [*times.values()]
        latents = torch.cat(found).cpu()
        return {str(label): latents[labels == label] for label in labels.unique().tolist()}

    name = f"{path.name}-{planned.diffusion.inversion_fingerprint[:16]}.safetensors"
    return cached_tensors(path.with_name(name), make)


def attack(latents: dict[str, torch.Tensor], privacy: Privacy | None, builds: int, attacked: int) -> Any:
    """Return by what the attacker knows the advantage of each class, and the bound."""
    found: dict[str, Any] = {}
    for others in OTHERS:
        results = [
            membership_advantage(
                latents[str(label)], privacy, others=others, num_shadows=builds, num_tests=builds
            )
            for label in range(attacked)
        ]
        found[others] = {
            "by_construction": privacy is None and others == "known",
            "advantage": [result.advantage for result in results],
            "error": results[0].error,
            "bound": results[0].bound,
        }
    return found


def students(artifact: Path, name: str, arguments: argparse.Namespace) -> list[Row]:
    """Return the rows of an artifact's students."""
    settings: dict[str, Any] = {"output": str(arguments.work / "students"), "artifact": str(artifact)}
    if arguments.epochs is not None:
        settings["epochs"] = arguments.epochs
    return [
        Row(f"{name}, ipc {ipc}", {**settings, "ipc": ipc}, PROTOCOL.format(ipc=ipc)) for ipc in arguments.ipc
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--do", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument(
        "--model", type=Path, default=Path("runs/privacy-dit/model"), help="trained on public images"
    )
    parser.add_argument("--epsilons", type=float, nargs="+", default=[1.0, 3.0, 10.0], help="none is added")
    parser.add_argument("--delta", type=float, default=1e-6)
    parser.add_argument("--numbers", type=int, nargs="+", default=[300, PUBLIC], help="private, per class")
    parser.add_argument("--ipc", type=int, nargs="+", default=[10, 50])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, help="of students; by default those of the protocol")
    parser.add_argument("--builds", type=int, default=64, help="of the attack: to fit, and as many to try")
    parser.add_argument("--attacked", type=int, default=3, help="classes")
    parser.add_argument("--jobs", type=int, help="students at a time; all cores, on a GPU 1")
    parser.add_argument("--work", type=Path, default=Path("runs/privacy"))
    parser.add_argument("--output", default="hub/results/privacy.json")
    return parser


def check_made(folder: Path, plain: BuildPlan, privacy: Privacy | None) -> None:
    """Check that an artifact of an earlier run is the one that this run would build.

    Args:
        folder: The artifact.
        plain: The plan of the same images without privacy.
        privacy: What is to be promised.

    Raises:
        RecipeError: It is of another promise, model or inversion.
    """
    made = Artifact.load(folder)
    noted, others = made.info.privacy, []
    if noted is not None and privacy is not None:
        noted = dataclasses.replace(noted, batch_size=None, accountant=privacy.accountant)
    if noted != privacy:
        others.append("privacy")
    if made.info.inversion != plain.info.inversion:
        others.append("inversion")
    if load_model(made, device="cpu").inversion_fingerprint != plain.diffusion.inversion_fingerprint:
        others.append("model")
    if others:
        raise RecipeError(
            f"{folder} is an artifact of another {' and '.join(others)}; give another --work, or move it away"
        )


def measure(number: int, arguments: argparse.Namespace) -> tuple[dict[str, Any], list[Row]]:
    """Return what the attack finds out of so many images of each class, by budget, and rows of students."""
    images = need(arguments.work / f"private-{number}", f"{COMMAND} --do images")
    name_of = {None: f"{number} images, epsilon none"}
    name_of |= {epsilon: f"{number} images, epsilon {epsilon:g}" for epsilon in arguments.epsilons}
    place = {epsilon: arguments.work / f"artifact-{number}-{epsilon}" for epsilon in name_of}
    plain = plan(images, arguments.model, place[None], None)
    latents = inverted(plain, arguments.work / f"latents-{number}") if "attack" in arguments.do else {}
    found: dict[str, Any] = {}
    rows: list[Row] = []
    for epsilon, name in name_of.items():
        settings = None if epsilon is None else PrivacySettings(epsilon, arguments.delta)
        privacy = with_privacy(plain.info, settings, None, plain.diffusion.schedule).privacy
        found[name] = {"privacy": None if privacy is None else privacy.to_dict()}
        if latents:
            found[name]["attack"] = attack(latents, privacy, arguments.builds, arguments.attacked)
        if "students" in arguments.do:
            if (place[epsilon] / METADATA).exists():  # once: another build would spend the budget again
                check_made(place[epsilon], plain, privacy)
            else:
                plan(images, arguments.model, place[epsilon], settings).run()
            written = Artifact.load(place[epsilon]).info.privacy
            found[name]["privacy"] = None if written is None else written.to_dict()
            rows += students(place[epsilon], name, arguments)
    return found, rows


@program
def main() -> None:
    arguments = _parser().parse_args()
    if arguments.do != ["images"]:
        need(arguments.model, f"{COMMAND} --do images`, then the trainings of `{COMMAND} --help")
    if "images" in arguments.do:
        save_images(arguments.work, arguments.numbers)
    if arguments.do == ["images"]:
        return
    results: dict[str, Any] = {}
    rows: list[Row] = []
    for number in arguments.numbers:
        found, more = measure(number, arguments)
        results |= found
        rows += more
    trained = train_all(rows, arguments.seeds, arguments.jobs or students_at_a_time()) if rows else {}
    for row in rows:
        name, _, ipc = row.name.rpartition(", ")
        results[name].setdefault("students", {})[ipc] = summarize(row, arguments.seeds, trained)
    keys = ("delta", "numbers", "ipc", "seeds", "epochs", "builds", "attacked")
    settings = {key: getattr(arguments, key) for key in keys}
    write_results(arguments.output, settings | {"chosen_on_all_images": CHOSEN_ON_ALL}, results)
    for name, found in results.items():
        said = [f"{ipc}: {format_score(one['top1'])}" for ipc, one in found.get("students", {}).items()]
        for others, one in found.get("attack", {}).items():
            mean = sum(one["advantage"]) / len(one["advantage"])
            known = ", by construction" if one["by_construction"] else ""
            said.append(f"others {others}: advantage {mean:.3f}{known}, bound {one['bound']:.3f}")
        print(f"{name}: {'; '.join(said)}")


if __name__ == "__main__":
    main()
