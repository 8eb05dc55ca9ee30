"""Orders of candidates: features -> positions, of which the first k are a good set for every k.

In: features (N, D) of the candidates of one class, and of what they should stand for. Out: positions. No
model and no file has a part in it. All is summed in float64 in a fixed order, so that the same features give
the same order for any number of threads; of several that are as good, the first is taken.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from d3hr_datasets.config.checks import check_choice, check_int, check_number
from d3hr_datasets.errors import ConfigError
from d3hr_datasets.numerics.seeds import derive_seed
from d3hr_datasets.numerics.torch_settings import neutral

OrderMethod = Literal["herding", "facility_location", "random"]
MEASURED = 500  # points whose distances say how wide the kernel is

_Array = npt.NDArray[np.float64]


@neutral()
def order_candidates(
    features: torch.Tensor,
    number: int,
    method: OrderMethod = "herding",
    *,
    target: torch.Tensor | None = None,
    weights: torch.Tensor | None = None,
    difficulty: torch.Tensor | None = None,
    difficulty_weight: float = 0.0,
    seed: int = 0,
) -> torch.Tensor:
    """Return the positions of `number` candidates, the best first.

    - "herding": each next one lowers most the maximum mean discrepancy (`squared_mmd`) between the chosen
      ones and the target. So the first is the most typical one, where the target is densest, and every first
      k have each kind of image about as often as the target has.
    - "facility_location": each next one lowers most the mean distance (`mean_distance`) from the target to
      the nearest chosen one. So rare kinds come early, and often more than their share.
    - "random": the control.

    Source: Kernel herding, Chen, Welling & Smola (2010), eq. 8. Facility location, greedily: Nemhauser,
    Wolsey & Fisher (1978).

    Args:
        features: (N, D) of the candidates.
        number: How many are put in order, at most N.
        method: As above.
        target: (M, D), features of what the order should stand for, such as real images; the candidates
            themselves by default.
        weights: (M,) of the target, not negative, such as those of `share_images`; all the same by default.
        difficulty: (N,) of the candidates: the teacher's loss.
        difficulty_weight: How much the mean difficulty of the chosen ones counts beside the above, in every
            first k alike. `difficulty.add_difficulty` gives a set the spread of it, too. What a student of
            earlier ones still gets wrong is not looked at.
        seed: Of "random".

    Returns:
        (number,) int64 positions, none twice.

    Raises:
        ConfigError: An argument is not accepted, shapes do not fit, or values are not finite.
    """
    check_choice("method", method, OrderMethod)
    candidates = _points("features", features)
    check_int("number", number, 1, len(candidates))
    if method == "random":
        generator = torch.Generator().manual_seed(derive_seed(seed, "order"))
        return torch.randperm(len(candidates), generator=generator)[:number]
    points, masses = _target(candidates, target, weights)
    penalty = np.zeros(len(candidates))
    if check_number("difficulty_weight", difficulty_weight, 0.0) > 0:
        if difficulty is None or tuple(difficulty.shape) != (len(candidates),):
            raise ConfigError(f"difficulty must have one value for each of the {len(candidates)} candidates")
        penalty = difficulty_weight * _points("difficulty", difficulty[:, None])[:, 0]
    choose = _herding if method == "herding" else _facility_location
    return torch.tensor(choose(candidates, points, masses, penalty, number))


@neutral()
def squared_mmd(
    chosen: torch.Tensor,
    target: torch.Tensor,
    weights: torch.Tensor | None = None,
    *,
    width: float | None = None,
) -> float:
    """Return the squared maximum mean discrepancy between chosen features (k, D) and a target (M, D).

    Under the Gaussian kernel whose `width` is by default the median distance within the target, as of
    "herding".
    """
    own = _points("chosen", chosen)
    points, masses = _target(own, target, weights)
    wide = _width(points) if width is None else width
    of_own, of_both, of_target = (
        _kernel(first, second, wide) for first, second in ((own, own), (own, points), (points, points))
    )
    both = float(np.add.reduce(_weighted(of_both, masses))) / len(own)
    within = float(np.add.reduce(_weighted(of_target, masses) * masses))
    return float(np.add.reduce(np.add.reduce(of_own))) / len(own) ** 2 - 2 * both + within


@neutral()
def mean_distance(chosen: torch.Tensor, target: torch.Tensor, weights: torch.Tensor | None = None) -> float:
    """Return the mean distance from points of a target (M, D) to the nearest chosen features (k, D)."""
    own = _points("chosen", chosen)
    points, masses = _target(own, target, weights)
    return float(np.add.reduce(_distances(points, own).min(axis=1) * masses))


def _herding(candidates: _Array, points: _Array, masses: _Array, penalty: _Array, number: int) -> list[int]:
    wide = _width(points)
    typical = np.array([_weighted(_kernel(row[None], points, wide), masses)[0] for row in candidates])
    alike = np.zeros(len(candidates))  # sum of each one's kernels with those that are chosen
    chosen: list[int] = []
    for count in range(1, number + 1):
        score = typical - alike / count - penalty
        score[chosen] = -np.inf
        best = int(score.argmax())
        chosen.append(best)
        alike += _kernel(candidates[best][None], candidates, wide)[0]
    return chosen


def _facility_location(
    candidates: _Array, points: _Array, masses: _Array, penalty: _Array, number: int
) -> list[int]:
    """Choose greedily, with one row of the distances in memory at a time.

    A gain only shrinks as more are chosen, also when it is rounded. So an earlier one is a bound, and most
    need not be computed anew. What difficulty takes off is exact: that of the mean of those chosen then.

    Source: Minoux (1978), accelerated greedy algorithm.
    """
    wide = _width(points)

    def row(candidate: int) -> _Array:
        found: _Array = _distances(candidates[candidate][None], points) / wide
        return found

    def gain(candidate: int) -> float:
        return float(_weighted(np.maximum(nearest - row(candidate), 0), masses)[0])

    nearest = row(0)[0]
    for candidate in range(1, len(candidates)):
        nearest = np.maximum(nearest, row(candidate)[0])
    bounds = np.array([gain(candidate) for candidate in range(len(candidates))])
    computed = np.zeros(len(candidates), dtype=np.int64)  # how many were chosen when a gain was last computed
    chosen: list[int] = []
    while len(chosen) < number:
        best = int((bounds - penalty / (len(chosen) + 1)).argmax())
        if computed[best] < len(chosen):
            computed[best], bounds[best] = len(chosen), gain(best)
            continue
        chosen.append(best)
        bounds[best] = -np.inf
        nearest = np.minimum(nearest, row(best)[0])
    return chosen


def _points(name: str, values: torch.Tensor) -> _Array:
    """Return checked rows in float64."""
    if values.dim() != 2 or len(values) == 0 or not values.isfinite().all():
        raise ConfigError(
            f"{name} must be finite rows (N, D), at least one; not of shape {tuple(values.shape)}"
        )
    found: Any = values.detach().cpu().double().numpy()
    return found  # type: ignore[no-any-return]


def _target(
    candidates: _Array, target: torch.Tensor | None, weights: torch.Tensor | None
) -> tuple[_Array, _Array]:
    """Return the points that should be stood for, and their masses, which sum to one."""
    points = candidates if target is None else _points("target", target)
    if points.shape[1] != candidates.shape[1]:
        raise ConfigError(
            f"target has {points.shape[1]} features, the candidates {candidates.shape[1]}; give those of one "
            "teacher"
        )
    if weights is None:
        return points, np.full(len(points), 1 / len(points))
    masses = _points("weights", weights[:, None])[:, 0]
    total = float(np.add.reduce(masses))
    if len(masses) != len(points) or masses.min() < 0 or total <= 0:
        raise ConfigError(
            f"weights must be one for each of the {len(points)} points of the target, none negative and not "
            f"all zero; not {len(masses)} from {masses.min():g} on"
        )
    return points, masses / total


def _weighted(rows: _Array, masses: _Array) -> _Array:
    """Return the weighted sum of each row."""
    return np.add.reduce(rows * masses, axis=1)  # type: ignore[no-any-return]


def _distances(first: _Array, second: _Array) -> _Array:
    """Return all distances, (N, M), row by row: no product of matrices, whose sums depend on threads."""
    rows = [np.sqrt(np.add.reduce(np.square(second - row), axis=1)) for row in first]
    return np.stack(rows)


def _kernel(first: _Array, second: _Array, width: float) -> _Array:
    found: _Array = np.exp(-0.5 * np.square(_distances(first, second) / width))
    return found


@neutral()
def median_distance(points: torch.Tensor) -> float:
    """Return the median distance between different ones of some points (N, D); 1 where all are the same."""
    return _width(_points("points", points))


def _width(points: _Array) -> float:
    """Return the width of the kernel, as is usual: the median distance."""
    some = points[:: -(-len(points) // MEASURED)]
    distances = _distances(some, some)
    positive = distances[distances > 0]
    return float(np.median(positive)) if len(positive) else 1.0
