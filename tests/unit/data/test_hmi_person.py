"""HMI's rules on poses: one person, large and whole enough, who moves; worked by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from motion.pose.types import FramePeople, PoseTrack
from owlcap.config_data import PersonSection
from owlcap.data.hmi.person import Person, cut, measure, single_stretches, why_not

GOOD = Person(duration_s=4.0, single_share=1.0, box_share=0.2, keypoints=15, face_points=3, displacement=0.5)
SIZE = (100, 200)
BOX = (10.0, 10.0, 40.0, 50.0)  # 30 by 40: a diagonal of 50, and 1200 of 20000 pixels


def track_of(xs: list[float], confidence: float = 1.0, box: tuple[float, ...] = BOX) -> PoseTrack:
    """A person whose 17 key points all stand at x, one frame for each."""
    points = np.zeros((len(xs), 17, 3), np.float32)
    points[..., 0] = np.array(xs)[:, None]
    points[..., 2] = confidence
    boxes = np.tile(np.array(box, np.float32), (len(xs), 1))
    return PoseTrack("coco17", points, boxes, np.ones(len(xs), np.int64))


def people(count: int) -> FramePeople:
    return FramePeople(
        np.zeros((count, 17, 3), np.float32), np.zeros((count, 4), np.float32), np.ones(count, np.float32)
    )


def test_a_segments_figures_are_those_worked_by_hand() -> None:
    track = track_of([20, 30, 25])
    track.keypoints[0, 4:, 2] = 0.5  # not above 0.5: in the first frame four points count, all of the face

    found = measure([people(1), people(2), people(1)], track, SIZE, 1.5, PersonSection())

    assert found.single_share == pytest.approx(2 / 3)
    assert found.box_share == pytest.approx(1200 / 20000)
    assert found.keypoints == pytest.approx((4 + 17 + 17) / 3)
    assert found.face_points == pytest.approx((4 + 5 + 5) / 3)
    assert found.displacement == pytest.approx((10 / 50 + 5 / 50) / 1.5)


def test_the_worst_frame_may_decide_instead_of_the_mean() -> None:
    track = track_of([20, 30])
    track.keypoints[0, 4:, 2] = 0.1

    assert measure([people(1)] * 2, track, SIZE, 1.0, PersonSection(judge_by="every")).keypoints == 4


def test_a_person_who_is_never_there_has_no_figures() -> None:
    found = measure([people(0)] * 3, track_of([1, 2, 3], box=(0, 0, 0, 0)), SIZE, 3.0, PersonSection())

    assert (found.single_share, found.box_share, found.keypoints, found.displacement) == (0.0, 0.0, 0.0, 0.0)


def test_a_good_segment_breaks_no_rule() -> None:
    assert why_not(GOOD, PersonSection()) == ""


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"duration_s": 1.9}, "shorter than min_s"),
        ({"duration_s": 10.1}, "longer than max_s"),
        ({"single_share": 0.9}, "not one person"),  # more than 90 % is asked for
        ({"box_share": 1 / 50}, "person too small"),
        ({"keypoints": 11.9}, "too few key points"),
        ({"face_points": 1.5}, "too little of the face"),
        ({"displacement": 0.01}, "too little movement"),
    ],
)
def test_each_rule_alone_drops_a_segment(change: dict[str, float], reason: str) -> None:
    assert why_not(replace(GOOD, **change), PersonSection()) == reason


@pytest.mark.parametrize("change", [{"duration_s": 2.0}, {"duration_s": 10.0}, {"keypoints": 12}, {"face_points": 2}])
def test_the_bounds_themselves_are_allowed(change: dict[str, float]) -> None:
    assert why_not(replace(GOOD, **change), PersonSection()) == ""


def test_stretches_of_one_person_bridge_a_single_odd_frame() -> None:
    counts = [0, 1, 1, 2, 1, 1, 0, 0, 1]

    assert single_stretches(counts, list(range(9)), 9.0) == [(1, 6), (8, 9.0)]


def test_nobody_gives_no_stretch() -> None:
    assert single_stretches([0, 2, 0], [0, 1, 2], 3.0) == []


@pytest.mark.parametrize(
    ("length", "parts"),
    [(1.9, []), (2.0, [2.0]), (10.0, [10.0]), (10.5, [5.25, 5.25]), (31.0, [7.75] * 4)],
)
def test_a_stretch_is_cut_into_equal_parts_of_allowed_length(length: float, parts: list[float]) -> None:
    found = cut(3.0, 3.0 + length, 2.0, 10.0)

    assert [end - start for start, end in found] == pytest.approx(parts)
    assert not found or (found[0][0], found[-1][1]) == pytest.approx((3.0, 3.0 + length))
