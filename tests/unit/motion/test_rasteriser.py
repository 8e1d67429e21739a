"""The z-buffer: known shapes, and the same pictures as two other rasterisers."""

import cv2
import numpy as np
import pytest
import torch

import motion.rasteriser
from motion.camera import Camera
from motion.rasteriser import rasterise

from .shapes import soup, sphere


def triangles(*corners):
    return torch.tensor(corners, dtype=torch.float32)[None], torch.arange(len(corners)).reshape(-1, 3)


def test_a_square_of_two_triangles_covers_the_pixels_whose_centres_it_holds():
    points, faces = triangles((2, 3, 1), (7, 3, 1), (7, 5, 1), (2, 3, 1), (7, 5, 1), (2, 5, 1))
    mask = rasterise(points, faces, 10, 10).mask[0]
    expected = torch.zeros(10, 10, dtype=torch.bool)
    expected[3:5, 2:7] = True
    assert torch.equal(mask, expected)


def test_the_nearest_of_two_triangles_is_seen_whatever_their_order():
    near, far = ((0, 0, 1), (20, 0, 1), (0, 20, 1)), ((0, 0, 2), (20, 0, 2), (0, 20, 2))
    assert rasterise(*triangles(*near, *far), 4, 4).faces.unique().tolist() == [0]
    assert rasterise(*triangles(*far, *near), 4, 4).faces.unique().tolist() == [1]


def test_of_equally_near_triangles_the_first_is_seen():
    same = ((0, 0, 1), (20, 0, 1), (0, 20, 1))
    assert rasterise(*triangles(*same, *same), 4, 4).faces.unique().tolist() == [0]


def test_depth_of_a_tilted_plane_follows_perspective():
    camera = Camera.of_frame(64, 64, 60.0)
    corners = torch.tensor([[(-4.0, -4.0, 2.0), (4.0, -4.0, 2.0), (-4.0, 4.0, 6.0), (4.0, 4.0, 6.0)]])  # z = 4 + y / 2
    found = rasterise(camera.project(corners), torch.tensor([(0, 1, 2), (1, 3, 2)]), 64, 64)
    slope = (torch.arange(64) + 0.5 - camera.center_y) / camera.focal  # y / z of each row
    expected = 4 / (1 - slope / 2)
    rows = torch.isfinite(found.depth[0, :, 32])
    assert rows.sum() > 40
    torch.testing.assert_close(found.depth[0, rows, 32], expected[rows], rtol=1e-4, atol=1e-4)


def test_a_sphere_is_a_disc_of_the_right_size_and_depth():
    vertices, faces = sphere(80, 80)
    camera = Camera.of_frame(200, 200, 40.0)
    found = rasterise(camera.project(vertices + torch.tensor([0.0, 0.0, 5.0]))[None], faces, 200, 200)
    radius = camera.focal / np.sqrt(5**2 - 1)  # the tangent cone
    y, x = np.mgrid[:200, :200] + 0.5 - 100
    distance = np.hypot(x, y)
    mask = found.mask[0].numpy()
    assert mask[distance < radius - 1].all()
    assert not mask[distance > radius + 0.1].any()
    ray = np.stack([x, y, np.full_like(x, camera.focal)], -1) / camera.focal
    b, c = (ray @ [0, 0, 5]), 5**2 - 1
    square = (ray**2).sum(-1)
    depth = (b - np.sqrt(np.maximum(b**2 - square * c, 0))) / square
    inside = distance < radius * 0.9
    assert np.abs(found.depth[0].numpy() - depth)[inside].max() < 0.01


def test_a_closed_surface_has_no_holes():
    vertices, faces = sphere(30, 30)
    points = vertices * 40 + torch.tensor([50.0, 50.0, 100.0])
    y, x = np.mgrid[:100, :100] + 0.5 - 50
    assert rasterise(points[None], faces, 100, 100).mask[0].numpy()[np.hypot(x, y) < 38].all()


def brute_force(points, faces, height, width):
    """Every pixel against every triangle in float64."""
    nearest = np.full((height, width), np.inf)
    number = np.full((height, width), -1)
    y, x = np.mgrid[:height, :width] + 0.5
    for face, (a, b, c) in enumerate(points[0].double().numpy()[faces.numpy()]):
        area = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
        wb = ((x - a[0]) * (c[1] - a[1]) - (y - a[1]) * (c[0] - a[0])) / area
        wc = ((b[0] - a[0]) * (y - a[1]) - (b[1] - a[1]) * (x - a[0])) / area
        wa = 1 - wb - wc
        depth = 1 / (wa / a[2] + wb / b[2] + wc / c[2])
        closer = (wa >= 0) & (wb >= 0) & (wc >= 0) & (depth < nearest)
        nearest[closer], number[closer] = depth[closer], face
    return number, nearest


