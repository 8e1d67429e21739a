"""Synthetic people in known poses, as a camera sees them."""

from dataclasses import dataclass

import numpy as np
import roma
import torch

from motion.body import Body, synthetic_body
from motion.camera import Camera
from motion.pose.types import COCO17, SMPL24, box_around


@dataclass(frozen=True)
class SeenPeople:
    """Bodies and their key points."""

    body: Body
    camera: Camera
    rotations: torch.Tensor
    shape: torch.Tensor
    root: torch.Tensor
    keypoints: np.ndarray  # [N, 17, 3]
    boxes: np.ndarray


def seen_people(count: int, seed: int, size: int = 256, *, walk: bool = False) -> SeenPeople:
    """People of one shape in `count` random poses, turned any way; with `walk` in a row of small changes."""
    generator = torch.Generator().manual_seed(seed)
    body, camera = synthetic_body(), Camera.of_frame(size, size, 55.0)

    def noise(*shape: int) -> torch.Tensor:
        if not walk:
            return torch.randn(*shape, generator=generator)
        ends = torch.randn(2, *shape[1:], generator=generator)
        share = torch.linspace(0, 1, shape[0]).view(-1, *(1,) * (len(shape) - 1))
        return ends[0] * (1 - share) + ends[1] * share

    spread = torch.tensor([[0.5 if "shoulder" in name or "hip" in name else 0.1] for name in SMPL24])
    spread[[i for i, name in enumerate(SMPL24) if "knee" in name or "elbow" in name or "wrist" in name]] = 0.0
    pose = noise(count, 24, 3) * spread
    bend = noise(count, 4).abs()
    pose[:, 16, 2] -= 0.9
    pose[:, 17, 2] += 0.9
    pose[:, 4, 0], pose[:, 5, 0] = bend[:, 0] * 0.6, bend[:, 1] * 0.6
    pose[:, 18, 1], pose[:, 19, 1] = -bend[:, 2] * 0.7, bend[:, 3] * 0.7
    pose[:, 0] = 0
    rotations = roma.rotvec_to_rotmat(pose)
    turn = torch.zeros(count, 3)
    turn[:, 1] = noise(count, 1)[:, 0] * (0.4 if walk else 3.0)
    upright = roma.rotvec_to_rotmat(torch.tensor([torch.pi, 0.0, 0.0]))
    rotations[:, 0] = upright @ roma.rotvec_to_rotmat(turn) @ roma.rotvec_to_rotmat(noise(count, 3) * 0.15)
    shape = torch.randn(1, 10, generator=generator).expand(count, 10)
    root = torch.cat([noise(count, 2) * 0.1, 2.2 + noise(count, 1).abs() * 0.3], 1)
    keypoints = project(body, camera, rotations, shape, root)
    keypoints = np.concatenate([keypoints, np.ones((count, 17, 1))], -1).astype(np.float32)
    return SeenPeople(body, camera, rotations, shape, root, keypoints, box_around(keypoints, 0.1))


def project(body: Body, camera: Camera, rotations, shape, root) -> np.ndarray:
    """COCO key points [N, 17, 2] of the posed mesh itself: joints of the tree, face points of the skinned surface."""
    vertices = body.vertices(rotations, shape, root)
    places, added = body.point_template
    joints = (places + torch.einsum("pis,ns->npi", added, shape))[:, : body.num_joints]
    placed = body.chain(rotations, joints)[1]
    placed = placed - placed[:, :1] + root[:, None]
    known = {name: placed[:, number] for number, name in enumerate(body.point_names[: body.num_joints])}
    known |= {name: vertices[:, vertex] for name, vertex in body.landmarks.items()}
    return camera.project(torch.stack([known[name] for name in COCO17], 1))[..., :2].numpy()
