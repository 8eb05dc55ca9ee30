from __future__ import annotations

import os
from pathlib import Path

import pytest

from d3hr_datasets.io.atomic import added_folder, replace_text, write_synced


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    folder = tmp_path / "above" / "folder"
    with added_folder(folder) as new:
        (new / "a").write_text("a")
        assert not folder.exists() and new.parent == folder.parent
    assert [path.read_text() for path in folder.iterdir()] == ["a"] and list(folder.parent.iterdir()) == [
        folder
    ]


def test_a_folder_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), added_folder(tmp_path / "folder") as new:
        (new / "a").write_text("a")
        raise KeyboardInterrupt
    assert not list(tmp_path.glob("*folder*"))


def test_a_folder_takes_the_place_of_an_empty_one_alone(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with added_folder(folder) as new:
        (new / "a").write_text("a")
    with pytest.raises(OSError, match="not empty"), added_folder(folder) as new:
        (new / "a").write_text("b")
    assert (folder / "a").read_text() == "a" and list(tmp_path.glob("*folder*")) == [folder]


def test_a_text_is_replaced_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "text"
    replace_text(path, "ä\n")
    assert path.read_bytes() == "ä\n".encode()

    def fail(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        replace_text(path, "new")
    assert path.read_bytes() == "ä\n".encode() and list(tmp_path.glob("*text*")) == [path]


def test_what_is_written_synced_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[bytes] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.pread(descriptor, 9, 0)))
    write_synced(tmp_path / "file", b"data")
    assert synced == [b"data"]
