"""What a pipeline will ask its models, and what that costs at most, before any of them is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from owlcap.config_data import AskedModelSection, DataPipelineRun
from owlcap.data.pipeline.clips import Clip
from owlcap.data.sizing import CELL
from owlcap.data.video import TEMPORAL_PATCH, VideoLoader
from owlcap.errors import DataError

CLIPS_LOOKED_AT = 8  # from which the tokens of all are told
CHARACTERS_A_TOKEN = 4  # of English, roughly
CAPTION_CHARACTERS = 1300  # of a caption that is not written yet: HMD-270K's have 216 to 244 words


@dataclass(frozen=True, slots=True)
class Calls:
    """Calls of one model."""

    model: str  # its name in the settings
    num_calls: int
    num_characters: int  # of all prompts
    num_shown: int = 0  # calls that show a clip


def estimate(calls: Sequence[Calls], items: Sequence[Mapping[str, Any]], run: DataPipelineRun) -> str:
    """What asking for these clips will take, as lines.

    Args:
        items: the clips that are to be done, with `id`, `video`, and times where they are parts.
    """
    if not items:
        return "to ask    nothing: all clips are done"
    tokens, looked_at = _tokens_a_clip(items, run) if any(one.num_shown for one in calls) else (0.0, "")
    lines, usd = [f"to do     {len(items):,} clips{looked_at}"], 0.0
    for name in dict.fromkeys(one.model for one in calls):
        model: AskedModelSection = getattr(run, name)
        mine = [one for one in calls if one.model == name]
        num_calls = sum(one.num_calls for one in mine)
        inputs = sum(one.num_characters // CHARACTERS_A_TOKEN + round(one.num_shown * tokens) for one in mine)
        outputs = num_calls * (model.max_tokens or 0)
        cost = (inputs * model.usd_per_million_input + outputs * model.usd_per_million_output) / 1e6
        usd += cost
        most = f"at most {outputs:,} output tokens" if model.max_tokens else "output tokens without a limit"
        lines.append(
            f"to ask    {name} ({model.model}): {num_calls:,} calls, about {inputs:,} input and {most}, {cost:.4f} USD"
        )
    lines.append(f"          {usd:.4f} USD in all; what is in the cache costs nothing, calls that fail are tried again")
    return "\n".join(lines)


def _tokens_a_clip(items: Sequence[Mapping[str, Any]], run: DataPipelineRun) -> tuple[float, str]:
    """Mean over a few clips, as Qwen2.5-VL counts what it is shown; and how it was found, in words."""
    step = max(1, len(items) // CLIPS_LOOKED_AT)
    some = [_clip(item) for item in items[::step][:CLIPS_LOOKED_AT]]
    found: list[float] = []
    errors: list[DataError] = []

    def look(clip: Clip) -> float | DataError:
        try:
            num_frames, height, width = loader.load(clip.sample).frames.shape[:3]
        except DataError as error:
            return error
        pictures = num_frames if run.shown.form == "frames" else num_frames / TEMPORAL_PATCH
        return pictures * (height // CELL) * (width // CELL)

    with VideoLoader(run.shown.video) as loader, ThreadPoolExecutor(run.shown.video.num_workers) as threads:
        for tokens in threads.map(look, some):
            if isinstance(tokens, DataError):
                errors.append(tokens)
            else:
                found.append(tokens)
    failed = (
        f"{len(errors)} of {len(some)} looked at cannot be read, e.g. {errors[0].where}: {errors[0].what}"
        if errors
        else ""
    )
    if not found:
        return 0.0, f", the tokens of video unknown: {failed}"
    mean = sum(found) / len(found)
    return mean, f", {mean:,.0f} tokens of video each (mean of {len(found)}{'; ' + failed if failed else ''})"


def _clip(item: Mapping[str, Any]) -> Clip:
    return Clip(item["id"], item["video"], item.get("start_s"), item.get("end_s"))
