"""One step of TRL's real GRPOTrainer with our rewards, on a tiny random text model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from datasets import Dataset
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from rewards.adapters.trl import reward_function

WORDS = ["<pad>", "<eos>", "<unk>", "describe", "a", "dog", "cat", "runs", "walks"]
GROUP = """
def places(captions, sample):
    assert sample.keypoints == ("a dog",)
    return [None, *(float(place) for place in range(1, len(captions)))]
"""


def trained(tmp_path: Path, rewards: str) -> tuple[GRPOTrainer, float]:
    """A trainer after one step, and how far its parameters moved."""
    words = Tokenizer(WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = WhitespaceSplit()  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", padding_side="left"
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(WORDS),
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            pad_token_id=0,
            eos_token_id=1,
            bos_token_id=1,
        )
    )
    before = torch.cat([p.detach().flatten().clone() for p in model.parameters()])
    args = GRPOConfig(
        output_dir=str(tmp_path),
        use_cpu=True,
        bf16=False,
        fp16=False,
        max_steps=1,
        logging_steps=1,
        save_strategy="no",
        per_device_train_batch_size=4,
        num_generations=4,
        max_completion_length=8,
        report_to=[],
        learning_rate=0.1,
        gradient_checkpointing=False,
    )
    rows = Dataset.from_list([{"prompt": "describe", "reference": "a dog runs", "keypoints": ["a dog"]}] * 4)
    trainer = GRPOTrainer(
        model=model, args=args, train_dataset=rows, processing_class=tokenizer, reward_funcs=[reward_function(rewards)]
    )
    trainer.train()
    after = torch.cat([p.detach().flatten().cpu() for p in trainer.model.parameters()])
    return trainer, float((after - before).abs().max())


def test_a_training_step_leaves_an_unscored_caption_out_of_the_mean(tmp_path: Path) -> None:
    (tmp_path / "places.py").write_text(GROUP)
    (tmp_path / "rewards.yaml").write_text(f"terms: [{{name: '{tmp_path}/places.py:places'}}]\n")
    trainer, moved = trained(tmp_path, str(tmp_path / "rewards.yaml"))
    logged = trainer.state.log_history[0]
    assert logged["rewards/owlcap_reward/mean"] == pytest.approx(2.0)  # of 1, 2, 3; a 0 for the first gave 1.5
    assert moved > 0
