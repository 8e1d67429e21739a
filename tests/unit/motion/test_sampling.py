"""Key frames: the paper's rule on worked examples, its fall-backs, and what holds for any clip."""

import sys
from subprocess import run

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from motion.sampling import frame_energies, motion_energy, pose_aware, pose_distance, segments, uniform


def clip_of(*places, confidence=1.0):
    """One frame a place: two key points, the second at x = place, in a box of 30 x 40 (diagonal 50)."""
    keypoints = np.zeros((len(places), 2, 3))
    keypoints[:, 1, 0] = [0 if place is None else place for place in places]
    keypoints[..., 2] = np.array([0.0 if place is None else confidence for place in places])[:, None]
    return keypoints, np.tile([0.0, 0.0, 30.0, 40.0], (len(places), 1))


def test_segments_are_equal_parts_in_order():
    assert segments(10, 4) == [range(0, 2), range(2, 5), range(5, 7), range(7, 10)]


def test_a_clip_with_fewer_frames_than_segments_has_a_segment_a_frame():
    assert segments(2, 4) == [range(0, 1), range(1, 2)]


def test_distance_is_the_mean_over_key_points_in_box_diagonals():
    # One key point stays, one moves by 20 pixels: mean 10, diagonal 50.
    assert pose_distance(*clip_of(0, 20), 0, 1) == pytest.approx(0.2)


def test_distance_counts_key_points_visible_in_both_frames_only():
    keypoints, boxes = clip_of(0, 20)
    keypoints[0, 0, 2] = 0.1  # the still one is hidden once
    assert pose_distance(keypoints, boxes, 0, 1) == pytest.approx(0.4)


def test_the_first_key_frame_is_farthest_from_its_segment_on_average_and_the_next_from_the_one_before():
    # First segment 0 1 2 10: mean distances grow with |x - others|; 10 is farthest. Second: 12 is nearest, 3 farthest.
    assert pose_aware(*clip_of(0, 1, 2, 10, 12, 3, 9, 11), 2) == (3, 5)


def test_the_earliest_of_equals_wins():
    assert pose_aware(*clip_of(0, 10, 0, 10, 15, 5, 15, 5), 2) == (0, 4)


def test_a_segment_without_a_pose_gives_its_middle_frame_and_is_skipped_by_the_next():
    # The third segment is compared with frame 1 (place 9), not with the empty second segment.
    places = (0, 9, 0, None, None, None, 8, 0, 9)
    assert pose_aware(*clip_of(*places), 3) == (1, 4, 7)


def test_key_points_below_the_confidence_are_no_pose():
    assert pose_aware(*clip_of(0, 9, 0, confidence=0.4), 1) == (1,)  # the middle frame
    assert pose_aware(*clip_of(9, 0, 0, confidence=0.4), 1) == (1,)


def test_a_frame_without_a_box_has_no_usable_pose():
    keypoints, boxes = clip_of(50, 0, 10)
    boxes[0] = 0
    assert pose_aware(keypoints, boxes, 1) == (1,)  # 0 and 10 are equally far from one another: the earlier one


def test_a_segment_that_shares_no_key_point_with_the_key_frame_follows_the_first_rule():
    keypoints, boxes = clip_of(0, 1, 0, 0, 0, 9)
    keypoints[:3, 1, 2] = 0  # at first only one key point is seen, then only the other
    keypoints[3:, 0, 2] = 0
    assert pose_aware(keypoints, boxes, 2) == (0, 5)


def test_larger_people_do_not_move_more():
    keypoints, boxes = clip_of(0, 20, 30)
    boxes[2] *= 4
    assert pose_aware(keypoints, boxes, 2) == (0, 1)
    assert pose_aware(keypoints, boxes, 2, scale="none") == (0, 2)


def test_uniform_takes_the_middle_of_each_segment():
    assert uniform(10, 2) == (2, 7)


def test_motion_energy_takes_the_frame_that_changed_most():
    frames = np.zeros((6, 2, 2, 3), np.uint8)
    frames[1:3] = 10
    frames[4] = 200
    assert motion_energy(frame_energies(frames), 2) == (1, 4)


def test_energies_of_portions_equal_those_of_the_whole():
    frames = np.random.default_rng(0).integers(0, 256, (7, 4, 4, 3), np.uint8)
    portions = [frame_energies(frames[:3]), frame_energies(frames[3:], frames[2])]
    np.testing.assert_array_equal(np.concatenate(portions), frame_energies(frames))


@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_every_rule_takes_one_frame_of_each_segment(num_frames, num_segments, seed):
    rng = np.random.default_rng(seed)
    keypoints = rng.uniform(0, 1, (num_frames, 3, 3)) * (100, 100, 1)
    boxes = np.tile([0.0, 0.0, 100.0, 100.0], (num_frames, 1)) * (rng.uniform(size=num_frames) > 0.3)[:, None]
    parts = segments(num_frames, num_segments)
    assert [frame for part in parts for frame in part] == list(range(num_frames))
    for chosen in (
        pose_aware(keypoints, boxes, num_segments),
        uniform(num_frames, num_segments),
        motion_energy(rng.uniform(size=num_frames), num_segments),
    ):
        assert len(chosen) == len(parts)
        assert all(frame in part for frame, part in zip(chosen, parts, strict=True))


@given(st.integers(2, 30), st.integers(1, 5), st.integers(0, 2**32 - 1), st.floats(0.1, 10))
def test_the_choice_does_not_depend_on_where_or_how_large_the_picture_is(num_frames, num_segments, seed, factor):
    rng = np.random.default_rng(seed)
    keypoints = rng.uniform(0, 100, (num_frames, 3, 3))
    keypoints[..., 2] = 1
    boxes = np.tile([0.0, 0.0, 100.0, 100.0], (num_frames, 1))
    moved = keypoints.copy()
    moved[..., :2] = moved[..., :2] * factor + 7
    assert pose_aware(keypoints, boxes, num_segments) == pose_aware(moved, boxes * factor, num_segments)


@given(st.integers(1, 24), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_the_rule_equals_a_plain_loop_over_the_papers_words(num_frames, num_segments, seed):
    rng = np.random.default_rng(seed)
    keypoints = rng.uniform(0, 100, (num_frames, 4, 3))
    keypoints[..., 2] = 1
    boxes = np.concatenate([np.zeros((num_frames, 2)), rng.uniform(10, 100, (num_frames, 2))], 1)

    def distance(a, b):
        return pose_distance(keypoints, boxes, a, b)

    expected = []
    for part in segments(num_frames, num_segments):
        if not expected:
            scores = [sum(distance(a, b) for b in part) / len(part) for a in part]
        else:
            scores = [distance(a, expected[-1]) for a in part]
        best = max(range(len(part)), key=lambda i: scores[i])
        expected.append(part[best])
    assert pose_aware(keypoints, boxes, num_segments) == tuple(expected)


def test_sampling_and_rasteriser_need_no_body_model():
    code = "import sys, motion.sampling, motion.rasteriser; sys.exit('smplx' in sys.modules or 'ray' in sys.modules)"
    assert run([sys.executable, "-c", code], check=False).returncode == 0
