from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent


def test_a_few_rounds_of_the_fault_campaign(tmp_path: Path) -> None:
    # In a process of its own, where no thread runs that a forked one would miss.
    output = tmp_path / "counts.json"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.faults", "--rounds", "3", "--output", str(output)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=1200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "every promise kept" in done.stdout and "     3  kill: rounds\n" in done.stdout
    document = json.loads(output.read_text())
    assert set(document) == {"kills", "builds", "malformed", "damage", "refusals", "strangers"}
    assert document["kills"]["results"]["counts"]["kill: rounds"] == 3
    assert document["damage"]["settings"]["rounds"] == 3 and document["damage"]["machine"]["cpus"]
    counts = [entry["results"]["counts"] for entry in document.values()]
    assert sum(map(len, counts)) == len(set().union(*counts))  # each campaign has its own


def test_a_few_rounds_of_the_hubs_fault_campaign(tmp_path: Path) -> None:
    output = tmp_path / "counts.json"
    output.write_text('{"kills": {}}')
    # In a process of its own: huggingface_hub reads where the Hub is when it is imported.
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.hub", "--rounds", "6", "--output", str(output)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=1200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "every promise kept" in done.stdout and "upload: " in done.stdout
    document = json.loads(output.read_text())
    assert set(document) == {"hub", "kills"} and document["hub"]["settings"] == {"rounds": 6, "seed": 0}
    assert any(name.startswith("download: ") for name in document["hub"]["results"]["counts"])


def test_some_of_the_hostile_campaign(tmp_path: Path) -> None:
    output = tmp_path / "counts.json"
    # In a process of its own, where no thread runs that a forked one would miss.
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.hostile", "--every", "12", "--output", str(output)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=1200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    counts = json.loads(output.read_text())["hostile"]["results"]["counts"]
    refused = [count for name, count in counts.items() if name.endswith(", refused")]
    assert "every promise kept" in done.stdout and len(refused) == 8 and sum(refused) >= 50
