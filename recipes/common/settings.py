"""The arguments of a recipe with a settings file."""

from __future__ import annotations

import argparse


def settings_parser(cls: type, description: str | None) -> argparse.ArgumentParser:
    """Return a parser of what `load_settings` takes: `config` and `set`."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", help=f"a YAML file with the fields of {cls.__name__}")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a setting")
    return parser
