"""Pictures of sampled captions for TensorBoard: frames of a clip, and below them what was said of it and its reward."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from owlcap.config import RlRun, VideoSection
from owlcap.data.video import VideoLoader
from owlcap.errors import VideoError
from owlcap.logging import get_logger
from owlcap.metrics import MetricsWriter
from owlcap.types import ScoredGroup

if TYPE_CHECKING:
    from PIL.Image import Image

NUM_CLIPS = 4  # of one step
NUM_FRAMES = 6  # of one clip
FRAME_SIDE = 112  # pixels
FONT_SIZE = 14
LINE_HEIGHT = 18
LINE_CHARACTERS = 100  # that fit under NUM_FRAMES frames
MARGIN = 8

logger = get_logger(__name__)


def show_captions(metrics: MetricsWriter, step: int, groups: Sequence[ScoredGroup], cfg: RlRun) -> None:
    """Put a step's first clips and their captions into TensorBoard, every `tracking.images_every_steps` steps.

    A clip that cannot be read any more is left out with a warning.
    """
    every = cfg.tracking.images_every_steps
    if not every or step % every or not groups:
        return
    with VideoLoader(few_frames(cfg.video)) as loader:
        for number, group in enumerate(groups[:NUM_CLIPS]):
            try:
                frames = loader.load(group.group.sample).frames
            except VideoError as error:
                logger.warning("step %d: no picture of %s: %s", step, group.group.sample.id, error.what)
                continue
            metrics.image(step, f"captions/{number}", picture(frames, list(told(group))))


def told(group: ScoredGroup) -> Iterator[str]:
    """The clip's reference, and the captions with the highest and the lowest reward."""
    sample = group.group.sample
    yield f"{sample.id}  reference: {sample.reference}"
    captions = [completion.text for completion in group.group.completions]
    scored = sorted(
        (total, caption) for total, caption in zip(group.totals, captions, strict=True) if total is not None
    )
    if not scored:
        yield "no caption of this clip has a reward"
        return
    for name, (total, caption) in (("best", scored[-1]), ("worst", scored[0])):
        yield f"{name}  {total:.3f}: {caption}"


def few_frames(video: VideoSection) -> VideoSection:
    """Settings under which a clip gives a short strip of small frames."""
    pixels = FRAME_SIDE * FRAME_SIDE
    return video.model_copy(
        update={
            "min_frames": NUM_FRAMES,
            "max_frames": NUM_FRAMES,
            "min_pixels": pixels,
            "max_pixels": pixels,
            "total_pixels": NUM_FRAMES * pixels,
            "num_workers": 1,
        }
    )


def picture(frames: np.ndarray, paragraphs: Sequence[str]) -> np.ndarray:
    """Frames uint8 [T, H, W, 3] side by side above text: uint8 [height, width, 3]."""
    from PIL import Image, ImageDraw, ImageFont

    lines = [line for text in paragraphs for line in (*textwrap.wrap(text, LINE_CHARACTERS), "")]
    strip = [_squeezed(Image.fromarray(frame)) for frame in frames[:NUM_FRAMES]]
    width = NUM_FRAMES * FRAME_SIDE + 2 * MARGIN
    top = max(frame.height for frame in strip) + 2 * MARGIN
    sheet = Image.new("RGB", (width, top + LINE_HEIGHT * len(lines)), "white")
    for number, frame in enumerate(strip):
        sheet.paste(frame, (MARGIN + number * FRAME_SIDE, MARGIN))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(FONT_SIZE)
    for number, line in enumerate(lines):
        draw.text((MARGIN, top + number * LINE_HEIGHT), line, fill="black", font=font)
    return np.asarray(sheet)


def _squeezed(frame: Image) -> Image:
    """A frame as wide as its place, in its own shape."""
    return frame.resize((FRAME_SIDE, max(1, round(frame.height * FRAME_SIDE / frame.width))))
