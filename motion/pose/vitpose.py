"""ViTPose through transformers: 17 COCO key points.

The crop of a person and the reading of heat maps are written here with OpenCV: those of transformers need scipy.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch

from motion.pose.detector import build_detector
from motion.pose.source import model_file
from motion.pose.types import NUM_POINTS, FramePeople, Layout
from owlcap.config_motion import MotionSection
from owlcap.errors import ModelError
from owlcap.models.load import check_complete, quiet_transformers
from owlcap.registry import register
from owlcap.types import Sample, VideoClip

if TYPE_CHECKING:
    from transformers import VitPoseForPoseEstimation

WHAT = "a folder with config.json and model.safetensors of a ViTPose for COCO (vitpose-base-simple)"
ORIGIN = "https://huggingface.co/usyd-community/vitpose-base-simple"
LICENCE = "Apache-2.0"
MEAN, STD = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)  # ImageNet's
PADDING = 1.25  # of a person's box


@register("pose_source", "vitpose")
class VitPoses:
    """A top-down model: one crop for each person that the detector found, `pose.batch_size` of them at a time.

    Raises:
        ConfigError: no folder is named.
        ModelError: it is missing, or holds no such model.
    """

    layout: Layout = "coco17"

    def __init__(self, motion: MotionSection) -> None:
        model = _load(model_file(motion.pose, WHAT, ORIGIN, LICENCE))
        self._model = model.eval().to(motion.pose.device)  # type: ignore[arg-type]
        backbone: Any = model.config.backbone_config
        self._size: tuple[int, int] = tuple(backbone.image_size)  # height, width
        self._experts = getattr(backbone, "num_experts", 1) > 1
        self._batch_size = motion.pose.batch_size
        self._detector = build_detector(motion.pose)

    def find(self, clip: VideoClip, sample: Sample) -> list[FramePeople]:
        """Everyone in each frame."""
        boxes = [self._detector.boxes(frame, sample) for frame in clip.frames]
        owners = [number for number, found in enumerate(boxes) for _ in found]
        flat = np.concatenate([np.zeros((0, 4), np.float32), *boxes])
        keypoints = np.zeros((len(flat), NUM_POINTS[self.layout], 3), np.float32)
        for start in range(0, len(flat), self._batch_size):
            rows = slice(start, start + self._batch_size)
            keypoints[rows] = self._keypoints([clip.frames[owner] for owner in owners[rows]], flat[rows])
        ends = np.cumsum([len(found) for found in boxes])[:-1]
        return [
            FramePeople(points, found, points[..., 2].mean(1))
            for points, found in zip(np.split(keypoints, ends), boxes, strict=True)
        ]

    @torch.inference_mode()
    def _keypoints(self, frames: list[np.ndarray], boxes: np.ndarray) -> np.ndarray:
        """float32 [P, 17, 3] of one person in each frame."""
        maps = [crop_matrix(box, self._size) for box in boxes]
        height, width = self._size
        crops = [
            cv2.warpAffine(f, m, (width, height), flags=cv2.INTER_LINEAR) for f, m in zip(frames, maps, strict=True)
        ]
        pixels = (np.stack(crops).astype(np.float32) / 255 - MEAN) / STD
        inputs = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(self._model.device)
        # Models with several heads are trained on several data sets; the first is COCO.
        experts = torch.zeros(len(crops), dtype=torch.long, device=inputs.device) if self._experts else None
        heat = self._model(inputs, dataset_index=experts).heatmaps.float().cpu().numpy()
        points, scores = peaks(heat)
        points = points * np.array([width / heat.shape[3], height / heat.shape[2]])
        placed = [to_frame(p, matrix) for p, matrix in zip(points, maps, strict=True)]
        return np.concatenate([np.stack(placed), scores.clip(0, 1)[..., None]], -1).astype(np.float32)


def _load(folder: Path) -> VitPoseForPoseEstimation:
    """The model of a folder that holds a whole ViTPose for COCO."""
    from safetensors import SafetensorError
    from transformers import VitPoseForPoseEstimation

    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        kind, num_points = config.get("model_type"), len(config.get("id2label") or ())
        if kind != "vitpose":
            raise _refused(f"the model is of type {kind!r}", folder)
        if num_points != NUM_POINTS["coco17"]:
            raise _refused(f"the model has {num_points} key points (id2label of its config.json)", folder)
        with quiet_transformers():
            loaded: Any = VitPoseForPoseEstimation.from_pretrained(
                folder, local_files_only=True, dtype=torch.float32, output_loading_info=True
            )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
        raise _refused(f"the ViTPose model cannot be loaded: {error}", folder) from error
    model, info = loaded
    check_complete(folder, info["missing_keys"])
    return model


def _refused(what: str, folder: Path) -> ModelError:
    return ModelError(what, where=str(folder), allowed=WHAT, cure=f"get it again from {ORIGIN} ({LICENCE})")


def crop_matrix(box: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """OpenCV's affine map [2, 3] from the frame to a crop of `size` (height, width) around a box, wider by PADDING and
    of the crop's shape. Both count from the corner of the first pixel; OpenCV counts from its centre."""
    height, width = size
    sides = np.maximum(box[2:] - box[:2], 1.0)
    scale = 1 / (PADDING * max(sides[0] / width, sides[1] / height))
    middle = (box[:2] + box[2:]) / 2
    shift = np.array([width, height]) / 2 - scale * middle + (scale - 1) * 0.5
    return np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])


def to_frame(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Points [..., 2] of a crop in the frame's pixels, counted from the corner as everywhere in motion."""
    return (points - 0.5 - matrix[:, 2]) / matrix[0, 0] + 0.5


def peaks(heat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places [P, J, 2] of the maxima of heat maps [P, J, h, w], in cells from the corner, and their heights [P, J].

    Between cells a parabola through the maximum and its neighbours on either axis says where the peak is.
    """
    people, joints, height, width = heat.shape
    best = heat.reshape(people, joints, -1).argmax(-1)
    rows, columns = np.divmod(best, width)
    at = np.arange(people)[:, None], np.arange(joints)[None]
    top = heat[(*at, rows, columns)]

    def offset(before: np.ndarray, after: np.ndarray, inside: np.ndarray) -> np.ndarray:
        curve = before - 2 * top + after
        with np.errstate(divide="ignore", invalid="ignore"):
            moved = np.where(inside & (curve < 0), (before - after) / (2 * curve), 0.0)
        return moved.clip(-0.5, 0.5)

    left, right = np.maximum(columns - 1, 0), np.minimum(columns + 1, width - 1)
    above, below = np.maximum(rows - 1, 0), np.minimum(rows + 1, height - 1)
    x = columns + offset(heat[(*at, rows, left)], heat[(*at, rows, right)], (columns > 0) & (columns < width - 1))
    y = rows + offset(heat[(*at, above, columns)], heat[(*at, below, columns)], (rows > 0) & (rows < height - 1))
    return np.stack([x, y], -1) + 0.5, top
