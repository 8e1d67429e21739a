"""Poses made worse on purpose, to see what the rest stands: limbs hidden, left and right exchanged."""

from __future__ import annotations

import zlib
from dataclasses import replace

import numpy as np

from motion.pose.types import LIMBS, NAMES, PoseTrack
from owlcap.config_motion import PoseSection


def perturb(track: PoseTrack, pose: PoseSection, clip: str) -> PoseTrack:
    """Hide `pose.hide_limbs` of the limbs (their outer two key points) and swap the sides in `pose.wrong_poses` of the
    frames; the same clip always gets the same faults. The source's own bodies are dropped where anything changes."""
    if not pose.hide_limbs and not pose.wrong_poses:
        return track
    rng = np.random.default_rng(zlib.crc32(clip.encode()))
    names = NAMES[track.layout]
    keypoints = track.keypoints.copy()
    mirrored = list(range(keypoints.shape[1]))
    for place, name in enumerate(names):
        side, _, part = name.partition("_")
        other = {"left": "right", "right": "left"}.get(side)
        mirrored[place] = names.index(f"{other}_{part}") if other else place
    swapped = rng.random(len(keypoints)) < pose.wrong_poses
    keypoints[swapped] = keypoints[swapped][:, mirrored]
    for limb in LIMBS:
        hidden = rng.random(len(keypoints)) < pose.hide_limbs
        for name in limb:
            keypoints[hidden, names.index(name), 2] = 0.0
    return replace(track, keypoints=keypoints, body=None)
