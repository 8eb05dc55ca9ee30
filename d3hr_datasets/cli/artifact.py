"""The commands `d3hr info` and `d3hr verify`: look at an artifact.

In: an artifact. Out: what it describes, or whether its files are sound, on stdout.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from d3hr_datasets.cli.dataset_options import DEFAULT_NAME, WHERE
from d3hr_datasets.cli_common.output import JsonOption, format_bytes, print_json
from d3hr_datasets.errors import D3HRError
from d3hr_datasets.io.text import printable

if TYPE_CHECKING:
    from d3hr_datasets.artifact.artifact import Artifact

ArtifactArgument = Annotated[
    str | None,
    typer.Argument(metavar="ARTIFACT", help=f"{WHERE}; that of {DEFAULT_NAME} by default."),
]

# The facts that are shown, where the artifact has them.
SHOWN = (
    "fingerprint",
    "classes",
    "built from",
    "images",
    "latents",
    "shrinkage",
    "precision",
    "sums",
    "privacy",
    "decoding",
    "image costs",
    "budgets",
    "learned",
    "curated",
    "model",
    "adapter",
    "prompts",
    "negative prompt",
    "embeddings",
    "licence",
    "model licence",
)


def info(artifact: ArtifactArgument = None, as_json: JsonOption = False) -> None:
    """Show what an artifact describes. Reads no statistics and no model."""
    from d3hr_datasets.artifact.facts import artifact_facts, forward_passes

    found = _load_artifact(artifact)
    values = found.info.to_dict()
    summary = {
        "folder": str(found.folder),
        "fingerprint": found.fingerprint,
        "forward_passes": forward_passes(found.info),
        "license": found.info.source.get("license"),
        "num_bytes": sum(path.stat().st_size for path in found.folder.rglob("*") if path.is_file()),
    }
    if as_json:
        print_json({**values, **summary})
        return
    facts = artifact_facts(found)
    rows = {
        "name": facts["name"],
        "folder": summary["folder"],
        **{key: facts[key] for key in SHOWN if key in facts},
        "size": format_bytes(int(summary["num_bytes"] or 0)),
    }
    width = max(12, *map(len, rows))
    for key, value in rows.items():
        typer.echo(f"{key:<{width}} {printable(value)}")


def verify(artifact: ArtifactArgument = None, as_json: JsonOption = False) -> None:
    """Check every file of an artifact. Exits with 1 if one is damaged."""
    found = _load_artifact(artifact)
    result = {"folder": str(found.folder), "fingerprint": found.fingerprint, "num_files": len(found.sha256)}
    try:
        found.verify()
    except D3HRError as error:
        if as_json:
            print_json({**result, "sound": False, "error": str(error)})
        raise
    if as_json:
        print_json({**result, "sound": True, "error": None})
    else:
        typer.echo(f"{found.folder}: {len(found.sha256)} files are sound ({found.fingerprint})")


def _load_artifact(where: str | None) -> Artifact:
    from d3hr_datasets.artifact.artifact import Artifact
    from d3hr_datasets.dataset.artifact_registry import registered_artifact

    return Artifact.from_pretrained(registered_artifact(DEFAULT_NAME) if where is None else where)
