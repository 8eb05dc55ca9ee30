"""Libraries of an extra, which may be missing: their import -> an error that says how to install them.

In: the imports, as the body of a `with`. Out: the imported names, or a `MissingExtraError`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from d3hr_datasets.errors import MissingExtraError


@contextlib.contextmanager
def needs_extra(extra: str, need: str) -> Iterator[None]:
    """Import libraries that only an extra of this package brings.

    Args:
        extra: The extra of `pyproject.toml`.
        need: What needs which libraries, as the message begins: "building needs Accelerate".

    Raises:
        MissingExtraError: One of them cannot be imported.
    """
    try:
        yield
    except ImportError as error:
        raise MissingExtraError(f"{need}: {error}; `pip install 'd3hr-datasets[{extra}]'`") from error
