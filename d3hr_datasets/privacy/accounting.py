"""How much noise keeps a promise: epsilon and delta -> rho, by the accountant of dp-accounting.

Discrete Gaussian noise of standard deviation s on whole numbers that one image changes by at most b, as a
norm, is rho-zCDP with rho = b^2 / (2 s^2), and rhos of several such sums of one image add up.

Source: Canonne, Kamath and Steinke (2020), "The discrete Gaussian for differential privacy", the theorem on
several numbers. What rho promises in epsilon and delta is what dp-accounting says of it.
"""

from __future__ import annotations

import functools
import importlib.metadata
from typing import Any

from d3hr_datasets.artifact.privacy import Privacy
from d3hr_datasets.artifact.units import SQUARE_UNIT, UNIT
from d3hr_datasets.errors import ConfigError
from d3hr_datasets.io.extras import needs_extra

NEED = "privacy needs an accountant"
LEAST_MULTIPLIER = 1e-3  # of noise, by what one image changes


def accountant_name() -> str:
    """Return what is noted of the accountant."""
    return f"dp-accounting {importlib.metadata.version('dp-accounting')}, RDP accountant of zCDP"


def _orders() -> list[float]:
    """Return the orders that divergences are taken of: larger ones than usual, too, for small budgets."""
    from dp_accounting.rdp.rdp_privacy_accountant import DEFAULT_RDP_ORDERS

    return [*DEFAULT_RDP_ORDERS, *(2.0**power for power in range(11, 25))]


@functools.cache
def epsilon_of(rho: float, delta: float) -> float:
    """Return the epsilon that rho-zCDP promises with this delta.

    Raises:
        MissingExtraError: dp-accounting is not installed.
    """
    with needs_extra("private", NEED):
        from dp_accounting import dp_event
        from dp_accounting.rdp import RdpAccountant
    accountant: Any = RdpAccountant(_orders())
    accountant.compose(dp_event.ZCDpEvent(rho))
    return float(accountant.get_epsilon(delta))


def largest_rho(epsilon: float, delta: float) -> float:
    """Return the largest rho that keeps a promise, found to six digits from below.

    Raises:
        ConfigError: The accountant finds none.
        MissingExtraError: dp-accounting is not installed.
    """
    with needs_extra("private", NEED):
        from dp_accounting import dp_event, mechanism_calibration
        from dp_accounting.rdp import RdpAccountant

    def event(multiplier: float) -> Any:
        return dp_event.ZCDpEvent(1 / (2 * multiplier**2))

    bracket = mechanism_calibration.LowerEndpointAndGuess(LEAST_MULTIPLIER, 1.0)
    try:
        multiplier = mechanism_calibration.calibrate_dp_mechanism(
            lambda: RdpAccountant(_orders()), event, epsilon, delta, bracket, tol=1e-6 * LEAST_MULTIPLIER
        )
    except (ValueError, RuntimeError, mechanism_calibration.NoBracketIntervalFoundError) as error:
        raise ConfigError(
            f"the accountant finds no noise for epsilon={epsilon:g} and delta={delta:g} ({error}); give more "
            "of one of them"
        ) from error
    return float(1 / (2 * (multiplier * (1 + 1e-6)) ** 2))


def spent_rho(privacy: Privacy, bounds: tuple[int, int, int]) -> float:
    """Return the rho of a mechanism, of what one image changes at most (`settings.whole_bounds`)."""
    noise = (privacy.noise_sums / UNIT, privacy.noise_squares / SQUARE_UNIT, privacy.noise_count)
    return sum(bound**2 / (2 * scale**2) for bound, scale in zip(bounds, noise, strict=True))
