"""How the toy person moves: the pose of every action at every moment.

Angles in radians, 0 = hanging down, positive = towards the right of the picture; lengths in shares of the
picture's height.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from owlcap.data.toy.scene import TimedAction

REST_ARM = 0.22
REST_LEG = 0.12
RAISED_ARM = 2.95
KICKED_LEG = 1.5
STEP = 0.19  # how far a walk goes
LEAP = 0.14  # how high a jump goes
STEPS_A_WALK = 2.0


@dataclass(frozen=True, slots=True)
class Pose:
    """The body at one moment; `left` and `right` are those of the picture."""

    left_arm: float = -REST_ARM
    right_arm: float = REST_ARM
    left_leg: float = -REST_LEG
    right_leg: float = REST_LEG
    shift: float = 0.0  # from where the person stood first, to the right
    lift: float = 0.0  # of the feet above the ground
    crouch: float = 0.0  # 0 = upright, 1 = deep squat
    bow: float = 0.0  # 0 = upright, 1 = bent double, towards the viewer
    lean: float = 0.0  # of the torso, sideways
    facing: float = 0.0  # -1 = looks left, 1 = right


def pose_at(actions: Sequence[TimedAction], time: float) -> Pose:
    """The pose at a moment (share of the clip's length); walks done before leave the person where they led."""
    shift = sum(_direction(action.name) * STEP for action in actions if action.end <= time)
    for action in actions:
        if action.start <= time < action.end:
            progress = (time - action.start) / (action.end - action.start)
            pose = _pose(action.name, progress)
            return replace(pose, shift=shift + pose.shift)
    return Pose(shift=shift)


def _direction(action: str) -> float:
    return {"walk_left": -1.0, "walk_right": 1.0}.get(action, 0.0)


def _pose(action: str, progress: float) -> Pose:
    """One action from its start (0) to its end (1). Most swell, hold and ebb, so that the middle is far out."""
    amount = math.sin(math.pi * progress) ** 0.6
    arm = REST_ARM + (RAISED_ARM - REST_ARM) * amount
    leg = REST_LEG + (KICKED_LEG - REST_LEG) * amount
    match action:
        case "raise_left_arm":
            return Pose(left_arm=-arm)
        case "raise_right_arm":
            return Pose(right_arm=arm)
        case "kick_left_leg":
            return Pose(left_leg=-leg, lean=0.22 * amount)
        case "kick_right_leg":
            return Pose(right_leg=leg, lean=-0.22 * amount)
        case "jump":
            return Pose(lift=LEAP * amount, left_leg=-REST_LEG * (1 - amount), right_leg=REST_LEG * (1 - amount))
        case "squat":
            return Pose(crouch=amount)
        case "bow":
            return Pose(bow=amount)
        case "spread_arms":
            level = REST_ARM + (math.pi / 2 - REST_ARM) * amount
            return Pose(left_arm=-level, right_arm=level)
        case "walk_left" | "walk_right":
            return _walk(_direction(action), progress)
    raise AssertionError(f"no pose for {action}")


def _walk(direction: float, progress: float) -> Pose:
    swing = 0.5 * math.sin(2 * math.pi * STEPS_A_WALK * progress + math.pi / 4)
    return Pose(
        left_arm=0.7 * swing,
        right_arm=-0.7 * swing,
        left_leg=-swing,
        right_leg=swing,
        shift=direction * STEP * progress,
        lean=0.18 * direction,
        facing=direction,
    )
