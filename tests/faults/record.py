"""Counts of campaigns -> a results file, one entry for each campaign.

The file holds what the last run of each campaign has counted, with its settings, the machine and the date.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from d3hr_datasets.io.atomic import replace_text
from recipes.common.results import results_document


def record(
    path: Path | None, campaign: str, settings: dict[str, Any], counts: Counter[str], seconds: float
) -> None:
    """Put what a campaign counted into a file, beside what others did; into none where `path` is None."""
    if path is None:
        return
    document = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    results = {"counts": dict(sorted(counts.items())), "seconds": round(seconds)}
    document[campaign] = results_document(settings, results)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(dict(sorted(document.items())), indent=2) + "\n"
    replace_text(path, text)
