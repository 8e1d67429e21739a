"""What the driver does about learner ranks that are lost while they start. Real ranks are in tests/integration."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from owlcap.config import AlgorithmSection, ClusterSection, ModelSection, OptimizerSection, VideoSection
from owlcap.config import DeepSpeedSection as DeepSpeed
from owlcap.training.checkpoint import Layout
from owlcap.training.group import LearnerLostError
from owlcap.training.worker import TrainingSpec, WorkerReport
from rl import learner_client
from rl.learner import LearningSpec
from rl.learner_client import LearnerClient

REPORT = WorkerReport(0, "here", "cpu", 1, Layout(1, 0, "fp32", ()))


class Client(LearnerClient):
    """Ranks that are lost at their first starts."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, num_losses: int) -> None:
        self.events: list[str] = []
        losses = iter([LearnerLostError("learner rank 1 died while loading the policy")] * num_losses)

        def gather(*_: object) -> list[WorkerReport]:
            for loss in losses:
                raise loss
            return [REPORT]

        monkeypatch.setattr(learner_client, "gather", gather)
        monkeypatch.setattr(learner_client, "stop_worker_group", lambda group: self.events.append("stop"))
        spec = TrainingSpec(
            ModelSection(path="m"), VideoSection(), OptimizerSection(lr=1e-3), DeepSpeed(), total_steps=1, seed=0
        )
        super().__init__(spec, LearningSpec(AlgorithmSection(), 1.0, 16, "m"), ClusterSection())

    def _launch(self) -> None:
        self.events.append("launch")
        self._group: Any = SimpleNamespace()
        self._starting = []


def test_ranks_lost_at_the_first_start_are_started_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client(monkeypatch, num_losses=1)
    assert client.wait_started(again=True) == REPORT
    assert client.events == ["launch", "stop", "launch"]
    assert client.layout == REPORT.layout


def test_a_second_loss_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client(monkeypatch, num_losses=2)
    with pytest.raises(LearnerLostError, match="learner rank 1 died"):
        client.wait_started(again=True)


def test_a_restart_of_the_trainer_counts_its_losses_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client(monkeypatch, num_losses=1)
    with pytest.raises(LearnerLostError):
        client.wait_started()
    assert client.events == ["launch"]
