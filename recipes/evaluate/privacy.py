"""Measure what privacy costs, and what an attack finds out with it and without it.

    python -m recipes.evaluate.privacy --do images
    python -m recipes.train.vae recipes/configs/vae_fashion_mnist.yaml PUBLIC --set output=runs/privacy-vae
    python -m recipes.train.diffusion recipes/configs/dit_fashion_mnist.yaml PUBLIC VAE FAST
        --set output=runs/privacy-dit --set epochs=16
    python -m recipes.evaluate.privacy

PUBLIC is `--set source=runs/privacy/public`, and VAE is `--set vae=runs/privacy-vae/vae`. FAST is
`--set schedule=warmup_stable_decay --set decay_share=0.25 --set torch_compile=true
--set mixed_precision=bf16`, of which the last two are for processors with bf16 units.

Fashion-MNIST is cut in two: 3,000 images of each class are public, and the model must be trained on them
alone; the others are private. Timestep, guidance and the normalisation of students are chosen on public
images (`recipes.evaluate.privacy_choice`). Artifacts are built of 300 and of 3,000 private images of each
class, for several budgets and for none, and train students by DC's recipe. The attack,
`membership_advantage`, is on inverted latents of the same images, which are made once; each of its builds has
a random half of them. So it is of half as many images as the artifact, by the noise of the same mechanism.
Without noise it sees exact sums, which are more than the artifact gives away, whose statistics are rounded;
and an attacker who knows all other images has the last one by subtraction: 1 by construction, and marked so.

With `--batch-size 100` images are inverted in batches, which is several times as fast as one by one, and puts
the promise under a condition that `d3hr.json` states. The networks, and how VAE and diffusion model are
trained, were settled on all images of Fashion-MNIST, the private ones among them. No budget covers such a
choice.

Smaller: `--numbers 30 --ipc 10 --seeds 1 --epochs 10 --attacked 1`. Writes `hub/results/privacy.json`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from d3hr_datasets import Artifact
from d3hr_datasets.artifact.d3hr_json import METADATA
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
from recipes.common.made_artifacts import check_made
from recipes.common.prerequisites import need
from recipes.common.program import program
from recipes.common.results import read_results, write_results
from recipes.common.small_artifacts import FEW_STEPS
from recipes.common.tensor_cache import cached_tensors
from recipes.evaluate.privacy_choice import COMMAND, choose, public_model, student_args

PUBLIC = 3000  # images of each class; the others are private
PROTOCOL = "dc/fashion-mnist-ipc{ipc}.yaml"
BATCH = 100
CHOICE = "choice.json"
CHOSEN_ON_ALL = ["networks", "how VAE and diffusion model are trained", "steps of inversion and decoding"]
OTHERS: tuple[Others, ...] = ("unknown", "known")
STEPS = ("images", "choice", "attack", "students")
NOTED = ("delta", "epsilons", "numbers", "ipc", "seeds", "epochs", "width", "precision", "builds", "attacked")


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


def plan(
    images: Path, model: Path, output: Path, work: Path, privacy: PrivacySettings | None, choice: Any
) -> BuildPlan:
    """Plan an artifact without modes; with privacy or without, all else is the same.

    Artifacts of the same images and another noise share the chunks in `work`.
    """
    settings = BuildSettings(
        timesteps=(choice["timestep"],),
        num_modes=1,
        decode_guidance_scale=choice["guidance_scale"],
        image_size=28,
        name="fashion-mnist",
        **FEW_STEPS,
    )
    options = ClassOptions(class_list="fashion-mnist")
    return plan_build(images, model, output, settings, work=work, class_options=options, privacy=privacy)


def inverted(planned: BuildPlan, path: Path, classes: int) -> dict[str, torch.Tensor]:
    """Return the inverted latents of the first classes by their label, made once for a model."""

    def make() -> dict[str, torch.Tensor]:
        records = planned.images.records(0, 0)
        items = [read_record(record, planned.info) for record in tqdm(records, "reading images")]
        items = [item for item in items if item[1] < classes]
        labels = torch.tensor([label for _, label in items])
        found = []
        for first in tqdm(range(0, len(items), BATCH), "inverting images"):
            batch = torch.stack([image for image, _ in items[first : first + BATCH]])
            clean = planned.diffusion.encode(batch)
            times = planned.diffusion.invert(clean, labels[first : first + BATCH], planned.info.inversion)
            found += [*times.values()]
        latents = torch.cat(found).cpu()
        return {str(label): latents[labels == label] for label in labels.unique().tolist()}

    name = f"{path.name}-{classes}-classes-{planned.diffusion.inversion_fingerprint[:16]}.safetensors"
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


def students(artifact: Path, name: str, choice: Any, arguments: argparse.Namespace) -> list[Row]:
    """Return the rows of an artifact's students."""
    settings: dict[str, Any] = {"output": str(arguments.work / "students"), "artifact": str(artifact)}
    settings |= {"torch_compile": True, "mixed_precision": arguments.precision}
    settings |= {"mean": choice["mean"], "std": choice["std"], "student_args": student_args(arguments.width)}
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
    parser.add_argument("--batch-size", type=int, help="images inverted at a time; 1 by default")
    parser.add_argument("--width", type=int, default=128, help="of students, also of those of the choice")
    parser.add_argument(
        "--precision", choices=["no", "bf16", "fp16"], default="no", help="mixed, of students"
    )
    parser.add_argument("--builds", type=int, default=64, help="of the attack: to fit, and as many to try")
    parser.add_argument("--attacked", type=int, default=3, help="classes")
    parser.add_argument(
        "--choice-images",
        type=int,
        nargs=2,
        default=[1000, 500],
        metavar=("STATISTICS", "TEST"),
        help="public images of each class that choices are made with",
    )
    parser.add_argument("--choice-epochs", type=int, default=100, help="of students, for choices")
    parser.add_argument("--jobs", type=int, help="students at a time; all cores, on a GPU 1")
    parser.add_argument("--work", type=Path, default=Path("runs/privacy"))
    parser.add_argument("--output", default="hub/results/privacy.json")
    return parser


