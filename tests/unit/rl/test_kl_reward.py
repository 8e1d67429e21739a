"""The KL taken from the reward, by hand."""

from __future__ import annotations

import pytest
import torch

from owlcap.config import AlgorithmSection
from owlcap.models.packing import PackedBatch
from owlcap.types import LearnerGroup
from rl.kl_reward import subtract_kl
from rl.microbatch import LoadedBatch


class Lengths(PackedBatch):
    """Completion lengths and the cut by them, all that is read of a packed batch here."""

    def __init__(self, lengths: tuple[int, ...]) -> None:
        object.__setattr__(self, "lengths", lengths)

    def split(self, values_N: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return torch.split(values_N, list(self.lengths))


def test_the_reward_loses_beta_times_the_sum_over_tokens() -> None:
    # k1 of two tokens, 1 and 0.5, and of one token, 0: rewards 2 - 0.1 * 1.5 and 1, so +-0.425 about their mean.
    group = LearnerGroup(None, ((1, 2), (3,)), ((-1.0, -1.0), (-1.0,)), (9.0, 9.0), rewards=(2.0, 1.0))
    batch = LoadedBatch(
        packed=Lengths((2, 1)),
        sequences=((0, 0), (0, 1)),
        advantages_B=torch.tensor([9.0, 9.0]),
        rollout_N=torch.tensor([-1.0, -1.0, -1.0]),
        mask_BT=torch.tensor([[1.0, 1.0], [1.0, 0.0]]),
        num_tokens=3,
        reference_BT=torch.tensor([[-2.0, -1.5], [-1.0, 0.0]]),
    )
    cfg = AlgorithmSection(kl_in="reward", kl_beta=0.1, kl_estimator="k1", normalize_by_std=False)
    subtract_kl([batch], {0: group}, cfg)
    assert batch.advantages_B.tolist() == pytest.approx([0.425, -0.425])
