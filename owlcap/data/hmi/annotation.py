"""Captions on three levels: a short summary first, then a caption by a model that sees the key frames.

fine: segments up to hmi.fine_max_s seconds; contextual: longer ones; whole: the source video.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Literal

from owlcap.config_data import DataPipelineRun, HmiSection
from owlcap.data.hmi.segments import pose_video, stretch
from owlcap.data.pipeline.clips import Clip
from owlcap.data.pipeline.shown import pictures
from owlcap.data.pipeline.step import Tools, template_of
from rewards.templates import PromptTemplate, quoted

Level = Literal["fine", "contextual", "whole"]
MODELS = ("general_model",)
AIMS: dict[Level, str] = {
    "fine": "every movement of each part of the body: its direction, order, speed and extent, and the face",
    "contextual": "the movements in their order, and how they go together with things, the place and others",
    "whole": "the whole course of events, what the person is about, and where it takes place",
}


def level_of(duration_s: float, hmi: HmiSection) -> Level:
    """The level of a segment."""
    return "fine" if duration_s <= hmi.fine_max_s else "contextual"


class Annotation:
    """One segment, or one whole video: summary and caption."""

    def __init__(self, tools: Tools) -> None:
        self._tools, self._run = tools, tools.run
        self._prompts = prompts_of(tools.run)

    async def do(self, item: Mapping[str, Any]) -> dict[str, Any]:
        """See Step."""
        clip = Clip(item["id"], item["video"])
        if item["level"] != "whole":
            clip = stretch(clip, item["start_s"], item["end_s"])
        media, shown = await self._tools.see(clip)
        summary = await self._tools.write("general_model", self._prompts["hmi_summary"], media, shown=shown)
        if item["key_frames"]:
            frames = (await self._tools.decode(clip, pose_video(self._run, self._run.hmi.pose_fps))).frames
            keys = [key for key in item["key_frames"] if key < len(frames)]
            media = await asyncio.to_thread(pictures, frames[keys], self._run.shown.quality)
            times = ", ".join(f"{time - item['start_s']:.1f}" for time in item["key_times_s"])
            shown = f"{len(keys)} key frames of a clip, chosen where the pose changes most, at {times} seconds"
        caption = await self._tools.write(
            "general_model",
            self._prompts["hmi_caption"],
            media,
            shown=shown,
            aim=AIMS[item["level"]],
            summary=quoted(summary),
        )
        return {
            **item,
            "summary": summary,
            "caption": caption,
            "captioner": self._tools.model("general_model").name,
            "prompts": {name: prompt.hash for name, prompt in self._prompts.items()},
        }


def prompts_of(run: DataPipelineRun) -> dict[str, PromptTemplate]:
    """The prompts of this step by name."""
    return {
        "hmi_summary": template_of(run, "hmi_summary", "shown"),
        "hmi_caption": template_of(run, "hmi_caption", "shown", "aim", "summary"),
    }
