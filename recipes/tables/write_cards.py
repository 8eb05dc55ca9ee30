"""Put the measured figures into the README, the cards and docs/: `hub/results/*.json` -> Markdown.

    python -m recipes.tables.write_cards

Writes what stands between `<!-- NAME -->` and `<!-- end of NAME -->` in each of these files (see `BLOCKS`),
the upper part of the artifact's card, `hub/results/SYSTEMS.md`, the tables of students beside their JSON, and
the checksums of the artifact anew, since its cards are part of it. The tests say which file differs.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

from d3hr_datasets import Artifact
from d3hr_datasets.artifact.facts import CARD
from d3hr_datasets.dataset.card_head import ImageFiles
from d3hr_datasets.io.atomic import replace_text, replaced_folder
from d3hr_datasets.publish.card import PREVIEW, card_text
from d3hr_datasets.publish.earlier_card import NOTES
from d3hr_datasets.publish.measured import accuracy_section
from recipes.common.errors import RecipeError
from recipes.common.prerequisites import need_artifact
from recipes.common.program import program
from recipes.tables import findings, model_tables, result_tables

ARTIFACT = Path("hub/d3hr-fashion-mnist")
MODEL_CARD = ARTIFACT / "model" / CARD
README = Path("README.md")
DOCS = Path("docs")
BLOCKS: dict[str, Callable[[], str]] = {
    "figures": result_tables.figures,
    "tables": result_tables.students_tables,
    "training": result_tables.training_table,
    "vae": result_tables.vae_table,
    "precision": result_tables.precision_table,
    "storage": result_tables.storage_table,
    "diffusion": result_tables.diffusion_table,
    "inversion": result_tables.inversion_tables,
    "inversion methods": result_tables.inversion_methods_table,
    "solvers": result_tables.solvers_tables,
    "use": result_tables.dataset_table,
    "hard labels": result_tables.hard_labels_table,
    "results": findings.headline,
    "comparisons": findings.comparisons,
    "ranks": findings.ranks,
    "round trips": findings.inversion_methods,
    "copies": findings.copies,
    "configurations": model_tables.configurations,
    "inversion steps": model_tables.inversion_steps,
    "training speed": model_tables.training_speed,
    "adaption": model_tables.adaption,
    "few images": model_tables.few_images,
    "bytes": partial(result_tables.join, model_tables.accuracy_by_bytes),
    "continual": partial(result_tables.join, model_tables.continual),
    "privacy": partial(result_tables.join, model_tables.privacy),
    "federated": partial(result_tables.join, model_tables.federated),
    "scale plans": partial(result_tables.join, model_tables.scale_plans),
    "scale efficiency": partial(result_tables.join, model_tables.scale_efficiency),
}
BLOCK = re.compile(r"<!-- (?!end of )([a-z ]+) -->\n.*?<!-- end of \1 -->", re.DOTALL)
MARK = re.compile(r"<!-- (?:end of )?([a-z ]+) -->")
SYSTEMS = """# Speed, memory, faults, foreign images

Written by `python -m recipes.tables.write_cards` from the JSON files beside it, which hold settings,
machine and date. Two CPU cores, which other machines share: rates of the same thing differ by a third from
run to run. Each ratio is that to the way whose ratio is 1, in the same run. `matmul` is the rate at which
this CPU multiplies large matrices, in images of as many operations: no way of generating can be faster.
Where a file has `environment`, the machine was idle and glibc was told to keep freed memory; the others were
measured before that. "many steps" are the 22 passes of the first artifact. Rows of inverted images are of
that artifact: 11 evaluations on a grid of 25 steps; today they are 7.
"""


def filled(text: str, where: str | Path) -> str:
    """Return a text with all its blocks written anew, their links made to lead from `where`.

    Raises:
        RecipeError: A block has no end, or a name that is not known.
    """
    names = [found[1] for found in BLOCK.finditer(text)]
    unknown = sorted(set(names) - set(BLOCKS))
    if unknown:
        raise RecipeError(f"{where} has blocks {unknown}; known: {sorted(BLOCKS)}")
    marks = MARK.findall(BLOCK.sub("", text))
    if marks:
        raise RecipeError(f"{where} has the mark {marks[0]!r} without its other half")
    above = "../" * len(Path(where).parent.parts)

    def written(found: re.Match[str]) -> str:
        block = BLOCKS[found[1]]().replace("](hub/", f"]({above}hub/")
        return f"<!-- {found[1]} -->\n\n{block}\n\n<!-- end of {found[1]} -->"

    return BLOCK.sub(written, text)


def artifact_card() -> str:
    """Return the card of the embedded artifact: what `d3hr card` writes, and the notes that are there."""
    accuracies = accuracy_section(result_tables.RESULTS / "tables" / "hard-labels.json")
    text = card_text(Artifact.load(ARTIFACT), None, ImageFiles.of([ARTIFACT / PREVIEW]), accuracies)
    _, found, notes = (ARTIFACT / CARD).read_text(encoding="utf-8").partition(f"{NOTES}\n")
    if not found:
        raise RecipeError(f"{ARTIFACT / CARD} has no line {NOTES!r}")
    return f"{text}\n{NOTES}\n{filled(notes, ARTIFACT / CARD)}"


def documents() -> dict[Path, str]:
    """Return every file with figures in it, as it should be."""
    tables = result_tables.RESULTS / "tables"
    return {
        **{
            path: filled(path.read_text(encoding="utf-8"), path)
            for path in (README, MODEL_CARD, *sorted(DOCS.glob("**/*.md")))
        },
        ARTIFACT / CARD: artifact_card(),
        result_tables.RESULTS / "SYSTEMS.md": f"{SYSTEMS}\n{result_tables.systems()}\n",
        **{tables / f"{name}.md": text for name, text in result_tables.table_texts().items()},
    }


@program
def main() -> None:
    need_artifact(ARTIFACT)
    artifact = Artifact.load(ARTIFACT)
    for name in artifact.sha256:
        if not name.endswith(".md"):
            artifact.check(name)  # only cards may have changed
    changed = {  # what is missing stops this before anything is written
        path: text for path, text in documents().items() if path.read_text(encoding="utf-8") != text
    }
    with replaced_folder(ARTIFACT) as folder:
        for path, text in changed.items():
            is_card = path.is_relative_to(ARTIFACT)
            replace_text(folder / path.relative_to(ARTIFACT) if is_card else path, text)
            print(path)
        Artifact(folder, artifact.info, {}).write_metadata()


if __name__ == "__main__":
    main()
