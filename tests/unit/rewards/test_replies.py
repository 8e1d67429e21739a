"""Reading the JSON of a reply, whatever stands around it."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.chat import InvalidReply
from rewards.replies import encodable, read_list, read_object, read_text


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1}',
        '  {"a": 1}\n',
        'Here it is: {"a": 1}. Done.',
        '```json\n{"a": 1}\n```',
        '<think>maybe {"a": 2}?</think>{"a": 1}',
        'no opening tag, {"a": 2}</think>\n{"a": 1}',
    ],
)
def test_the_object_is_found(text: str):
    assert read_object(text) == {"a": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no JSON object"),
        ("no", "no JSON object"),
        ("} {", "no JSON object"),
        ("[1]", "no JSON object"),
        ('{"a": 1', "no JSON object"),
        ('{"a": }', "not JSON"),
        ('{"a": 1} {"a": 2}', "not JSON"),
        ('{"a": 1, "a": 2}', "a key comes twice"),
        ('{"a": {"b": 1, "b": 1}}', "a key comes twice"),
        ('<think>{"a": 1}', "does not end"),
        ('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", "not JSON"),
        ('{"a": ' + "1" * 10_000 + "}", "not JSON"),
    ],
    ids=lambda text: text[:20],
)
def test_what_is_no_one_object_is_invalid(text: str, message: str):
    with pytest.raises(InvalidReply, match=message):
        read_object(text)


def test_a_closing_tag_inside_the_answer_does_not_cut_it():
    assert read_object('{"a": "</think>{}"}') == {"a": "</think>{}"}


@settings(max_examples=300, deadline=None)
@given(st.text() | st.text(alphabet='{}[]":,\\ </think>1a'))
def test_any_text_is_an_object_or_invalid(text: str):
    with suppress(InvalidReply):
        assert isinstance(read_object(text), dict)


@pytest.mark.parametrize("value", [None, "x", {"0": 1}, 1])
def test_a_list_is_a_list(value: object):
    assert read_list({"a": [1]}, "a") == [1]
    with pytest.raises(InvalidReply, match="a is not a list"):
        read_list({"a": value}, "a")


@pytest.mark.parametrize("value", [None, "", " \n", 1, ["x"]])
def test_a_statement_is_text_that_says_something(value: object):
    assert read_text("  a man waves ", "motion[0]") == "a man waves"
    with pytest.raises(InvalidReply, match=r"motion\[0\] is not a statement"):
        read_text(value, "motion[0]")


def test_lone_surrogates_are_replaced():
    assert encodable("a\ud800b跳") == "a?b跳"
