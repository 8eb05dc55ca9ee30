"""The files of a membership: never another one's, never half there, and a key that is on the disk."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from d3hr_datasets import Artifact
from d3hr_datasets.artifact import membership
from d3hr_datasets.artifact.d3hr_json import METADATA
from d3hr_datasets.artifact.membership import open_key, read_membership
from d3hr_datasets.build import BuildSettings, ClassOptions, KeptSums, plan_build
from d3hr_datasets.build.mode_latents import ModeLatents
from d3hr_datasets.combine import ForgetOptions, forget_images
from d3hr_datasets.errors import ConfigError
from d3hr_datasets.io.untrusted_files import is_file
from tests.support.combining import Pictures, build, quiet
from tests.support.tiny import CLASSES, tiny_pipeline


def test_builds_that_start_together_have_one_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both, look = threading.Barrier(2), is_file

    def looked(path: Path) -> bool:
        found = look(path)
        both.wait(30)  # both see that there is none
        return found

    monkeypatch.setattr(membership, "is_file", looked)
    with ThreadPoolExecutor(2) as pool:
        keys = list(pool.map(lambda _: open_key(tmp_path / "key", make=True), range(2)))
    assert keys[0] == keys[1] == open_key(tmp_path / "key")


def test_a_key_on_a_drive_that_is_missing_is_not_made_anew(tmp_path: Path) -> None:
    (tmp_path / "membership.key").symlink_to(tmp_path / "drive" / "key")
    with pytest.raises(ConfigError, match="is a link to nothing; give back what it leads to"):
        build(tmp_path / "a", range(30), sums=KeptSums(tmp_path / "noted"))
    assert (tmp_path / "membership.key").is_symlink() and not (tmp_path / "a" / METADATA).exists()


def test_a_membership_that_is_a_link_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "noted").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="is a link, which would become a file of its own"):
        build(tmp_path / "a", range(30), sums=KeptSums(tmp_path / "noted"))


class _Meanwhile(Pictures):
    """Pictures, while which are read another build writes its artifact."""

    def __init__(self, numbers: range, work: Path) -> None:
        super().__init__(numbers)
        self.work = work
        self.other: Artifact | None = None
        self.lock = threading.Lock()  # several threads read

    def __getitem__(self, index: int) -> Any:
        with self.lock:
            if self.other is None:
                self.other = build(self.work / "other", range(30), sums=KeptSums(self.work / "noted"))
        return super().__getitem__(index)


def test_the_membership_of_a_build_that_ended_meanwhile_stays(tmp_path: Path) -> None:
    images = _Meanwhile(range(30, 60), tmp_path)
    with pytest.raises(ConfigError, match="written by another build meanwhile"):
        build(tmp_path / "late", range(0), sums=KeptSums(tmp_path / "noted"), images=images)
    assert images.other is not None and not (tmp_path / "late" / METADATA).exists()
    options = ForgetOptions(device="cpu")
    left = forget_images(
        images.other,
        Pictures([0]),
        tmp_path / "left",
        membership=tmp_path / "noted",
        options=options,
        notify=quiet,
    )
    assert left.info.counts == (9, 10, 10)
    again = build(
        tmp_path / "late",
        range(0),
        sums=KeptSums(tmp_path / "noted-2"),
        images=Pictures(range(30, 60)),
    )
    assert again.info.counts == (10, 10, 10)


def _plan(model: Path, output: Path, numbers: range) -> Any:
    names = output.with_name("classes.json")
    names.write_text(json.dumps(CLASSES))
    return plan_build(
        Pictures(numbers),
        model,
        output,
        BuildSettings((400,), image_size=14, num_modes=1),
        class_options=ClassOptions(str(names), same_order=True),
        sums=KeptSums(output.with_name("noted")),
    )


def test_what_is_stopped_after_the_artifact_was_replaced_keeps_its_membership(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_pipeline().save_pretrained(tmp_path / "model")
    _plan(tmp_path / "model", tmp_path / "a", range(30)).run(progress=False)
    before = read_membership(tmp_path / "noted").moments
    plan = _plan(tmp_path / "model", tmp_path / "a", range(15))

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:  # before: the old one and its membership stay
        patch.setattr("d3hr_datasets.io.atomic.exchange", stopped)
        with pytest.raises(KeyboardInterrupt):
            plan.run(progress=False)
    assert Artifact.load(tmp_path / "a").info.counts == (10, 10, 10)
    assert read_membership(tmp_path / "noted").moments == before
    with monkeypatch.context() as patch:  # after: the new one has its own
        patch.setattr("d3hr_datasets.io.atomic._state", _stops_at(2))
        with pytest.raises(KeyboardInterrupt):
            plan.run(progress=False)
    made = Artifact.load(tmp_path / "a")
    assert made.info.counts == (5, 5, 5)
    assert read_membership(tmp_path / "noted").moments == made.sha256["moments.safetensors"] != before
    assert not list(tmp_path.glob("noted.*"))


def _stops_at(number: int) -> Any:
    """Return what stands for `_state`, and is stopped when it is called so often."""
    from d3hr_datasets.io.atomic import _state

    calls = iter(range(1, 100))

    def state(folder: Path) -> Any:
        if next(calls) == number:
            raise KeyboardInterrupt
        return _state(folder)

    return state


def test_a_membership_that_was_moved_aside_is_named(tmp_path: Path) -> None:
    build(tmp_path / "a", range(30), sums=KeptSums(tmp_path / "noted"))
    (tmp_path / "noted.0123abcd.old").write_bytes((tmp_path / "noted").read_bytes())
    with pytest.raises(ConfigError, match=r"another artifact .* moved aside is in .*noted\.0123abcd\.old"):
        build(tmp_path / "b", range(30, 60), sums=KeptSums(tmp_path / "noted"))


def test_latents_in_which_modes_are_sought_are_their_owners_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ModeLatents, "remove", lambda self: None)
    for name, sums in (("noted", KeptSums(tmp_path / "membership")), ("plain", KeptSums())):
        build(tmp_path / name, range(30), sums=sums, info={"num_modes": 2})
        files = [*(tmp_path / f"{name}.chunks").glob("*.latents.safetensors")]
        assert files and all((path.stat().st_mode & 0o077 == 0) == (name == "noted") for path in files)
