"""Text that others wrote, and what shows it: names, licences, sources -> terminals, Markdown, figures.

Control characters move a cursor and colour a terminal, marks of direction make a name read as another one,
surrogates cannot be encoded, and what is plain to a reader may be a command to Markdown or matplotlib.
Descriptions with such characters are refused (`check_text`); every output escapes them all the same.
"""

from __future__ import annotations

import unicodedata
from typing import Any

from d3hr_datasets.errors import ConfigError

# Control, surrogate and private characters, and breaks of lines and paragraphs.
_REFUSED = {"Cc", "Cs", "Co", "Zl", "Zp"}
_JOINERS = "\u200c\u200d"  # which some scripts spell with; all others of their kind ("Cf") are invisible


def is_printable(text: str) -> bool:
    """Say whether all characters of a text are seen, and seen where they are."""
    return (text.isascii() and text.isprintable()) or all(map(_is_printable, text))


def printable(value: object) -> str:
    """Return a text for a terminal: what is not printable as an escape, such as U+202E by its number."""
    text = str(value)
    if is_printable(text):
        return text
    return "".join(
        character
        if _is_printable(character)
        else character.encode("unicode_escape", "surrogatepass").decode()
        for character in text
    )


def check_text(name: str, value: Any, max_length: int) -> str:
    """Return `value` if it is a text that can be shown.

    Raises:
        ConfigError: It is no string, longer, or has characters that are not printable.
    """
    if not isinstance(value, str):
        raise ConfigError(f"{name} must be a string, not {value!r:.80}")
    if len(value) > max_length:
        raise ConfigError(f"{name} has {len(value):,} characters; accepted: at most {max_length:,}")
    if not is_printable(value):
        raise ConfigError(
            f"{name} must be of printable characters, not {value!a:.80}: no control characters, no marks of "
            "direction, no surrogates"
        )
    return value


def check_texts(name: str, value: Any, max_length: int, max_depth: int = 8) -> None:
    """Check all strings of JSON values, keys too, as `check_text`; nested at most `max_depth` deep.

    Raises:
        ConfigError: One is not accepted, or the values are nested deeper.
    """
    if isinstance(value, str):
        check_text(name, value, max_length)
    elif isinstance(value, dict | list | tuple):
        if max_depth == 0:
            raise ConfigError(f"{name} is nested too deeply")
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            if isinstance(value, dict):
                check_text(f"a key of {name}", key, max_length)
            check_texts(f"{name}[{key!r}]", item, max_length, max_depth - 1)


def _is_printable(character: str) -> bool:
    category = unicodedata.category(character)
    return category not in _REFUSED and (category != "Cf" or character in _JOINERS)
