"""A body of SMPL's format made of capsules by this file alone: the right joint tree, and no licensed data.

27 capsules between SMPL's 24 joints, 13,776 triangles (as many as SMPL has), skinning weights that blend at the joints,
ten shape directions (size, girth, lengths, widths) and pose directions that thicken bent joints a little. Lengths are
those of an average adult, in metres.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import lru_cache

import numpy as np

from motion.body.model import SYNTHETIC, Body, SmplArrays
from motion.pose.types import SMPL24

AROUND = 14  # corners of a ring
CAP = 5  # rings of each round end, the one at its joint included
BLEND = 0.2  # share of a bone from its joint over which the skin belongs to both sides
BULGE, BULGE_REACH = 0.012, 0.06  # metres
PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21)


@dataclass(frozen=True, slots=True)
class Proportions:
    """Factors on the average body; each is one shape direction."""

    size: float = 1.0
    girth: float = 1.0
    legs: float = 1.0
    arms: float = 1.0
    torso: float = 1.0
    shoulders: float = 1.0
    hips: float = 1.0
    head: float = 1.0
    limbs: float = 1.0  # thickness of arms and legs
    belly: float = 1.0


UNIT = Proportions(1.06, 1.12, 1.05, 1.05, 1.05, 1.07, 1.08, 1.06, 1.12, 1.15)  # one unit of each shape number


@dataclass(frozen=True, slots=True)
class Capsule:
    """A tube with round ends from a joint to a point; flat where `wide` and `deep` differ."""

    joint: int
    toward: int | None  # the joint that it ends at
    start: np.ndarray
    end: np.ndarray
    thick: tuple[float, float]  # radius at both ends
    wide: float = 1.0  # along x, of upright capsules
    deep: float = 1.0  # along z
    rings: int = 18


def _joints(p: Proportions) -> dict[str, np.ndarray]:
    """Rest places: a T pose, y up, x to the person's left, z to the front."""
    hip, shoulder = 0.075 * p.hips, 0.17 * p.shoulders
    places = {
        "pelvis": (0, 0, 0),
        "spine1": (0, 0.11 * p.torso, -0.01),
        "spine2": (0, 0.24 * p.torso, 0),
        "spine3": (0, 0.30 * p.torso, 0.01),
        "neck": (0, 0.51 * p.torso, -0.01),
        "head": (0, 0.51 * p.torso + 0.09 * p.head, 0.02),
    }
    for side, sign in (("left", 1), ("right", -1)):
        up = 0.44 * p.torso
        places |= {
            f"{side}_hip": (sign * hip, -0.08, 0),
            f"{side}_knee": (sign * hip * 1.2, -0.08 - 0.39 * p.legs, 0.0),
            f"{side}_ankle": (sign * hip * 1.2, -0.08 - 0.80 * p.legs, -0.03),
            f"{side}_foot": (sign * hip * 1.4, -0.13 - 0.80 * p.legs, 0.10),
            f"{side}_collar": (sign * 0.5 * shoulder, up - 0.02, -0.01),
            f"{side}_shoulder": (sign * shoulder, up, -0.02),
            f"{side}_elbow": (sign * (shoulder + 0.26 * p.arms), up, -0.03),
            f"{side}_wrist": (sign * (shoulder + 0.51 * p.arms), up, -0.02),
            f"{side}_hand": (sign * (shoulder + 0.59 * p.arms), up - 0.01, -0.02),
        }
    return {name: np.array(place, np.float64) for name, place in places.items()}


