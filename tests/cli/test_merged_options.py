"""Commands that share options have all of them, in one order, where their own parameter stands."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from d3hr_datasets.cli.app import app
from d3hr_datasets.cli.dataset_options import SetArguments
from d3hr_datasets.cli.shared_options import merge_options


@pytest.mark.parametrize(
    ("command", "own"),
    [
        ("materialize", ([], ["batch_size", "compiled", "estimate", "as_json"])),
        ("export", (["output", "form"], ["shard_size", "as_json"])),
    ],
)
def test_commands_share_their_options(command: str, own: tuple[list[str], list[str]]) -> None:
    found = typer.main.get_command(app).commands[command].params  # type: ignore[attr-defined]
    shared = [field.name for field in dataclasses.fields(SetArguments)]
    assert [parameter.name for parameter in found if parameter.name != "help"] == own[0] + shared + own[1]


@dataclass(frozen=True)
class _Shared:
    number: Annotated[int, typer.Option(min=1)] = 3
    names: Annotated[list[str] | None, typer.Option("--name")] = None


def test_a_command_gets_its_options_as_one_object() -> None:
    got: list[object] = []

    @merge_options
    def command(required: Annotated[str, typer.Option()], options: _Shared, last: bool = False) -> None:
        got.extend([required, options, last])

    one = typer.Typer()
    one.command()(command)
    words = ["--required", "a", "--name", "x", "--name", "y", "--last"]
    assert CliRunner().invoke(one, words).exit_code == 0
    assert got == ["a", _Shared(3, ["x", "y"]), True]
    assert CliRunner().invoke(one, [*words, "--number", "0"]).exit_code == 2
    assert CliRunner().invoke(one, []).exit_code == 2
