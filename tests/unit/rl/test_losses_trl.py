"""Value and gradient of the policy losses against TRL's own loss code on the same tensors."""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from owlcap.config import AlgorithmSection
from rl.losses import BatchSize, policy_loss

GRPOTrainer = pytest.importorskip("trl").GRPOTrainer

B, T = 4, 6
LENGTHS = torch.tensor([6, 3, 1, 4])
MASK = (torch.arange(T)[None, :] < LENGTHS[:, None]).float()
ADVANTAGES = torch.tensor([1.5, -0.5, 0.25, -1.25])
SIZE = BatchSize(num_sequences=B, num_tokens=int(LENGTHS.sum()))
TOKENS_AT_MOST = 8


def draw(seed: int, scale: float = 0.8) -> torch.Tensor:
    return -torch.rand(B, T, generator=torch.Generator().manual_seed(seed)) * scale


def trl_loss(current: torch.Tensor, old: torch.Tensor, reference: torch.Tensor, **settings: Any) -> torch.Tensor:
    """TRL's `_compute_loss` with the logprobs given to it, on one rank without accumulation."""
    accelerator = SimpleNamespace(num_processes=1, gather=lambda x: x, reduce=lambda x, reduction: x)
    trainer = SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *args, **kwargs: (current, torch.zeros_like(current), None),
        aux_loss_enabled=False,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        importance_sampling_level=settings.get("level", "token"),
        beta=0.1,
        args=SimpleNamespace(
            use_bias_correction_kl=False,
            delta=3.0,
            sapo_temperature_pos=1.0,
            sapo_temperature_neg=1.05,
            steps_per_generation=1,
        ),
        loss_type=settings["loss_type"],
        epsilon_low=0.2,
        epsilon_high=settings.get("epsilon_high", 0.28),
        use_vllm=False,
        model=SimpleNamespace(training=True),
        current_gradient_accumulation_steps=1,
        max_completion_length=TOKENS_AT_MOST,
        accelerator=accelerator,
        _entropy_bonus_enabled=False,
        _metrics=defaultdict(lambda: defaultdict(list)),
    )
    ids = torch.ones(B, T, dtype=torch.long)
    inputs = {
        "prompt_ids": ids,
        "prompt_mask": ids,
        "completion_ids": ids,
        "completion_mask": MASK,
        "advantages": ADVANTAGES,
        "old_per_token_logps": old,
        "ref_per_token_logps": reference,
        "num_items_in_batch": MASK.sum(),
    }
    return GRPOTrainer._compute_loss(trainer, None, inputs)


CASES = [
    ("vanilla", "seq-mean-token-mean", {"loss_type": "grpo"}),
    ("vanilla", "token-mean", {"loss_type": "bnpo"}),
    ("vanilla", "token-mean", {"loss_type": "dapo"}),
    ("vanilla", "seq-mean-token-sum-norm", {"loss_type": "dr_grpo"}),
    ("cispo", "token-mean", {"loss_type": "cispo", "epsilon_high": 1.28}),  # TRL's is the bound itself
    ("gspo", "seq-mean-token-mean", {"loss_type": "grpo", "level": "sequence"}),
    ("sapo", "seq-mean-token-mean", {"loss_type": "sapo"}),
]


@pytest.mark.parametrize(("name", "mode", "theirs"), CASES)
def test_value_and_gradient_equal_trl(name: str, mode: str, theirs: dict[str, Any]) -> None:
    settings: dict[str, Any] = {"policy_loss": name, "loss_aggregation": mode}
    # TRL bounds CISPO's weights from above alone; a lower bound of 0 is none.
    low = 1.0 if name == "cispo" else 0.2
    cfg = AlgorithmSection(kl_beta=0.1, clip_ratio_low=low, clip_ratio_high=0.28, **settings)
    a, b = draw(0).requires_grad_(), draw(0).requires_grad_()
    ours = policy_loss(a, draw(1), draw(2), ADVANTAGES, MASK, cfg=cfg, size=SIZE, max_new_tokens=TOKENS_AT_MOST).loss
    other = trl_loss(b, draw(1), draw(2), **theirs)
    ours.backward()
    other.backward()
    assert ours.item() == pytest.approx(other.item(), abs=1e-6)
    torch.testing.assert_close(a.grad, b.grad, atol=1e-6, rtol=1e-5)
