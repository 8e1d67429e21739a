"""Which frames of a clip the motion pathway sees. Pure numpy.

Letters of shapes: T frames, J key points. The rule of `pose_aware` is the paper's (M-ACM, pose-aware sampling); its
number of segments and the scale of distances are our reading (owlcap.config_motion.KeyFrameSection).
"""

from __future__ import annotations

from typing import Literal

import numpy as np

Scale = Literal["box_diagonal", "box_height", "none"]
ROWS_AT_ONCE = 32  # frames compared with all of a segment at a time: bounds the memory that a long clip takes


def segments(num_frames: int, num_segments: int) -> list[range]:
    """Cut frames into equal parts in order, each of at least one frame; fewer parts where there are fewer frames."""
    count = min(num_frames, num_segments)
    return [range(i * num_frames // count, (i + 1) * num_frames // count) for i in range(count)]


def pose_aware(
    keypoints: np.ndarray,
    boxes: np.ndarray,
    num_segments: int,
    *,
    min_confidence: float = 0.5,
    scale: Scale = "box_diagonal",
) -> tuple[int, ...]:
    """Key frames that differ most in pose, one a segment.

    The first is the frame of the first segment with the largest mean distance to all frames of its segment; each later
    one the frame of its segment with the largest distance to the key frame before it. The earliest of equals wins.

    Fall-backs: a segment without a usable pose gives its middle frame, and the next segment looks at the last key frame
    that had a pose. Where that one shares no visible key point with any frame of a segment (or there was none yet), the
    segment follows the rule of the first.

    Args:
        keypoints: float [T, J, 3]; a key point is visible from `min_confidence` on (and above 0).
        boxes: float [T, 4] of the person: left, top, right, bottom. A frame without one has no usable pose.
    """
    scales = _scales(boxes, scale)
    visible = (keypoints[..., 2] >= min_confidence) & (keypoints[..., 2] > 0) & (scales > 0)[:, None]
    chosen: list[int] = []
    last: int | None = None  # the last key frame with a usable pose
    for segment in segments(len(keypoints), num_segments):
        frames = np.arange(segment.start, segment.stop)
        usable = visible[frames].any(1)
        if not usable.any():
            chosen.append(int(frames[len(frames) // 2]))
            continue
        spread = np.full(len(frames), np.nan)
        if last is not None:
            spread = _distances(keypoints, visible, scales, frames, np.array([last]))[:, 0]
        if np.isnan(spread).all():
            spread = _mean_distances(keypoints, visible, scales, frames)
            spread[~usable] = np.nan
        last = int(frames[np.nanargmax(spread)])
        chosen.append(last)
    return tuple(chosen)


def uniform(num_frames: int, num_segments: int) -> tuple[int, ...]:
    """The middle frame of each segment."""
    return tuple(segment[len(segment) // 2] for segment in segments(num_frames, num_segments))


def motion_energy(energies: np.ndarray, num_segments: int) -> tuple[int, ...]:
    """The frame of each segment in which most pixels change; `energies` [T] come from `frame_energies`."""
    return tuple(
        segment.start + int(np.argmax(energies[segment.start : segment.stop]))
        for segment in segments(len(energies), num_segments)
    )


def frame_energies(frames: np.ndarray, before: np.ndarray | None = None) -> np.ndarray:
    """How much each frame differs from the one before it: mean absolute difference of pixel values, float64 [T].

    Args:
        frames: uint8 [T, H, W, 3].
        before: the frame that precedes them; without one the first frame has energy 0.
    """
    earlier = np.concatenate([(frames[:1] if before is None else before[None]), frames[:-1]])
    return np.array([np.abs(a.astype(np.int16) - b).mean() for a, b in zip(frames, earlier, strict=True)])


def pose_distance(
    keypoints: np.ndarray, boxes: np.ndarray, first: int, second: int, *, min_confidence: float = 0.5
) -> float:
    """Mean distance of the key points visible in both frames, in box diagonals (mean of the two); nan without any."""
    scales = _scales(boxes, "box_diagonal")
    visible = (keypoints[..., 2] >= min_confidence) & (keypoints[..., 2] > 0) & (scales > 0)[:, None]
    return float(_distances(keypoints, visible, scales, np.array([first]), np.array([second]))[0, 0])


def _scales(boxes: np.ndarray, scale: Scale) -> np.ndarray:
    """[T]: what distances in a frame are divided by; 0 where there is no person."""
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 0.0).astype(np.float64)
    there = (sides > 0).all(1)
    size = {"box_diagonal": np.hypot(*sides.T), "box_height": sides[:, 1], "none": np.ones(len(sides))}[scale]
    return np.where(there, size, 0.0)


def _mean_distances(keypoints: np.ndarray, visible: np.ndarray, scales: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """[frames]: mean distance of each to all of them, itself included, over those that share a visible key point."""
    means = []
    for start in range(0, len(frames), ROWS_AT_ONCE):
        between = _distances(keypoints, visible, scales, frames[start : start + ROWS_AT_ONCE], frames)
        known = ~np.isnan(between)
        means.append(np.where(known, between, 0.0).sum(1) / np.maximum(known.sum(1), 1))
    return np.concatenate(means)


def _distances(
    keypoints: np.ndarray, visible: np.ndarray, scales: np.ndarray, rows: np.ndarray, columns: np.ndarray
) -> np.ndarray:
    """[rows, columns]: distances of poses; nan where two frames share no visible key point."""
    points = keypoints[..., :2].astype(np.float64)
    both = visible[rows][:, None] & visible[columns][None]
    apart = np.linalg.norm(points[rows][:, None] - points[columns][None], axis=-1)
    count = both.sum(-1)
    total = np.where(both, apart, 0.0).sum(-1)
    scale = (scales[rows][:, None] + scales[columns][None]) / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(count > 0, total / count / scale, np.nan)
