"""The fitter: finds synthetic bodies again, with noise, hidden limbs and little to go by; and the priors' work."""

import numpy as np
import pytest
import roma
import torch

from motion.body.synthetic import synthetic_body
from motion.camera import Camera
from motion.fitting import _Goal, _Solver, _State, fit_bodies, source_bodies, vertices_of
from motion.pose.types import COCO17, BodyParameters, PoseTrack
from owlcap.config_motion import MeshSection

from .bodies import project, seen_people


def fit(people, keypoints=None, clips=None, **mesh):
    keypoints = people.keypoints if keypoints is None else keypoints
    clips = np.zeros(len(keypoints), int) if clips is None else clips
    return fit_bodies(people.body, people.camera, "coco17", keypoints, people.boxes, clips, MeshSection(**mesh))


def errors(people, found):
    """Pixels [N, 17] between the true key points and those of the fitted mesh."""
    body = found.body
    rotations = roma.rotvec_to_rotmat(torch.from_numpy(body.pose))
    seen = project(people.body, people.camera, rotations, torch.from_numpy(body.shape), torch.from_numpy(body.root))
    return np.linalg.norm(seen - people.keypoints[..., :2], axis=-1)


def test_joints_are_found_within_3_pixels_at_256_on_95_of_100_frames():
    people = seen_people(100, seed=0)
    off = errors(people, fit(people))
    assert (off.max(1) <= 3).mean() >= 0.95  # the worst of each frame's joints


def test_frames_of_one_clip_are_found_from_the_ones_before():
    people = seen_people(24, seed=1, walk=True)
    assert (errors(people, fit(people, anchor_every=4)).max(1) <= 3).mean() >= 0.95


def test_one_pixel_of_noise_costs_no_more_than_itself():
    people = seen_people(32, seed=2)
    noisy = people.keypoints.copy()
    noisy[..., :2] += np.random.default_rng(0).normal(0, 1, noisy[..., :2].shape)
    assert errors(people, fit(people, noisy)).mean() < 1.5


def test_the_error_that_is_reported_is_the_distance_to_the_points_given():
    people = seen_people(8, seed=3)
    noisy = people.keypoints.copy()
    noisy[..., :2] += 2
    noisy[:, 0, 2] = 0  # hidden, and far off
    noisy[:, 0, :2] = 900
    found = fit(people, noisy)
    assert found.error_px.max() < 2


def test_a_hidden_arm_hangs_and_the_rest_is_found():
    people = seen_people(32, seed=4)
    hidden = people.keypoints.copy()
    arm = [COCO17.index("left_elbow"), COCO17.index("left_wrist")]
    hidden[:, arm, 2] = 0
    hidden[:, arm, :2] = 0
    found = fit(people, hidden)
    seen = np.delete(np.arange(17), arm)
    assert np.median(errors(people, found)[:, seen]) < 1
    shoulder = torch.from_numpy(found.body.pose[:, 16])
    assert torch.median((shoulder - torch.tensor([0.0, 0.0, -1.2])).norm(dim=-1)) < 0.2


def test_a_wild_key_point_does_not_pull_the_body_away():
    people = seen_people(32, seed=5)
    wild = people.keypoints.copy()
    wild[:, COCO17.index("right_wrist"), :2] += 150
    off = errors(people, fit(people, wild))
    assert np.median(off[:, : COCO17.index("right_elbow")]) < 3


def test_frames_of_a_clip_have_nearly_one_shape():
    people = seen_people(16, seed=6)
    together = fit(people).body.shape.std(0).max()
    apart = fit(people, clips=np.arange(16)).body.shape.std(0).max()
    assert together < apart / 2


def test_knees_and_elbows_do_not_bend_backwards():
    found = fit(seen_people(64, seed=7)).body.pose
    assert found[:, [4, 5], 0].min() > -0.15
    assert found[:, 18, 1].max() < 0.15
    assert found[:, 19, 1].min() > -0.15


def test_a_frame_with_too_few_points_is_not_fitted():
    people = seen_people(3, seed=8)
    points = people.keypoints.copy()
    points[1, 4:, 2] = 0
    found = fit(people, points)
    assert found.fitted.tolist() == [True, False, True]
    assert np.isnan(found.error_px[1])
    assert not fit(people, points * 0).fitted.any()


def test_a_stronger_pose_prior_keeps_nearer_to_the_relaxed_pose():
    people = seen_people(8, seed=9)
    weak, strong = (np.abs(fit(people, pose_prior=weight).body.pose[:, [1, 2, 3]]).mean() for weight in (1.0, 1000.0))
    assert strong < weak / 2


def test_the_time_prior_keeps_frames_near_the_one_they_start_from():
    people = seen_people(8, seed=10, walk=True)

    def away(weight):
        pose = fit(people, anchor_every=8, time_prior=weight).body.pose[:, 1:]
        return np.abs(pose[1:] - pose[:1]).mean()

    assert away(1e4) < away(0.0) / 2


def test_written_out_derivatives_equal_differences():
    people = seen_people(2, seed=11)
    solver = _Solver(people.body, people.camera, "coco17", MeshSection())
    points = torch.from_numpy(people.keypoints[..., :2]).double() + 3
    goal = _Goal(points, torch.full((2, 17), 0.1, dtype=torch.float64), torch.zeros(2, 10, dtype=torch.float64), 1.0)
    state = _State(people.rotations.double(), people.shape.double() * 0, people.root.double())
    state = solver._moved(state, torch.full((2, 3 * len(solver.free) + 13), 1e-3, dtype=torch.float64))
    gradient = solver._normal_equations(state, goal)[1]
    data = [*range(3), *range(3 * len(solver.free), gradient.shape[1])]  # pose priors use a first-order turn
    for column in data:
        step = torch.zeros_like(gradient)
        step[:, column] = 1e-6
        there, back = solver._cost(solver._moved(state, step), goal), solver._cost(solver._moved(state, -step), goal)
        torch.testing.assert_close(gradient[:, column], (there - back) / 4e-6, rtol=1e-3, atol=1e-4)


def test_the_sources_own_parameters_are_taken_as_they_are():
    people = seen_people(3, seed=12)
    pose = roma.rotmat_to_rotvec(people.rotations).numpy()
    body = BodyParameters(pose, people.shape.numpy(), people.root.numpy())
    boxes = people.boxes.copy()
    boxes[2] = 0  # absent
    found = source_bodies(people.body, [PoseTrack("smpl24", np.zeros((3, 24, 3)), boxes, np.ones(3, int), body)])
    assert found.fitted.tolist() == [True, True, False]
    average = people.body.vertices(people.rotations, torch.zeros(3, 10), people.root)
    torch.testing.assert_close(vertices_of(people.body, found.body), average, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("height", "width"), [(480, 270), (256, 256), (1080, 1920)])
def test_the_fit_does_not_depend_on_the_frames_size(height, width):
    people = seen_people(6, seed=13)
    camera = Camera.of_frame(height, width, 55.0)
    factor = camera.focal / people.camera.focal
    points, boxes = people.keypoints.copy(), people.boxes * factor
    points[..., 0] = (points[..., 0] - 128) * factor + width / 2
    points[..., 1] = (points[..., 1] - 128) * factor + height / 2
    found = fit_bodies(synthetic_body(), camera, "coco17", points, boxes, np.zeros(6, int), MeshSection())
    assert (found.error_px / factor < 1).all()
