"""Do architectures keep their order on a distilled set? Neural architecture search on few images.

    python -m recipes.tables.students recipes/configs/tables/architectures.yaml
    python -m recipes.tables.rank_architectures hub/results/tables/architectures.json

Reads a table with the same students for several sources and prints, for each source, the rank correlation
(Spearman's and Kendall's) of accuracies with those after training on the whole real set. Writes them beside
the table.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from scipy.stats import kendalltau, spearmanr

from d3hr_datasets.io.atomic import replace_text
from recipes.common.errors import RecipeError
from recipes.common.prerequisites import need
from recipes.common.program import program
from recipes.common.results import read_results


def correlations(rows: list[dict[str, Any]], reference: str = "whole") -> dict[str, dict[str, float]]:
    """Return "spearman", "kendall" and the number of "architectures" of every source but `reference`.

    Raises:
        RecipeError: A source lacks an architecture, or there are fewer than three.
    """
    by_source: dict[str, dict[str, float]] = {}
    for row in rows:
        settings = row["settings"]
        architecture = json.dumps([settings["student"], settings["student_args"]], sort_keys=True)
        by_source.setdefault(settings["source"], {})[architecture] = row["top1"]["mean"]
    real = by_source.pop(reference, {})
    if len(real) < 3 or any(set(accuracies) != set(real) for accuracies in by_source.values()):
        counts = {source: len(accuracies) for source, accuracies in by_source.items()}
        raise RecipeError(
            f"every source needs the same architectures, at least three, and {reference!r} is one of the "
            f"sources; it has {len(real)}, the others {counts}"
        )
    found = {}
    for source, accuracies in by_source.items():
        pairs = [(accuracies[name], real[name]) for name in real]
        first, second = zip(*pairs, strict=True)
        found[source] = {
            "spearman": float(spearmanr(first, second).statistic),
            "kendall": float(kendalltau(first, second).statistic),
            "architectures": len(pairs),
        }
    return found


@program
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", type=Path)
    arguments = parser.parse_args()
    table = f"recipes/configs/tables/{arguments.table.stem}.yaml"
    need(arguments.table, f"python -m recipes.tables.students {table}")
    found = correlations(read_results(arguments.table)["rows"])
    text = json.dumps(found, indent=2)
    output = arguments.table.with_name(f"{arguments.table.stem}-ranks.json")
    replace_text(output, text + "\n")
    print(text)


if __name__ == "__main__":
    main()
