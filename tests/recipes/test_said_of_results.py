"""What pages say of results in words holds in the figures that they are of."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[2] / "hub" / "results"


def _top1(table: str) -> dict[str, dict[str, float]]:
    rows = json.loads((RESULTS / "tables" / f"{table}.json").read_text(encoding="utf-8"))["rows"]
    return {row["name"]: row["top1"] for row in rows}


def _level(one: dict[str, float], other: dict[str, float]) -> bool:
    """Return whether two accuracies differ by less than both spreads together, and half a point."""
    return abs(one["mean"] - other["mean"]) < one["std"] + other["std"] + 0.5


def test_guidance_seven_does_as_well_as_any() -> None:
    found = _top1("selection-guidance")
    for start in ("epochs 200, ipc 10", "epochs 40, ipc 50", "epochs 10, ipc 200"):
        ways = {name: top for name, top in found.items() if name.startswith(start)}
        assert len(ways) >= 3
        best = max(ways.values(), key=lambda top: top["mean"])
        assert _level(best, ways[f"{start}, guidance scale 7.0"])


def test_curated_groups_are_level_with_modes_at_best() -> None:
    found = _top1("selection-curated")
    for labels, ipc in (("soft", 10), ("soft", 50), ("hard", 10)):
        prefix = f"{labels}, curated, ipc {ipc}, artifact runs/artifacts/curated-"
        ways = {name.removeprefix(prefix): top for name, top in found.items() if name.startswith(prefix)}
        modes = found[f"{labels}, modes, ipc {ipc}"]
        assert ways["random"]["mean"] < ways["herding"]["mean"] < ways["facility_location"]["mean"]
        assert all(top["mean"] < modes["mean"] or _level(top, modes) for top in ways.values())


def test_further_ways_are_not_told_from_modes() -> None:
    found = _top1("group-variants")
    for labels, ipc in (("soft", ", ipc 10"), ("soft", ", ipc 50"), ("hard", "")):
        for way in ("optimal transport to weighted modes", "repulsion within the group"):
            assert _level(found[f"{labels}, {way}{ipc}"], found[f"{labels}, modes{ipc}"])


def test_what_is_said_of_privacy() -> None:
    document: dict[str, Any] = json.loads((RESULTS / "privacy.json").read_text(encoding="utf-8"))
    results, settings = document["results"], document["settings"]
    assert (settings["epochs"], settings["precision"], settings["width"]) == (100, "no", 64)
    promises = [found["privacy"] for found in results.values() if found["privacy"] is not None]
    assert len(promises) == 6 and all(one["batch_size"] == 100 for one in promises)
    assert settings["ipc"] == [10, 50] and settings["seeds"] == 3 and settings["attacked"] == 3
    assert settings["numbers"] == [300, 3000] and settings["delta"] == 1e-6
    assert all(len(top["values"]) == 2 for top in settings["choice"]["accuracies"].values())
    trained = {name: one["epochs"] for name, one in settings["trained_on"].items()}
    assert trained == {"diffusion model": 16, "VAE": 3}  # as the recipe says
    tops = {(name, ipc): top["top1"] for name, one in results.items() for ipc, top in one["students"].items()}
    assert len(tops) == 16
    for (name, ipc), top in tops.items():  # noise costs nothing, nor do fewer images
        exact = tops[f"{name.partition(', ')[0]}, epsilon none", ipc]
        assert top["mean"] > exact["mean"] - 0.5
        assert top["mean"] > tops["3000 images, epsilon none", ipc]["mean"] - 0.5
    noisiest, exact = (tops[f"300 images, epsilon {epsilon}", "ipc 50"] for epsilon in ("1", "none"))
    assert noisiest["mean"] - exact["mean"] > noisiest["std"] + exact["std"]
    for images in (300, 3000):
        before = 0.0
        for epsilon in (1, 3, 10):
            attacks = results[f"{images} images, epsilon {epsilon}"]["attack"].values()
            found = [sum(one["advantage"]) / len(one["advantage"]) for one in attacks]
            assert all(one["bound"] > 1.9 * value for one, value in zip(attacks, found, strict=True))
            assert min(found) > before  # it grows with epsilon
            before = max(found)


def test_uniform_steps_come_nearer_under_guidance_and_quadratic_ones_without() -> None:
    results = json.loads((RESULTS / "solvers.json").read_text(encoding="utf-8"))["results"]
    off = {
        (guidance, spacing): results[guidance][f"dpm++2m, {spacing}, 4 steps"]["mean_absolute_grey_levels"]
        for guidance in ("guidance 7", "no guidance")
        for spacing in ("uniform", "quadratic")
    }
    assert off["guidance 7", "uniform"] < off["guidance 7", "quadratic"]
    assert off["no guidance", "quadratic"] < off["no guidance", "uniform"]
    guided, plain = results["guidance 7"], results["no guidance"]
    assert len(guided) > 50 and guided.keys() == plain.keys()
    for way, errors in guided.items():  # all ways are farther off under guidance
        assert errors["mean_absolute_grey_levels"] > plain[way]["mean_absolute_grey_levels"]


def test_merged_parties_are_one_build() -> None:
    document = json.loads((RESULTS / "federated.json").read_text(encoding="utf-8"))
    results, settings = document["results"], document["settings"]
    assert (settings["parties"], settings["images"]) == (10, 5000)  # about 500 of each class
    assert all(value < 1e-6 for value in results["merged and pooled"].values())


def test_what_is_said_of_replay() -> None:
    document = json.loads((RESULTS / "continual.json").read_text(encoding="utf-8"))
    results: dict[str, Any] = document["results"]
    assert document["settings"]["images"] == 300  # of each class
    for ahead, behind in (
        ("one Gaussian", "images of as many bytes as one Gaussian"),
        ("images of as many bytes as modes", "10 modes"),
    ):
        first, second = results[ahead], results[behind]
        for what, sign in (("last", 1), ("average", 1), ("forgetting", -1)):
            gap = sign * (first[what]["mean"] - second[what]["mean"])
            assert gap > first[what]["std"] + second[what]["std"]


def test_only_what_is_not_there_is_said_not_to_be_measured_yet() -> None:
    page = (RESULTS.parents[1] / "docs" / "results.md").read_text(encoding="utf-8")
    missing = re.findall(r"\(not measured yet: `([^`]+)`\)", page)
    assert page.count("(not measured yet") == len(missing)
    assert not [name for name in missing if (RESULTS.parents[1] / name).exists()]
