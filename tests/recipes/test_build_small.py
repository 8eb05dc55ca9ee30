"""Images of other packages become image folders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from d3hr_datasets.image_sets.real_images import load_images
from recipes.build import small as build_small


def test_images_of_other_packages_become_image_folders(tmp_path: Path) -> None:
    digits = tmp_path / "digits"
    digits.mkdir()
    grey = [round(value / 255, 3) for value in range(256)] * 7  # as the package rounds them
    (digits / "3.json").write_text(json.dumps({"data": grey[:1568]}), encoding="utf-8")
    build_small.write_digits(digits, tmp_path / "digits-out")
    images, _, names = load_images(str(tmp_path / "digits-out"), "train+held-out", 28, 1)
    assert names == ["3"]
    assert images.flatten().tolist() == [round(255 * value) for value in grey[:1568]]
    assert images[0].flatten()[:256].tolist() == list(range(256))

    pictures = tmp_path / "emoji" / "img" / "google" / "64"
    pictures.mkdir(parents=True)
    picture = Image.new("RGBA", (64, 64), (200, 0, 0, 0))  # red that nobody sees
    picture.putpixel((5, 7), (0, 90, 0, 255))
    picture.save(pictures / "a.png")
    listed = [{"image": "a.png", "category": name} for name in ("Food & Drink", "Component")]
    (tmp_path / "emoji" / "emoji.json").write_text(
        json.dumps([*listed, {"image": "missing.png", "category": "Flags"}]), encoding="utf-8"
    )
    build_small.write_emoji(tmp_path / "emoji", tmp_path / "emoji-out")
    images, _, names = load_images(str(tmp_path / "emoji-out"), "train+held-out", 64, 3)
    assert (len(images), names) == (1, ["Food & Drink"])
    assert images[0, :, 0, 0].tolist() == [255, 255, 255]
    assert images[0, :, 7, 5].tolist() == [0, 90, 0]

    photos = tmp_path / "photos"
    photos.mkdir()
    for index, label in enumerate((0, 397, 398, 949, 999)):
        Image.new("RGB", (8, 8)).save(photos / f"imagenet_{index:02d}_{label}.jpg")
    build_small.write_photos(photos, tmp_path / "photos-out")
    found = {path.name: len(list(path.iterdir())) for path in (tmp_path / "photos-out").iterdir()}
    assert found == {"animal": 2, "artifact": 2, "fruit": 1}


def test_a_package_without_images_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "source").mkdir()
    monkeypatch.setattr(
        "sys.argv", ["build_small", "digits", str(tmp_path / "source"), "--work", str(tmp_path / "work")]
    )
    with pytest.raises(SystemExit):
        build_small.main()
    assert "holds none of the images of digits" in capsys.readouterr().err
    assert not (tmp_path / "work").exists()
