"""Boxes of people in frames: a detector's, given ones, or the whole frame."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from motion.pose.source import existing_file
from owlcap.config_motion import PoseSection
from owlcap.errors import DataError, ModelError
from owlcap.types import Sample

ORIGIN = "the list of YOLOX models in rtmlib's README (github.com/Tau-J/rtmlib)"
LICENCE = "Apache-2.0"
WHAT = "yolox_m.onnx or the like; or boxes as JSONL"


class Detector(Protocol):
    """Finds people."""

    def boxes(self, frame: np.ndarray, sample: Sample) -> np.ndarray:
        """Boxes float32 [P, 4] in pixels: left, top, right, bottom. `frame` is uint8 [H, W, 3], RGB."""
        ...


def build_detector(pose: PoseSection) -> Detector:
    """The detector that `pose.detector` names: an ONNX file, a JSONL file of boxes, or null for the whole frame.

    Raises:
        ModelError: there is no such file, or it cannot be used.
    """
    if pose.detector is None:
        return WholeFrame()
    path = existing_file(pose.detector, "motion.pose.detector", WHAT, ORIGIN, LICENCE)
    return GivenBoxes(path) if path.suffix == ".jsonl" else YoloxDetector(path, pose.device)


class WholeFrame:
    """One person whose box is the frame: for clips that are cut around one person. Frames without people give one too;
    then the key points' confidence alone says that nobody is there."""

    def boxes(self, frame: np.ndarray, sample: Sample) -> np.ndarray:
        """The frame's own box."""
        del sample
        height, width = frame.shape[:2]
        return np.array([[0, 0, width, height]], np.float32)


class GivenBoxes:
    """Boxes from a file, one line a clip: {"id": ..., "boxes": [[left, top, right, bottom], ...]} in shares of the
    frame's width and height, which hold for the whole clip.

    Raises:
        DataError: a line is bad.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._boxes: dict[str, np.ndarray] = {}
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            try:
                row = json.loads(line)
                boxes = np.array(row["boxes"], np.float32).reshape(-1, 4)
                self._boxes[str(row["id"])] = boxes
                bad = (boxes < 0).any() or (boxes > 1).any() or (boxes[:, :2] >= boxes[:, 2:]).any()
            except (ValueError, KeyError, TypeError):
                bad = True
            if bad:
                raise DataError(
                    "the boxes cannot be read",
                    where=f"{path}:{number}",
                    allowed='{"id": "clip-1", "boxes": [[0.2, 0.1, 0.7, 0.9]]}, shares from 0 to 1',
                    cure="mend or delete this line",
                )

    def boxes(self, frame: np.ndarray, sample: Sample) -> np.ndarray:
        """The clip's boxes in pixels.

        Raises:
            DataError: the file does not name the clip.
        """
        if sample.id not in self._boxes:
            raise DataError(
                f"the file of boxes does not name the clip {sample.id!r}",
                where=str(self._path),
                cure="add a line for it; boxes: [] says that nobody is in it",
            )
        height, width = frame.shape[:2]
        return self._boxes[sample.id] * np.array([width, height, width, height], np.float32)


class YoloxDetector:
    """A YOLOX model (ONNX) through rtmlib."""

    def __init__(self, path: Path, device: str) -> None:
        self._model: Any = open_onnx("YOLOX", path, device, WHAT, ORIGIN)
        self._model.model_input_size = tuple(input_shape(self._model)[2:])

    def boxes(self, frame: np.ndarray, sample: Sample) -> np.ndarray:
        """Boxes of people; none where there are none."""
        del sample
        found = self._model(np.ascontiguousarray(frame[..., ::-1]))  # BGR, as rtmlib's own examples give it
        return np.asarray(found, np.float32).reshape(-1, 4)


def open_onnx(kind: str, path: Path, device: str, what: str, origin: str) -> Any:
    """A model of rtmlib on a local file; its other arguments keep their defaults.

    Args:
        kind: of rtmlib's classes.
        what: the file should be, and from which `origin`, for the error.

    Raises:
        ModelError: rtmlib is not installed, or the file is no ONNX model.
    """
    try:
        import rtmlib
        from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidGraph, InvalidProtobuf
    except ImportError as error:
        raise ModelError(
            f"rtmlib cannot be imported: {error}", where="motion.pose.source", cure="pip install 'owlcap[motion]'"
        ) from error
    try:
        return getattr(rtmlib, kind)(str(path), backend="onnxruntime", device=device)
    except (Fail, InvalidGraph, InvalidProtobuf) as error:
        raise ModelError(
            f"the ONNX file cannot be loaded: {error}",
            where=str(path),
            allowed=what,
            cure=f"get it again from {origin}",
        ) from error


def input_shape(model: Any) -> tuple[int, int, int, int]:
    """Of an rtmlib model's input: batch, channels, height, width.

    Raises:
        ModelError: it has no fixed height and width.
    """
    shape = model.session.get_inputs()[0].shape
    if len(shape) != 4 or not all(isinstance(side, int) for side in shape[2:]):
        raise ModelError(
            f"the ONNX model's input has the shape {shape}",
            where=str(getattr(model, "onnx_model", "motion.pose")),
            allowed="[batch, 3, height, width] with a fixed height and width",
            cure="export the model with a fixed input size",
        )
    return tuple(shape)
