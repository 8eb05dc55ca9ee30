"""Sets are listed and verified as they are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from d3hr_datasets.cache.files import MANIFEST, SETTINGS
from d3hr_datasets.cache.image_cache import ImageCache
from d3hr_datasets.cache.inspection import list_cached_sets, verify_cached_set
from d3hr_datasets.cache.prune import prune_cache
from d3hr_datasets.errors import CacheError
from tests.support.image_groups import IPC, Maker, complete_set, images_of, left_over, never
from tests.support.tampering import flip_byte


def test_settings_are_written_once_and_listed(tmp_path: Path) -> None:
    settings: dict[str, object] = {"artifact": "tiny", "seed": 3, "decode": {"guidance_scale": 2.0}}
    cache = complete_set(tmp_path, settings)
    before = (cache.folder / SETTINGS).stat().st_ino
    (tmp_path / "not a set").mkdir()
    ImageCache(tmp_path, "other", ["a", "b", "c"], IPC).ensure(1, Maker(1))
    flip_byte(cache.path(0, 0))
    complete_set(tmp_path, settings)
    assert (cache.folder / SETTINGS).stat().st_ino == before
    other, found = list_cached_sets(tmp_path)
    assert (found.name, found.folder, found.settings) == ("set", tmp_path / "set", settings)
    assert (found.num_groups, found.num_complete_groups, found.num_images) == (2, 2, 2 * IPC)
    assert found.num_bytes == sum(path.stat().st_size for path in cache.folder.rglob("*.*"))
    assert (other.name, other.settings, other.num_groups, other.num_complete_groups) == ("other", {}, 3, 1)
    assert list_cached_sets(tmp_path / "nowhere") == []


def test_listing_does_not_count_groups_that_lack_a_file(tmp_path: Path) -> None:
    cache = complete_set(tmp_path)
    cache.path(0, 1).unlink()
    (found,) = list_cached_sets(tmp_path)
    assert (found.num_complete_groups, found.num_images) == (1, 2 * IPC - 1)


def test_set_without_settings_is_still_read_and_gets_them_back(tmp_path: Path) -> None:
    cache = complete_set(tmp_path)
    before = (cache.folder / SETTINGS).read_bytes()
    (cache.folder / SETTINGS).unlink()
    assert cache.is_complete(0) and cache.read(1, 0) is not None
    assert list_cached_sets(tmp_path) == []  # nothing says that it is one
    cache.check([0, 1])
    assert (cache.folder / SETTINGS).read_bytes() == before and not left_over(tmp_path)


def test_set_with_damaged_settings_is_reported_and_not_pruned(tmp_path: Path) -> None:
    cache = complete_set(tmp_path)
    before = (cache.folder / SETTINGS).read_bytes()
    flip_byte(cache.folder / SETTINGS)
    flip_byte(cache.path(0, 0))
    (found,) = list_cached_sets(tmp_path)
    assert (found.name, found.settings, found.num_images) == ("set", {}, 2 * IPC)
    assert verify_cached_set(tmp_path, "set") == [cache.folder / SETTINGS, cache.path(0, 0)]
    assert prune_cache(tmp_path, damaged=True).removed == ()
    with pytest.raises(CacheError, match=r"set\.json is damaged.*Generate the set again"):
        prune_cache(tmp_path, ["set"])
    cache.ensure(0, Maker(0))
    assert (cache.folder / SETTINGS).read_bytes() == before and verify_cached_set(tmp_path, "set") == []


def test_set_of_another_format_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    complete_set(tmp_path)
    document = {"format": 2, "sha256": hashlib.sha256(b'{"format": 2}').hexdigest()}
    (tmp_path / "set" / SETTINGS).write_text(json.dumps(document, sort_keys=True, indent=2) + "\n")
    cache = ImageCache(tmp_path, "set", ["a", "b"], IPC)
    uses: list[Callable[[], object]] = [
        lambda: cache.read(0, 0),
        lambda: cache.is_complete(0),
        lambda: cache.ensure(0, never),
        lambda: verify_cached_set(tmp_path, "set"),
    ]
    for use in uses:
        with pytest.raises(CacheError, match=r"format 2; .* reads 1.*prune set"):
            use()
    (found,) = list_cached_sets(tmp_path)
    assert (found.settings, found.num_complete_groups, found.num_images) == ({}, 0, 2 * IPC)
    assert prune_cache(tmp_path, damaged=True).removed == ()
    assert prune_cache(tmp_path, ["set"]).removed == (tmp_path / "set",)


def test_flipped_bits_anywhere_in_a_set_are_found(tmp_path: Path) -> None:
    cache = ImageCache(tmp_path, "set", ["a"], 1, settings={"seed": 1})
    cache.ensure(0, lambda: images_of(0)[:1])
    for path in (cache.path(0, 0), cache.path(0, 0).with_name(MANIFEST), cache.folder / SETTINGS):
        data = path.read_bytes()
        for bit in range(0, 8 * len(data), 5):  # each byte, and each place in a byte
            flipped = bytearray(data)
            flipped[bit // 8] ^= 1 << bit % 8
            path.write_bytes(flipped)
            assert verify_cached_set(tmp_path, "set"), (path, bit)
        path.write_bytes(data + b"\n")
        assert verify_cached_set(tmp_path, "set"), path
        path.write_bytes(data)
    assert verify_cached_set(tmp_path, "set") == []


def test_verifying_names_every_damaged_file(tmp_path: Path) -> None:
    cache = complete_set(tmp_path)
    flip_byte(cache.path(0, 0))
    cache.path(0, 1).unlink()
    additional = cache.path(1, IPC).with_suffix(".JPG")
    additional.write_bytes(b"")
    flip_byte(cache.folder / SETTINGS)
    assert verify_cached_set(tmp_path, "set") == [
        cache.folder / SETTINGS,
        cache.path(0, 0),
        cache.path(0, 1),
        additional,
    ]
    assert left_over(tmp_path) == []
    with pytest.raises(CacheError, match=r"'sat'.*\['set'\]"):
        verify_cached_set(tmp_path, "sat")
