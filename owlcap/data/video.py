"""From a video file to the frames the policy sees: the one place where clips are decoded, sampled and resized.

`decode` works in the calling process. `VideoLoader` runs it in child processes that are killed when a clip passes
its deadline, because decoders are known to hang for ever on broken files (dmlc/decord issues 269 and 363).

Sampling and sizing follow Qwen2.5-VL's preprocessing in transformers: frames at a wanted rate, an even number of
them (a temporal patch is two frames), sides in multiples of 28 pixels (2x2 patches of 14), a pixel budget for a
frame and for the clip.
"""

from __future__ import annotations

import math
import os
import queue
import stat
import subprocess
import sys
from dataclasses import replace
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import TYPE_CHECKING

from owlcap.config import MotionSection, VideoSection
from owlcap.data.overlays import load_overlays
from owlcap.data.sizing import CELL as CELL
from owlcap.data.sizing import picture_size
from owlcap.data.video_backends import BROKEN_CURE, READERS
from owlcap.errors import OwlcapError, VideoError, VideoTimeout
from owlcap.types import Sample, VideoClip

if TYPE_CHECKING:
    import numpy as np

TEMPORAL_PATCH = 2  # frames
MAX_ASPECT = 200  # Qwen2.5-VL's limit
START_DEADLINE_S = 120.0  # for a decoder process to import its libraries on a busy machine
CLIPS_PER_CHILD = 2000  # decord leaks memory: a child is replaced after this many clips


