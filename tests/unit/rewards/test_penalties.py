"""Penalties by rule: repetition and overlong captions."""

from __future__ import annotations

import asyncio
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from owlcap.config import RewardsSection
from owlcap.errors import ConfigError
from owlcap.types import Sample
from rewards.judges import Judges
from rewards.overlong import OverlongReward
from rewards.repetition import RepetitionReward

SAMPLE = Sample("a", "a.mp4", "", "", "")
JUDGES = Judges(RewardsSection())


def value(reward: type[RepetitionReward | OverlongReward], caption: str, **options: Any) -> float:
    (outcome,) = asyncio.run(reward(JUDGES, options).score_group(SAMPLE, [caption]))
    return outcome.value


@pytest.mark.parametrize(
    ("caption", "options", "expected"),
    [
        ("", {}, 0.0),
        ("a man waves and leaves", {}, 0.0),
        ("la la la la la", {}, -0.5),  # of 2 four-word runs 1 repeats
        ("la la la", {"n": 1}, -2 / 3),
        ("La, la. LA", {"n": 1}, -2 / 3),
        ("la la la", {"n": 1, "free_share": 0.5}, -1 / 6),
        ("la la la", {"n": 1, "free_share": 0.7}, 0.0),
    ],
)
def test_repetition_costs_the_share_of_repeated_ngrams(caption: str, options: dict[str, Any], expected: float):
    assert value(RepetitionReward, caption, **options) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("num_words", "expected"), [(0, 0.0), (300, 0.0), (301, -0.01), (350, -0.5), (400, -1.0), (9000, -1.0)]
)
def test_overlong_decays_between_the_two_lengths(num_words: int, expected: float):
    assert value(OverlongReward, "word " * num_words) == pytest.approx(expected)


async def verls_penalty(length: int, longest: int, buffer: int) -> float:
    """Of a response of `length` tokens whose score is 0, by verl's DAPO reward manager."""
    from omegaconf import OmegaConf
    from verl import DataProto
    from verl.experimental.reward_loop.reward_manager.dapo import DAPORewardManager

    overlong = {"enable": True, "len": buffer, "penalty_factor": 1.0, "log": False}
    config = OmegaConf.create({"reward": {"reward_kwargs": {"max_resp_len": longest, "overlong_buffer_cfg": overlong}}})
    manager = DAPORewardManager(config, Mock(), compute_score=lambda **_: 0.0)
    manager.loop = asyncio.get_running_loop()
    data = DataProto.from_dict(
        tensors={
            "responses": torch.zeros(1, longest, dtype=torch.long),
            "attention_mask": (torch.arange(longest) < length).long()[None],
        },
        non_tensors={"data_source": np.array(["-"]), "reward_model": np.array([{"ground_truth": ""}])},
    )
    return float((await manager.run_single(data))["reward_score"])


@pytest.mark.parametrize("length", [0, 1, 29, 30, 31, 37, 49, 50])
def test_overlong_is_verls_dapo_shaping_with_words_for_tokens(length: int):
    theirs = asyncio.run(verls_penalty(length, longest=50, buffer=20))
    assert value(OverlongReward, "word " * length, free_words=30, max_words=50) == pytest.approx(theirs)


def test_overlong_lengths_are_options():
    assert value(OverlongReward, "one two three", free_words=2, max_words=4) == -0.5


@pytest.mark.parametrize(
    ("reward", "options", "message"),
    [
        (OverlongReward, {"free_words": 400}, "free_words is 400, not below max_words, 400"),
        (OverlongReward, {"max_word": 4}, 'did you mean "max_words"'),
        (RepetitionReward, {"n": 0}, "n: Input should be greater than or equal to 1"),
        (RepetitionReward, {"free_share": 1.0}, "free_share"),
    ],
)
def test_bad_options_are_refused(reward: Any, options: dict[str, Any], message: str):
    with pytest.raises(ConfigError) as caught:
        reward(JUDGES, options)
    assert message in str(caught.value)
