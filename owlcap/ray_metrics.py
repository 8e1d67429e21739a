"""What the driver and every actor tell Prometheus, through Ray's metrics: names, kinds and meanings in one place.

A class a kind of process; each makes its metrics at the start and labels them with the run's name and the worker's
number. Ray collects them on each node and serves them at the node's metrics port with the prefix `ray_`, counters
with the suffix `_total`: `owlcap_rollout_tokens` is scraped as `ray_owlcap_rollout_tokens_total`. Where no agent
collects (Ray without its `default` extra, or no Ray at all) they are numbers that nobody reads; nothing fails.

docs/monitoring.md says what the headline figures mean; `tools/make_dashboard.py` draws them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from owlcap.logging import actor_folder

if TYPE_CHECKING:
    from ray.util.metrics import Counter, Gauge, Histogram

    M = TypeVar("M", Counter, Gauge, Histogram)

LABELS = ("run", "worker")
SECONDS = (0.01, 0.05, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0)

# Gauges of the driver: the name that metrics.jsonl has, the metric's, and what it is.
HEADLINE: Mapping[str, tuple[str, str]] = {
    "reward/mean": ("owlcap_reward_mean", "Mean reward of the step's scored rollouts."),
    "reward/cser": ("owlcap_reward_cser", "Mean CSER of the step's scored rollouts."),
    "reward/std_in_group": ("owlcap_reward_std_in_group", "Standard deviation of rewards in a group, mean."),
    "reward/unscored_share": ("owlcap_reward_unscored_share", "Share of rollouts without a reward."),
    "advantage/groups_without_variance": (
        "owlcap_groups_without_variance",
        "Groups of the step whose rewards are all equal.",
    ),
    "rollout/tokens": ("owlcap_completion_tokens", "Tokens of a completion, mean."),
    "rollout/truncated_share": ("owlcap_truncated_share", "Share of completions cut off at max_new_tokens."),
    "rollout/failed": ("owlcap_failed_prompts", "Prompts of the step that gave no captions."),
    "rollout/stale_groups": (
        "owlcap_stale_groups",
        "Groups of the step left out since they were sampled too long ago.",
    ),
    "staleness/mean": ("owlcap_staleness", "Updates between sampling a token and learning from it, mean."),
    "rollout/restarts": ("owlcap_rollout_restarts", "Rollout workers replaced since this start."),
    "train/loss": ("owlcap_loss", "Loss of the step's updates, mean."),
    "train/kl": ("owlcap_kl", "KL of the policy to its reference, a token."),
    "train/entropy": ("owlcap_entropy", "Entropy of the policy in nats a token."),
    "train/clip_fraction": ("owlcap_clip_fraction", "Share of tokens whose ratio was clipped."),
    "train/grad_norm": ("owlcap_grad_norm", "Norm of the gradient before clipping."),
    "train/lr": ("owlcap_learning_rate", "Learning rate of the last update."),
    "train/mismatch_kl": ("owlcap_mismatch_kl", "KL of the sampler to the learner before any update, a token."),
    "correction/weight": ("owlcap_correction_weight", "Weight of a token by the rollout correction, mean."),
    "correction/truncated_share": ("owlcap_correction_truncated_share", "Share of tokens whose weight was cut."),
    "correction/rejected_share": ("owlcap_correction_rejected_share", "Share of tokens that count 0."),
    "train/epoch": ("owlcap_epoch", "Passes over the training data so far."),
    "judge/usd": ("owlcap_judge_usd", "What the step's judge calls cost."),
    "eval/reward": ("owlcap_eval_reward", "Reward of the greedy captions of held-out clips, mean."),
    "eval/cser": ("owlcap_eval_cser", "CSER of the greedy captions of held-out clips, mean."),
    "seconds/step": ("owlcap_step_seconds", "Seconds of a whole step."),
}


class _Metrics:
    """Makes metrics that carry this process's labels."""

    def __init__(self, run: str, worker: str) -> None:
        self._tags = {"run": run, "worker": worker}
        self.all: list[Counter | Gauge | Histogram] = []

    def _counter(self, name: str, text: str) -> Counter:
        from ray.util.metrics import Counter

        return self._labelled(Counter(name, text, LABELS))

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        from ray.util.metrics import Gauge

        return self._labelled(Gauge(name, text, (*LABELS, *labels)))

    def _histogram(self, name: str, text: str, boundaries: Sequence[float] = SECONDS) -> Histogram:
        from ray.util.metrics import Histogram

        return self._labelled(Histogram(name, text, list(boundaries), LABELS))

    def _labelled(self, metric: M) -> M:
        metric.set_default_tags(self._tags)
        self.all.append(metric)
        return metric


