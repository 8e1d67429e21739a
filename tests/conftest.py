"""Fixtures that every test may use: a tiny random policy folder and a few real mp4 clips."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import owlcap.logging

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two test processes of many threads slow each other down
os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.pop("RAY_ADDRESS", None)  # a test never joins somebody's cluster


@pytest.fixture(autouse=True)
def _own_logs() -> Iterator[None]:
    """A run in this process redirects the project's logs; the next test finds them as in a new process."""
    yield
    owlcap.logging._folder = None
    for package in owlcap.logging.PACKAGES:
        logger = logging.getLogger(package)
        for handler in list(logger.handlers):
            logger.removeHandler(handler)
            handler.close()
        logger.setLevel(logging.NOTSET)
        logger.propagate = True


TEXTS = [
    "Describe the video.",
    "A person in a red shirt raises the left arm, then waves the right hand in front of a blue wall.",
    "Someone wearing green walks to the right and jumps. A yellow ball lies on the left.",
    "The man in the purple top sits down and then turns around; a white box is beside him.",
    "Two people are standing against a grey background. One of them kicks, the other bows.",
]
CLIP_FPS, CLIP_FRAMES, CLIP_SIZE = 6, 12, 56


def write_clip(path: Path, frames: np.ndarray, fps: int = CLIP_FPS, faststart: bool = False) -> Path:
    """Encode uint8 [T, H, W, 3] frames as H.264; the suffix names the container. faststart puts the index first."""
    import av

    with av.open(str(path), "w", options={"movflags": "faststart"} if faststart else {}) as container:
        stream = container.add_stream("libx264", rate=Fraction(fps))
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        stream.options = {"crf": "10"}
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def moving_square(
    seed: int, num_frames: int = CLIP_FRAMES, height: int = CLIP_SIZE, width: int = CLIP_SIZE
) -> np.ndarray:
    """Frames uint8 [T, H, W, 3] of a coloured square that crosses a plain background."""
    rng = np.random.default_rng(seed)
    background, colour = rng.integers(0, 256, (2, 3), dtype=np.uint8)
    frames = np.broadcast_to(background, (num_frames, height, width, 3)).copy()
    top, side = int(rng.integers(0, height // 2)), height // 4
    for t in range(num_frames):
        left = round(t * (width - side) / max(num_frames - 1, 1))
        frames[t, top : top + side, left : left + side] = colour
    return frames


@pytest.fixture(scope="session")
def tiny_policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face folder with a random tiny Qwen2.5-VL, its tokenizer and processor. Do not write to it."""
    from owlcap.models.tiny import make_tiny_model

    return make_tiny_model(tmp_path_factory.mktemp("tiny_policy"), TEXTS, seed=0)


@pytest.fixture(scope="session")
def toy_clips(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    """Four real mp4 files of 12 frames, 56x56, 6 frames a second. Do not write to them."""
    folder = tmp_path_factory.mktemp("toy_clips")
    return tuple(write_clip(folder / f"clip-{i}.mp4", moving_square(i)) for i in range(4))
