"""Poses as values. Letters of shapes: T frames, P people in a frame, J key points, B joints of a body, S shape numbers.

Key points are (x, y, confidence): pixels of the frames given, from the top left corner of the picture, so that the
centre of the first pixel is (0.5, 0.5); confidence from 0 (not seen) to 1. "left" is the person's own left.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

Layout = Literal["coco17", "coco133", "smpl24"]

COCO17 = (
    "nose",
    "left_eye",
    "right_eye",
    "left_ear",
    "right_ear",
    "left_shoulder",
    "right_shoulder",
    "left_elbow",
    "right_elbow",
    "left_wrist",
    "right_wrist",
    "left_hip",
    "right_hip",
    "left_knee",
    "right_knee",
    "left_ankle",
    "right_ankle",
)
SMPL24 = (
    "pelvis",
    "left_hip",
    "right_hip",
    "spine1",
    "left_knee",
    "right_knee",
    "spine2",
    "left_ankle",
    "right_ankle",
    "spine3",
    "left_foot",
    "right_foot",
    "neck",
    "left_collar",
    "right_collar",
    "head",
    "left_shoulder",
    "right_shoulder",
    "left_elbow",
    "right_elbow",
    "left_wrist",
    "right_wrist",
    "left_hand",
    "right_hand",
)
# Of the 133 whole-body points the first 17 are COCO's; the next six are on the feet; face and hands are not named here.
NAMES: dict[Layout, tuple[str, ...]] = {"coco17": COCO17, "coco133": COCO17, "smpl24": SMPL24}
NUM_POINTS: dict[Layout, int] = {"coco17": 17, "coco133": 133, "smpl24": 24}
LIMBS = tuple(
    tuple(f"{side}_{part}" for part in parts)
    for side in ("left", "right")
    for parts in (("elbow", "wrist"), ("knee", "ankle"))
)


@dataclass(frozen=True, slots=True)
class BodyParameters:
    """SMPL parameters; the first axis is people in a frame, or the frames of one person."""

    pose: np.ndarray  # float32 [P, B, 3]: rotation vectors, radians, each against the parent joint
    shape: np.ndarray  # float32 [P, S]
    root: np.ndarray  # float32 [P, 3]: the pelvis joint in metres, x right, y down, z away from the camera

    def of(self, index: int) -> BodyParameters:
        """One person's or frame's, with the first axis kept."""
        part = slice(index, index + 1)
        return BodyParameters(self.pose[part], self.shape[part], self.root[part])


@dataclass(frozen=True, slots=True)
class FramePeople:
    """Everyone who was found in one frame."""

    keypoints: np.ndarray  # float32 [P, J, 3]
    boxes: np.ndarray  # float32 [P, 4]: left, top, right, bottom in pixels
    scores: np.ndarray  # float32 [P]: how sure it is that there is a person, 0 to 1
    body: BodyParameters | None = None

    @property
    def num_people(self) -> int:
        """How many."""
        return len(self.boxes)


@dataclass(frozen=True, slots=True)
class PoseTrack:
    """The main person of a clip in every frame that was looked at; confidence 0 where they are absent."""

    layout: Layout
    keypoints: np.ndarray  # float32 [T, J, 3]
    boxes: np.ndarray  # float32 [T, 4]; zeros where the person is absent
    num_people: np.ndarray  # int64 [T], found in each frame
    body: BodyParameters | None = None  # [T, ...]

    @property
    def present(self) -> np.ndarray:
        """bool [T]: whether the main person is in each frame."""
        return (self.boxes[:, 2] > self.boxes[:, 0]) & (self.boxes[:, 3] > self.boxes[:, 1])


def nobody(layout: Layout) -> FramePeople:
    """A frame without people."""
    return FramePeople(
        np.zeros((0, NUM_POINTS[layout], 3), np.float32), np.zeros((0, 4), np.float32), np.zeros(0, np.float32)
    )


def box_around(keypoints: np.ndarray, margin: float, least: float = 0.0) -> np.ndarray:
    """Boxes [..., 4] around key points [..., J, 3] with confidence above `least`, wider by a share on each side."""
    seen = keypoints[..., 2:] > least
    low = np.where(seen, keypoints[..., :2], np.inf).min(-2)
    high = np.where(seen, keypoints[..., :2], -np.inf).max(-2)
    grown = (high - low) * margin
    box = np.concatenate([low - grown, high + grown], -1)
    return np.where(np.isfinite(box), box, 0.0).astype(np.float32)
