"""Motion-Detail Fusion: a motion captioner first, then a general model that sees that caption and the video itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from owlcap.config_data import DataPipelineRun
from owlcap.data.outputs import refuse_other_formats
from owlcap.data.pipeline.clips import Clip
from owlcap.data.pipeline.estimate import CAPTION_CHARACTERS, Calls, estimate
from owlcap.data.pipeline.journal import key_of
from owlcap.data.pipeline.output import JSON, TEXT, TIMES, write_records
from owlcap.data.pipeline.run import Progress, Say, StepRun, pending, run_step
from owlcap.data.pipeline.step import Tools, asked, template_of
from rewards.templates import PromptTemplate, quoted

MODELS = ("motion_model", "general_model")
COLUMNS = {
    **TIMES,
    "source_caption": TEXT,
    "motion_caption": TEXT,
    "fused_caption": TEXT,
    "motion_model": TEXT,
    "general_model": TEXT,
    "prompts": JSON,
}


class Fusion:
    """One clip: two captions."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._prompts = _prompts(tools.run)

    async def do(self, item: Mapping[str, Any]) -> dict[str, Any]:
        """See Step."""
        clip = Clip(**item)
        media, shown = await self._tools.see(clip)
        motion = await self._tools.write("motion_model", self._prompts["motion_caption"], media, shown=shown)
        fusion = self._prompts["detail_fusion"]
        fused = await self._tools.write("general_model", fusion, media, shown=shown, caption=quoted(motion))
        return {
            "id": clip.id,
            "video": clip.video,
            "start_s": clip.start_s,
            "end_s": clip.end_s,
            "source_caption": clip.caption,
            "motion_caption": motion,
            "fused_caption": fused,
            "motion_model": self._tools.model("motion_model").name,
            "general_model": self._tools.model("general_model").name,
            "prompts": {name: prompt.hash for name, prompt in self._prompts.items()},
        }


def fuse(
    clips: Sequence[Clip],
    out: Path,
    run: DataPipelineRun,
    progress: Progress | None = None,
    *,
    say: Say | None = None,
    dry_run: bool = False,
) -> tuple[StepRun, Path] | None:
    """Caption clips into OUT/fused.jsonl (or .parquet); clips that have their captions are not done again.

    Args:
        say: gets what it will cost, before any model is asked.
        dry_run: stop there; gives None.

    Raises:
        DataError: OUT has the file in another format.
        OwlcapError: see `run_step`.
    """
    path = out / f"fused.{run.output}"
    refuse_other_formats(path)
    prompts = _prompts(run)
    key = key_of(
        step="fuse",
        prompts={name: prompt.hash for name, prompt in prompts.items()},
        models=asked(run, MODELS),
        shown=run.shown.model_dump(),
    )
    items = [asdict(clip) for clip in clips]
    if say is not None:
        todo = pending("fuse", items, out, key)
        say(estimate(_calls(len(todo), prompts), todo, run))
    if dry_run:
        return None
    done = run_step("fuse", Fusion, items, run, MODELS, out, key, progress)
    write_records(path, done.journal.records(done.ids), COLUMNS)
    return done, path


def _calls(num_clips: int, prompts: Mapping[str, PromptTemplate]) -> list[Calls]:
    motion, fusion = len(prompts["motion_caption"].text), len(prompts["detail_fusion"].text) + CAPTION_CHARACTERS
    return [
        Calls("motion_model", num_clips, num_clips * motion, num_clips),
        Calls("general_model", num_clips, num_clips * fusion, num_clips),
    ]


def _prompts(run: DataPipelineRun) -> dict[str, PromptTemplate]:
    return {
        "motion_caption": template_of(run, "motion_caption", "shown"),
        "detail_fusion": template_of(run, "detail_fusion", "shown", "caption"),
    }
