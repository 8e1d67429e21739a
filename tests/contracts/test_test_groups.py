"""`make test` runs two processes; the tests that start Ray must all be in one of them."""

from __future__ import annotations

import os

import pytest


@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="tests run in one process")
def test_groups_of_tests_are_kept_together(request: pytest.FixtureRequest) -> None:
    assert request.node.nodeid.endswith("@tests/contracts/test_test_groups.py")
