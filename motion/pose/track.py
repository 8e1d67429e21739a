"""Of everyone in the frames, the one whom a clip is about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from motion.pose.types import BodyParameters, FramePeople, Layout, PoseTrack

SAME_PERSON = 0.2  # intersection over union of two boxes from which they may be one person's


@dataclass(slots=True)
class _Track:
    """One person over time: in which frame which of the people found there."""

    members: list[tuple[int, int]] = field(default_factory=list)  # (frame, person)
    box: np.ndarray = field(default_factory=lambda: np.zeros(4))  # the last one
    weight: float = 0.0


def main_person(frames: Sequence[FramePeople], layout: Layout, max_gap: int = 8) -> PoseTrack:
    """Follow people by the overlap of their boxes and keep the one with the largest sum of score * sqrt(box area).

    Large and often seen beats small and rare. A person unseen for more than `max_gap` frames is a new one.
    """
    tracks: list[_Track] = []
    for number, people in enumerate(frames):
        alive = [track for track in tracks if number - track.members[-1][0] <= max_gap + 1]
        for person, track in _matches(people, alive):
            if track is None:
                track = _Track()
                tracks.append(track)
            box = people.boxes[person]
            track.members.append((number, person))
            track.box = box
            track.weight += float(people.scores[person]) * float(np.sqrt(max(np.prod(box[2:] - box[:2]), 0.0)))
    main = max(tracks, key=lambda track: track.weight, default=None)  # the first of equals
    return _as_track(frames, main.members if main else [], layout)


def _matches(people: FramePeople, tracks: list[_Track]) -> list[tuple[int, _Track | None]]:
    """Each person of a frame with the track that it continues, best overlap first; None: somebody new."""
    overlaps = sorted(
        (
            (-overlap(people.boxes[i], track.box), i, j)
            for i in range(people.num_people)
            for j, track in enumerate(tracks)
        )
    )
    found: dict[int, _Track] = {}
    taken: set[int] = set()
    for value, person, track in overlaps:
        if -value >= SAME_PERSON and person not in found and track not in taken:
            found[person] = tracks[track]
            taken.add(track)
    return [(person, found.get(person)) for person in range(people.num_people)]


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    """Intersection over union of two boxes."""
    sides = np.minimum(first[2:], second[2:]) - np.maximum(first[:2], second[:2])
    shared = float(np.prod(np.maximum(sides, 0.0)))
    union = float(np.prod(first[2:] - first[:2]) + np.prod(second[2:] - second[:2])) - shared
    return shared / union if union > 0 else 0.0


def _as_track(frames: Sequence[FramePeople], members: list[tuple[int, int]], layout: Layout) -> PoseTrack:
    num_points = frames[0].keypoints.shape[1] if frames else 0
    keypoints = np.zeros((len(frames), num_points, 3), np.float32)
    boxes = np.zeros((len(frames), 4), np.float32)
    bodies = [frames[number].body for number, _ in members]
    body = None
    if bodies and all(found is not None for found in bodies):
        first = bodies[0]
        assert first is not None
        parts = (first.pose, first.shape, first.root)
        body = BodyParameters(*(np.zeros((len(frames), *part.shape[1:]), np.float32) for part in parts))
    for (number, person), found in zip(members, bodies, strict=True):
        keypoints[number] = frames[number].keypoints[person]
        boxes[number] = frames[number].boxes[person]
        if body is not None and found is not None:
            body.pose[number] = found.pose[person]
            body.shape[number] = found.shape[person]
            body.root[number] = found.root[person]
    return PoseTrack(layout, keypoints, boxes, np.array([people.num_people for people in frames], np.int64), body)
