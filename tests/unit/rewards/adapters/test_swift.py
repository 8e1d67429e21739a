"""The rewards as ms-swift's AsyncORM, called as its GRPO trainer does.

ms-swift asks for older versions of TRL and peft than the project's, so it is not among the pins: docs/adapters.md
says how to install what this test needs. Without it the test is skipped.
"""

from __future__ import annotations

import asyncio
import inspect
from pathlib import Path

import pytest

from owlcap.errors import ConfigError, RewardError
from rewards.adapters.swift import orm_class

swift_rewards = pytest.importorskip("swift.rewards", reason="ms-swift is not installed")

REFERENCE = "A woman in a red coat walks a dog."
COLUMNS = {"reference": [REFERENCE] * 2, "prompt_id": ["1"] * 2}


@pytest.fixture
def rewards(tmp_path: Path) -> str:
    path = tmp_path / "rewards.yaml"
    path.write_text("judge: {kind: lexical}\nterms: [{name: cser}]\n")
    return str(path)


def test_swift_takes_it_as_an_asynchronous_reward(rewards: str) -> None:
    orm = orm_class(rewards)(args=None)
    assert isinstance(orm, swift_rewards.AsyncORM)
    assert inspect.iscoroutinefunction(orm.__call__)
    good, bad = asyncio.run(orm([REFERENCE, "A man sits."], **COLUMNS))
    assert good > bad


def test_a_missing_column_is_named(rewards: str) -> None:
    with pytest.raises(ConfigError, match='no column "answer"'):
        asyncio.run(orm_class(rewards, column="answer")()([REFERENCE, "A man sits."], **COLUMNS))


def test_an_unscored_caption_is_an_error_or_the_value_that_the_user_names(tmp_path: Path) -> None:
    (tmp_path / "none.py").write_text("def nothing(caption):\n    return None\n")
    path = tmp_path / "rewards.yaml"
    path.write_text(f"terms: [{{name: '{tmp_path}/none.py:nothing'}}]\n")
    with pytest.raises(RewardError, match="unscored"):
        asyncio.run(orm_class(str(path))()([REFERENCE, "A man sits."], **COLUMNS))
    valued = orm_class(str(path), unscored_value=-1.0)()
    assert asyncio.run(valued([REFERENCE, "A man sits."], **COLUMNS)) == [-1.0, -1.0]
