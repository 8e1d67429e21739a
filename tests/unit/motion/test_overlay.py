"""Overlays: the body's pixels change, the others do not; light, parts and silhouettes."""

import numpy as np
import pytest
import torch

from motion.overlay import draw_bodies, part_colors, vertex_normals
from owlcap.config_motion import OverlaySection

from .bodies import seen_people
from .shapes import sphere


@pytest.fixture(scope="module")
def people():
    return seen_people(2, seed=0, size=96)


def draw(people, drawn=(True, True), **overlay):
    frames = np.random.default_rng(0).integers(0, 90, (2, 96, 96, 3), np.uint8)
    vertices = people.body.vertices(people.rotations, people.shape, people.root)
    return frames, draw_bodies(frames, people.body, vertices, np.array(drawn), people.camera, OverlaySection(**overlay))


def test_the_background_is_kept_and_the_body_is_grey(people):
    frames, pictures = draw(people)
    changed = (pictures != frames).any(-1)
    assert 0.02 < changed.mean() < 0.6
    grey = pictures[changed].astype(int)
    assert (np.ptp(grey, axis=-1) == 0).all()
    assert grey.min() > 200 * 0.2
    assert grey.max() <= 200


def test_the_body_covers_its_key_points(people):
    frames, pictures = draw(people)
    changed = (pictures != frames).any(-1)
    names = people.keypoints[..., :2].astype(int).clip(0, 95)
    assert changed[np.arange(2)[:, None], names[..., 1], names[..., 0]].mean() > 0.9


def test_a_frame_without_a_person_stays_as_it_is(people):
    frames, pictures = draw(people, drawn=(False, True))
    np.testing.assert_array_equal(pictures[0], frames[0])
    assert (pictures[1] != frames[1]).any()


def test_the_background_can_be_black(people):
    frames, pictures = draw(people, style="silhouette", background="black")
    assert sorted(np.unique(pictures)) == [0, 255]
    shown = (draw(people)[1] != frames).any(-1)
    np.testing.assert_array_equal((pictures > 0).any(-1), shown)


def test_opacity_mixes_body_and_frame(people):
    frames, half = draw(people, opacity=0.5)
    whole = draw(people)[1]
    np.testing.assert_allclose(half.astype(float), (whole.astype(float) + frames) / 2, atol=1)


def test_parts_have_colours_of_their_own(people):
    assert len({tuple(color.round().int().tolist()) for color in part_colors()}) == 24
    pictures = draw(people, style="parts", background="black")[1]
    hues = pictures[pictures.any(-1)].astype(float)
    assert len(np.unique((hues / hues.max(-1, keepdims=True)).round(1), axis=0)) >= 10


def test_each_side_has_its_own_part(people):
    body = people.body
    middles = body.template[body.faces].mean(1)[:, 0]
    left_arm = body.part_of_face == 18
    assert (middles[left_arm] > 0.2).all()


def test_normals_of_a_sphere_point_outward():
    vertices, faces = sphere(30, 30)
    normals = vertex_normals(vertices[None], faces)[0]
    assert ((normals * vertices).sum(-1) > 0.99).all()


def test_surfaces_towards_the_light_are_lighter(people):
    from motion.camera import Camera
    from motion.overlay import shading
    from motion.rasteriser import rasterise

    vertices, faces = sphere(40, 40)
    vertices = vertices[None] + torch.tensor([0.0, 0.0, 4.0])
    found = rasterise(Camera.of_frame(65, 65, 40.0).project(vertices), faces, 65, 65)
    light = torch.zeros(65, 65)
    light[found.mask[0]] = shading(found, found.mask, faces, vertices)
    assert light[20, 40] > light[45, 20] + 0.1  # from above and the right
