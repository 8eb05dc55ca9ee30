"""Real images beside an artifact: their classes are matched by name."""

from __future__ import annotations

from typing import Any

import pytest

from d3hr_datasets.classes.class_list import ClassList
from d3hr_datasets.errors import ConfigError
from d3hr_datasets.sources.matched_images import MatchedImages
from tests.support.labelled import Labelled
from tests.support.tiny import CLASSES


def test_classes_are_matched_by_name() -> None:
    class_list = ClassList(CLASSES, ("n01", "n02", "n03"))
    images = MatchedImages(Labelled(["Cat", "n02", "dog"], [0, 1, 2, 1, 0]), class_list)
    assert sorted(images.read(1, 10, 14, "L").flatten(1)[:, 0].tolist()) == [10, 30]
    assert sorted(images.read(2, 10, 14, "L").flatten(1)[:, 0].tolist()) == [0, 40]
    with pytest.raises(ConfigError, match="class label 0 has 0 images"):
        images.read(0, 10, 14, "L")
    labelled: Any = Labelled([("crane",), ("crane", "bird")], [0, 1, 0])  # as torchvision's ImageNet
    labelled.wnids = ["n03", "n01"]
    found = MatchedImages(labelled, class_list).read(2, 10, 14, "L").flatten(1)[:, 0].tolist()
    assert sorted(found) == [0, 20]
    many = MatchedImages(Labelled(["dog"], [0] * 20), ClassList(("dog",)))
    values = [many.read(0, count, 14, "L").flatten(1)[:, 0].tolist() for count in (20, 20, 5)]
    # The first ones of a class, which a report shows, are not the first in the folder, even of all of them.
    assert values[0] == values[1] != sorted(values[0]) == list(range(0, 200, 10))
    assert values[2] == values[0][:5]
