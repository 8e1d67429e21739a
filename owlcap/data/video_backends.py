"""Three video decoders behind one small interface: decord, PyAV and torchcodec.

Each opener takes a path and returns a `VideoReader`. A decoder's own exceptions become `VideoError` here and
nowhere else. Heavy or optional libraries are imported by the opener that needs them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from owlcap.errors import ConfigError, VideoError, first_line

if TYPE_CHECKING:
    import numpy as np

FRAMES_PER_READ = 16  # source frames held at once: full-size frames of a long clip would take gigabytes
BROKEN_CURE = "check that the file plays (ffprobe FILE), copy it again, or remove its row"


class VideoReader(Protocol):
    """An open video file."""

    num_frames: int
    fps: float

    def read(self, indices: Sequence[int]) -> Iterator[np.ndarray]:
        """Yield the frames at `indices` (not decreasing) as uint8 [H, W, 3] RGB; fewer when the file ends early."""
        ...


class DecordReader:
    """decord (dmlc). Fast random access; may hang on broken files, so only run it where it can be killed."""

    def __init__(self, path: str) -> None:
        import decord

        self._errors = (decord.DECORDError, RuntimeError)
        self._path = path
        try:
            self._reader = decord.VideoReader(path, num_threads=1)
        except self._errors as error:
            raise _unreadable(path, error) from error
        self.num_frames = len(self._reader)
        self.fps = float(self._reader.get_avg_fps())

    def read(self, indices: Sequence[int]) -> Iterator[np.ndarray]:
        for start in range(0, len(indices), FRAMES_PER_READ):
            try:
                batch = self._reader.get_batch(list(indices[start : start + FRAMES_PER_READ])).asnumpy()
            except self._errors as error:
                if "size must exactly match" in str(error):  # its copy of frames that are 8, 16 or 24 pixels wide
                    raise VideoError(
                        "decord cannot read frames as narrow as this video's",
                        where=self._path,
                        cure="set video.backend=pyav (for overlays motion.extract.backend=pyav), or remove its row",
                    ) from error
                raise _unreadable(self._path, error) from error
            yield from batch


class PyavReader:
    """PyAV (FFmpeg's libraries inside the wheel). Decodes in order and keeps what is asked for."""

    def __init__(self, path: str) -> None:
        import av
        from av.error import FFmpegError

        self._errors = (FFmpegError, ValueError, EOFError)
        self._path = path
        try:
            self._container = av.open(path)
            if not self._container.streams.video:
                raise VideoError("the file has no video stream", where=path, cure=BROKEN_CURE)
            self._stream = self._container.streams.video[0]
            self._stream.thread_type = "AUTO"
            self.num_frames = self._stream.frames or self._count_packets()
        except self._errors as error:
            raise _unreadable(path, error) from error
        self.fps = float(self._stream.average_rate or self._stream.guessed_rate or 0)

    def _count_packets(self) -> int:
        """Frames of a container that does not state them (Matroska, WebM), without decoding."""
        count = sum(1 for packet in self._container.demux(self._stream) if packet.size)
        self._container.seek(0)
        return count

    def read(self, indices: Sequence[int]) -> Iterator[np.ndarray]:
        from av.video.reformatter import VideoReformatter

        reformatter = VideoReformatter()  # kept: it prepares the colour conversion once a clip, not once a frame
        wanted = iter(indices)
        index = next(wanted, None)
        try:
            for position, frame in enumerate(self._container.decode(self._stream)):
                if index != position:
                    continue
                image = reformatter.reformat(frame, format="rgb24").to_ndarray()
                while index == position:
                    yield image
                    index = next(wanted, None)
                if index is None:
                    return
        except self._errors as error:
            raise _unreadable(self._path, error) from error


class TorchcodecReader:
    """torchcodec. Needs FFmpeg's shared libraries on the system, so it is imported only when chosen."""

    def __init__(self, path: str) -> None:
        try:
            from torchcodec.decoders import VideoDecoder  # type: ignore[import-not-found]
        except (ImportError, RuntimeError, OSError) as error:  # absent, or its FFmpeg libraries are
            raise ConfigError(
                f"video.backend is torchcodec, which cannot be loaded: {first_line(error)}",
                allowed="decord, pyav, or an installed torchcodec with FFmpeg's shared libraries",
                cure="set video.backend=decord, or pip install torchcodec beside the system's FFmpeg",
            ) from error
        self._path = path
        try:
            self._decoder = VideoDecoder(path, dimension_order="NHWC")
        except (RuntimeError, ValueError) as error:
            raise _unreadable(path, error) from error
        self.num_frames = int(self._decoder.metadata.num_frames or 0)
        self.fps = float(self._decoder.metadata.average_fps or 0)

    def read(self, indices: Sequence[int]) -> Iterator[np.ndarray]:
        for start in range(0, len(indices), FRAMES_PER_READ):
            try:
                batch = self._decoder.get_frames_at(list(indices[start : start + FRAMES_PER_READ])).data.numpy()
            except (RuntimeError, ValueError, IndexError) as error:
                raise _unreadable(self._path, error) from error
            yield from batch


READERS: dict[str, Callable[[str], VideoReader]] = {
    "decord": DecordReader,
    "pyav": PyavReader,
    "torchcodec": TorchcodecReader,
}


def _unreadable(path: str, error: Exception) -> VideoError:
    reason = str(error).strip().splitlines() or [type(error).__name__]
    return VideoError(f"the video cannot be decoded: {reason[-1]}", where=path, cure=BROKEN_CURE)
