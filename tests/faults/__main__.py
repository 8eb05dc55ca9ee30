from __future__ import annotations

import argparse
import logging
import tempfile
import time
from pathlib import Path

from tests.faults import builds, damage, kills, malformed, refusals
from tests.faults.scene import Scene, can_mount


def main() -> None:
    """Run the campaign and print its counts."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=main.__doc__)
    parser.add_argument("--rounds", type=int, default=200, help="of each kind of fault (default: 200)")
    parser.add_argument("--seed", type=int, default=0, help="of all random choices (default: 0)")
    arguments = parser.parse_args()
    logging.getLogger("d3hr_datasets").setLevel(logging.ERROR)  # it warns of every file that it mends
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="d3hr-faults-") as folder:
        scene = Scene(Path(folder), arguments.seed)
        mounts = can_mount()
        kills.run(scene, arguments.rounds)
        builds.run(scene, max(3, arguments.rounds // 10))
        malformed.run(scene, arguments.rounds)
        damage.damage_cache(scene, arguments.rounds)
        damage.damage_artifact(scene, arguments.rounds)
        refusals.fill_disk(scene, max(1, arguments.rounds // 5), mounts)
        refusals.deny(scene, mounts)
        refusals.other_versions(scene)
    for name, count in sorted(scene.counts.items()):
        print(f"{count:6d}  {name}")
    print(f"every promise kept, seed {arguments.seed}, {time.monotonic() - begin:.0f} s")


if __name__ == "__main__":
    main()