def sample_indices(num_frames: int, fps: float, video: VideoSection) -> tuple[int, ...]:
    """Positions of the frames to keep: the first of `count` equal parts of `num_frames` source frames of rate `fps`.

    An even count at `video.fps`, between min_frames and max_frames, never more than the source has (a one-frame
    source gives that frame twice). Transformers' video processor and vLLM's server take the same frames, so that a
    served policy sees what it was trained on (docs/adr/0005).
    """
    lowest = math.ceil(video.min_frames / TEMPORAL_PATCH) * TEMPORAL_PATCH
    highest = min(video.max_frames, num_frames) // TEMPORAL_PATCH * TEMPORAL_PATCH
    count = min(max(num_frames / fps * video.fps, lowest), highest)
    count = max(int(count) // TEMPORAL_PATCH * TEMPORAL_PATCH, TEMPORAL_PATCH)
    return tuple(i * num_frames // count for i in range(count))


def frame_size(height: int, width: int, num_frames: int, video: VideoSection) -> tuple[int, int]:
    """Height and width after resizing: multiples of 28 near the source's aspect, within the pixel budgets.

    A long clip gets smaller frames so that all of them stay within total_pixels (two frames share a token, so the
    budget of one frame is 2 * total_pixels / num_frames), but never below min_pixels.
    """
    budget = min(video.max_pixels, video.total_pixels / num_frames * TEMPORAL_PATCH)
    return picture_size(height, width, video.min_pixels, max(budget, int(video.min_pixels * 1.05)))


def decode(
    path: str | Path, video: VideoSection, start_s: float | None = None, end_s: float | None = None
) -> VideoClip:
    """Decode, sample and resize one clip in this process.

    With `start_s` or `end_s` the segment is treated as the whole source: duration and frame count are the
    segment's, frame indices stay positions in the file.

    Raises:
        VideoError: the file is missing, empty, truncated or not a video, or the segment lies outside of it.
        ConfigError: the chosen backend is not installed.
    """
    path = str(path)
    _check_file(path)
    reader = READERS[video.backend](path)
    if reader.num_frames < 1 or not reader.fps > 0:
        raise VideoError("the video has no frames", where=path, cure=BROKEN_CURE)
    first, count = _segment(reader.num_frames, reader.fps, start_s, end_s, path)
    indices = tuple(first + i for i in sample_indices(count, reader.fps, video))
    return VideoClip(
        frames=_read_resized(reader.read(indices), indices, path, video),
        fps=reader.fps,
        duration_s=count / reader.fps,
        total_num_frames=count,
        frame_indices=indices,
    )


def _check_file(path: str) -> None:
    try:
        status = os.stat(path)
    except OSError as error:
        raise VideoError(
            f"the video file cannot be opened: {error.strerror}",
            where=path,
            cure="correct the path in the row (it is relative to the JSONL's folder), or remove the row",
        ) from error
    if stat.S_ISDIR(status.st_mode):
        raise VideoError("the video path is a folder", where=path, cure="name a video file in the row")
    if stat.S_ISREG(status.st_mode) and status.st_size == 0:
        raise VideoError("the video file is empty", where=path, cure="copy it again, or remove its row")


def _segment(num_frames: int, fps: float, start_s: float | None, end_s: float | None, path: str) -> tuple[int, int]:
    """First frame and number of frames between two times."""
    if start_s is None and end_s is None:
        return 0, num_frames
    first = max(0, math.ceil((start_s or 0.0) * fps))
    last = num_frames - 1 if end_s is None else min(num_frames - 1, math.floor(end_s * fps))
    if first > last:
        raise VideoError(
            f"the segment {start_s} s to {end_s} s holds no frame",
            where=path,
            allowed=f"times within 0 to {num_frames / fps:.2f} s, start before end",
            cure="correct start_s and end_s in the row",
        )
    return first, last - first + 1


def _read_resized(source, indices: tuple[int, ...], path: str, video: VideoSection) -> np.ndarray:
    """Stack frames as uint8 [T, H, W, 3], each resized (bicubic, antialiased) as it arrives."""
    import numpy as np
    from PIL import Image

    frames: list[np.ndarray] = []
    size: tuple[int, int] | None = None
    for image in source:
        height, width = image.shape[:2]
        if size is None:
            if max(height, width) > MAX_ASPECT * min(height, width):
                raise VideoError(f"the frame is {width}x{height}: too narrow", where=path, allowed="aspect up to 200")
            size = frame_size(height, width, len(indices), video)
        if (height, width) != size:
            image = np.asarray(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BICUBIC))
        frames.append(image)
    missing = indices[len(frames) :]
    # Containers may count a frame or two that never decode (edit lists); more than that is a truncated file.
    if not frames or (missing and missing[0] < indices[-1] - max(2, indices[-1] // 100)):
        raise VideoError(
            f"the video ends early: {len(frames)} of {len(indices)} wanted frames", where=path, cure=BROKEN_CURE
        )
    frames += [frames[-1]] * len(missing)
    return np.stack(frames)


class VideoLoader:
    """Decodes clips in child processes that can be killed. Safe to call from several threads at once.

    Children are plain Python processes without torch, started at construction; `num_workers` clips decode at a time.
    """

    def __init__(self, video: VideoSection, motion: MotionSection | None = None) -> None:
        self._video, self._motion = video, motion or MotionSection()
        self._closed = False
        self._idle: queue.SimpleQueue[_Child | None] = queue.SimpleQueue()  # None: closed
        for _ in range(video.num_workers):
            self._idle.put(_Child(video))

    def load(self, sample: Sample) -> VideoClip:
        """Decode the sample's clip, and read its overlays where the motion pathway is on.

        Raises:
            VideoTimeout: the decoder gave no answer within `deadline_s`; it was killed and replaced.
            VideoError: the file cannot be used, or the decoder died on it.
            DataError: the overlays cannot be used.
        """
        overlays = load_overlays(sample, self._motion)
        return replace(self._decode(sample), overlays=overlays)

    def _decode(self, sample: Sample) -> VideoClip:
        child = self._idle.get()
        if child is None:
            self._idle.put(None)
            raise RuntimeError("this VideoLoader is closed")
        try:
            return child.decode(sample)
        finally:
            if not child.usable:
                child.kill()
                child = _Child(self._video)
            self._idle.put(child)

    def close(self) -> None:
        """End the children. Calls in progress finish first."""
        if not self._closed:
            self._closed = True
            for _ in range(self._video.num_workers):
                child = self._idle.get()
                assert child is not None
                child.kill()
            self._idle.put(None)

    def __enter__(self) -> VideoLoader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Child:
    """One decoder process and the pipe to it. The process ends itself when its parent's end of the pipe closes."""

    def __init__(self, video: VideoSection) -> None:
        self._video, self._ready, self._num_clips, self._broken = video, False, 0, False
        self._pipe, theirs = Pipe()
        root = str(Path(__file__).resolve().parents[2])
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))}
        command = [sys.executable, "-m", "owlcap.data.video_child", str(theirs.fileno())]
        self._process = subprocess.Popen(
            command, env=env, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        theirs.close()
        self._pipe.send(video.model_dump())

    @property
    def usable(self) -> bool:
        return not self._broken and self._num_clips < CLIPS_PER_CHILD

    def decode(self, sample: Sample) -> VideoClip:
        self._num_clips += 1
        try:
            if not self._ready:
                self._wait(START_DEADLINE_S, "the decoder process did not start", sample.video)
                self._ready = self._pipe.recv()
            self._pipe.send((sample.video, sample.start_s, sample.end_s))
            self._wait(self._video.deadline_s, "the decoder gave no answer and was killed", sample.video)
            return _receive_clip(self._pipe)
        except (EOFError, OSError) as error:  # the pipe closed: the process is gone
            self._broken = True
            what = "the decoder died on this file" if self._ready else "the decoder process could not start"
            raise VideoError(
                f"{what} (exit status {self._process.wait()})", where=sample.video, cure=BROKEN_CURE
            ) from error

    def _wait(self, deadline_s: float, what: str, path: str) -> None:
        if not self._pipe.poll(deadline_s):
            self._broken = True
            raise VideoTimeout(
                f"{what} within {deadline_s:g} s",
                where=path,
                cure="remove the row, raise video.deadline_s, or try another video.backend",
            )

    def kill(self) -> None:
        self._pipe.close()
        self._process.kill()
        self._process.wait()


def send_clip(pipe: Connection, answer: VideoClip | OwlcapError) -> None:
    """Write a decoded clip, or why there is none, for `_receive_clip` on the other side; frames go as raw bytes."""
    if isinstance(answer, OwlcapError):
        pipe.send(answer)
        return
    timing = (answer.fps, answer.duration_s, answer.total_num_frames, answer.frame_indices)
    pipe.send((answer.frames.shape, timing))
    pipe.send_bytes(answer.frames.data.cast("B"))


def _receive_clip(pipe: Connection) -> VideoClip:
    import numpy as np

    answer = pipe.recv()
    if isinstance(answer, OwlcapError):
        raise answer
    shape, (fps, duration_s, total_num_frames, frame_indices) = answer
    frames = np.empty(shape, np.uint8)
    pipe.recv_bytes_into(frames.data.cast("B"))
    return VideoClip(frames, fps, duration_s, total_num_frames, frame_indices)