def measure(number: int, arguments: argparse.Namespace) -> tuple[dict[str, Any], list[Row]]:
    """Return what the attack finds out of so many images of each class, by budget, and rows of students."""
    images = need(arguments.work / f"private-{number}", f"{COMMAND} --do images")
    name_of = {None: f"{number} images, epsilon none"}
    name_of |= {epsilon: f"{number} images, epsilon {epsilon:g}" for epsilon in arguments.epsilons}
    place = {epsilon: arguments.work / f"artifact-{number}-{epsilon}" for epsilon in name_of}
    choice = json.loads((arguments.work / CHOICE).read_text(encoding="utf-8"))
    chunks = arguments.work / f"chunks-{number}"
    plain = plan(images, arguments.model, place[None], chunks, None, choice)
    latents = (
        inverted(plain, arguments.work / f"latents-{number}", arguments.attacked)
        if "attack" in arguments.do
        else {}
    )
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
                plan(images, arguments.model, place[epsilon], chunks, settings, choice).run(
                    arguments.batch_size
                )
            written = Artifact.load(place[epsilon]).info.privacy
            found[name]["privacy"] = None if written is None else written.to_dict()
            rows += students(place[epsilon], name, choice, arguments)
    return found, rows


def joined(path: Path, settings: dict[str, Any], results: dict[str, Any]) -> dict[str, Any]:
    """Return results with the parts of an earlier run of other steps.

    Raises:
        RecipeError: That run had other settings.
    """
    if not path.exists():
        return results
    earlier = read_results(path)
    if json.loads(json.dumps(settings)) != earlier["settings"]:
        raise RecipeError(f"{path} is of other settings; give another --output, or move it away")
    found = earlier["results"]
    return {name: {**found.get(name, {}), **parts} for name, parts in {**found, **results}.items()}


@program
def main() -> None:
    arguments = _parser().parse_args()
    if arguments.do != ["images"]:
        need(arguments.model, f"{COMMAND} --do images`, then the trainings of `{COMMAND} --help")
    if "images" in arguments.do:
        save_images(arguments.work, arguments.numbers)
    if arguments.do == ["images"]:
        return
    trained_on = public_model(arguments.model, arguments.work / "public")
    jobs = arguments.jobs or students_at_a_time()
    if "choice" in arguments.do and not (arguments.work / CHOICE).exists():
        numbers = tuple(arguments.choice_images)
        shared = {"epochs": arguments.choice_epochs, "student_args": student_args(arguments.width)}
        choose(arguments.work, arguments.model, numbers, shared, arguments.seeds, jobs)
    need(arguments.work / CHOICE, f"{COMMAND} --do choice")
    if not {"attack", "students"} & set(arguments.do):
        return
    settings = {key: getattr(arguments, key) for key in NOTED}
    settings |= {"chosen_on_all_images": CHOSEN_ON_ALL, "trained_on": trained_on}
    settings["choice"] = json.loads((arguments.work / CHOICE).read_text(encoding="utf-8"))
    joined(Path(arguments.output), settings, {})  # before anything takes time
    results: dict[str, Any] = {}
    rows: list[Row] = []
    for number in arguments.numbers:
        found, more = measure(number, arguments)
        results |= found
        rows += more
    trained = train_all(rows, arguments.seeds, jobs) if rows else {}
    for row in rows:
        name, _, ipc = row.name.rpartition(", ")
        results[name].setdefault("students", {})[ipc] = summarize(row, arguments.seeds, trained)
    results = joined(Path(arguments.output), settings, results)
    write_results(arguments.output, settings, results)
    for name, found in results.items():
        said = [f"{ipc}: {format_score(one['top1'])}" for ipc, one in found.get("students", {}).items()]
        for others, one in found.get("attack", {}).items():
            mean = sum(one["advantage"]) / len(one["advantage"])
            known = ", by construction" if one["by_construction"] else ""
            said.append(f"others {others}: advantage {mean:.3f}{known}, bound {one['bound']:.3f}")
        print(f"{name}: {'; '.join(said)}")


if __name__ == "__main__":
    main()
