"""Scoring given captions: what is averaged, what is left out, what is refused."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from owlcap.errors import DataError
from owlcap.evaluation.captions import evaluate_captions
from owlcap.types import RewardBreakdown, Sample, ScoredRollout, Unscored


class WordOverlap:
    """A scorer simple enough to work out by hand: share of caption words that the reference has."""

    async def score_group(self, sample: Sample, captions: Sequence[str]) -> Sequence[ScoredRollout]:
        return [self.score(sample.reference.split(), caption.split()) for caption in captions]

    async def close(self) -> None:
        self.closed = True

    def score(self, reference: list[str], words: list[str]) -> ScoredRollout:
        if "garbled" in words:
            return Unscored("overlap", "the judge's reply was cut off")
        share = sum(word in reference for word in words) / len(words)
        motion = {"motion_f1": share} if "waves" in reference else {}
        return RewardBreakdown(total=share, parts={}, metrics={"f1": share, **motion})


def sample(id_: str, reference: str = "she waves twice") -> Sample:
    return Sample(id_, f"{id_}.mp4", "Describe the video.", "a caption", reference)


def test_means_are_over_clips_and_parts_over_clips_that_have_them() -> None:
    samples = [sample("a"), sample("b"), sample("c", reference="a red shirt")]
    report = evaluate_captions({"a": "she waves", "b": "she runs", "c": "a shirt"}, samples, WordOverlap())
    assert report.mean("f1") == pytest.approx((1.0 + 0.5 + 1.0) / 3)
    assert (report.mean("motion_f1"), report.figure("motion_f1").num_clips) == (pytest.approx(0.75), 2)
    assert [(row.id, row.caption, row.reference) for row in report.rows][2] == ("c", "a shirt", "a red shirt")


def test_a_clip_without_caption_is_named_and_not_scored_as_zero() -> None:
    report = evaluate_captions({"a": "she waves"}, [sample("a"), sample("b")], WordOverlap())
    assert report.mean("f1") == 1.0
    assert (report.num_clips, report.num_failed) == (2, 1)
    assert report.failed[0].id == "b"
    assert "no caption" in report.failed[0].reason


def test_an_unscored_clip_is_named_with_its_reason_and_leaves_the_mean() -> None:
    report = evaluate_captions({"a": "she waves", "b": "garbled"}, [sample("a"), sample("b")], WordOverlap())
    assert report.mean("f1") == 1.0
    assert [(problem.id, problem.reason) for problem in report.unscored] == [
        ("b", "overlap: the judge's reply was cut off")
    ]


def test_several_captions_of_a_clip_are_averaged_within_it_over_the_scored_ones() -> None:
    captions = {"a": ["she waves", "he runs", "garbled"], "b": ["she runs"]}
    report = evaluate_captions(captions, [sample("a"), sample("b")], WordOverlap())
    assert [row.metrics["f1"] for row in report.rows] == [pytest.approx(0.5), pytest.approx(0.5)]
    assert report.figure("f1").num_clips == 2


def test_two_clips_with_one_id_are_refused() -> None:
    with pytest.raises(DataError, match="two clips have the id 'a'"):
        evaluate_captions({"a": "she waves"}, [sample("a"), sample("a")], WordOverlap())


def test_captions_of_other_data_are_refused() -> None:
    with pytest.raises(DataError, match="1 captions belong to no clip of the data, the first is 'z'"):
        evaluate_captions({"a": "she waves", "z": "she waves"}, [sample("a")], WordOverlap())


def test_a_figure_that_is_not_a_number_is_refused() -> None:
    class Broken(WordOverlap):
        def score(self, reference: list[str], words: list[str]) -> ScoredRollout:
            return RewardBreakdown(total=float("nan"), parts={}, metrics={})

    with pytest.raises(DataError, match="the figure 'reward' is nan"):
        evaluate_captions({"a": "she waves"}, [sample("a")], Broken())
