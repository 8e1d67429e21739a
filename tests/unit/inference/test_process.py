"""A function in a fresh process: its answer, its errors, its environment, its end."""

from __future__ import annotations

import math
import os
import signal

import pytest

from owlcap.errors import ConfigError, DataError, RolloutError
from owlcap.evaluation.run import read_captions
from owlcap.inference.process import call_in_process

NO_VARIABLES: dict[str, str] = {}


def test_the_answer_comes_back() -> None:
    assert call_in_process(math.hypot, NO_VARIABLES, 60, 3.0, 4.0) == 5.0


def test_the_process_is_another_one_with_the_given_variables() -> None:
    assert call_in_process(os.getenv, {"OWLCAP_TEST_VARIABLE": "here"}, 60, "OWLCAP_TEST_VARIABLE") == "here"
    assert "OWLCAP_TEST_VARIABLE" not in os.environ
    assert call_in_process(os.getpid, NO_VARIABLES, 60) != os.getpid()


def test_the_projects_own_errors_arrive_whole() -> None:
    with pytest.raises(DataError, match="cannot be read") as error:
        call_in_process(read_captions, NO_VARIABLES, 60, "no-such-file.jsonl")
    assert not isinstance(error.value, ConfigError)
    assert error.value.where == "no-such-file.jsonl"


def test_any_other_error_is_told_with_the_end_of_its_traceback() -> None:
    with pytest.raises(RolloutError, match=r"exit status 1: (?s:.)*ValueError: "):
        call_in_process(math.sqrt, NO_VARIABLES, 60, -1.0)


def test_a_process_that_ends_without_an_answer_is_told_by_its_exit_status() -> None:
    with pytest.raises(RolloutError, match="exit status 7: it said nothing"):
        call_in_process(os._exit, NO_VARIABLES, 60, 7)


def test_a_process_that_hangs_is_killed_at_the_deadline() -> None:
    with pytest.raises(RolloutError, match=r"no answer within 0\.5 s"):
        call_in_process(signal.pause, NO_VARIABLES, 0.5)
