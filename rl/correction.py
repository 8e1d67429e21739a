"""verl's rollout correction: weights for captions drawn by other logprobs than the learner's.

The sampler may be an older policy (pipeline.mode async), or the same one in another precision. The loss of each
token is weighted by how much likelier the learner makes it (or its caption) than the sampler did, cut at a threshold;
what is too far off can be left out altogether.

Shapes: B sequences, T tokens of the longest (padded; `mask_BT` is 1 on real tokens).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from owlcap.config import RolloutCorrectionSection


@dataclass(frozen=True, slots=True)
class Correction:
    """Of one micro batch; counts are of tokens."""

    weights_BT: torch.Tensor  # without a gradient; 0 where a token is left out
    weight: float  # summed over real tokens
    num_truncated: float
    num_rejected: float


def correct(
    learner_BT: torch.Tensor, rollout_BT: torch.Tensor, mask_BT: torch.Tensor, cfg: RolloutCorrectionSection
) -> Correction:
    """Weights of a micro batch with at least one real token.

    Args:
        learner_BT: logprobs of the learner's policy before the step's first update.
        rollout_BT: the sampler's own.
        cfg: with something to do (`is_on`).
    """
    from verl.trainer.ppo.rollout_corr_helper import compute_rollout_correction_weights, compute_rollout_rejection_mask

    ratio_BT = (learner_BT.detach() - rollout_BT) * mask_BT
    weights_BT, kept_BT = mask_BT, mask_BT
    level = None if cfg.importance == "auto" else cfg.importance
    if level is not None:
        weights_BT, _ = compute_rollout_correction_weights(ratio_BT, mask_BT, level, cfg.importance_threshold)
    if cfg.rejection is not None:
        threshold = cfg.rejection_threshold
        bounds = f"{1 / threshold}_{threshold}" if cfg.rejection.endswith("k1") else threshold
        kept_BT, _ = compute_rollout_rejection_mask(ratio_BT, mask_BT, cfg.rejection, bounds)
    is_cut = (weights_BT >= cfg.importance_threshold) & (mask_BT > 0)
    weights_BT = weights_BT * kept_BT.to(weights_BT.dtype)
    return Correction(
        weights_BT=weights_BT,
        weight=float(weights_BT.sum()),
        num_truncated=float(is_cut.sum()) if level is not None else 0.0,
        num_rejected=float(mask_BT.sum() - (kept_BT * mask_BT).sum()),
    )
