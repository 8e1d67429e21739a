"""Questions and usage."""

from __future__ import annotations

import pytest

from rewards.chat import Question, Usage


@pytest.mark.parametrize("kind", ["units", "check-2", "A_b", "x" * 64])
def test_kinds_that_servers_take_as_a_schemas_name(kind: str):
    assert Question(kind, "p", "t", str).kind == kind


@pytest.mark.parametrize("kind", ["", "two words", "a.b", "größe", "x" * 65, "line\n"])
def test_other_kinds_are_refused(kind: str):
    with pytest.raises(ValueError, match="64 letters"):
        Question(kind, "p", "t", str)


def test_usage_adds_and_subtracts_field_by_field():
    one, other = Usage(1, 2, 3, 4, 5, 6, 7, 8.5), Usage(10, 20, 30, 40, 50, 60, 70, 80.0)
    assert one + other == Usage(11, 22, 33, 44, 55, 66, 77, 88.5)
    assert (one + other) - other == one
    assert sum([one, other], Usage()) == one + other
