"""Metrics: JSONL and TensorBoard agree, non-finite values are null, a resumed run drops later steps."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from owlcap.config import TrackingSection
from owlcap.errors import ConfigError
from owlcap.metrics import MetricsWriter, read_metrics
from owlcap.runs import RunDir


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = RunDir(tmp_path)
    run.tensorboard.mkdir()
    run.rollouts.mkdir()
    run.evaluations.mkdir()
    run.config_file.write_text("name: toy\n")
    return run


def tensorboard_values(run: RunDir, name: str) -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run.tensorboard))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(name)]


def test_a_row_is_written_to_both_places_under_its_prefix(run: RunDir) -> None:
    writer = MetricsWriter(run, TrackingSection())
    writer.log(1, {"loss": 0.5, "seconds/update": 2.0})
    writer.log(1, {"cser": 1.25}, prefix="eval")
    writer.close()
    rows = read_metrics(run)
    assert [{k: v for k, v in row.items() if k != "time"} for row in rows] == [
        {"step": 1, "train/loss": 0.5, "seconds/update": 2.0},
        {"step": 1, "eval/cser": 1.25},
    ]
    assert tensorboard_values(run, "train/loss") == [(1, 0.5)]
    assert tensorboard_values(run, "eval/cser") == [(1, 1.25)]


def test_values_that_are_not_finite_become_null_with_a_warning(run: RunDir, caplog: pytest.LogCaptureFixture) -> None:
    writer = MetricsWriter(run, TrackingSection())
    writer.log(3, {"loss": float("nan"), "kl": float("inf"), "lr": 0.25})
    writer.close()
    line = run.metrics_file.read_text()
    assert json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} in JSON"))["train/loss"] is None
    assert read_metrics(run)[0]["train/lr"] == 0.25
    assert "train/loss=nan, train/kl=inf" in caplog.text


def test_a_resumed_run_drops_what_came_after(run: RunDir) -> None:
    first = MetricsWriter(run, TrackingSection())
    for step in (1, 2, 3):
        first.log(step, {"loss": float(step)})
    first.close()
    second = MetricsWriter(run, TrackingSection(), resumed_at=1)
    second.log(2, {"loss": 20.0})
    second.close()
    assert [(row["step"], row["train/loss"]) for row in read_metrics(run)] == [(1, 1.0), (2, 20.0)]
    assert tensorboard_values(run, "train/loss") == [(1, 1.0), (2, 20.0)]


def test_a_backend_without_its_package_is_a_config_error(run: RunDir) -> None:
    with pytest.raises(ConfigError, match="package trackio is not installed"):
        MetricsWriter(run, TrackingSection(backends=("trackio",)))


class RecordingTrackio(ModuleType):
    """Stands in for the trackio package: verl's Tracking is the real one, only its last call is recorded."""

    def __init__(self) -> None:
        super().__init__("trackio")
        self.context_vars = SimpleNamespace(current_run=SimpleNamespace(get=lambda: None))
        self.started: list[tuple[str, str, dict[str, object]]] = []
        self.rows: list[tuple[int, dict[str, float]]] = []

    def init(self, project: str, name: str, config: dict[str, object]) -> None:
        self.started.append((project, name, config))

    def log(self, data: dict[str, float], step: int) -> None:
        self.rows.append((step, data))


def test_further_backends_get_the_finite_numbers_and_the_settings(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    trackio = RecordingTrackio()
    monkeypatch.setitem(sys.modules, "trackio", trackio)
    writer = MetricsWriter(run, TrackingSection(backends=("trackio",), project="captions"))
    writer.log(1, {"loss": 0.5, "kl": float("nan")})
    writer.close()
    (project, name, config) = trackio.started[0]
    assert (project, name, config["name"]) == ("captions", run.path.name, "toy")
    assert trackio.rows == [(1, {"train/loss": 0.5})]
