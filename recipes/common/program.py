"""A recipe as a command: what it cannot run with is one line, not a traceback."""

from __future__ import annotations

import functools
from collections.abc import Callable

from d3hr_datasets.errors import D3HRError
from recipes.common.errors import RecipeError


def program(main: Callable[[], None]) -> Callable[[], None]:
    """Let what a recipe cannot run with end it with one line instead of a traceback."""

    @functools.wraps(main)
    def run() -> None:
        try:
            main()
        except (RecipeError, D3HRError) as error:
            raise SystemExit(f"error: {error}") from error

    return run
