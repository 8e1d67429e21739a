"""From source videos to segments: caption filter, scenes, one person, cut, poses again, movement, key frames."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from motion.pose.source import build_pose_source
from motion.pose.track import main_person
from motion.sampling import pose_aware
from owlcap.config import VideoSection
from owlcap.config_data import DataPipelineRun
from owlcap.data.hmi.person import Person, cut, has_body_points, measure, single_stretches, why_not
from owlcap.data.hmi.scenes import find_scenes
from owlcap.data.pipeline.clips import Clip
from owlcap.data.pipeline.step import Tools
from owlcap.errors import ConfigError
from rewards.text import words

NO_PERSON = "caption names no person"
MAX_FRAMES = 768  # of one stretch of video that poses are looked for in


class Segmentation:
    """One source video: the scenes in it, and each segment with its figures and whether it is kept."""

    def __init__(self, tools: Tools) -> None:
        self._tools, self._run, self._hmi = tools, tools.run, tools.run.hmi
        self._source = build_pose_source(self._run.motion)
        if not has_body_points(self._source.layout):
            raise ConfigError(
                f"the pose source {self._run.motion.pose.source!r} gives {self._source.layout}: no face points",
                where="motion.pose.source",
                allowed="a source of coco17 or coco133: vitpose, rtmlib",
            )
        self._lock = asyncio.Lock()  # pose models take one clip at a time

    async def do(self, item: Mapping[str, Any]) -> dict[str, Any]:
        """See Step."""
        clip = Clip(**item)
        record = {"id": clip.id, "video": clip.video, "caption": clip.caption, "scenes": [], "segments": []}
        known = set(self._hmi.caption_words)
        if clip.caption and known and not known & set(words(clip.caption)):
            return {**record, "reason": NO_PERSON}
        scenes = await asyncio.to_thread(find_scenes, clip.video, self._hmi.scenes)
        segments: list[dict[str, Any]] = []
        for start, end in scenes:
            for first, last in await self._stretches(clip, start, end):
                for begin, stop in cut(first, last, self._hmi.person.min_s, self._hmi.person.max_s):
                    segments.append(await self._judge(clip, begin, stop, len(segments)))
        return {
            **record,
            "scenes": scenes,
            "segments": segments,
            "reason": "" if segments else "no stretch of one person",
        }

    async def _stretches(self, clip: Clip, start_s: float, end_s: float) -> list[tuple[float, float]]:
        """Where one person is seen in a scene."""
        if end_s - start_s < self._hmi.person.min_s:
            return []
        frames, people, times = await self._people(clip, start_s, end_s, self._hmi.scan_fps)
        del frames
        times[0] = start_s
        return single_stretches([one.num_people for one in people], times, end_s)

    async def _judge(self, clip: Clip, start_s: float, end_s: float, number: int) -> dict[str, Any]:
        frames, people, times = await self._people(clip, start_s, end_s, self._hmi.pose_fps)
        motion = self._run.motion
        track = main_person(people, self._source.layout, motion.pose.max_gap)
        person: Person = measure(people, track, frames.shape[1:3], end_s - start_s, self._hmi.person)
        reason = why_not(person, self._hmi.person)
        keys: tuple[int, ...] = ()
        if not reason:
            keys = pose_aware(
                track.keypoints,
                track.boxes,
                motion.key_frames.num_frames,
                min_confidence=motion.pose.min_confidence,
                scale=motion.key_frames.scale,
            )
        return {
            "id": f"{clip.id}-{number:03d}",
            "start_s": start_s,
            "end_s": end_s,
            **asdict(person),
            "kept": not reason,
            "reason": reason,
            "key_frames": list(keys),
            "key_times_s": [times[key] for key in keys],
        }

    async def _people(self, clip: Clip, start_s: float, end_s: float, fps: float):
        """Frames of a stretch, everyone in them, and their times in seconds."""
        part = stretch(clip, start_s, end_s)
        frames = await self._tools.decode(part, pose_video(self._run, fps))
        async with self._lock:
            people = await asyncio.to_thread(self._source.find, frames, part.sample)
        return frames.frames, people, [index / frames.fps for index in frames.frame_indices]


def stretch(clip: Clip, start_s: float, end_s: float) -> Clip:
    """A part of a video without the frame at `end_s`, with which the next scene begins."""
    return replace(clip, start_s=start_s, end_s=end_s - 1e-3)


def pose_video(run: DataPipelineRun, fps: float) -> VideoSection:
    """How frames are decoded for pose models; the same settings give the same frames again."""
    extract = run.motion.extract
    return VideoSection(
        fps=fps,
        min_frames=4,
        max_frames=MAX_FRAMES,
        min_pixels=extract.min_pixels,
        max_pixels=extract.max_pixels,
        total_pixels=MAX_FRAMES * extract.max_pixels,
        backend=extract.backend,
        deadline_s=extract.deadline_s,
        num_workers=run.shown.video.num_workers,
    )
