"""RTMPose, DWPose and ViTPose as ONNX files through rtmlib: 17 or 133 key points."""

from __future__ import annotations

from typing import Any

import numpy as np

from motion.pose.detector import build_detector, input_shape, open_onnx
from motion.pose.source import model_file
from motion.pose.types import NUM_POINTS, FramePeople, Layout, nobody
from owlcap.config_motion import MotionSection
from owlcap.errors import ModelError
from owlcap.registry import register
from owlcap.types import Sample, VideoClip

WHAT = "an RTMPose, DWPose or ViTPose ONNX file with 17 (body) or 133 (whole-body) key points"
ORIGIN = "the lists of models in rtmlib's README (github.com/Tau-J/rtmlib)"
LICENCE = "Apache-2.0"


@register("pose_source", "rtmlib")
class RtmPoses:
    """A top-down model: one pass for each person that the detector found.

    Raises:
        ConfigError: no model file is named.
        ModelError: a file is missing or is no such model.
    """

    layout: Layout

    def __init__(self, motion: MotionSection) -> None:
        path = model_file(motion.pose, WHAT, ORIGIN, LICENCE)
        self._detector = build_detector(motion.pose)
        model = open_onnx("RTMPose", path, motion.pose.device, WHAT, ORIGIN)
        if len(model.session.get_outputs()) == 1:  # heat maps, not two lines for x and y
            model = open_onnx("ViTPose", path, motion.pose.device, WHAT, ORIGIN)
        height, width = input_shape(model)[2:]
        model.model_input_size = (width, height)
        self._model: Any = model
        self.layout = self._layout_of(height, width, str(path))

    def _layout_of(self, height: int, width: int, where: str) -> Layout:
        points, _ = self._model(np.zeros((height, width, 3), np.uint8))
        for layout, count in NUM_POINTS.items():
            if layout != "smpl24" and points.shape[1] == count:
                return layout
        raise ModelError(f"the model gives {points.shape[1]} key points", where=where, allowed=WHAT, cure="use another")

    def find(self, clip: VideoClip, sample: Sample) -> list[FramePeople]:
        """Everyone in each frame."""
        return [self._people(frame, self._detector.boxes(frame, sample)) for frame in clip.frames]

    def _people(self, frame: np.ndarray, boxes: np.ndarray) -> FramePeople:
        if not len(boxes):
            return nobody(self.layout)  # rtmlib would take the whole frame for a box
        points, scores = self._model(np.ascontiguousarray(frame[..., ::-1]), boxes.tolist())  # BGR
        keypoints = np.concatenate([points, scores[..., None]], -1).astype(np.float32)
        keypoints[..., 2] = keypoints[..., 2].clip(0, 1)
        return FramePeople(keypoints, boxes, keypoints[..., 2].mean(1))
