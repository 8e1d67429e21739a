"""Figures of a step: how its time divides, and the line beside the progress bar."""

from __future__ import annotations

import pytest

from rl.figures import headline, timeline


def test_shares_of_a_step_sum_to_one_and_what_is_no_phase_is_wait() -> None:
    seconds = {"seconds/generate": 4.0, "seconds/judge": 1.0, "seconds/update": 2.0, "seconds/sync": 1.0}
    shares = timeline({**seconds, "seconds/step": 10.0})
    assert shares == {
        "seconds/wait": 2.0,
        "share/generate": 0.4,
        "share/judge": 0.1,
        "share/update": 0.2,
        "share/sync": 0.1,
        "share/wait": 0.2,
    }


def test_generation_behind_an_update_has_the_share_that_the_driver_waited_for() -> None:
    """An async pipeline: the engines worked 8 s, most of them during the update."""
    seconds = {"seconds/generate": 8.0, "seconds/generate_wait": 1.0, "seconds/update": 7.0, "seconds/step": 10.0}
    shares = timeline(seconds)
    assert (shares["share/generate"], shares["share/update"], shares["share/wait"]) == (0.1, 0.7, 0.2)


def test_a_step_without_an_update_has_no_share_of_it() -> None:
    shares = timeline({"seconds/generate": 3.0, "seconds/step": 4.0})
    assert (shares["share/update"], shares["share/wait"]) == (0.0, 0.25)


def test_shares_sum_to_one_even_when_phases_were_measured_longer_than_the_step() -> None:
    shares = timeline({"seconds/generate": 3.0, "seconds/update": 3.0, "seconds/step": 4.0})
    assert sum(value for name, value in shares.items() if name.startswith("share/")) == pytest.approx(1.0)
    assert shares["share/wait"] == 0.0


def test_the_headline_leaves_out_what_a_step_does_not_have() -> None:
    line = headline({"reward/mean": 1.25, "mismatch_kl": 1e-12, "seconds/generate": 2.0})
    assert line == "reward 1.250  mismatch 1.0e-12  generate/judge/update/sync 2.0/0.0/0.0/0.0 s"
