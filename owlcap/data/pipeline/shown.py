"""A clip as a multimodal model is shown it: pictures with their times, or the file itself."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np

from owlcap.config_data import ShownSection
from owlcap.errors import VideoError
from owlcap.types import VideoClip
from rewards.chat import Media


def pictures(frames: np.ndarray, quality: int) -> tuple[Media, ...]:
    """uint8 [T, H, W, 3] frames as JPEG pictures."""
    from PIL import Image

    shown: list[Media] = []
    for frame in frames:
        file = io.BytesIO()
        Image.fromarray(frame).save(file, "JPEG", quality=quality)
        shown.append(Media("image_url", f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"))
    return tuple(shown)


def show(clip: VideoClip, path: str, is_whole: bool, shown: ShownSection) -> tuple[Media, ...]:
    """The decoded clip as the settings want it shown. A part of a video is always shown as pictures.

    Raises:
        VideoError: the file cannot be read.
    """
    if shown.form == "video" and is_whole:
        try:
            content = Path(path).read_bytes()
        except OSError as error:
            raise VideoError(f"the video file cannot be read: {error.strerror}", where=path) from error
        return (Media("video_url", f"data:video/mp4;base64,{base64.b64encode(content).decode()}"),)
    return pictures(clip.frames, shown.quality)


def timing(clip: VideoClip, start_s: float = 0.0) -> str:
    """What the pictures are, in words: how many, over how many seconds."""
    times = [(index / clip.fps) - start_s for index in clip.frame_indices]
    return f"{len(times)} frames, from {max(times[0], 0.0):.1f} s to {times[-1]:.1f} s of {clip.duration_s:.1f} s"
