"""Errors in short."""

from __future__ import annotations

from owlcap.errors import DataError, first_line, one_line

ERROR = DataError("no such file", where="a.mp4", cure="copy it again")


def test_the_first_line_says_what_and_not_where():
    assert first_line(ERROR) == first_line(str(ERROR)) == "no such file"


def test_an_error_without_a_message_is_told_by_its_type():
    assert first_line(ValueError()) == "ValueError()"
    assert first_line(OSError("\n  disk full\nat 3")) == "disk full"


def test_one_line_has_all_of_it():
    assert one_line(ERROR) == "no such file; where: a.mp4; cure: copy it again"
