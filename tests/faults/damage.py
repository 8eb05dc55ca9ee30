"""Flipped bits and truncated files, in the cache and in the artifact."""

from __future__ import annotations

import shutil
from pathlib import Path

from d3hr_datasets import D3HRDataset, D3HRError
from d3hr_datasets.cache.files import MANIFEST
from d3hr_datasets.cache.inspection import verify_cached_set
from d3hr_datasets.cache.prune import prune_cache
from tests.faults.scene import IPC, Scene, identities, leftovers, promise
from tests.support.tampering import METADATA


def damage_cache(scene: Scene, rounds: int) -> None:
    """Damage one file of a complete cache; it must be found, never served, and come back."""
    root = scene.folder / "damaged"
    scene.generate(root)
    folder = scene.dataset(root).image_folder
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for _ in range(rounds):
        path = scene.random.choice(files)
        intact = identities([file for file in files if file.parent != path.parent or path.parent == folder])
        intact.pop(path, None)
        before = path.read_bytes()
        kind = _damage(scene, path)
        found = verify_cached_set(root, folder.name)
        # A manifest with another checksum in it looks like a damaged image of its group.
        promise(found == [path] or (path.name == MANIFEST and len(found) == 1), f"damage of {path}: {found}")
        if (
            scene.random.random() < 0.3 or path.parent == folder
        ):  # set.json is in no group: no reader mends it
            prune_cache(root, damaged=True)
        scene.read(root)
        if path.parent == folder:
            shutil.rmtree(folder / scene.dataset(root).cache.class_folders[0])
            intact = {file: identity for file, identity in intact.items() if "000-" not in file.parent.name}
            scene.read(root)
        promise(path.read_bytes() == before, f"{path} did not come back")
        promise(verify_cached_set(root, folder.name) == [], "damage is left")
        promise(identities(list(intact)) == intact, "a sound group was written again")
        promise(leftovers(root, ".partial") == leftovers(root, ".locks") == [], "something is left behind")
        scene.counts[f"damage: cache, {kind}, {'image' if path.suffix == '.png' else path.name}"] += 1
    shutil.rmtree(root)


def damage_artifact(scene: Scene, rounds: int) -> None:
    """Damage one file of an artifact; using it must fail with the library's error, or change no image."""
    files = sorted(path.relative_to(scene.artifact) for path in scene.artifact.rglob("*") if path.is_file())
    for _ in range(rounds):
        artifact = Path(shutil.copytree(scene.artifact, scene.folder / "damaged-artifact"))
        path = artifact / scene.random.choice(files)
        kind = _damage(scene, path)
        root = scene.folder / "damaged-artifact-cache"
        outcome = _use(scene, artifact, root)
        promise(
            path.name == METADATA or outcome == "refused",
            f"{kind} of {path.relative_to(artifact)}: {outcome}",
        )
        scene.counts[f"damage: artifact, {kind}, {outcome}"] += 1
        shutil.rmtree(artifact)
        shutil.rmtree(root, ignore_errors=True)


def _use(scene: Scene, artifact: Path, root: Path) -> str:
    """Say what became of using a damaged artifact beside the images that the sound one had made."""
    shutil.copytree(scene.folder / "clean", root)
    try:
        dataset = D3HRDataset(artifact, root, ipc=IPC, device="cpu")
        if dataset.fingerprint == scene.fingerprint:
            shutil.rmtree(root)  # generate: what is cached is known to be right
        dataset.materialize(progress=False)
        pixels = [dataset[index][0].tobytes() for index in range(len(dataset))]
    except D3HRError:
        return "refused"
    if pixels == scene.pixels:
        return "same images"
    promise(dataset.fingerprint != scene.fingerprint, "other images under the name of the right ones")
    return "d3hr.json says something else, and the images get a set of their own"


def _damage(scene: Scene, path: Path) -> str:
    data = bytearray(path.read_bytes())
    if scene.random.random() < 0.3:
        path.write_bytes(data[: scene.random.randrange(len(data))])
        return "truncated"
    data[scene.random.randrange(len(data))] ^= 1 << scene.random.randrange(8)
    path.write_bytes(data)
    return "flipped bit"
