"""Questions of HMI: the mix of kinds, what a reply may say, and the levels of captions."""

from __future__ import annotations

import json
from typing import Any

import pytest

from owlcap.config_data import HmiSection
from owlcap.data.hmi.annotation import level_of
from owlcap.data.hmi.questions import PUBLISHED_SHARES, Pair, mix_of, read_pairs
from rewards.chat import InvalidReply


def reply(**changes: Any) -> str:
    good = {"category": "movement", "question": "Which hand waves?", "answer": "The left one."}
    return json.dumps({"questions": [{**good, **changes}]})


def test_the_mix_holds_over_many_clips() -> None:
    hmi = HmiSection()
    mixes = [mix_of(f"clip-{number}", hmi) for number in range(2000)]

    num_open = sum(mix.num_open for mix in mixes)
    num_true, num_false = sum(mix.num_true for mix in mixes), sum(mix.num_false for mix in mixes)
    assert num_open + num_true + num_false == 2000 * hmi.questions_a_clip
    assert num_open / (2000 * hmi.questions_a_clip) == pytest.approx(0.77, abs=0.01)
    assert num_true / (num_true + num_false) == pytest.approx(0.68, abs=0.02)


def test_a_clips_mix_is_always_the_same() -> None:
    assert mix_of("a", HmiSection()) == mix_of("a", HmiSection())


def test_the_published_shares_are_a_whole() -> None:
    assert sum(PUBLISHED_SHARES.values()) == pytest.approx(1.0)


def test_open_and_true_or_false_are_told_apart_by_their_answers() -> None:
    assert read_pairs(reply()) == (Pair("movement", "open", "Which hand waves?", "The left one."),)
    assert read_pairs(reply(answer=False)) == (Pair("movement", "true_false", "Which hand waves?", "False"),)


def test_a_question_counts_once() -> None:
    twice = json.loads(reply())["questions"] + json.loads(reply(question="which  hand WAVES?"))["questions"]

    assert len(read_pairs(json.dumps({"questions": twice}))) == 1


@pytest.mark.parametrize(
    "text", [reply(category="weather"), reply(question=""), reply(answer=3), '{"questions": []}', '{"other": []}', "no"]
)
def test_a_reply_of_another_form_is_asked_for_again(text: str) -> None:
    with pytest.raises(InvalidReply):
        read_pairs(text)


@pytest.mark.parametrize(
    ("duration_s", "level"), [(2.0, "fine"), (5.0, "fine"), (6.0, "contextual"), (10.0, "contextual")]
)
def test_longer_segments_are_contextual(duration_s: float, level: str) -> None:
    assert level_of(duration_s, HmiSection()) == level