@pytest.mark.parametrize("seed", range(4))
def test_crossing_triangles_equal_a_brute_force_over_all_pixels_and_triangles(seed):
    points, faces = soup(60, seed, 48)
    found = rasterise(points, faces, 48, 40)
    number, nearest = brute_force(points, faces, 48, 40)
    same = found.faces[0].numpy() == number
    assert same.mean() > 0.999  # float32 against float64 differ where a pixel's centre lies on an edge
    depth = found.depth[0].numpy()[same & (number >= 0)]
    np.testing.assert_allclose(depth, nearest[same & (number >= 0)], rtol=1e-4)


def test_weights_give_the_point_that_the_pixel_sees():
    points, faces = soup(20, 5, 32)
    found = rasterise(points, faces, 32, 32)
    where = found.mask[0].nonzero()
    corners = points[0][faces[found.faces[0][found.mask[0]]]]
    weights = found.weights[0][found.mask[0]]
    torch.testing.assert_close(weights.sum(-1), torch.ones(len(weights)))
    space = torch.cat([corners[..., :2] * corners[..., 2:], corners[..., 2:]], -1)  # unprojected with focal 1
    point = (weights[..., None] * space).sum(1)
    pixels = point[:, :2] / point[:, 2:]
    torch.testing.assert_close(pixels, where.flip(1) + 0.5, rtol=1e-3, atol=1e-3)


def test_the_outline_is_that_of_a_painter():
    vertices, faces = sphere(40, 40)
    points = vertices * torch.tensor([80.0, 180.0, 0.5]) + torch.tensor([192.0, 192.0, 3.0])
    canvas = np.zeros((384, 384), np.uint8)
    for corners in points[faces].numpy():
        cv2.fillConvexPoly(canvas, np.round((corners[:, :2] - 0.5) * 256).astype(np.int32), 1, shift=8)
    mask = rasterise(points[None], faces, 384, 384).mask[0].numpy()
    assert (mask & (canvas > 0)).sum() / (mask | (canvas > 0)).sum() > 0.98


def test_leaving_out_the_far_side_changes_nothing_for_a_closed_surface():
    vertices, faces = sphere(20, 20)
    points = Camera.of_frame(64, 64, 40.0).project(vertices + torch.tensor([0.0, 0.0, 4.0]))[None]
    whole, culled = rasterise(points, faces, 64, 64), rasterise(points, faces, 64, 64, cull=True)
    assert torch.equal(whole.faces, culled.faces)


def test_a_batch_gives_what_its_pictures_give_alone_in_any_portions(monkeypatch):
    first, faces = soup(40, 0, 32)
    second, _ = soup(40, 1, 32)
    batch = torch.cat([first, second])
    whole = rasterise(batch, faces, 32, 32)
    monkeypatch.setattr(motion.rasteriser, "PAIRS_AT_ONCE", 500)
    portions = rasterise(batch, faces, 32, 32)
    assert torch.equal(whole.faces, portions.faces)
    for number, points in enumerate((first, second)):
        assert torch.equal(whole.faces[number], rasterise(points, faces, 32, 32).faces[0])


def test_what_is_behind_the_camera_beside_the_picture_or_without_area_is_not_drawn():
    behind = triangles((0, 0, -1), (20, 0, 1), (0, 20, 1))
    beside = triangles((40, 0, 1), (60, 0, 1), (40, 20, 1))
    flat = triangles((0, 0, 1), (10, 10, 1), (20, 20, 1))
    for points, faces in (behind, beside, flat):
        found = rasterise(points, faces, 16, 16)
        assert not found.mask.any()
        assert torch.isinf(found.depth).all()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_the_same_picture():
    vertices, faces = sphere(40, 40)
    points = Camera.of_frame(128, 128, 40.0).project(vertices + torch.tensor([0.1, 0.2, 4.0]))[None]
    here, there = rasterise(points, faces, 128, 128), rasterise(points.cuda(), faces.cuda(), 128, 128)
    assert (here.faces == there.faces.cpu()).float().mean() > 0.999
