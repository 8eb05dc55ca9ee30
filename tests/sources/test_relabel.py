"""Images of a source get the model's labels, by a map of its classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from d3hr_datasets.classes.matching import match_classes
from d3hr_datasets.errors import ConfigError
from d3hr_datasets.sources.opening import SourceOptions, open_source
from d3hr_datasets.sources.relabel import relabel
from d3hr_datasets.sources.user_datasets import as_images
from tests.support.sources import MODEL, NAMES
from tests.support.tiny import TinyImages


def test_a_map_leaves_classes_out_and_joins_them(image_folder: Path) -> None:
    _, labels = match_classes(NAMES, MODEL, 3, {"ant": None, "1": "n1", "cat": "Ant"})
    assert labels == {0: None, 1: 0, 2: 0}
    images = relabel(open_source(str(image_folder), SourceOptions()).images, labels)
    assert images.num_images == 8 and set(images.labels or ()) == {0}
    items = [record.read() for record in images.records(0, 0)]
    assert [label for _, label in items] == [0] * 8
    assert np.asarray(items[0][0].convert("L")).tobytes() == np.asarray(TinyImages()[1][0]).tobytes()


def test_labels_nobody_knows_are_refused() -> None:
    class Labelled(TinyImages):
        targets = [0, 1, 2, 3] * 3

    with pytest.raises(ConfigError, match="image 3 has label 3"):
        relabel(as_images(Labelled()), {0: 0, 1: 1, 2: 2})
