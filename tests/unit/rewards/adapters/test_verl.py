"""The rewards as verl's custom reward function, loaded and called by verl itself."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from verl import DataProto
from verl.experimental.reward_loop.reward_manager.naive import NaiveRewardManager
from verl.trainer.ppo.reward import get_custom_reward_fn

from owlcap.errors import RewardError

REFERENCE = "A woman in a red coat walks a dog."


class Tokenizer:
    """Stands for a tokenizer: verl decodes the response with it."""

    def __init__(self, text: str) -> None:
        self.text = text

    def decode(self, ids: torch.Tensor, skip_special_tokens: bool) -> str:
        return self.text


def score(text: str, **reward_kwargs: Any) -> dict[str, Any]:
    custom = {"path": "pkg://rewards.adapters.verl", "name": "compute_score", "reward_kwargs": reward_kwargs}
    config = OmegaConf.create({"reward": {"custom_reward_function": custom}})
    data = DataProto.from_dict(
        tensors={"responses": torch.ones(1, 4, dtype=torch.long), "attention_mask": torch.ones(1, 8, dtype=torch.long)},
        non_tensors={
            "data_source": np.array(["captions"], dtype=object),
            "reward_model": np.array([{"ground_truth": REFERENCE}], dtype=object),
            "extra_info": np.array([{"index": 7}], dtype=object),
        },
    )

    async def run() -> dict[str, Any]:
        manager = NaiveRewardManager(config, Tokenizer(text), get_custom_reward_fn(config))  # pyright: ignore[reportArgumentType]
        manager.loop = asyncio.get_running_loop()
        return await manager.run_single(data)

    return asyncio.run(run())


@pytest.fixture
def rewards(tmp_path: Path) -> str:
    path = tmp_path / "rewards.yaml"
    path.write_text("judge: {kind: lexical}\nterms: [{name: cser}]\n")
    return str(path)


@pytest.fixture
def unscored(tmp_path: Path) -> str:
    (tmp_path / "none.py").write_text("def nothing(caption):\n    return None\n")
    path = tmp_path / "rewards.yaml"
    path.write_text(f"judge: {{kind: lexical}}\nterms: [{{name: '{tmp_path}/none.py:nothing'}}]\n")
    return str(path)


def test_verl_takes_the_score(rewards: str) -> None:
    good, bad = score(REFERENCE, config=rewards), score("A man sits.", config=rewards)
    assert good["reward_score"] > bad["reward_score"]
    assert good["reward_extra_info"]["unscored"] == 0.0


def test_an_unscored_caption_is_an_error(unscored: str) -> None:
    with pytest.raises(RewardError, match="unscored"):
        score("A man sits.", config=unscored)


def test_an_unscored_caption_takes_the_value_that_the_user_names(unscored: str) -> None:
    result = score("A man sits.", config=unscored, unscored_value=-1.0)
    assert result["reward_score"] == -1.0
    assert result["reward_extra_info"]["unscored"] == 1.0
