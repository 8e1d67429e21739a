"""The clip on which an export is checked: one of the run's own, or a synthetic one."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from owlcap.config import Run
from owlcap.inference.settings import PolicySettings
from owlcap.types import Sample

if TYPE_CHECKING:
    import numpy as np

NUM_FRAMES, FRAMES_PER_SECOND, SIDE = 24, 12, 112  # two seconds, four cells of 28 pixels a side
X264 = {"preset": "ultrafast", "crf": "10"}  # the default preset gives other frames from run to run


def probe_sample(config: Run | None, settings: PolicySettings, scratch: Path) -> Sample:
    """The first clip of the run's validation (or training) data that is on this machine, else a synthetic clip."""
    from owlcap.data.rows import read_rows

    for data in (config.data.validation, config.data.train) if config else ():
        if config and data and Path(data).is_file():
            for sample in read_rows(data, config.data):
                if Path(sample.video).is_file() and (sample.overlays or not settings.motion.enabled):
                    return sample
    overlays = (str(write_probe_overlay(scratch / "probe.png")),) if settings.motion.enabled else ()
    return Sample("probe", str(write_probe_clip(scratch / "probe.mp4")), settings.prompt, "", "", overlays=overlays)


def write_probe_clip(path: Path) -> Path:
    """An H.264 file in which a bright square crosses a dark colour ramp; the same bytes every time."""
    import av

    background = _ramp()
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(FRAMES_PER_SECOND), options=X264)
        stream.width, stream.height, stream.pix_fmt = SIDE, SIDE, "yuv420p"
        stream.codec_context.thread_count = 1
        for number in range(NUM_FRAMES):
            image = background.copy()
            left = number * (SIDE - 28) // (NUM_FRAMES - 1)
            image[42:70, left : left + 28] = (230, 200, 40)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


def write_probe_overlay(path: Path) -> Path:
    """A picture of the same colour ramp with a grey square, in the role of an overlay."""
    from PIL import Image

    picture = _ramp()
    picture[28:84, 42:70] = 200
    Image.fromarray(picture).save(path)
    return path


def _ramp() -> np.ndarray:
    import numpy as np

    ramp = np.linspace(16, 112, SIDE, dtype=np.uint8)
    return np.stack(np.broadcast_arrays(ramp[:, None], ramp[None, :], np.uint8(64)), axis=-1)
