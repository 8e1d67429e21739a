"""Frames to mp4 files: H.264 in yuv444p, so that thin limbs keep their colour (yuv420p halves colour detail)."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

QUALITY = {"preset": "ultrafast", "crf": "10"}


def write_mp4(path: Path, frames: np.ndarray, fps: float) -> None:
    """Encode uint8 [T, H, W, 3] RGB frames; frame i is shown from i / fps seconds on."""
    rate = Fraction(fps).limit_denominator(1000)
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=rate, options=QUALITY)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv444p"
        stream.codec_context.thread_count = 1  # many small clips at once: threads only cost
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
