"""Shared by the tests that start Ray."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from owlcap.config import ClusterSection
from owlcap.runs import RunDir
from owlcap.training.cluster import start_ray

pytest.register_assert_rewrite("tests.integration.toy_run")  # before it is imported

from tests.integration.toy_run import config, make_world  # noqa: E402


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[None]:
    """A local Ray of this module's own that believes in 8 CPUs, so that small actors always fit."""
    with start_ray(ClusterSection(), num_cpus=8):
        yield


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data and model of toy_run.py. Do not write to it."""
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="session")
def straight(world: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """The run of toy_run.py without interruption. Do not write to it."""
    from rl.trainer import run_rl

    return RunDir(run_rl(config(world, tmp_path_factory.mktemp("straight"))).parent)
