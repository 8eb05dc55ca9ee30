"""Blocks of commands: `$ COMMAND` and what it prints -> runs of the command, and whether it prints that.

Lines below a command are what it prints on stdout, or, where it fails, on stderr. "..." stands for anything
in a line, and a line "..." for any lines.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from typer.testing import CliRunner

from d3hr_datasets.cli.app import app
from d3hr_datasets.version import __version__
from tests.docs.pages import ROOT

SECONDS = 400  # of a command; two tests at a time may each run two processes
with (ROOT / "pyproject.toml").open("rb") as file:
    EXTRAS = tomllib.load(file)["project"]["optional-dependencies"]
TARGETS = re.findall(r"^(\w+):.*##", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
EXTRA = f"(?:{'|'.join(EXTRAS)})"
OF_EXTRAS = rf"\[{EXTRA}(?:,{EXTRA})*\]"
WHEEL = re.escape(f"d3hr_datasets-{__version__}-py3-none-any.whl")
# Commands that no test can run, with the reason; they must have one of these forms.
FORMS = {
    rf"pip install (?:{WHEEL}|'{WHEEL}{OF_EXTRAS}')": "changes the environment that the tests run in",
    rf"pip install (?:--editable )?(?:\.|'\.{OF_EXTRAS}')": "likewise",
    r"pip install [^'\[ ]+ --index-url https://download\.pytorch\.org/whl/\w+": "likewise, from the network",
    r"python3? -m venv \.venv": "makes an environment, which is empty until something is installed",
    r"source \.venv/bin/activate": "changes the shell that reads it",
    r"git clone REPOSITORY d3hr-datasets": "the address is the reader's",
    r"cd d3hr-datasets": "goes with `git clone`",
    rf"make (?:{'|'.join(TARGETS)})(?: VENV=\w+)?": "installs everything, or runs these tests",
    r"apt-get install [a-z0-9 -]+": "changes the machine",
    r"bash \.ci/run": "runs these tests",
}


@dataclass(frozen=True)
class Command:
    """A command, on several lines perhaps, and the lines that it should print; none if none are shown."""

    line: str
    shown: tuple[str, ...]


def parse(text: str) -> list[Command]:
    """Return the commands of a block.

    Raises:
        ValueError: Its first line is no command.
    """
    commands: list[tuple[str, list[str]]] = []
    for line in text.rstrip("\n").splitlines():
        if commands and commands[-1][0].endswith("\\") and not commands[-1][1]:
            commands[-1] = (f"{commands[-1][0]}\n{line}", [])
        elif line.startswith("$ "):
            commands.append((line.removeprefix("$ "), []))
        elif commands:
            commands[-1][1].append(line)
        else:
            raise ValueError(f"a block of commands begins with '$ ', not with {line!r}")
    return [Command(line, tuple(_without_ends(shown))) for line, shown in commands]


def _without_ends(lines: list[str]) -> list[str]:
    """Return lines without the empty ones at the end, which stand before the next command."""
    while lines and not lines[-1].strip():
        lines = lines[:-1]
    return lines


def without_comment(line: str) -> str:
    """Return a command without the comment behind it."""
    return re.sub(r"\s+# .*$", "", line)


def only_formal(command: Command) -> bool:
    """Say whether a command cannot be run here, and has the form that such a one must have."""
    return any(re.fullmatch(form, without_comment(command.line)) for form in FORMS)


def prints(shown: tuple[str, ...], printed: str) -> bool:
    """Say whether a text is what the lines of a page show."""
    parts = []
    for line in shown:
        if line.strip() == "...":
            parts.append(r"(?:.*\n)*?")
        else:
            parts.append(re.escape(line.rstrip()).replace(r"\.\.\.", ".*") + r"[ ]*\n")
    text = "".join(f"{line.rstrip()}\n" for line in printed.rstrip().splitlines())
    return re.fullmatch("".join(parts), text) is not None


PLAIN = re.compile(r"d3hr [^|&;<>$`*~\n]*")  # nothing in it that a shell would take for itself


def run(command: Command, folder: Path, environment: Mapping[str, str]) -> None:
    """Run a command as a reader does, and check what it prints.

    A plain `d3hr ...` runs in this process, which is in `folder` and has the environment: each process of its
    own would import PyTorch anew.

    Raises:
        AssertionError: It fails, and the page does not show its error; or it prints something else.
    """
    if PLAIN.fullmatch(without_comment(command.line)):
        result = CliRunner().invoke(app, shlex.split(command.line, comments=True)[1:], prog_name="d3hr")
        code, printed, said = result.exit_code, result.stdout, result.stderr
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
    else:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command.line],
            cwd=folder,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=SECONDS,
            check=False,
        )
        code, printed, said = done.returncode, done.stdout, done.stderr
    report = f"$ {command.line}\n{printed}\n{said}\nexit code {code}"
    if code:
        is_shown = any(line.strip() != "..." for line in command.shown)
        assert is_shown and prints(command.shown, said), report
    elif command.shown:
        assert prints(command.shown, printed), report
