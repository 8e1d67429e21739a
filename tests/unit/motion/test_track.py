"""The main person of a clip among others, over gaps, and poses made worse on purpose."""

import numpy as np
import pytest

from motion.pose.perturb import perturb
from motion.pose.track import main_person, overlap
from motion.pose.types import COCO17, BodyParameters, FramePeople, PoseTrack
from owlcap.config_motion import PoseSection


def frame(*boxes, scores=None):
    keypoints = np.zeros((len(boxes), 17, 3), np.float32)
    for number, box in enumerate(boxes):
        keypoints[number] = (box[0], box[1], 1)
    return FramePeople(
        keypoints,
        np.array(boxes, np.float32).reshape(-1, 4),
        np.ones(len(boxes), np.float32) if scores is None else scores,
    )


BIG, SMALL = (10, 10, 60, 110), (200, 20, 220, 60)


def test_overlap_of_boxes():
    assert overlap(np.array([0, 0, 2, 2]), np.array([1, 0, 3, 2])) == pytest.approx(1 / 3)
    assert overlap(np.array([0, 0, 1, 1]), np.array([5, 5, 6, 6])) == 0


def test_the_large_person_is_followed_whatever_the_order_of_detections():
    track = main_person([frame(BIG, SMALL), frame(SMALL, BIG), frame(BIG)], "coco17")
    np.testing.assert_array_equal(track.boxes, [BIG] * 3)
    assert track.num_people.tolist() == [2, 2, 1]


def test_one_who_stays_beats_a_larger_one_who_passes():
    passing = (100, 0, 190, 120)
    frames = [frame(BIG)] * 4 + [frame(BIG, passing)] + [frame(BIG)] * 5
    assert main_person(frames, "coco17").present.all()
    np.testing.assert_array_equal(main_person(frames, "coco17").boxes[4], BIG)


def test_a_person_who_leaves_is_absent_from_then_on():
    track = main_person([frame(BIG), frame(BIG), frame(), frame()], "coco17")
    assert track.present.tolist() == [True, True, False, False]
    assert (track.keypoints[2:, :, 2] == 0).all()


def test_a_person_unseen_for_a_moment_is_still_the_same():
    frames = [frame(BIG), frame(), frame(), frame(BIG)]
    assert main_person(frames, "coco17", max_gap=2).present.tolist() == [True, False, False, True]
    assert main_person(frames, "coco17", max_gap=1).present.tolist() == [True, False, False, False]


def test_nobody_anywhere():
    track = main_person([frame(), frame()], "coco17")
    assert not track.present.any()
    assert track.num_people.tolist() == [0, 0]


def test_the_sources_bodies_go_with_the_person():
    body = BodyParameters(
        np.ones((2, 24, 3), np.float32), np.ones((2, 10), np.float32), np.array([[1, 1, 1], [2, 2, 2]])
    )
    people = frame(SMALL, BIG)
    track = main_person([FramePeople(people.keypoints, people.boxes, people.scores, body)], "coco17")
    np.testing.assert_array_equal(track.body.root, [[2, 2, 2]])


def still_track(num_frames=400):
    keypoints = np.zeros((num_frames, 17, 3), np.float32)
    keypoints[..., 0] = np.arange(17)
    keypoints[..., 2] = 1
    return PoseTrack("coco17", keypoints, np.tile(np.float32([0, 0, 9, 9]), (num_frames, 1)), np.ones(num_frames, int))


def test_hidden_limbs_lose_their_outer_key_points_as_often_as_asked():
    worse = perturb(still_track(), PoseSection(hide_limbs=0.25), "clip")
    names = list(COCO17)
    hidden = worse.keypoints[..., 2] == 0
    assert hidden[:, names.index("left_wrist")].mean() == pytest.approx(0.25, abs=0.07)
    np.testing.assert_array_equal(hidden[:, names.index("left_wrist")], hidden[:, names.index("left_elbow")])
    assert not hidden[:, names.index("nose")].any()


def test_wrong_poses_have_left_and_right_exchanged():
    worse = perturb(still_track(), PoseSection(wrong_poses=0.5), "clip")
    names = list(COCO17)
    swapped = worse.keypoints[:, names.index("left_hip"), 0] == names.index("right_hip")
    assert swapped.mean() == pytest.approx(0.5, abs=0.1)
    assert (worse.keypoints[:, names.index("nose"), 0] == 0).all()


def test_the_same_clip_gets_the_same_faults_and_none_by_default():
    pose = PoseSection(hide_limbs=0.3, wrong_poses=0.3)
    first, again, other = (perturb(still_track(), pose, clip).keypoints for clip in ("a", "a", "b"))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    track = still_track()
    assert perturb(track, PoseSection(), "a") is track
