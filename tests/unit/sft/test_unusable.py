"""A few bad clips are left out; too many stop the run with a reason."""

from __future__ import annotations

import pytest

from owlcap.errors import DataError
from sft.unusable import BadClip, BadClips


def test_clips_up_to_the_share_are_counted_once_each() -> None:
    bad = BadClips(20, 0.1, "train.jsonl")
    bad.add([BadClip("a", "empty"), BadClip("b", "missing")])
    bad.add([BadClip("a", "empty")])
    assert len(bad) == 2


def test_one_more_stops_the_run_and_says_what_was_wrong_first() -> None:
    bad = BadClips(20, 0.1, "train.jsonl")
    bad.add([BadClip("a", "empty"), BadClip("b", "missing")])
    with pytest.raises(DataError, match="3 of 20 clips cannot be used, first a: empty") as error:
        bad.add([BadClip("c", "missing")])
    assert error.value.where == "train.jsonl"
    assert "max_bad_rows_share=0.1: 2 clips" in str(error.value)


def test_the_error_says_where_once() -> None:
    bad = BadClips(20, 0.0, "train.jsonl")
    with pytest.raises(DataError) as error:
        bad.add([BadClip("a", "the video file is empty\n  where: a.mp4")])
    assert str(error.value).count("where:") == 1


def test_a_small_data_set_is_not_given_up_for_one_clip() -> None:
    bad = BadClips(num_rows=44, max_share=0.02, where="train.jsonl")
    bad.add([BadClip("a", "truncated")])
    with pytest.raises(DataError, match="2 of 44"):
        bad.add([BadClip("b", "empty")])
