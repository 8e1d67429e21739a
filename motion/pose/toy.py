"""The toy world's exact joints: read from the scene that a clip was drawn from."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

import numpy as np

from motion.pose.types import COCO17, FramePeople, Layout, box_around
from owlcap.config_motion import MotionSection
from owlcap.data.toy.render import people
from owlcap.data.toy.scene import Scene, make_scene
from owlcap.data.toy.skeleton import HEAD, Limb, Skeleton
from owlcap.errors import DataError
from owlcap.registry import register
from owlcap.types import Sample, VideoClip

MARGIN = 0.08  # of a box around key points, which lie inside of the body


@register("pose_source", "toy")
class ToyPoses:
    """Key points of everyone in a toy clip. The people face the viewer: the arm on the picture's left is their right.

    The sample's video lies where `owlcap data toy` wrote it: videos/SPLIT-INDEX.mp4 beside world.json.
    """

    layout: Layout = "coco17"

    def __init__(self, motion: MotionSection) -> None:
        del motion

    def find(self, clip: VideoClip, sample: Sample) -> list[FramePeople]:
        """Everyone in each frame.

        Raises:
            DataError: the sample's video is not one of the toy world.
        """
        scene, num_frames = _scene_of(sample.video)
        height, width = clip.frames.shape[1:3]
        return [
            _frame_people(people(scene, (index + 0.5) / num_frames, width / height), height)
            for index in clip.frame_indices
        ]


@lru_cache(maxsize=1024)
def _scene_of(video: str) -> tuple[Scene, int]:
    """The scene of a toy clip, and how many frames its file has."""
    path = Path(video)
    split, _, index = path.stem.rpartition("-")
    try:
        world = json.loads((path.parent.parent / "world.json").read_text(encoding="utf-8"))
        return make_scene(split, world["seed"], int(index)), world["video"]["num_frames"]  # type: ignore[arg-type]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            "the clip is not one of the toy world, whose joints alone the pose source `toy` knows",
            where=video,
            allowed="videos/train-000000.mp4 and the like beside the world.json of `owlcap data toy`",
            cure="set motion.pose.source to vitpose, rtmlib or nlf",
        ) from error


def _frame_people(bodies: tuple[Skeleton, ...], height: int) -> FramePeople:
    points = np.stack([_coco(body) for body in bodies]) * height
    keypoints = np.concatenate([points, np.ones_like(points[..., :1])], -1).astype(np.float32)
    return FramePeople(keypoints, box_around(keypoints, MARGIN), np.ones(len(bodies), np.float32))


def _coco(body: Skeleton) -> np.ndarray:
    """float64 [17, 2] in shares of the height."""
    x, y = body.face
    step = HEAD * 0.4
    named = {
        "nose": (x, y),
        "left_eye": (x + step * 0.7, y - step * 0.6),
        "right_eye": (x - step * 0.7, y - step * 0.6),
        "left_ear": (body.head[0] + 2 * step, body.head[1]),
        "right_ear": (body.head[0] - 2 * step, body.head[1]),
    }
    sides: tuple[tuple[str, Limb, Limb], ...] = (
        ("left", body.right_arm, body.right_leg),
        ("right", body.left_arm, body.left_leg),
    )
    for side, arm, leg in sides:
        named |= {f"{side}_shoulder": arm.root, f"{side}_elbow": arm.middle, f"{side}_wrist": arm.end}
        named |= {f"{side}_hip": leg.root, f"{side}_knee": leg.middle, f"{side}_ankle": leg.end}
    return np.array([named[name] for name in COCO17])
