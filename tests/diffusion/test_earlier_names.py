"""Names of before are there, and warn."""

from __future__ import annotations

import pytest

from tests.support.tiny import tiny_model


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("transformer", "network"),
        ("scheduler", "schedule"),
        ("null_class_label", "conditioning.null_class_label"),
    ],
)
def test_an_earlier_name_warns_and_gives_what_it_gave(name: str, instead: str) -> None:
    model = tiny_model()
    with pytest.warns(DeprecationWarning, match=f"{name} is called {instead} now"):
        found = getattr(model, name)
    if name == "null_class_label":
        assert found == 3
    elif name == "scheduler":
        assert len(found.alphas_cumprod) == 1000
    else:
        assert found is model.network
