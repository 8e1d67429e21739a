"""The policy's loss: verl's policy losses, aggregation and KL estimators by name, as shares of a global mean.

With the defaults this is the released OwlCap loss,

    L = -mean over sequences of mean over tokens of [ exp(logp - stopgrad(logp)) * A - beta * k3(ref, policy) ]

computed by verl's "vanilla" loss: at a step's first update the old logprobs are the current ones, the ratio
is 1 and its clipping does nothing. Differences from the released code, all beyond its working range:
  - with several updates a step verl clips the ratio (PPO, `clip_ratio`, and a lower bound of 3 on it for
    negative advantages); the released code makes one update and clips nothing;
  - verl's k3 clamps the log ratio to +-20 and k3 itself to 10, so its gradient ends where the reference is
    about e^2.6 = 13 times likelier than the policy; the released code clamps the log ratio to +-10.

Shapes: B sequences, T tokens of the longest (padded; `mask_BT` is 1 on real tokens).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from owlcap.config import AlgorithmSection
from owlcap.errors import ConfigError

REFUSED = {
    "clip_cov": "it chooses tokens within a micro batch, so its result depends on how a step is cut",
    "kl_cov": "it chooses tokens within a micro batch, so its result depends on how a step is cut",
    "bypass_mode": "it is a switch of verl's own trainer, not a loss",
}


@dataclass(frozen=True, slots=True)
class BatchSize:
    """Size of one optimizer step over all ranks and micro batches: what the loss is a mean over."""

    num_sequences: int
    num_tokens: int


@dataclass(frozen=True, slots=True)
class PolicyLoss:
    """One micro batch's share of the step's loss. The shares of all micro batches on all ranks add up to it."""

    loss: torch.Tensor  # scalar with a graph: policy + kl_beta * kl; without the latter if kl_in is "reward"
    policy: float
    kl: float  # before kl_beta
    clip_fraction: float  # of this micro batch's tokens


def policy_loss(
    logprobs_BT: torch.Tensor,
    old_logprobs_BT: torch.Tensor,
    reference_logprobs_BT: torch.Tensor | None,
    advantages_B: torch.Tensor,
    mask_BT: torch.Tensor,
    *,
    cfg: AlgorithmSection,
    size: BatchSize,
    max_new_tokens: int,
    weights_BT: torch.Tensor | None = None,
) -> PolicyLoss:
    """This micro batch's share of the step's loss.

    Args:
        logprobs_BT: of the policy, with a graph.
        old_logprobs_BT: of the policy before the step's first update, without a graph.
        reference_logprobs_BT: of the frozen reference; None leaves the KL term out (needed only if kl_beta is 0).
        size: of the whole optimizer step.
        max_new_tokens: the constant that "seq-mean-token-sum-norm" divides by.
        weights_BT: of the rollout correction; they multiply each token's policy loss, not its KL.

    Raises:
        ConfigError: `cfg.policy_loss` is no loss that can be used here.
    """
    from verl.trainer.ppo.core_algos import agg_loss, kl_penalty

    assert reference_logprobs_BT is not None or cfg.kl_beta == 0 or cfg.kl_in == "reward"
    loss_fn = policy_loss_fn(cfg.policy_loss)
    policy, figures = loss_fn(
        old_log_prob=old_logprobs_BT,
        log_prob=logprobs_BT,
        advantages=advantages_B[:, None].expand_as(logprobs_BT),
        response_mask=mask_BT,
        loss_agg_mode=cfg.loss_aggregation,
        config=_verl_config(cfg, size, max_new_tokens),
        rollout_is_weights=weights_BT,
    )
    if cfg.policy_loss == "geo_mean":  # the one loss that verl divides by the micro batch's sequences
        policy = policy * len(mask_BT) / size.num_sequences
    loss, kl_share = policy, 0.0
    if reference_logprobs_BT is not None:
        kl_BT = kl_penalty(logprobs_BT, reference_logprobs_BT, cfg.kl_estimator)  # type: ignore[arg-type]
        kl = agg_loss(kl_BT, mask_BT, cfg.loss_aggregation, **_totals(size, max_new_tokens))
        loss = policy + cfg.kl_beta * kl if cfg.kl_in == "loss" else policy
        kl_share = float(kl.detach())
    clipped = float(figures.get("actor/pg_clipfrac", 0.0))
    return PolicyLoss(loss=loss, policy=float(policy.detach()), kl=kl_share, clip_fraction=clipped)


def policy_loss_fn(name: str) -> Callable[..., tuple[torch.Tensor, dict[str, Any]]]:
    """verl's policy loss of that name.

    Raises:
        ConfigError: no such name, or a loss that is not a sum over sequences or tokens.
    """
    from verl.trainer.ppo.core_algos import POLICY_LOSS_REGISTRY, get_policy_loss_fn

    if name in POLICY_LOSS_REGISTRY and name not in REFUSED:
        return get_policy_loss_fn(name)
    why = f"cannot be used: {REFUSED[name]}" if name in REFUSED else "is unknown"
    raise ConfigError(
        f"policy loss {name!r} {why}",
        where="algorithm.policy_loss",
        allowed=", ".join(sorted(set(POLICY_LOSS_REGISTRY) - set(REFUSED))),
        cure="set algorithm.policy_loss=vanilla, or register your own with verl's register_policy_loss",
    )


def k3(logprobs: torch.Tensor, reference_logprobs: torch.Tensor) -> torch.Tensor:
    """Schulman's estimator of KL(policy, reference) from the policy's own samples, a token at a time."""
    from verl.trainer.ppo.core_algos import kl_penalty

    return kl_penalty(logprobs, reference_logprobs, "k3")  # type: ignore[arg-type]


def sequence_kl(
    logprobs_BT: torch.Tensor, reference_logprobs_BT: torch.Tensor, mask_BT: torch.Tensor, estimator: str
) -> torch.Tensor:
    """KL(policy, reference) of each sequence [B]: the sum over its tokens, which verl subtracts from the reward."""
    from verl.trainer.ppo.core_algos import kl_penalty

    return (kl_penalty(logprobs_BT, reference_logprobs_BT, estimator) * mask_BT).sum(-1)  # type: ignore[arg-type]


def _totals(size: BatchSize, max_new_tokens: int) -> dict[str, int]:
    """verl's names for a step's size. The engine adds gradients up over ranks, so `dp_size` is 1."""
    return {
        "dp_size": 1,
        "batch_num_tokens": size.num_tokens,
        "global_batch_size": size.num_sequences,
        "loss_scale_factor": max_new_tokens,
    }


def _verl_config(cfg: AlgorithmSection, size: BatchSize, max_new_tokens: int) -> Any:
    """verl's ActorConfig with what its losses read; the other fields it insists on play no part in a loss."""
    from verl.workers.config import ActorConfig, PolicyLossConfig

    low, high = cfg.clip_ratio_low, cfg.clip_ratio_high
    return ActorConfig(
        strategy="fsdp",
        rollout_n=1,
        ppo_micro_batch_size_per_gpu=1,
        clip_ratio=cfg.clip_ratio,
        clip_ratio_low=cfg.clip_ratio if low is None else low,
        clip_ratio_high=cfg.clip_ratio if high is None else high,
        # Of "vanilla" a bound for negative advantages; of DPPO a cut that must be wide, which ActorConfig's 3 is not.
        clip_ratio_c=20.0 if cfg.policy_loss.startswith("dppo_") else 3.0,
        loss_agg_mode=cfg.loss_aggregation,
        policy_loss=PolicyLossConfig(dro_beta=cfg.dro_beta),
        tau_pos=cfg.sapo_tau_pos,
        tau_neg=cfg.sapo_tau_neg,
        global_batch_info=_totals(size, max_new_tokens),
    )
