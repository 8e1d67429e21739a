"""Figures of one learner update: sums on each rank, merged into means on the driver."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from owlcap.training.engine import StepStats


@dataclass(slots=True)
class RankStats:
    """One rank's sums over its micro batches. Losses are shares, so they add up over micro batches and ranks."""

    num_updates: int = 0
    loss: float = 0.0  # summed over updates
    policy_loss: float = 0.0
    kl: float = 0.0
    entropy: float = 0.0  # summed over tokens of all passes
    clipped: float = 0.0  # tokens, over all passes
    num_seen: int = 0  # completion tokens, over all passes
    num_sequences: int = 0  # of one pass
    num_tokens: int = 0  # completion tokens of one pass
    num_forward_tokens: int = 0  # that the language model ran over in one pass, prompts and padding included
    mismatch_kl: float = 0.0  # summed over tokens
    weight: float = 0.0  # of the rollout correction, summed over tokens
    num_truncated: float = 0.0  # tokens whose weight was cut
    num_rejected: float = 0.0  # tokens that count 0
    mismatch_max: float = 0.0  # largest |logprob of the sampler - logprob of the learner|
    feature_hits: int = 0  # clips whose features were in the cache
    feature_misses: int = 0  # that the vision tower ran over
    feature_bytes: int = 0  # in the cache's folder after this rank's last write
    steps: list[StepStats] = field(default_factory=list)  # equal on all ranks
    fetch_s: float = 0.0
    vision_s: float = 0.0
    reference_s: float = 0.0
    policy_s: float = 0.0
    optimizer_s: float = 0.0


@dataclass(frozen=True, slots=True)
class LearnerStats:
    """One step's update over all ranks. Losses are means over updates; times are those of the slowest rank."""

    loss: float
    policy_loss: float
    kl: float  # to the reference, by the configured estimator and aggregation, before kl_beta
    entropy: float  # nats a token
    clip_fraction: float
    grad_norm: float  # before clipping, mean over updates; inf if one was skipped
    lr: float
    num_updates: int
    num_skipped: int  # updates left out because they were not finite
    num_sequences: int
    num_tokens: int  # completion tokens
    num_forward_tokens: int
    mismatch_kl: float  # k3 estimate of KL(sampler, learner) a token
    mismatch_max: float
    correction_weight: float  # mean over tokens; 0 without a correction
    truncated_share: float  # of tokens
    rejected_share: float  # of tokens
    feature_hits: int  # clips whose vision features were in the cache
    feature_misses: int  # that the frozen vision tower ran over
    feature_bytes: int  # in the cache's folder when it was last written to
    fetch_s: float
    vision_s: float
    reference_s: float
    policy_s: float
    optimizer_s: float


def merge(ranks: Sequence[RankStats]) -> LearnerStats:
    """Figures of the whole update from the ranks' sums."""
    updates = ranks[0].num_updates
    num_seen = max(1, sum(r.num_seen for r in ranks))
    num_tokens = max(1, sum(r.num_tokens for r in ranks))
    steps = ranks[0].steps
    return LearnerStats(
        loss=math.fsum(r.loss for r in ranks) / updates,
        policy_loss=math.fsum(r.policy_loss for r in ranks) / updates,
        kl=math.fsum(r.kl for r in ranks) / updates,
        entropy=math.fsum(r.entropy for r in ranks) / num_seen,
        clip_fraction=math.fsum(r.clipped for r in ranks) / num_seen,
        grad_norm=math.fsum(step.grad_norm for step in steps) / len(steps),
        lr=steps[-1].lr,
        num_updates=updates,
        num_skipped=sum(step.skipped for step in steps),
        num_sequences=sum(r.num_sequences for r in ranks),
        num_tokens=sum(r.num_tokens for r in ranks),
        num_forward_tokens=sum(r.num_forward_tokens for r in ranks),
        mismatch_kl=math.fsum(r.mismatch_kl for r in ranks) / num_tokens,
        mismatch_max=max(r.mismatch_max for r in ranks),
        correction_weight=math.fsum(r.weight for r in ranks) / num_tokens,
        truncated_share=math.fsum(r.num_truncated for r in ranks) / num_tokens,
        rejected_share=math.fsum(r.num_rejected for r in ranks) / num_tokens,
        feature_hits=sum(r.feature_hits for r in ranks),
        feature_misses=sum(r.feature_misses for r in ranks),
        feature_bytes=max(r.feature_bytes for r in ranks),
        fetch_s=max(r.fetch_s for r in ranks),
        vision_s=max(r.vision_s for r in ranks),
        reference_s=max(r.reference_s for r in ranks),
        policy_s=max(r.policy_s for r in ranks),
        optimizer_s=max(r.optimizer_s for r in ranks),
    )
