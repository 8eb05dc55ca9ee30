"""Errors of commands: what the library says of its arguments -> what the user gave, options.

The library names its own arguments ("num_inference_steps must be ..."). A command's parameters tell which
option each of them came from; where the two have other names, `OTHER_NAMES` does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from d3hr_datasets.errors import ConfigError, D3HRError

# Argument of the library -> parameters of commands that it may come from, where it has not the same name.
OTHER_NAMES = {
    "num_inference_steps": ("steps",),
    "timestep": ("timesteps",),
    "timesteps": ("timestep",),
    "decode.timestep": ("decode_timestep", "timestep"),
    "solver": ("decode_solver",),
    "num_steps": ("decode_num_steps",),
    "spacing": ("decode_spacing",),
    "guidance_interval": ("decode_guidance_interval",),
    "method": ("sampling", "inversion"),
    "num_candidates": ("candidates",),
    "num_kept": ("keep",),
    "num_modes": ("modes",),
    "num_readers": ("readers",),
    "torch_dtype": ("dtype",),
    "torch_compile": ("compiled",),
    "template": ("prompt",),
    "per_class": ("prompts",),
    "negative": ("negative_prompt",),
    "mixed_precision": ("precision",),
    "gradient_accumulation": ("accumulation",),
    "gradient_checkpointing": ("checkpointing",),
}
# Not inside a word, a path or quotes; and no argument of a call.
_BEFORE, _AFTER = r"(?<![\w.'\"/`-])(?<!\w\()", r"(?![\w'\"/`(=-]|\.\w)"
_VALUE = r"'[^']*'|\"[^\"]*\"|\[[^\]]*\]|[\w./-]*\w"


def error_line(error: D3HRError, command: Any) -> str:
    """Return what an error says, on one line, of the options of the command that ran.

    Args:
        error: The error.
        command: click's command or group, as typer makes it (typer has a click of its own); or None.
    """
    text = " ".join(str(error).split())
    if command is None:
        return text
    return rename(text, _options(command), everywhere=isinstance(error, ConfigError))


def rename(text: str, options: Mapping[str, str], everywhere: bool) -> str:
    """Return a message with options in the place of arguments.

    Args:
        text: The message.
        options: What to write for each argument; "" for one that is given by its place.
        everywhere: Also where a name stands alone, as in a `ConfigError`, whose arguments are at fault. A
            name that is also a word is replaced only where a message begins with it.
    """
    for name, option in sorted(options.items(), key=lambda item: -len(item[0])):
        argument = re.escape(name)
        for found in reversed(list(re.finditer(f"{_BEFORE}{argument}=({_VALUE})", text))):
            text = text[: found.start()] + _given(option, found[1]) + text[found.end() :]
        if not option:
            continue
        text = text.replace(f"`{name}`", option)
        if everywhere and re.search(r"[_.]", name):
            text = re.sub(f"{_BEFORE}{argument}{_AFTER}", option, text)
        elif everywhere:
            text = re.sub(rf"^{argument}(?= (?:must|has|is|of)\b| -?\d| \()", option, text)
    return text


def _given(option: str, value: str) -> str:
    """Return how a value is given on the command line."""
    if value == "True":
        return option
    value = "..." if value == "[...]" else value.strip("'\"").removeprefix("torch.")
    return f"{option} {value}".strip()


def _options(command: Any) -> dict[str, str]:
    """Return the option of each argument that a command, or one of a group, has."""
    commands: Mapping[str, Any] = getattr(command, "commands", {})
    found: dict[str, str] = {}
    for one in (command, *commands.values()):
        for parameter in one.params:
            words = [word for word in parameter.opts if word.startswith("--")]
            found[str(parameter.name)] = words[0] if words else ""
    for name, others in OTHER_NAMES.items():
        other = next((other for other in others if other in found), None)
        if name not in found and other is not None:
            found[name] = found[other]
    return found
