"""Progress of a training for people who wait: a bar on stderr that says how long it will take."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm

from d3hr_datasets.diffusion.adapters import CLASS_TABLE

SECONDS_OF_A_LOG = 20  # between lines where nobody looks


def progress_bar(what: str, total: int, done: int, shown: bool) -> Any:
    """Return tqdm's bar.

    Args:
        what: Is being made.
        total: How much of it in all.
        done: How much was there before.
        shown: Whether this process shows it.
    """
    seconds = 1 if sys.stderr.isatty() else SECONDS_OF_A_LOG
    return tqdm(total=total, initial=done, desc=what, mininterval=seconds, disable=not shown)


def say(text: str, shown: bool) -> None:
    """Write a line to stderr, above any bar."""
    if shown:
        tqdm.write(text, file=sys.stderr)


def parameters_line(network: Any, step: int) -> str:
    """Return what is said of a network before it is trained: how much of it is, and from which step."""
    trained = {name: p.numel() for name, p in network.named_parameters() if p.requires_grad}
    every, total = sum(trained.values()), sum(p.numel() for p in network.parameters())
    if every == total:
        return f"{total:,} parameters, from step {step}"
    classes = sum(number for name, number in trained.items() if CLASS_TABLE in name)
    beside = total - every
    text = (
        f"{every - classes:,} parameters, {100 * (every - classes) / beside:.1f} % of the model's {beside:,}"
    )
    if classes:
        text += f", and {classes:,} of new classes"
    return f"{text}; from step {step}"
