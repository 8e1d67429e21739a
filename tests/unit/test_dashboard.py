"""deploy/grafana.json: it is what the tool writes, and every query asks for a metric that the code registers."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ray.util.metrics import Counter, Histogram

from owlcap.ray_metrics import DriverMetrics, LearnerMetrics, RewardMetrics, RolloutMetrics

ROOT = Path(__file__).parents[2]
FILE = ROOT / "deploy" / "grafana.json"
GRID_COLUMNS = 24


@pytest.fixture(scope="module")
def panels() -> list[dict[str, Any]]:
    return json.loads(FILE.read_text())["panels"]


def scraped_names() -> set[str]:
    """Names under which Prometheus finds the metrics of every kind of process."""
    names: set[str] = set()
    for metrics in (RolloutMetrics(0), RewardMetrics(0), LearnerMetrics(0), DriverMetrics("run")):
        for metric in metrics.all:
            name = f"ray_{metric.info['name']}"
            if isinstance(metric, Histogram):
                names |= {f"{name}_bucket", f"{name}_sum", f"{name}_count"}
            else:
                names.add(f"{name}_total" if isinstance(metric, Counter) else name)
    return names


def asked_names(panels: list[dict[str, Any]]) -> set[str]:
    queries = [target["expr"] for panel in panels for target in panel.get("targets", ())]
    return {name for query in queries for name in re.findall(r"ray_owlcap_\w+", query)}


def test_the_file_is_what_the_tool_writes() -> None:
    done = subprocess.run([sys.executable, "tools/make_dashboard.py", "--check"], cwd=ROOT, capture_output=True)
    assert done.returncode == 0, done.stderr


def test_every_query_asks_for_metrics_that_are_registered(panels: list[dict[str, Any]]) -> None:
    assert asked_names(panels) - scraped_names() == set()


def test_every_metric_is_drawn(panels: list[dict[str, Any]]) -> None:
    drawn = {re.sub(r"_(bucket|sum|count)$", "", name) for name in asked_names(panels)}
    made = {re.sub(r"_(bucket|sum|count)$", "", name) for name in scraped_names()}
    assert made - drawn == set()


def test_every_query_is_of_the_chosen_runs_and_its_brackets_close(panels: list[dict[str, Any]]) -> None:
    for target in (target for panel in panels for target in panel.get("targets", ())):
        query = target["expr"]
        assert len(re.findall(r"ray_owlcap_\w+", query)) == query.count('{run=~"$run"}'), query
        assert all(query.count(a) == query.count(b) for a, b in ("()", "{}", "[]")), query


def test_panels_have_numbers_of_their_own(panels: list[dict[str, Any]]) -> None:
    numbers = [panel["id"] for panel in panels]
    assert len(set(numbers)) == len(numbers)


def test_panels_lie_on_the_grid_and_on_no_other_panel(panels: list[dict[str, Any]]) -> None:
    cells = [
        [(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])]
        for place in (panel["gridPos"] for panel in panels)
    ]
    assert all(0 <= x < GRID_COLUMNS for x, _ in itertools.chain(*cells))
    assert len(set(itertools.chain(*cells))) == sum(map(len, cells))