def _capsules(p: Proportions) -> list[Capsule]:
    at = _joints(p)
    number = {name: i for i, name in enumerate(SMPL24)}
    belly, limb, head = p.girth * p.belly, p.girth * p.limbs, p.head

    def tube(a: str, b: str, thick: tuple[float, float], fat: float, **more) -> Capsule:
        return Capsule(number[a], number[b], at[a], at[b], (thick[0] * fat, thick[1] * fat), **more)

    def tip(a: str, offset: tuple[float, float, float], thick: tuple[float, float], **more) -> Capsule:
        return Capsule(number[a], None, at[a], at[a] + np.array(offset), thick, **more)

    found = [
        tube("pelvis", "spine1", (0.115, 0.11), belly, wide=1.15, deep=0.85),
        tube("spine1", "spine2", (0.11, 0.115), belly, wide=1.15, deep=0.85),
        tube("spine2", "spine3", (0.115, 0.125), p.girth, wide=1.25, deep=0.8),
        tube("spine3", "neck", (0.125, 0.065), p.girth, wide=1.25, deep=0.75),
        tube("neck", "head", (0.055, 0.05), p.girth),
        tip("head", (0, 0.10 * head, 0.01), (0.085 * head, 0.09 * head), wide=0.85),
        tip("head", (0, 0.03 * head, 0.105 * head), (0.012 * head, 0.012 * head)),  # the nose
    ]
    for side, sign in (("left", 1), ("right", -1)):
        found += [
            tube("pelvis", f"{side}_hip", (0.09, 0.095), belly),
            tube(f"{side}_hip", f"{side}_knee", (0.09, 0.055), limb, rings=19),
            tube(f"{side}_knee", f"{side}_ankle", (0.055, 0.038), limb, rings=19),
            tube(f"{side}_ankle", f"{side}_foot", (0.042, 0.034), p.girth),
            tip(f"{side}_foot", (sign * 0.01, 0, 0.06), (0.034 * p.girth, 0.028 * p.girth)),
            tube(f"{side}_collar", f"{side}_shoulder", (0.065, 0.06), p.girth),
            tube(f"{side}_shoulder", f"{side}_elbow", (0.052, 0.042), limb, rings=19),
            tube(f"{side}_elbow", f"{side}_wrist", (0.042, 0.03), limb),
            tube(f"{side}_wrist", f"{side}_hand", (0.032, 0.038), p.girth),
            tip(f"{side}_hand", (sign * 0.08, 0, 0), (0.036 * p.girth, 0.02 * p.girth)),
        ]
    return found


def _surface(capsule: Capsule) -> tuple[np.ndarray, np.ndarray]:
    """Vertices [rings * AROUND + 2, 3] of a capsule, and how far along its bone each is (0 = start, 1 = end)."""
    bone = capsule.end - capsule.start
    length = float(np.linalg.norm(bone))
    along = bone / length
    side = np.array([0.0, 0.0, 1.0]) if abs(along[2]) < 0.9 else np.array([0.0, 1.0, 0.0])
    across = np.cross(side, along)
    across /= np.linalg.norm(across)
    side = np.cross(along, across)
    first, last = capsule.thick
    angles = np.linspace(0, np.pi / 2, CAP + 1)[1:]
    middle = np.linspace(0, 1, capsule.rings - 2 * CAP + 2)[1:-1]
    shift = np.concatenate([-np.cos(angles) * first, middle * length, length + np.cos(angles[::-1]) * last])
    radius = np.concatenate([np.sin(angles) * first, first + (last - first) * middle, np.sin(angles[::-1]) * last])
    turn = 2 * np.pi * np.arange(AROUND) / AROUND
    round_ = np.outer(np.cos(turn), across) * capsule.wide + np.outer(np.sin(turn), side) * capsule.deep
    rings = capsule.start + shift[:, None, None] * along + radius[:, None, None] * round_
    poles = capsule.start - first * along, capsule.end + last * along
    place = np.concatenate([np.repeat(shift / length, AROUND), [-first / length, 1 + last / length]])
    return np.concatenate([rings.reshape(-1, 3), poles]), place


def _triangles(rings: int) -> np.ndarray:
    """Triangles of a capsule, counter-clockwise from outside."""
    corner, after = np.arange(AROUND), (np.arange(AROUND) + 1) % AROUND
    start, end = rings * AROUND, rings * AROUND + 1
    low, high = corner + AROUND * np.arange(rings - 1)[:, None], after + AROUND * np.arange(rings - 1)[:, None]
    sides = [np.stack([low, high, low + AROUND], -1), np.stack([high, high + AROUND, low + AROUND], -1)]
    caps = [
        np.stack([after, corner, np.full(AROUND, start)], -1),
        np.stack([corner, after, np.full(AROUND, end - 1)], -1) + (rings - 1) * AROUND,
    ]
    caps[1][:, 2] = end
    return np.concatenate([part.reshape(-1, 3) for part in (*sides, *caps)])


