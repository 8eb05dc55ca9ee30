"""The cases of places that are none, wherever one may be given, for the campaign `hostile`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from d3hr_datasets import Artifact, D3HRDataset
from d3hr_datasets.build.model_facts import model_reference
from d3hr_datasets.classes.matching import read_class_list, read_class_map
from d3hr_datasets.sources.opening import SourceOptions, open_source
from tests.faults.hostile import Case
from tests.support.tiny import tiny_info

PLACES = (
    "a" * 300,
    "a" * 5000,
    "org/" + "a" * 5000,
    "a\0b",
    "\ud800",
    "../" * 2000 + "x",
    "/dev/zero",
    "/dev/null/x",
    "others/id_rsa",
    "",
    ".",
    "fifo",
    "\x1b[31m",
    "file:///etc/passwd",
    "https://example.org/x",
)


def places() -> dict[str, Case]:
    """Give places that are none wherever one may be given."""

    def streamed(text: str) -> object:
        return open_source(f"datasets:{text}", SourceOptions(streaming=True))

    uses: dict[str, Callable[[str], object]] = {
        "artifact": lambda text: Artifact.from_pretrained(text, local_files_only=True),
        "data set": lambda text: D3HRDataset(text or "nowhere", "cache", 1),
        "images": open_source,
        "class list": lambda text: read_class_list(f"{text}.json"),
        "class map": read_class_map,
        "model": lambda text: model_reference(f"{text}x"),
        "torchvision": lambda text: open_source(f"torchvision:{text or 'x'}:{text}"),
        "name": lambda text: tiny_info(name=f"{text}/"),
    }

    def case_of(use: Callable[[str], object], text: str) -> Case:
        def case(folder: Path) -> Callable[[], object]:
            return lambda: use(text)

        return case

    return {
        f"{what}: {text[:20]!a}": case_of(use, text)
        for what, use in uses.items()
        for text in PLACES
        if what != "images" or text not in {"", "."}
    }
