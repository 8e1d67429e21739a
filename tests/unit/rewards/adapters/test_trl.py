"""The rewards as TRL calls them: the reward computation of the real GRPOTrainer, without its model."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from accelerate import Accelerator
from trl.trainer.grpo_trainer import GRPOTrainer

from owlcap.errors import ConfigError
from rewards.adapters.trl import async_reward_function, reward_function

REFERENCE = "A woman in a red coat walks a dog."
CAPTIONS = [REFERENCE, "A man sits."]


@pytest.fixture
def rewards(tmp_path: Path) -> str:
    path = tmp_path / "rewards.yaml"
    path.write_text("judge: {kind: lexical}\nterms: [{name: cser}]\n")
    return str(path)


def calculate(function: Callable[..., Any], completions: list[Any], column: str = "reference") -> list[float]:
    """What GRPOTrainer makes of the function's rewards: one number a completion, NaN where TRL masks it."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    trainer = SimpleNamespace(
        accelerator=Accelerator(cpu=True),
        args=SimpleNamespace(report_to=[]),
        reward_funcs=[function],
        reward_processing_classes=[None],
        reward_func_names=["owlcap"],
        environments=None,
        state=SimpleNamespace(global_step=0),
        _log_completion_extra=None,
        _log_metric=None,
        async_loop=loop,
    )
    inputs = [{"prompt": "Describe.", column: REFERENCE} for _ in completions]
    try:
        rewards = GRPOTrainer._calculate_rewards(  # pyright: ignore[reportAttributeAccessIssue]
            trainer, inputs, ["Describe."] * len(completions), completions, [[1]] * len(completions)
        )
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
    return rewards[:, 0].tolist()


@pytest.mark.parametrize("make", [reward_function, async_reward_function])
def test_trl_takes_the_rewards(make: Callable[..., Any], rewards: str) -> None:
    good, bad = calculate(make(rewards), CAPTIONS)
    assert good > bad


def test_chat_completions_are_read(rewards: str) -> None:
    chat = [[{"role": "assistant", "content": caption}] for caption in CAPTIONS]
    function = reward_function(rewards)
    assert calculate(function, chat) == calculate(function, CAPTIONS)


def test_the_column_of_the_references_is_the_users_choice(rewards: str) -> None:
    good, bad = calculate(reward_function(rewards, column="answer"), CAPTIONS, column="answer")
    assert good > bad


def test_a_missing_column_is_named(rewards: str) -> None:
    with pytest.raises(ConfigError, match='no column "reference"'):
        calculate(reward_function(rewards), CAPTIONS, column="answer")


def test_an_unscored_caption_is_masked(tmp_path: Path) -> None:
    (tmp_path / "half.py").write_text("def half(caption):\n    return None if 'man sits' in caption else 1.0\n")
    path = tmp_path / "rewards.yaml"
    path.write_text(f"terms: [{{name: '{tmp_path}/half.py:half'}}]\n")
    scored, unscored = calculate(reward_function(str(path)), CAPTIONS)
    assert scored == 1.0
    assert math.isnan(unscored)
