"""The guessed tag of a unit."""

from __future__ import annotations

import pytest

from rewards.tags import guess_tag


@pytest.mark.parametrize(
    "unit",
    ["A man walks", "someone is clapping", "she waved", "He carries a box", "they tried jogging", "a dog leapt up"],
)
def test_movements_are_motion(unit: str):
    assert guess_tag(unit) == "motion"


@pytest.mark.parametrize("unit", ["The shirt is red", "a tree on the left", "Three people", "the sky is grey", ""])
def test_everything_else_is_detail(unit: str):
    assert guess_tag(unit) == "detail"
