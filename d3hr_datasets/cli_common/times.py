"""Times on the command line: "600", a timestep, or "0.6", a sigma of a flow-matching model -> a number."""

from __future__ import annotations

import typer


def parse_time(text: str) -> float:
    """Return an integer where the text is one, else a float.

    Raises:
        typer.BadParameter: It is no number.
    """
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError as error:
        raise typer.BadParameter(
            f"{text!r} is no time: give a timestep, such as 600, or for a flow-matching model a sigma, such "
            "as 0.6"
        ) from error
