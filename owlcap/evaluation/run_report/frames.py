"""A few small frames of a clip, and its overlays, as pictures that stand in the page itself."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

from owlcap.config import MotionSection, VideoSection
from owlcap.data.overlays import load_overlays
from owlcap.data.video import VideoLoader
from owlcap.errors import ConfigError, DataError, VideoError, VideoTimeout
from owlcap.types import Sample
from rl.pictures import few_frames
from rl.step import GroupRow

if TYPE_CHECKING:
    import numpy as np

QUALITY = 70  # of JPEG
PICTURE_SIDE = 224  # pixels at most; frames are smaller already
MAX_TIMEOUTS = 3


@dataclass(frozen=True, slots=True)
class Strip:
    """Frames and overlays as data addresses; the problems say why there are none."""

    frames: tuple[str, ...]
    problem: str | None = None
    overlays: tuple[str, ...] = ()
    overlay_problem: str | None = None


class FrameReader:
    """Decodes clips in a process of its own, each once. After three clips that hang no more are tried.

    Args:
        motion: of the run: without the motion pathway there are no overlays.
    """

    def __init__(self, video: VideoSection, motion: MotionSection) -> None:
        self._loader = VideoLoader(few_frames(video))
        self._motion = motion.model_copy(update={"missing": "visual"})  # a row without overlays has none to show
        self._strips: dict[tuple[str, float | None, float | None, tuple[str, ...]], Strip] = {}
        self._num_timeouts = 0

    def strip(self, row: GroupRow) -> Strip:
        """Frames and overlays of the clip that a group is about."""
        key = (row.video, row.start_s, row.end_s, row.overlays)
        if key not in self._strips:
            self._strips[key] = self._read(row)
        return self._strips[key]

    def close(self) -> None:
        """End the process."""
        self._loader.close()

    def __enter__(self) -> FrameReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self, row: GroupRow) -> Strip:
        sample = Sample(
            row.id, row.video, "", "", row.reference, start_s=row.start_s, end_s=row.end_s, overlays=row.overlays
        )
        frames, problem = self._frames(sample)
        try:
            return Strip(frames, problem, tuple(map(_picture, load_overlays(sample, self._motion))))
        except DataError as error:
            return Strip(frames, problem, overlay_problem=error.what)

    def _frames(self, sample: Sample) -> tuple[tuple[str, ...], str | None]:
        """Of the video, or why there are none."""
        if self._num_timeouts >= MAX_TIMEOUTS:
            return (), "not tried: too many clips before it did not answer"
        try:
            return tuple(map(_picture, self._loader.load(sample).frames)), None
        except (VideoError, ConfigError) as error:
            self._num_timeouts += isinstance(error, VideoTimeout)
            return (), error.what


def _picture(pixels: np.ndarray) -> str:
    """A small picture of uint8 [H, W, 3] as a data address."""
    from PIL import Image

    picture = Image.fromarray(pixels)
    picture.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
