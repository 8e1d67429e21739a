"""Which segments show exactly one person, large and whole enough, who moves. Pure numpy, on key points of COCO.

The rules are the paper's; how figures of single frames make one of the segment, and what counts as enough movement,
are our reading (owlcap.config_data.PersonSection).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil

import numpy as np

from motion.pose.types import FramePeople, Layout, PoseTrack
from motion.sampling import pose_distance
from owlcap.config_data import PersonSection

BODY_POINTS = 17  # of COCO; the first of COCO-WholeBody's 133 too
FACE_POINTS = 5  # nose, eyes, ears: the first five


@dataclass(frozen=True, slots=True)
class Person:
    """Figures of a segment. Means are over the frames in which the person is."""

    duration_s: float
    single_share: float  # frames with exactly one person
    box_share: float  # of the picture
    keypoints: float  # confident ones
    face_points: float
    displacement: float  # mean path of the key points a second, in diagonals of the person's box


def measure(
    frames: Sequence[FramePeople],
    track: PoseTrack,
    size: tuple[int, int],
    duration_s: float,
    rules: PersonSection,
) -> Person:
    """Figures of a segment.

    Args:
        frames: everyone in each frame.
        track: the main person.
        size: height and width of the frames.
        rules: whether a figure is the mean over frames, or the worst frame's.
    """
    present = track.present
    least = np.mean if rules.judge_by == "mean" else np.min
    points = track.keypoints[:, :BODY_POINTS, 2] > rules.min_confidence
    sides = np.maximum(track.boxes[:, 2:] - track.boxes[:, :2], 0.0)
    shares = sides.prod(1) / (size[0] * size[1])

    def figure(values: np.ndarray) -> float:
        return float(least(values[present])) if present.any() else 0.0

    return Person(
        duration_s=duration_s,
        single_share=float(np.mean([people.num_people == 1 for people in frames])) if len(frames) else 0.0,
        box_share=figure(shares),
        keypoints=figure(points.sum(1)),
        face_points=figure(points[:, :FACE_POINTS].sum(1)),
        displacement=path_length(track, rules.min_confidence) / duration_s if duration_s > 0 else 0.0,
    )


def path_length(track: PoseTrack, min_confidence: float) -> float:
    """How far the key points go in all, in box diagonals: between frames in which the person is, one after another."""
    there = np.flatnonzero(track.present)
    keypoints, boxes = track.keypoints[:, :BODY_POINTS], track.boxes
    steps = [pose_distance(keypoints, boxes, int(a), int(b), min_confidence=min_confidence) for a, b in pairwise(there)]
    return float(np.nansum(steps)) if steps else 0.0


def why_not(person: Person, rules: PersonSection) -> str:
    """The first rule that a segment breaks; "" where it breaks none."""
    broken = (
        ("shorter than min_s", person.duration_s < rules.min_s),
        ("longer than max_s", person.duration_s > rules.max_s),
        ("not one person", person.single_share <= rules.min_single_share),
        ("person too small", person.box_share <= rules.min_box_share),
        ("too few key points", person.keypoints < rules.min_keypoints),
        ("too little of the face", person.face_points < rules.min_face_points),
        ("too little movement", person.displacement < rules.min_displacement),
    )
    return next((name for name, is_broken in broken if is_broken), "")


def single_stretches(counts: Sequence[int], times: Sequence[float], end_s: float) -> list[tuple[float, float]]:
    """Stretches of time in which one person is seen: runs of frames with exactly one, a single odd frame bridged.

    Args:
        counts: people in each frame.
        times: of the frames, in seconds; each stands for the time up to the next.
        end_s: when the last one ends.
    """
    ends = [*times[1:], end_s]
    runs: list[list[int]] = []
    for number, count in enumerate(counts):
        if count != 1:
            continue
        if runs and number - runs[-1][1] <= 2:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return [(times[first], ends[last]) for first, last in runs]


def cut(start_s: float, end_s: float, min_s: float, max_s: float) -> list[tuple[float, float]]:
    """Equal parts of at most `max_s`; nothing of a stretch shorter than `min_s`."""
    length = end_s - start_s
    if length < min_s:
        return []
    count = max(1, ceil(length / max_s - 1e-9))
    return [(start_s + length * i / count, start_s + length * (i + 1) / count) for i in range(count)]


def has_body_points(layout: Layout) -> bool:
    """Whether a pose source gives COCO's body and face points."""
    return layout in ("coco17", "coco133")
