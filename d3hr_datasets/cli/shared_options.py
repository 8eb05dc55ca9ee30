"""Options that several commands take, written once: a data class of options -> options of a command.

In: a command whose parameter `options` is a data class with typer's annotations. Out: the command that typer
sees, with the fields of that class where `options` stood.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, get_type_hints


def merge_options(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command that takes the fields of its parameter `options` one by one, and by name."""
    hints = get_type_hints(command, include_extras=True)
    kind: Any = hints["options"]
    fields, of_fields = dataclasses.fields(kind), get_type_hints(kind, include_extras=True)
    by_name = inspect.Parameter.KEYWORD_ONLY
    parameters = []
    for own in inspect.signature(command).parameters.values():
        if own.name != "options":
            parameters.append(own.replace(kind=by_name, annotation=hints[own.name]))
            continue
        parameters += [
            inspect.Parameter(field.name, by_name, default=field.default, annotation=of_fields[field.name])
            for field in fields
        ]

    @functools.wraps(command)
    def merged(**given: Any) -> None:
        options = kind(**{field.name: given.pop(field.name) for field in fields})
        command(options=options, **given)

    merged.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # which typer reads
    return merged
