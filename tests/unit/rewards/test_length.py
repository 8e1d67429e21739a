"""Word counts, the length reward and the repetition metric."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from owlcap.config import RewardsSection
from owlcap.errors import ConfigError
from owlcap.types import Sample, Score
from rewards.judges import Judges
from rewards.length import LengthReward
from rewards.text import repetition, words

SAMPLE = Sample(id="a", video="a.mp4", prompt="", caption="", reference="")


def reward(**options: Any) -> LengthReward:
    return LengthReward(Judges(RewardsSection()), options)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("A well-known man's dog", 4),
        ("the dog\u2019s left\u2011hand side", 4),
        ("one, two;three\nfour", 4),
        ("wait - what? 'quoted' words-", 4),
        ("at 3 of 12 places", 3),
        ("un café très agréable", 4),
        ("", 0),
        (" \x00\t !? ", 0),
    ],
)
def test_words(text: str, count: int):
    assert len(words(text)) == count


@pytest.mark.parametrize(
    ("num_words", "value"),
    [(1, 0.2), (99, 0.2), (100, 1.0), (300, 1.0), (301, 0.5), (400, 0.5), (401, 0.2), (50_000, 0.2), (0, 0.2)],
)
def test_the_papers_steps(num_words: int, value: float):
    assert reward().value("word " * num_words) == value


def test_configured_steps():
    short = reward(steps=[{"min_words": 1, "max_words": 3, "value": 2.0}], otherwise=-1.0)
    assert [short.value("word " * n) for n in (1, 3, 4)] == [2.0, 2.0, -1.0]


def test_an_empty_caption_gets_the_lowest_value():
    assert reward(steps=[{"min_words": 400, "max_words": 500, "value": -2.0}], otherwise=0.5).value(" ") == -2.0


def test_a_group_is_scored_in_order():
    assert asyncio.run(reward().score_group(SAMPLE, ["word " * 100, ""])) == [Score(1.0), Score(0.2)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"step": []}, 'did you mean "steps"'),
        ({"otherwise": "much"}, "otherwise"),
        ({"otherwise": float("nan")}, "otherwise"),
        ({"steps": [{"min_words": 5, "max_words": 4, "value": 1.0}]}, "above max_words"),
        ({"steps": [{"min_words": 1, "max_words": 4, "worth": 1.0}]}, "steps.0.worth"),
        (
            {
                "steps": [
                    {"min_words": 4, "max_words": 9, "value": 1.0},
                    {"min_words": 1, "max_words": 4, "value": 0.5},
                ]
            },
            "steps 1-4 and 4-9 overlap",
        ),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], message: str):
    with pytest.raises(ConfigError) as caught:
        LengthReward(Judges(RewardsSection()), options)
    assert message in str(caught.value)


def test_repetition_is_the_share_of_repeated_four_grams():
    assert repetition("a b c d e f") == 0.0
    # a b c d a b c d: grams abcd bcda cdab dabc abcd, one of 5 repeats
    assert repetition("a b c d a b c d") == pytest.approx(0.2)
    assert repetition("la la la la la la la la") == pytest.approx(0.8)  # 5 grams, all the same: 4 repeat the first


def test_a_caption_too_short_to_repeat_does_not():
    assert repetition("a a a") == repetition("") == 0.0
