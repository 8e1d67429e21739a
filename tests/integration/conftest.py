"""Shared by the tests that start Ray."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from owlcap.config import ClusterSection
from owlcap.training.cluster import start_ray


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[None]:
    """A local Ray of this module's own that believes in 8 CPUs, so that small actors always fit."""
    with start_ray(ClusterSection(), num_cpus=8):
        yield
