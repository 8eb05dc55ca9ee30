"""Merge what ten parties with skewed classes have built, and compare it with a build of all images at once.

    python -m recipes.evaluate.federated

Images of Fashion-MNIST are dealt out so that each party has much of few classes. Each builds an artifact with
its moments; the artifacts are merged, without an image and without a model. Students are trained on images of
the merged artifact, of one of all images, and of the parties' own ones. Writes
`hub/results/federated.json`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch

from d3hr_datasets import Artifact
from d3hr_datasets.artifact.d3hr_json import METADATA
from d3hr_datasets.combine import merge_artifacts
from d3hr_datasets.combine.agreement import fingerprints
from d3hr_datasets.experiments.table_rows import Row
from d3hr_datasets.experiments.train_table import students_at_a_time, summarize, train_all
from d3hr_datasets.image_sets.real_images import HELD_OUT, fashion_mnist, split_indices
from recipes.common.errors import RecipeError
from recipes.common.prerequisites import need_artifact
from recipes.common.program import program
from recipes.common.results import write_results
from recipes.common.small_artifacts import TIMESTEP, build_of

MODEL = Path("hub/d3hr-fashion-mnist")
PROTOCOL = "dc/fashion-mnist-ipc10.yaml"
WIDTH = 32
LEAST = 2  # images of a class that each party has: fewer have no variance


def deal(labels: torch.Tensor, parties: int, concentration: float) -> list[list[int]]:
    """Deal images out, the shares of each class drawn from a Dirichlet distribution.

    Args:
        labels: (N,) int64, at least `LEAST` x `parties` of each.
        parties: Among how many.
        concentration: Of the distribution; the lower, the more a class is with one party.

    Returns:
        Numbers of images by party, ascending; each image is in one, and each party has `LEAST` of each class.
    """
    generator = np.random.default_rng(0)
    dealt: list[list[int]] = [[] for _ in range(parties)]
    for label in labels.unique().tolist():
        members = generator.permutation((labels == label).nonzero().flatten().numpy())
        shares = generator.dirichlet([concentration] * parties)
        spare = len(members) - LEAST * parties
        ends = np.floor(np.cumsum(shares) * spare).astype(int) + LEAST * np.arange(1, parties + 1)
        ends[-1] = len(members)
        for party, part in enumerate(np.split(members, ends[:-1])):
            dealt[party] += part.tolist()
    return [sorted(numbers) for numbers in dealt]


def difference(one: Path, other: Path) -> dict[str, float]:
    """Return how far the sums of two artifacts differ, of the classes' standard deviations.

    Statistics are stored in half precision, which would hide how exact merging is.
    """
    first, second = (Artifact.load(path).sums().gaussians()[TIMESTEP] for path in (one, other))
    spread = second.variance.sqrt()
    return {
        "means, of the spread": ((first.mean - second.mean).abs() / spread).max().item(),
        "spreads, relative": ((first.variance.sqrt() - spread).abs() / spread).max().item(),
    }


def check_merged(merged: Path, parts: list[Path]) -> None:
    """Check that a merged artifact of an earlier run is of these parts.

    Raises:
        RecipeError: It is of others.
    """
    if set().union(*(fingerprints(Artifact.load(part)) for part in parts)) - fingerprints(
        Artifact.load(merged)
    ):
        raise RecipeError(f"{merged} is merged of other parts; give another --work, or move it away")


@program
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=5000, help="in all")
    parser.add_argument("--parties", type=int, default=10)
    parser.add_argument("--concentration", type=float, default=0.1, help="of classes among parties")
    parser.add_argument("--ipc", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--jobs", type=int, help="students at a time; all cores, on a GPU 1")
    parser.add_argument("--work", type=Path, default=Path("runs/federated"), help="artifacts and students")
    parser.add_argument("--output", type=Path, default=Path("hub/results/federated.json"))
    arguments = parser.parse_args()
    need_artifact(MODEL)
    images = fashion_mnist(train=True)
    dealing = (arguments.images, arguments.parties, arguments.concentration)
    work = arguments.work / "-".join(f"{value:g}" for value in dealing)
    chosen = split_indices(len(images), HELD_OUT, "train")[: arguments.images]
    dealt = deal(images.targets[chosen], arguments.parties, arguments.concentration)
    numbers = [chosen[part].tolist() for part in dealt]
    kept: dict[str, Any] = {"num_modes": 1, "moments": True}
    model = MODEL / "model"
    parts = [
        build_of(images, part, model, work / f"party-{party}", **kept) for party, part in enumerate(numbers)
    ]
    pooled = build_of(images, chosen.tolist(), model, work / "pooled", **kept)
    merged = work / "merged"
    if (merged / METADATA).exists():
        check_merged(merged, parts)
    else:
        merge_artifacts(parts, merged, name="fashion-mnist")
    results: dict[str, Any] = {"merged and pooled": difference(merged, pooled)}
    artifacts = {"pooled": pooled, "merged": merged}
    artifacts |= {f"party {party}": part for party, part in enumerate(parts)}
    students = {"width": WIDTH, "first_padding": 3}
    shared = {"output": str(work / "students"), "ipc": arguments.ipc, "epochs": arguments.epochs}
    shared |= {"student_args": students}
    rows = [Row(name, {**shared, "artifact": str(path)}, PROTOCOL) for name, path in artifacts.items()]
    trained = train_all(rows, arguments.seeds, arguments.jobs or students_at_a_time())
    tops = {row.name: summarize(row, arguments.seeds, trained)["top1"] for row in rows}
    alone = [top["mean"] for name, top in tops.items() if name.startswith("party")]
    results |= {"pooled": tops["pooled"], "merged": tops["merged"]}
    results["parties alone"] = {"worst": min(alone), "mean": sum(alone) / len(alone), "best": max(alone)}
    print(results)
    names = ("images", "parties", "concentration", "ipc", "seeds", "epochs")
    settings = {key: getattr(arguments, key) for key in names}
    write_results(arguments.output, {**settings, "protocol": PROTOCOL, "width": WIDTH}, results)


if __name__ == "__main__":
    main()
