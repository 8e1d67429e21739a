"""A batch through verl's real reward loop worker, with a real tokenizer and without its Ray actor."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast
from verl import DataProto
from verl.experimental.reward_loop.reward_loop import RewardLoopWorker

REFERENCE = "A woman walks a dog."
CAPTIONS = ["A woman walks a dog.", "A man walks a dog.", "A woman walks a dog.", "A man sits down now."]
LENGTH = 5  # words of each
REWARD = """
import pathlib

with (pathlib.Path(__file__).parent / "built").open("a") as file:
    file.write("once ")

async def points(caption, sample):
    return len(sample.keypoints) + float(caption == sample.reference)
"""


@pytest.fixture
def config(tmp_path: Path) -> DictConfig:
    words = ["<pad>", "<eos>", "<unk>", *sorted({word for caption in CAPTIONS for word in caption.split()})]
    model = Tokenizer(WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    model.pre_tokenizer = WhitespaceSplit()  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=model, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    (tmp_path / "points.py").write_text(REWARD)
    (tmp_path / "rewards.yaml").write_text(f"terms: [{{name: '{tmp_path}/points.py:points'}}]\n")
    custom = {
        "path": "pkg://rewards.adapters.verl",
        "name": "compute_score",
        "reward_kwargs": {"config": str(tmp_path / "rewards.yaml")},
    }
    path = str(tmp_path / "tokenizer")
    return OmegaConf.create(
        {
            "actor_rollout_ref": {"model": {"path": path, "tokenizer_path": path}},
            "reward": {
                "custom_reward_function": custom,
                "reward_model": {"enable": False},
                "reward_manager": {"source": "register", "name": "naive"},
            },
            "data": {"reward_fn_key": "data_source"},
        }
    )


def test_calls_at_the_same_time_share_one_suite_and_see_extra_info(config: DictConfig, tmp_path: Path) -> None:
    async def run() -> list[dict]:
        worker = RewardLoopWorker(config)
        ids = [worker.input_tokenizer(caption)["input_ids"] for caption in CAPTIONS]
        size = len(CAPTIONS)
        data = DataProto.from_dict(
            tensors={"responses": torch.tensor(ids), "attention_mask": torch.ones(size, LENGTH, dtype=torch.long)},
            non_tensors={
                "data_source": np.array(["captions"] * size, dtype=object),
                "reward_model": np.array([{"ground_truth": REFERENCE}] * size, dtype=object),
                "extra_info": np.array(
                    [{"index": n, "keypoints": np.array(["a", "b"], dtype=object)} for n in range(size)], dtype=object
                ),
            },
        )
        return await worker.compute_score_batch(data)

    outputs = asyncio.run(run())
    assert [output["reward_score"] for output in outputs] == [3.0, 2.0, 3.0, 2.0]
    assert {tuple(output["reward_extra_info"]) for output in outputs} == {("score", "unscored")}
    assert (tmp_path / "built").read_text() == "once "
