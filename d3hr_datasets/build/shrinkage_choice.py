"""How far variances are to be drawn towards shared ones, as people say it; `shrinkage` draws them."""

from __future__ import annotations

from typing import Any, Literal, cast, get_args

from d3hr_datasets.errors import ConfigError

# See `BuildSettings` and `shrinkage.shrink_variances`.
NamedShrinkage = Literal["auto", "none"]
Shrinkage = NamedShrinkage | float


def check_shrinkage(value: Any) -> Shrinkage:
    """Return a setting of shrinkage if it is one.

    Raises:
        ConfigError: It is not.
    """
    if isinstance(value, str) and value in get_args(NamedShrinkage):
        return cast(NamedShrinkage, value)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 <= value <= 1:
        raise ConfigError(f"shrinkage must be 'auto', 'none', or a share from 0 to 1, not {value!r:.80}")
    return float(value)
