"""Ray's metrics where no Ray runs: names, labels, and that nothing fails. With Ray: tests/integration."""

from __future__ import annotations

import pytest
import ray

from owlcap.ray_metrics import DriverMetrics, LearnerMetrics, RewardMetrics, RolloutMetrics, count, run_name

KINDS = (RolloutMetrics, RewardMetrics, LearnerMetrics)


@pytest.mark.parametrize("kind", KINDS)
def test_an_actors_metrics_carry_its_run_and_number(kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OWLCAP_LOGS", "/shared/runs/grpo/logs")
    for metric in kind(3).all:
        assert metric.info["default_tags"] == {"run": "grpo", "worker": "3"}


def test_outside_of_a_run_there_is_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OWLCAP_LOGS", raising=False)
    assert run_name() == ""


def test_all_names_are_different_and_say_whose_they_are() -> None:
    made = [metric for kind in KINDS for metric in kind(0).all] + DriverMetrics("run").all
    names = [metric.info["name"] for metric in made]
    assert len(set(names)) == len(names)
    assert all(name.startswith("owlcap_") for name in names)


def test_without_ray_numbers_are_taken_and_nothing_fails() -> None:
    assert not ray.is_initialized()
    driver, worker = DriverMetrics("run"), RolloutMetrics(0)
    driver.publish(7, {"reward/mean": 1.5, "share/generate": 0.6, "seconds/generate": 3.0, "unknown/figure": 1.0})
    count(worker.tokens, 12)
    worker.queue.set(3)


def test_a_count_of_nothing_is_no_error() -> None:
    """Ray's counters refuse an increment of 0."""
    count(RewardMetrics(0).unscored, 0)
