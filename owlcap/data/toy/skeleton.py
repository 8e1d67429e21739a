"""Where the parts of a toy person are in the picture: what the renderer draws, and the exact key points."""

from __future__ import annotations

import math
from dataclasses import dataclass

from owlcap.data.toy.canvas import Point
from owlcap.data.toy.pose import Pose

LEG, TORSO, ARM, HEAD, NECK = 0.31, 0.23, 0.26, 0.078, 0.02
SHOULDERS, HIPS = 0.085, 0.05  # half widths


@dataclass(frozen=True, slots=True)
class Limb:
    """A chain of points from the body outward: hip, knee, ankle, or shoulder, elbow, hand."""

    root: Point
    middle: Point
    end: Point


@dataclass(frozen=True, slots=True)
class Skeleton:
    """One person; `left` and `right` are those of the picture. Points as in Canvas: shares of the height, y down."""

    hip: Point  # the middle between the hips
    neck: Point
    head: Point  # its centre
    face: Point
    left_arm: Limb
    right_arm: Limb
    left_leg: Limb
    right_leg: Limb


def skeleton(pose: Pose, feet: Point, size: float) -> Skeleton:
    """One person whose feet stand (without `pose.lift`) at a point; size 1 is the actor's usual height."""
    ankle_y = feet[1] - pose.lift * size
    hip = (feet[0], ankle_y - LEG * (1 - 0.58 * pose.crouch) * size)
    up = (math.sin(pose.lean), -math.cos(pose.lean))
    reach = TORSO * (1 - 0.75 * pose.bow) * size
    neck = (hip[0] + up[0] * reach, hip[1] + up[1] * reach)
    rise = (NECK + HEAD) * (1 - 1.9 * pose.bow)  # a bowed head hangs below the shoulders, in front of the body
    head = (neck[0] + up[0] * rise * size, neck[1] + up[1] * rise * size)
    return Skeleton(
        hip=hip,
        neck=neck,
        head=head,
        face=(head[0] + 0.4 * HEAD * pose.facing * size, head[1] + (0.3 + 0.9 * pose.bow) * HEAD * size),
        left_arm=_arm(neck, -1, pose.left_arm, size),
        right_arm=_arm(neck, 1, pose.right_arm, size),
        left_leg=_leg((hip[0] - HIPS * size, hip[1]), -1, pose.left_leg, pose.crouch, ankle_y, size),
        right_leg=_leg((hip[0] + HIPS * size, hip[1]), 1, pose.right_leg, pose.crouch, ankle_y, size),
    )


def _leg(hip: Point, side: int, angle: float, crouch: float, ankle_y: float, size: float) -> Limb:
    if crouch > 0:  # feet stay where they are, knees go outward
        ankle = (hip[0] + side * 0.06 * size, ankle_y)
        knee = (hip[0] + side * (0.03 + 0.13 * crouch) * size, (hip[1] + ankle_y) / 2 - 0.03 * crouch * size)
    else:
        ankle = (hip[0] + math.sin(angle) * LEG * size, hip[1] + math.cos(angle) * LEG * size)
        knee = _middle(hip, ankle)
    return Limb(hip, knee, ankle)


def _arm(neck: Point, side: int, angle: float, size: float) -> Limb:
    shoulder = (neck[0] + side * SHOULDERS * size, neck[1] + 0.01 * size)
    hand = (shoulder[0] + math.sin(angle) * ARM * size, shoulder[1] + math.cos(angle) * ARM * size)
    return Limb(shoulder, _middle(shoulder, hand), hand)


def _middle(start: Point, end: Point) -> Point:
    return (start[0] + end[0]) / 2, (start[1] + end[1]) / 2
