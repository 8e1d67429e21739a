"""The examples of docs/cser.md do what they say."""

from __future__ import annotations

import doctest
from pathlib import Path

PAGE = Path(__file__).resolve().parents[3] / "docs" / "cser.md"


def test_the_examples_of_the_page_are_right():
    results = doctest.testfile(str(PAGE), module_relative=False, encoding="utf-8")
    assert results.attempted >= 5
    assert results.failed == 0
