"""Triangle meshes with known geometry."""

import numpy as np
import torch


def sphere(rows: int, columns: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A unit sphere: vertices [V, 3], and triangles counter-clockwise from outside."""
    tilt = np.linspace(0, np.pi, rows + 1)[1:-1]
    turn = 2 * np.pi * np.arange(columns) / columns
    ring = np.stack(
        [
            np.outer(np.sin(tilt), np.cos(turn)),
            np.outer(np.cos(tilt), np.ones(columns)),
            np.outer(np.sin(tilt), np.sin(turn)),
        ],
        -1,
    )
    vertices = np.concatenate([[(0, 1, 0)], ring.reshape(-1, 3), [(0, -1, 0)]])
    faces = []
    last, end = 1 + (rows - 2) * columns, len(vertices) - 1
    for k in range(columns):
        after = (k + 1) % columns
        faces += [(0, 1 + after, 1 + k), (last + k, last + after, end)]
        for i in range(rows - 2):
            a, b = 1 + i * columns + k, 1 + i * columns + after
            faces += [(a, b, a + columns), (b, b + columns, a + columns)]
    return torch.tensor(vertices, dtype=torch.float32), torch.tensor(faces)


def soup(num_faces: int, seed: int, size: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Triangles at random in front of the camera, which cross one another: points [1, V, 3] in pixels and depth."""
    rng = np.random.default_rng(seed)
    middle = rng.uniform(-0.2, 1.2, (num_faces, 1, 2)) * size
    points = np.concatenate(
        [middle + rng.normal(0, size / 5, (num_faces, 3, 2)), rng.uniform(1, 3, (num_faces, 3, 1))], -1
    )
    faces = torch.arange(3 * num_faces).reshape(num_faces, 3)
    return torch.tensor(points.reshape(1, -1, 3), dtype=torch.float32), faces
