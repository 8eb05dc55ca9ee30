"""The spread of difficulty of a set: as of what it stands for, whatever the features say."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from d3hr_datasets import Artifact
from d3hr_datasets.curation.difficulty import add_difficulty
from d3hr_datasets.curation.ordering import median_distance, order_candidates
from d3hr_datasets.errors import ConfigError
from tests.curation.curating import curate


def _set(spread: float, number: int, real: torch.Tensor | None = None) -> torch.Tensor:
    """Return the losses of a herded set of candidates, of which most are easy and features do not tell."""
    generator = torch.Generator().manual_seed(0)
    features = torch.rand(120, 3, generator=generator)
    losses = torch.cat([torch.rand(90, generator=generator), 10 + torch.rand(30, generator=generator)])
    target = None if real is None else torch.rand(len(real), 3, generator=generator)
    widened, points = add_difficulty(features, losses, spread, target=target, target_losses=real)
    return losses[order_candidates(widened, number, "herding", target=points)]


def test_a_set_has_easy_and_hard_images_as_often_as_its_target() -> None:
    even = torch.linspace(0, 1, 50)
    half = torch.cat([even, 10 + even])  # half of the real ones are hard
    shares = {
        (spread, real is not None): float((_set(spread, 20, real) > 5).float().mean())
        for spread in (0.0, 3.0)
        for real in (None, half)
    }
    assert shares[3.0, False] == pytest.approx(0.25, abs=0.051)
    assert shares[3.0, True] == pytest.approx(0.5, abs=0.051)
    assert shares[0.0, True] < 0.4


def test_the_easiest_is_a_usual_distance_from_the_hardest() -> None:
    features, losses = torch.rand(50, 4, generator=torch.Generator().manual_seed(1)), torch.arange(50.0)
    widened, none = add_difficulty(features, losses, 1.0)
    assert none is None and torch.equal(widened[:, :4], features.double())
    ends = widened[-1, 4] - widened[0, 4]
    assert ends.item() == pytest.approx(0.98 * median_distance(features))
    scaled, _ = add_difficulty(features, 1000 * losses**3, 1.0)  # its order counts, not its size
    assert torch.equal(scaled, widened)
    same, _ = add_difficulty(features, losses, 0.0)
    assert same is features


def test_losses_must_fit() -> None:
    features = torch.rand(4, 2)
    for losses in (torch.rand(3), torch.tensor([0.0, 1.0, torch.inf, 2.0])):
        with pytest.raises(ConfigError, match="one finite number for each of 4"):
            add_difficulty(features, losses, 1.0)
    with pytest.raises(ConfigError, match="one finite number for each of 5"):
        add_difficulty(features, torch.rand(4), 1.0, target=torch.rand(5, 2))


def test_an_artifact_says_that_difficulty_counted(artifact: Artifact, teacher: str, tmp_path: Path) -> None:
    plain = curate(artifact, teacher, tmp_path / "plain")
    found = curate(artifact, teacher, tmp_path / "spread", difficulty_spread=5.0)
    assert found.info.curation is not None and found.info.curation.difficulty_spread == 5.0
    assert not torch.equal(found.order(), plain.order())
