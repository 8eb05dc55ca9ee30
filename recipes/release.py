"""Publish all of `hub/` to a namespace of the Hub: `hub/NAME` -> NAMESPACE/NAME.

    python -m recipes.release NAMESPACE --dry-run
    HF_TOKEN=... python -m recipes.release NAMESPACE

A folder with `d3hr.json` is an artifact and becomes a dataset repository. One with `config.json` is a model
of timm (a teacher, as `d3hr train student` exports it) and becomes a model repository. All are checked
before the first goes up, and what is there already and the same is not changed. Prints what pins the commits:
lines of the registry, and names of models for timm.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from safetensors import SafetensorError, safe_open

from d3hr_datasets import Artifact
from d3hr_datasets.artifact.d3hr_json import METADATA
from d3hr_datasets.artifact.facts import CARD
from d3hr_datasets.errors import ArtifactFormatError, PublishError
from d3hr_datasets.io import hub
from d3hr_datasets.io.untrusted_files import read_json
from d3hr_datasets.publish.upload import PlannedFile, plan_artifact, publish_artifact, registry_row
from recipes.common.prerequisites import EMBEDDED, need
from recipes.common.program import program

HUB = Path("hub")
CONFIG, WEIGHTS = "config.json", "model.safetensors"
TIMM_FILES = (CARD, CONFIG, WEIGHTS)


def plan_model(folder: Path) -> list[PlannedFile]:
    """Check that a model of timm is fit to be published, and return exactly the files that go up.

    Raises:
        PublishError: Files are missing, damaged or of another kind, or the card names no licence.
    """
    from huggingface_hub import ModelCard

    found = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    if found != set(TIMM_FILES):
        raise PublishError(
            f"{folder} holds {sorted(found)}; a model of timm is exactly {list(TIMM_FILES)}: export it again "
            "with `d3hr train student PROTOCOL --export FOLDER`, into an empty folder"
        )
    try:
        read_json(folder / CONFIG)
        with safe_open(folder / WEIGHTS, framework="pt"):
            pass
        licensed = ModelCard.load(folder / CARD).data.license
    except (ArtifactFormatError, SafetensorError, OSError, ValueError) as error:
        raise PublishError(f"the model in {folder} is damaged: {error}. Export it again") from error
    if not licensed:
        raise PublishError(f"{folder / CARD} names no license; add `license: NAME` to its head")
    return [PlannedFile(name, (folder / name).stat().st_size) for name in TIMM_FILES]


@program
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("namespace", help="user or organisation on the Hub")
    parser.add_argument("--hub", type=Path, default=HUB, help="folder of all (default: %(default)s)")
    parser.add_argument("--private", action="store_true", help="make new repositories private")
    parser.add_argument("--dry-run", action="store_true", help="check, list what would go up, and stop")
    arguments = parser.parse_args()
    private = arguments.private or None
    need(arguments.hub, EMBEDDED)
    artifacts = [Artifact.load(path.parent) for path in sorted(arguments.hub.glob(f"*/{METADATA}"))]
    models = [path.parent for path in sorted(arguments.hub.glob(f"*/{CONFIG}"))]
    if not artifacts + models:
        parser.error(f"no artifact and no model in {arguments.hub}")
    plans = {a.folder: plan_artifact(a, with_model=a.info.model.path is not None) for a in artifacts}
    plans |= {folder: plan_model(folder) for folder in models}
    if arguments.dry_run:
        for folder, plan in plans.items():
            for file in plan:
                print(f"{file.num_bytes:>12,}  {arguments.namespace}/{folder.name}/{file.name}")
        return
    for artifact in artifacts:
        repo_id, own = f"{arguments.namespace}/{artifact.folder.name}", artifact.info.model.path is not None
        print(registry_row(artifact, publish_artifact(artifact, repo_id, with_model=own, private=private)))
    for folder in models:
        published = hub.upload(
            folder,
            TIMM_FILES,
            f"{arguments.namespace}/{folder.name}",
            repo_type="model",
            private=private,
            commit_message="Publish a model of timm",
        )
        print(f"hf-hub:{published.repo_id}@{published.revision}")


if __name__ == "__main__":
    main()
