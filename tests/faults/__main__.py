"""The fault campaigns: what cache, builds and artifact do when processes are killed and files are damaged.

`python -m tests.faults --rounds 200 --seed 0` prints counts, and fails at the first broken promise.
`--only malformed` runs one of them alone, `--output FILE.json` writes the counts of each that was kept.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.faults import builds, damage, kills, malformed, refusals, strangers
from tests.faults.record import record
from tests.faults.scene import Scene, can_mount


def _builds(scene: Scene, rounds: int) -> None:
    builds.run(scene, max(3, rounds // 10))


def _damage(scene: Scene, rounds: int) -> None:
    damage.damage_cache(scene, rounds)
    damage.damage_artifact(scene, rounds)


def _refusals(scene: Scene, rounds: int) -> None:
    mounts = can_mount()
    refusals.fill_disk(scene, max(1, rounds // 5), mounts)
    refusals.deny(scene, mounts)
    refusals.other_versions(scene)


CAMPAIGNS: dict[str, Callable[[Scene, int], None]] = {
    "kills": kills.run,
    "builds": _builds,
    "malformed": malformed.run,
    "damage": _damage,
    "refusals": _refusals,
    "strangers": strangers.run,
}


def main() -> None:
    """Run the campaigns and print their counts."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=main.__doc__)
    rounds_help = "of each kind of fault; of builds a tenth, of full disks a fifth (default: 200)"
    parser.add_argument("--rounds", type=int, default=200, help=rounds_help)
    parser.add_argument("--seed", type=int, default=0, help="of all random choices (default: 0)")
    parser.add_argument("--only", choices=CAMPAIGNS, action="append", help="a campaign; repeat it")
    parser.add_argument("--output", type=Path, help="JSON file that gets the counts of each campaign")
    arguments = parser.parse_args()
    logging.getLogger("d3hr_datasets").setLevel(logging.ERROR)  # it warns of every file that it mends
    campaigns = [name for name in CAMPAIGNS if name in (arguments.only or CAMPAIGNS)]
    settings = {"campaigns": campaigns, "rounds": arguments.rounds, "seed": arguments.seed}
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="d3hr-faults-") as folder:
        scene = Scene(Path(folder), arguments.seed)
        for name in campaigns:
            before, start = scene.counts.copy(), time.monotonic()
            CAMPAIGNS[name](scene, arguments.rounds)
            record(arguments.output, name, settings, scene.counts - before, time.monotonic() - start)
    for name, count in sorted(scene.counts.items()):
        print(f"{count:6d}  {name}")
    print(f"every promise kept, seed {arguments.seed}, {time.monotonic() - begin:.0f} s")


if __name__ == "__main__":
    main()
