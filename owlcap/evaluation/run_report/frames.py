"""A few small frames of a clip as pictures that stand in the page itself."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

from owlcap.config import VideoSection
from owlcap.data.video import VideoLoader
from owlcap.errors import ConfigError, VideoError, VideoTimeout
from owlcap.types import Sample
from rl.pictures import few_frames
from rl.step import GroupRow

QUALITY = 70  # of JPEG
MAX_TIMEOUTS = 3


@dataclass(frozen=True, slots=True)
class Strip:
    """Frames as data addresses; `problem` says why there are none."""

    frames: tuple[str, ...]
    problem: str | None = None


class FrameReader:
    """Decodes clips in a process of its own, each once. After three clips that hang no more are tried."""

    def __init__(self, video: VideoSection) -> None:
        self._loader = VideoLoader(few_frames(video))
        self._strips: dict[tuple[str, float | None, float | None], Strip] = {}
        self._num_timeouts = 0

    def strip(self, row: GroupRow) -> Strip:
        """Frames of the clip that a group is about."""
        key = (row.video, row.start_s, row.end_s)
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
        from PIL import Image

        if self._num_timeouts >= MAX_TIMEOUTS:
            return Strip((), "not tried: too many clips before it did not answer")
        sample = Sample(row.id, row.video, "", "", row.reference, start_s=row.start_s, end_s=row.end_s)
        try:
            frames = self._loader.load(sample).frames
        except (VideoError, ConfigError) as error:
            self._num_timeouts += isinstance(error, VideoTimeout)
            return Strip((), error.what)
        pictures = []
        for frame in frames:
            file = io.BytesIO()
            Image.fromarray(frame).save(file, "JPEG", quality=QUALITY)
            pictures.append(f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}")
        return Strip(tuple(pictures))