class RolloutMetrics(_Metrics):
    """Of one rollout worker."""

    def __init__(self, worker: int) -> None:
        super().__init__(run_name(), str(worker))
        self.tokens = self._counter("owlcap_rollout_tokens", "Tokens sampled.")
        self.prompts = self._counter("owlcap_rollout_prompts", "Prompts finished, failures included.")
        self.failures = self._counter("owlcap_rollout_failures", "Prompts that gave no group.")
        self.decode_s = self._counter("owlcap_rollout_decode_seconds", "Seconds of decoding and preparing clips.")
        self.generate_s = self._counter("owlcap_rollout_generate_seconds", "Seconds with requests in the engine.")
        self.speed = self._gauge("owlcap_rollout_tokens_per_second", "Sampled in the last call.")
        self.queue = self._gauge("owlcap_rollout_queue", "Prompts not finished.")
        self.policy_version = self._gauge("owlcap_rollout_policy_version", "Version of the weights in the engine.")


class RewardMetrics(_Metrics):
    """Of one reward actor."""

    def __init__(self, worker: int) -> None:
        super().__init__(run_name(), str(worker))
        self.scored = self._counter("owlcap_reward_scored", "Captions with a reward.")
        self.unscored = self._counter("owlcap_reward_unscored", "Captions without one.")
        self.queue = self._gauge("owlcap_reward_queue", "Groups handed over and not scored.")
        self.group_s = self._histogram("owlcap_reward_group_seconds", "Seconds to score a group.")
        self.requests = self._counter("owlcap_judge_requests", "Requests to judges' servers, tries included.")
        self.retries = self._counter("owlcap_judge_retries", "Of these, second and later tries.")
        self.failed = self._counter("owlcap_judge_failed", "Questions that no try answered.")
        self.cached = self._counter("owlcap_judge_cached", "Questions answered without a request.")
        self.input_tokens = self._counter("owlcap_judge_input_tokens", "Tokens sent to judges.")
        self.output_tokens = self._counter("owlcap_judge_output_tokens", "Tokens written by judges.")


class LearnerMetrics(_Metrics):
    """Of one rank of the learner, in SFT and in RL."""

    def __init__(self, rank: int) -> None:
        super().__init__(run_name(), str(rank))
        self.tokens = self._counter("owlcap_learner_tokens", "Tokens that the language model ran over, padding too.")
        self.update_s = self._counter("owlcap_learner_update_seconds", "Seconds inside updates.")
        self.updates = self._counter("owlcap_learner_updates", "Optimizer updates, skipped ones too.")
        self.skipped = self._counter("owlcap_learner_skipped_updates", "Updates left out: loss or gradient not finite.")
        self.peak_memory = self._gauge(
            "owlcap_learner_peak_memory_bytes", "Most memory held so far: of the GPU, or of the process on a CPU."
        )


class DriverMetrics(_Metrics):
    """Of the driver: the step and the headline figures, from the rows that are logged."""

    def __init__(self, run: str) -> None:
        super().__init__(run, "driver")
        self.step = self._gauge("owlcap_step", "Steps done.")
        self._headline = {key: self._gauge(name, text) for key, (name, text) in HEADLINE.items()}
        self._phases = {
            "seconds": self._gauge("owlcap_phase_seconds", "Seconds of a step, as the driver sees them.", "phase"),
            "share": self._gauge("owlcap_phase_share", "Shares of a step; they sum to 1.", "phase"),
        }

    def publish(self, step: int, row: Mapping[str, float]) -> None:
        """Take over what a logged row has of these figures.

        Args:
            row: by the names of metrics.jsonl, e.g. "reward/mean"; a step's phases are those that have a share.
        """
        self.step.set(step)
        for key, gauge in self._headline.items():
            if key in row:
                gauge.set(row[key])
        for phase in [key.removeprefix("share/") for key in row if key.startswith("share/")]:
            for prefix, gauge in self._phases.items():
                if f"{prefix}/{phase}" in row:
                    gauge.set(row[f"{prefix}/{phase}"], {"phase": phase})


def count(counter: Counter, amount: float) -> None:
    """Raise a counter by an amount that may be nothing, which Ray's counters refuse."""
    if amount > 0:
        counter.inc(amount)


def run_name() -> str:
    """Name of the run that this actor works for; "" outside of a run."""
    folder = actor_folder()
    return "" if folder is None else folder.parent.name
