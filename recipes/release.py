"""Publish every artifact of `hub/` to a namespace of the Hub: `hub/NAME` -> NAMESPACE/NAME.

    python -m recipes.release NAMESPACE --dry-run
    HF_TOKEN=... python -m recipes.release NAMESPACE

What is there already and the same is not changed. Prints the lines of the registry that pin the commits.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from d3hr_datasets import Artifact
from d3hr_datasets.metadata import METADATA
from d3hr_datasets.publish import plan_artifact, publish_artifact, registry_row

HUB = Path("hub")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("namespace", help="user or organisation on the Hub")
    parser.add_argument("--hub", type=Path, default=HUB, help="folder of artifacts (default: %(default)s)")
    parser.add_argument("--private", action="store_true", help="make new repositories private")
    parser.add_argument("--dry-run", action="store_true", help="check, list what would go up, and stop")
    arguments = parser.parse_args()
    artifacts = [Artifact.load(path.parent) for path in sorted(arguments.hub.glob(f"*/{METADATA}"))]
    if not artifacts:
        parser.error(f"no artifact in {arguments.hub}")
    models = [artifact.info.model.path is not None for artifact in artifacts]
    plans = [
        plan_artifact(a, with_model=own) for a, own in zip(artifacts, models, strict=True)
    ]  # all of them first
    for artifact, own, plan in zip(artifacts, models, plans, strict=True):
        repo_id = f"{arguments.namespace}/{artifact.folder.name}"
        if arguments.dry_run:
            for file in plan:
                print(f"{file.num_bytes:>12,}  {repo_id}/{file.name}")
        else:
            published = publish_artifact(artifact, repo_id, with_model=own, private=arguments.private or None)
            print(registry_row(artifact, published))


if __name__ == "__main__":
    main()
