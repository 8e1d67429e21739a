"""The figures of a step under the names they are logged by."""

from __future__ import annotations

import math
from collections.abc import Mapping

from rewards.chat import Usage
from rl.stats import LearnerStats
from rl.weight_sync import SyncStats

PHASES = ("generate", "judge", "update", "sync")
HEADLINE = (  # shown as, logged as, format
    ("reward", "reward/mean", ".3f"),
    ("cser", "reward/cser", ".3f"),
    ("tokens", "rollout/tokens", ".0f"),
    ("kl", "kl", ".4f"),
    ("mismatch", "mismatch_kl", ".1e"),
)


def sync_figures(sync: SyncStats) -> dict[str, float]:
    """Of a weight sync."""
    return {
        "seconds/sync": sync.gather_s + sync.load_s,
        "seconds/sync_gather": sync.gather_s,
        "seconds/sync_load": sync.load_s,
        "sync_mib": sync.num_bytes / 2**20,
    }


def learner_figures(stats: LearnerStats) -> dict[str, float]:
    """Of a learner update."""
    return {
        "loss": stats.loss,
        "policy_loss": stats.policy_loss,
        "kl": stats.kl,
        "entropy": stats.entropy,
        "clip_fraction": stats.clip_fraction,
        "grad_norm": stats.grad_norm,
        "lr": stats.lr,
        "updates": stats.num_updates,
        "skipped_updates": stats.num_skipped,
        "sequences": stats.num_sequences,
        "completion_tokens": stats.num_tokens,
        "forward_tokens": stats.num_forward_tokens,
        "mismatch_kl": stats.mismatch_kl,
        "mismatch_max": stats.mismatch_max,
        "correction/weight": stats.correction_weight,
        "correction/truncated_share": stats.truncated_share,
        "correction/rejected_share": stats.rejected_share,
        "features/hits": stats.feature_hits,
        "features/misses": stats.feature_misses,
        "features/cache_mib": stats.feature_bytes / 2**20,
        "seconds/update_fetch": stats.fetch_s,
        "seconds/update_vision": stats.vision_s,
        "seconds/update_reference": stats.reference_s,
        "seconds/update_policy": stats.policy_s,
        "seconds/update_optimizer": stats.optimizer_s,
    }


def judge_figures(usage: Usage) -> dict[str, float]:
    """Of what the judges were asked during a step."""
    return {
        "judge/requests": usage.num_requests,
        "judge/retries": usage.num_retries,
        "judge/failed": usage.num_failed,
        "judge/cached": usage.num_cached,
        "judge/input_tokens": usage.input_tokens,
        "judge/output_tokens": usage.output_tokens,
        "judge/usd": usage.usd,
    }


def timeline(figures: Mapping[str, float]) -> dict[str, float]:
    """How a step's time divides: shares that sum to 1, and the seconds that are no phase's.

    A phase counts for as long as the driver waited for it, so work that runs behind another phase (generation, in an
    async pipeline) has no share of its own. "wait" is the rest of `seconds/step`: the driver's own work.
    """
    spent = {phase: figures.get(f"seconds/{phase}", 0.0) for phase in PHASES}
    spent["generate"] = figures.get("seconds/generate_wait", spent["generate"])
    whole = max(figures["seconds/step"], math.fsum(spent.values()))
    spent["wait"] = whole - math.fsum(spent.values())
    return {"seconds/wait": spent["wait"]} | {f"share/{phase}": seconds / whole for phase, seconds in spent.items()}


def headline(figures: Mapping[str, float]) -> str:
    """What stands beside the progress bar; figures that a step does not have are left out."""
    shown = [f"{name} {figures[key]:{form}}" for name, key, form in HEADLINE if key in figures]
    seconds = "/".join(f"{figures.get(f'seconds/{phase}', 0):.1f}" for phase in PHASES)
    return "  ".join([*shown, f"{'/'.join(PHASES)} {seconds} s"])
