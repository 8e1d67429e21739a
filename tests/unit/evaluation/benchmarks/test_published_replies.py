"""Replies as judges give them: what the published scripts mend is mended, other things are no reply."""

from __future__ import annotations

import pytest

from owlcap.evaluation.benchmarks.published_replies import read_dict
from rewards.chat import InvalidReply

EVENTS = {"events": [{"event": "a"}, {"event": "b"}]}


@pytest.mark.parametrize(
    "reply",
    [
        '{"events": [{"event": "a"}, {"event": "b"}]}',
        "{'events': [{'event': 'a'}, {'event': 'b'}]}",
        '```json\n{"events": [{"event": "a"}, {"event": "b"}]}\n```',
        "```python\n{'events': [{'event': 'a'}, {'event': 'b'}]}```",
        '"events": [{"event": "a"}, {"event": "b"}]}',
        '{"events": [{"event": "a"}, {"event": "b"}]',
        '{"events": [{"event": "a"} {"event": "b"},],}',
        'Here it is: {"events": [{"event": "a"}, {"event": "b"}]} Bye!',
        '<think>{"events": []}</think>\n{"events": [{"event": "a"}, {"event": "b"}]}',
    ],
)
def test_the_object_is_found(reply: str) -> None:
    assert read_dict(reply) == EVENTS


@pytest.mark.parametrize("reply", ["I cannot.", "[1, 2]", '{"events": [', "{1: " * 500])
def test_what_holds_no_object_is_no_reply(reply: str) -> None:
    with pytest.raises(InvalidReply):
        read_dict(reply)
