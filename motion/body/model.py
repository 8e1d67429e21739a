"""A skinned body of the SMPL format: joints and vertices from pose, shape and place.

Letters of shapes: N bodies, V vertices, F faces, B joints, S shape numbers. The arithmetic is SMPL's (Loper et al.
2015): shape and pose blend shapes on a template, a joint regressor, a tree of rotations, linear blend skinning. It is
written here, and checked against the package smplx, because that package may not be used commercially, while the
synthetic body may.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from motion.pose.types import SMPL24

SYNTHETIC = "synthetic"  # the name of the body that ships with the project
NUM_SHAPE = 10  # shape numbers that are used
FACE = ("nose", "right_eye", "left_eye", "right_ear", "left_ear")


@dataclass(frozen=True, slots=True)
class SmplArrays:
    """A body in the fields of an SMPL file. `smplx.SMPL("", data_struct=Struct(**...))` takes them."""

    v_template: np.ndarray  # float [V, 3]: metres, y up, x to the person's left, z to the front
    f: np.ndarray  # int [F, 3]: triangles, counter-clockwise from outside
    shapedirs: np.ndarray  # float [V, 3, S]
    posedirs: np.ndarray  # float [V, 3, 9 * (B - 1)]
    J_regressor: np.ndarray  # float [B, V]
    weights: np.ndarray  # float [V, B]: of skinning; rows sum to 1
    kintree_table: np.ndarray  # int [2, B]: parents, then the joints' own numbers


@dataclass(frozen=True)
class Body:
    """A body ready to be posed. Joints 0 to 21 are those of SMPL in its order, in SMPL-X too."""

    name: str
    arrays: SmplArrays
    landmarks: dict[str, int]  # name -> vertex: nose, eyes, ears
    device: str = field(default="cpu")

    @property
    def num_joints(self) -> int:
        """B."""
        return len(self.arrays.J_regressor)

    @cached_property
    def parents(self) -> tuple[int, ...]:
        """Of each joint; -1 for the root."""
        return (-1, *(int(parent) for parent in self.arrays.kintree_table[0][1:]))

    @cached_property
    def faces(self) -> Tensor:
        """int64 [F, 3]."""
        return torch.from_numpy(self.arrays.f.astype(np.int64)).to(self.device)

    @cached_property
    def template(self) -> Tensor:
        """float32 [V, 3]."""
        return self._tensor(self.arrays.v_template)

    @cached_property
    def shape_directions(self) -> Tensor:
        """float32 [V, 3, S]."""
        return self._tensor(self.arrays.shapedirs[..., :NUM_SHAPE])

    @cached_property
    def pose_directions(self) -> Tensor:
        """float32 [V * 3, 9 * (B - 1)]."""
        return self._tensor(self.arrays.posedirs).flatten(0, 1)

    @cached_property
    def regressor(self) -> Tensor:
        """float32 [B, V]."""
        return self._tensor(self.arrays.J_regressor)

    @cached_property
    def skinning(self) -> Tensor:
        """float32 [V, B]."""
        return self._tensor(self.arrays.weights)

    @cached_property
    def part_of_face(self) -> Tensor:
        """int64 [F]: the joint that moves each triangle most."""
        return self.skinning[self.faces].sum(1).argmax(-1)

    @cached_property
    def point_joints(self) -> tuple[int, ...]:
        """The joint that carries each of `point_names`."""
        carriers = [int(self.skinning[self.landmarks[name]].argmax()) for name in FACE]
        return (*range(self.num_joints), *carriers)

    @property
    def point_names(self) -> tuple[str, ...]:
        """Joints by SMPL's names (further ones of SMPL-X unnamed), then nose, eyes and ears."""
        count = self.num_joints
        return (*(SMPL24[i] if i < 22 or count == 24 else f"joint{i}" for i in range(count)), *FACE)

    @cached_property
    def point_template(self) -> tuple[Tensor, Tensor]:
        """Rest places float32 [B + 5, 3] of `point_names`, and what the shape numbers add [B + 5, 3, S]."""
        face = [self.landmarks[name] for name in FACE]
        places = torch.cat([self.regressor @ self.template, self.template[face]])
        added = torch.einsum("bv,vis->bis", self.regressor, self.shape_directions)
        return places, torch.cat([added, self.shape_directions[face]])

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array, np.float32)).to(self.device)

    def chain(self, rotations: Tensor, joints: Tensor) -> tuple[Tensor, Tensor]:
        """Follow the tree: world rotations [N, B, 3, 3] and places [N, B, 3] from local ones and rest places."""
        turned: list[Tensor] = [rotations[:, 0]]
        placed: list[Tensor] = [joints[:, 0]]
        for joint, parent in enumerate(self.parents[1:], start=1):
            step = (turned[parent] @ (joints[:, joint] - joints[:, parent])[..., None])[..., 0]
            turned.append(turned[parent] @ rotations[:, joint])
            placed.append(placed[parent] + step)
        return torch.stack(turned, 1), torch.stack(placed, 1)

    def vertices(self, rotations: Tensor, shape: Tensor, root: Tensor) -> Tensor:
        """Vertices [N, V, 3] in metres.

        Args:
            rotations: [N, B, 3, 3], each against the parent joint.
            shape: [N, S].
            root: [N, 3], where the pelvis joint is.
        """
        shaped = self.template + torch.einsum("ns,vis->nvi", shape, self.shape_directions[..., : shape.shape[1]])
        joints = torch.einsum("bv,nvi->nbi", self.regressor, shaped)
        bent = (rotations[:, 1:] - torch.eye(3, device=shaped.device)).flatten(1)
        shaped = shaped + (bent @ self.pose_directions.T).view_as(shaped)
        turned, placed = self.chain(rotations, joints)
        offset = placed - (turned @ joints[..., None])[..., 0] + (root - joints[:, 0])[:, None]
        moves = torch.cat([turned, offset[..., None]], -1).flatten(2)  # [N, B, 12]
        blended = (self.skinning @ moves).unflatten(-1, (3, 4))  # [N, V, 3, 4]
        return (blended[..., :3] @ shaped[..., None])[..., 0] + blended[..., 3]