def _weights(capsule: Capsule, place: np.ndarray) -> np.ndarray:
    """Skinning [vertices, 24]: the capsule's joint, blended with its parent at the start and the next at the end."""
    weights = np.zeros((len(place), len(PARENTS)))
    before = np.clip(0.5 * (1 - place / BLEND), 0, 0.5) if PARENTS[capsule.joint] >= 0 else 0 * place
    behind = np.clip(0.5 * (1 - (1 - place) / BLEND), 0, 0.5) if capsule.toward is not None else 0 * place
    if capsule.joint == SMPL24.index("head"):
        before = np.zeros_like(place)  # the skull is stiff
    weights[:, PARENTS[capsule.joint]] += before
    weights[:, capsule.joint] += 1 - before - behind
    if capsule.toward is not None:
        weights[:, capsule.toward] += behind
    return weights


def _template(p: Proportions) -> np.ndarray:
    return np.concatenate([_surface(capsule)[0] for capsule in _capsules(p)]) * p.size


def _shape_directions() -> np.ndarray:
    average = Proportions()
    steps = [replace(average, **{part.name: getattr(UNIT, part.name)}) for part in fields(Proportions)]
    return np.stack([_template(step) - _template(average) for step in steps], -1)


def _pose_directions(vertices: np.ndarray, faces: np.ndarray, joints: np.ndarray) -> np.ndarray:
    """[V, 3, 207]: the more a joint is bent, the more the skin near it comes out, by millimetres."""
    corners = vertices[faces]
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals = np.zeros_like(vertices)
    for corner in range(3):
        np.add.at(normals, faces[:, corner], across)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    apart = np.linalg.norm(vertices[:, None] - joints[None, 1:], axis=-1)
    near = np.exp(-(apart**2) / (2 * BULGE_REACH**2))
    directions = np.zeros((*vertices.shape, 23, 9))
    for diagonal in (0, 4, 8):  # of a rotation less the identity: negative where the joint is bent
        directions[..., diagonal] = -BULGE / 2 * normals[..., None] * near[:, None]
    return directions.reshape(*vertices.shape, 207)


@lru_cache(maxsize=1)
def synthetic_arrays() -> SmplArrays:
    """The body in the fields of an SMPL file: 6,942 vertices, 13,776 triangles, 24 joints, 10 shape numbers."""
    capsules = _capsules(Proportions())
    faces, weights, owners = [], [], {}
    count = 0
    for capsule in capsules:
        place = _surface(capsule)[1]
        owners.setdefault(capsule.joint, count + (CAP - 1) * AROUND)  # the ring around the joint
        faces.append(_triangles(capsule.rings) + count)
        weights.append(_weights(capsule, place))
        count += len(place)
    regressor = np.zeros((len(PARENTS), count))
    for joint, ring in owners.items():
        regressor[joint, ring : ring + AROUND] = 1 / AROUND
    vertices, triangles = _template(Proportions()), np.concatenate(faces)
    return SmplArrays(
        v_template=vertices,
        f=triangles.astype(np.int64),
        shapedirs=_shape_directions(),
        posedirs=_pose_directions(vertices, triangles, regressor @ vertices),
        J_regressor=regressor,
        weights=np.concatenate(weights),
        kintree_table=np.array([PARENTS, range(len(PARENTS))], np.int64),
    )


def synthetic_landmarks() -> dict[str, int]:
    """Vertices of nose, eyes and ears."""
    arrays, head = synthetic_arrays(), _joints(Proportions())["head"]
    targets = {
        "nose": (0, 0.03, 0.12),
        "left_eye": (0.035, 0.07, 0.10),
        "right_eye": (-0.035, 0.07, 0.10),
        "left_ear": (0.09, 0.06, 0),
        "right_ear": (-0.09, 0.06, 0),
    }
    return {
        name: int(np.linalg.norm(arrays.v_template - (head + np.array(place)), axis=1).argmin())
        for name, place in targets.items()
    }


def synthetic_body(device: str = "cpu") -> Body:
    """The body ready to be posed."""
    return Body(SYNTHETIC, synthetic_arrays(), synthetic_landmarks(), device)
