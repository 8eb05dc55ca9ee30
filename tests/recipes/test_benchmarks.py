""""""

from __future__ import annotations

from typing import Any

import pytest

from recipes.evaluate.benchmarks import digest, main


def _entry(way: str, images: int, seconds: float, **info: Any) -> dict[str, Any]:
    extra = {"way": way, "baseline": "slow", "images": images, **info}
    return {"group": "reading", "extra_info": extra, "stats": {"median": seconds}}


def test_figures_are_next_to_their_baseline() -> None:
    report = {"benchmarks": [_entry("fast", 50, 0.5, gflop_per_image=2.0), _entry("slow", 50, 5.0)]}
    assert digest(report) == {
        "reading": {
            "fast": {"images_per_second": 100.0, "gflop_per_image": 2.0, "ratio": 10.0},
            "slow": {"images_per_second": 10.0, "ratio": 1.0},
        }
    }


def test_ways_that_ask_the_model_less_often_are_compared_by_passes_too() -> None:
    report = {"benchmarks": [_entry("fast", 50, 0.5, passes=4), _entry("slow", 50, 5.0, passes=8)]}
    found = digest(report)["reading"]
    assert (found["fast"]["ratio"], found["fast"]["ratio_of_passes"], found["fast"]["passes"]) == (10, 5, 4)
    assert (found["slow"]["ratio"], found["slow"]["ratio_of_passes"]) == (1, 1)


def test_unknown_benchmarks_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["reading", "writing"])
    assert "unknown benchmarks ['writing']; accepted: build," in capsys.readouterr().err
