"""Frames to mp4 files: H.264 in yuv444p, so that thin limbs keep their colour (yuv420p halves colour detail)."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

QUALITY = {"preset": "ultrafast", "crf": "10"}


def write_mp4(path: Path, frames: np.ndarray, fps: float) -> None:
    """Encode uint8 [T, H, W, 3] RGB frames; frame i is shown from i / fps seconds on.

    Raises:
        OSError: the file cannot be written.
    """
    file = io.BytesIO()  # written by us, so that a full disk is a plain OSError that crosses processes
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000), options=QUALITY)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv444p"
        stream.codec_context.thread_count = 1  # many small clips at once: threads only cost
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    path.write_bytes(file.getvalue())
