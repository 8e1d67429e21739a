"""What the reward server tells Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from owlcap.types import RewardBreakdown, ScoredRollout
from rewards.chat import Usage

SECONDS = (0.01, 0.05, 0.1, 0.5, 1, 2, 5, 10, 20, 40, 80, 160, 320)


class _JudgeUsage(Collector):
    """The judges' own counters, read when they are asked for."""

    def __init__(self, usage: Callable[[], Usage]) -> None:
        self._usage = usage

    def collect(self) -> Iterator[CounterMetricFamily]:
        for name, value in asdict(self._usage()).items():
            name = name.removeprefix("num_")
            yield CounterMetricFamily(f"owlcap_judge_{name}", f"Judge: {name.replace('_', ' ')}", value=value)


class HttpMetrics:
    """Counters of one server.

    Args:
        usage: gives what the judges' models were asked so far.
    """

    def __init__(self, usage: Callable[[], Usage]) -> None:
        self.registry = CollectorRegistry()
        self.in_flight = Gauge("owlcap_captions_in_flight", "Captions being scored", registry=self.registry)
        self._captions = Counter(
            "owlcap_captions", "Captions by outcome: scored, or the reward that left them unscored",
            ["outcome"], registry=self.registry,
        )  # fmt: skip
        self._seconds = Histogram(
            "owlcap_group_seconds", "Seconds to score a group", buckets=SECONDS, registry=self.registry
        )
        self.registry.register(_JudgeUsage(usage))

    def count(self, scores: Sequence[ScoredRollout], seconds: float) -> None:
        """Count one scored group."""
        self._seconds.observe(seconds)
        for score in scores:
            outcome = "scored" if isinstance(score, RewardBreakdown) else f"unscored by {score.reward}"
            self._captions.labels(outcome).inc()
