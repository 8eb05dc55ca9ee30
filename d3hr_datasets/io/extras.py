"""Libraries of an extra, which may be missing: their import -> an error that says how to install them.

In: the imports, as the body of a `with`. Out: the imported names, or a `MissingExtraError`.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import re
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
        raise MissingExtraError(f"{need}: {error}; {_how_to_install(extra)}") from error


def _how_to_install(extra: str) -> str:
    """Return the command that installs the libraries of an extra.

    They are named one by one: this package is on no index, where anybody could register its name.
    """
    libraries = _libraries(extra)
    if not libraries:  # a source tree on PYTHONPATH
        return f"install the libraries that pyproject.toml lists as the extra '{extra}'"
    quoted = " ".join(f"'{library}'" for library in libraries)
    return f"`pip install {quoted}` installs the libraries of the extra '{extra}'"


def _libraries(extra: str) -> list[str]:
    """Return the requirements of an extra, as the metadata of the installed package has them."""
    try:
        requirements = importlib.metadata.requires("d3hr-datasets") or []
    except importlib.metadata.PackageNotFoundError:
        return []
    marker = re.compile(rf"""\s*;\s*extra\s*==\s*["']{re.escape(extra)}["']\s*""")
    found = [marker.split(requirement) for requirement in requirements]
    return [library for library, *rest in found if rest == [""]]
