"""From clips to overlays, in this process: decode, find poses, choose key frames, fit the body, draw it.

    portions of a clip -> PoseSource -> main person -> key frames -> fit (several clips at once) -> overlays -> cache

A clip is decoded in portions of `extract.frames_at_once` frames, of which only poses are kept; key frames of a clip
that has several portions are decoded again. So the memory taken does not grow with the clip's length.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from motion.body import load_body
from motion.cache import POSES, MotionCache, MotionRecord, picture_paths, write_record
from motion.camera import Camera
from motion.fitting import fit_bodies, source_bodies, vertices_of
from motion.overlay import draw_bodies
from motion.pose.perturb import perturb
from motion.pose.source import build_pose_source, find_people
from motion.pose.track import main_person
from motion.pose.types import BodyParameters, FramePeople, PoseTrack
from motion.sampling import frame_energies, motion_energy, pose_aware, uniform
from owlcap.config import VideoSection
from owlcap.config_motion import ExtractSection, MotionSection
from owlcap.data.video import VideoLoader
from owlcap.errors import DataError, OwlcapError
from owlcap.types import Sample, VideoClip


@dataclass(frozen=True, slots=True)
class KeyFrames:
    """The chosen frames of a clip, and the person in all frames that were looked at. Letters: T looked at, N chosen."""

    track: PoseTrack  # [T]
    source_indices: np.ndarray  # int64 [T]: positions in the video
    fps: float  # of the video
    chosen: tuple[int, ...]  # [N], positions in the track
    frames: np.ndarray  # uint8 [N, H, W, 3]


@dataclass(frozen=True, slots=True)
class Extracted:
    """A clip whose overlays are in the cache."""

    sample: Sample
    folder: Path
    record: MotionRecord
    found: bool = False  # it was there before

    @property
    def overlays(self) -> list[Path]:
        """The overlays in the order of time."""
        return picture_paths(self.folder, self.record)


@dataclass(frozen=True, slots=True)
class MotionFailure:
    """A clip that gave no overlays, and why."""

    sample: Sample
    error: str  # class name
    reason: str


MotionResult = Extracted | MotionFailure


def video_settings(extract: ExtractSection) -> VideoSection:
    """How a portion of a clip is decoded."""
    return VideoSection(
        fps=extract.fps,
        min_frames=2,
        max_frames=extract.frames_at_once,
        min_pixels=extract.min_pixels,
        max_pixels=extract.max_pixels,
        total_pixels=extract.max_pixels * extract.frames_at_once,  # never the tighter bound
        backend=extract.backend,
        deadline_s=extract.deadline_s,
    )


def portions(loader: VideoLoader, sample: Sample, extract: ExtractSection) -> Iterator[VideoClip]:
    """The clip at `extract.fps`, at most `extract.frames_at_once` frames at a time, each frame once.

    Raises:
        VideoError: as VideoLoader.load.
    """
    whole = loader.load(sample)
    at_once = extract.frames_at_once // 2 * 2
    if min(whole.duration_s * extract.fps, whole.total_num_frames) <= at_once:
        yield _once(whole)
        return
    # `whole` is a thin sample of a long clip: it tells the length, and its frames are not used.
    first, last = whole.frame_indices[0], whole.frame_indices[0] + whole.total_num_frames - 1
    step = max(math.floor(at_once / extract.fps * whole.fps), 2)
    for start in range(first, last + 1, step):
        yield _once(load_between(loader, sample, whole.fps, start, min(start + step - 1, last)))


def load_between(loader: VideoLoader, sample: Sample, fps: float, first: int, last: int) -> VideoClip:
    """A portion of a clip from one position in the video to another, both included."""
    return loader.load(replace(sample, start_s=max(first - 0.25, 0.0) / fps, end_s=(last + 0.25) / fps))


def _once(clip: VideoClip) -> VideoClip:
    """The clip without frames that are there twice (a one-frame video is decoded as two)."""
    kept = [i for i, index in enumerate(clip.frame_indices) if index not in clip.frame_indices[:i]]
    if len(kept) == len(clip.frame_indices):
        return clip
    return replace(clip, frames=clip.frames[kept], frame_indices=tuple(clip.frame_indices[i] for i in kept))


class MotionExtractor:
    """Turns clips into entries of the cache. Holds the pose models, the body and a decoder process.

    Raises:
        ConfigError, ModelError: of the settings, and of model files.
    """

    def __init__(self, motion: MotionSection) -> None:
        self.motion = motion
        self.cache = MotionCache(motion)
        self._source = build_pose_source(motion)
        self._body = load_body(motion.mesh.body, motion.pose.device)
        self._loader = VideoLoader(video_settings(motion.extract))

    def close(self) -> None:
        """End the decoder process."""
        self._loader.close()

    def __enter__(self) -> MotionExtractor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def extract(self, samples: Sequence[Sample]) -> list[MotionResult]:
        """One result a clip, in order: from the cache where it is there; the others are fitted together."""
        results: dict[int, MotionResult] = {}
        seen: dict[int, KeyFrames] = {}
        for number, sample in enumerate(samples):
            try:
                record = self.cache.find(sample)
                if record is not None:
                    results[number] = Extracted(sample, self.cache.folder(sample), record, found=True)
                else:
                    seen[number] = self.key_frames(sample)
            except OwlcapError as error:
                results[number] = MotionFailure(sample, type(error).__name__, str(error))
        for group in _of_one_size(seen):
            clips = [seen[number] for number in group]
            for number, clip, drawn in zip(group, clips, self._draw(clips), strict=True):
                try:
                    results[number] = self._keep(samples[number], clip, drawn)
                except OwlcapError as error:
                    results[number] = MotionFailure(samples[number], type(error).__name__, str(error))
        return [results[number] for number in range(len(samples))]

    def key_frames(self, sample: Sample) -> KeyFrames:
        """Look at a clip and choose its key frames.

        Raises:
            DataError: the video cannot be decoded, or nobody is in it.
        """
        people: list[FramePeople] = []
        indices: list[int] = []
        energies: list[np.ndarray] = []
        clip, before = None, None
        for clip in portions(self._loader, sample, self.motion.extract):
            people += find_people(self._source, self.motion.pose.source, clip, sample)
            indices += clip.frame_indices
            if self.motion.key_frames.method == "motion_energy":
                energies.append(frame_energies(clip.frames, before))
                before = clip.frames[-1].copy()
        assert clip is not None
        track = main_person(people, self._source.layout, self.motion.pose.max_gap)
        if not track.present.any():
            raise DataError(
                f"nobody was found in any of the clip's {len(indices)} frames",
                where=sample.video,
                cure="take the whole frame for the person (motion.pose.detector=null), or the clip as video alone "
                "(motion.missing=visual)",
            )
        track = perturb(track, self.motion.pose, sample.id)
        chosen = self._choose(track, np.concatenate(energies) if energies else None)
        if len(clip.frames) == len(indices):  # one portion
            frames = clip.frames[list(chosen)]
        else:
            again = (load_between(self._loader, sample, clip.fps, i, i) for i in (indices[c] for c in chosen))
            frames = np.stack([part.frames[0] for part in again])
        return KeyFrames(track, np.array(indices), clip.fps, chosen, frames)

    def _choose(self, track: PoseTrack, energies: np.ndarray | None) -> tuple[int, ...]:
        settings = self.motion.key_frames
        if settings.method == "uniform":
            return uniform(len(track.boxes), settings.num_frames)
        if energies is not None:
            return motion_energy(energies, settings.num_frames)
        return pose_aware(
            track.keypoints,
            track.boxes,
            settings.num_frames,
            min_confidence=self.motion.pose.min_confidence,
            scale=settings.scale,
        )

    def _draw(self, clips: Sequence[KeyFrames]) -> Iterator[_Drawn]:
        """Fit the body to the key frames of clips of one size, all at once, and draw it clip by clip."""
        height, width = clips[0].frames.shape[1:3]
        camera = Camera.of_frame(height, width, self.motion.mesh.field_of_view)
        tracks = [_part(clip.track, clip.chosen) for clip in clips]
        owners = np.repeat(np.arange(len(clips)), [len(clip.chosen) for clip in clips])
        if self.motion.mesh.parameters == "auto" and all(track.body is not None for track in tracks):
            fit = source_bodies(self._body, tracks)
        else:
            keypoints = np.concatenate([track.keypoints for track in tracks])
            boxes = np.concatenate([track.boxes for track in tracks])
            least = self.motion.pose.min_confidence
            layout = tracks[0].layout
            fit = fit_bodies(
                self._body, camera, layout, keypoints, boxes, owners, self.motion.mesh, min_confidence=least
            )
        for number, clip in enumerate(clips):
            rows = owners == number
            body = BodyParameters(fit.body.pose[rows], fit.body.shape[rows], fit.body.root[rows])
            with torch.inference_mode():
                vertices = vertices_of(self._body, body)
                drawn = fit.fitted[rows]
                pictures = draw_bodies(clip.frames, self._body, vertices, drawn, camera, self.motion.overlay)
            yield _Drawn(pictures, body, drawn, fit.error_px[rows])

    def _keep(self, sample: Sample, clip: KeyFrames, drawn: _Drawn) -> Extracted:
        track = clip.track
        record = MotionRecord(
            video=sample.video,
            source=self.motion.pose.source,
            layout=track.layout,
            num_frames=len(track.boxes),
            fps=clip.fps,
            frame_indices=tuple(int(clip.source_indices[i]) for i in clip.chosen),
            num_people=tuple(int(track.num_people[i]) for i in clip.chosen),
            most_people=int(track.num_people.max()),
            present_share=float(track.present.mean()),
            drawn=tuple(bool(value) for value in drawn.drawn),
            error_px=tuple(None if math.isnan(value) else round(float(value), 3) for value in drawn.error_px),
            height=clip.frames.shape[1],
            width=clip.frames.shape[2],
        )

        def fill(folder: Path) -> None:
            for kind, pictures in (("frame", clip.frames), ("overlay", drawn.pictures)):
                for path, picture in zip(picture_paths(folder, record, kind), pictures, strict=True):
                    Image.fromarray(picture).save(path, compress_level=3)
            np.savez_compressed(
                folder / POSES,
                keypoints=track.keypoints,
                boxes=track.boxes,
                num_people=track.num_people,
                source_indices=clip.source_indices,
                chosen=np.array(clip.chosen),
                body_pose=drawn.body.pose,
                body_shape=drawn.body.shape,
                body_root=drawn.body.root,
            )
            write_record(folder, record)

        return Extracted(sample, self.cache.keep(sample, fill), record)


@dataclass(frozen=True, slots=True)
class _Drawn:
    """The key frames of a clip with the body drawn in."""

    pictures: np.ndarray  # uint8 [N, H, W, 3]
    body: BodyParameters
    drawn: np.ndarray  # bool [N]
    error_px: np.ndarray  # float32 [N]


def _part(track: PoseTrack, chosen: Sequence[int]) -> PoseTrack:
    """The track at some of its frames."""
    rows = list(chosen)
    body = track.body
    if body is not None:
        body = BodyParameters(body.pose[rows], body.shape[rows], body.root[rows])
    return PoseTrack(track.layout, track.keypoints[rows], track.boxes[rows], track.num_people[rows], body)


def _of_one_size(clips: dict[int, KeyFrames]) -> Iterator[list[int]]:
    """Numbers of clips whose frames are equally large."""

    def size(number: int) -> tuple[int, ...]:
        return clips[number].frames.shape[1:3]

    for _, group in itertools.groupby(sorted(clips, key=size), key=size):
        yield list(group)
