"""`owlcap caption`: one video, captioned greedily.

Captions come from vLLM: `generate` of transformers places text after a video otherwise than the policy was trained.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from owlcap import errors
from owlcap.config import MotionSection, VideoSection
from owlcap.errors import ConfigError, ModelError
from owlcap.inference.engine import draw_in_process, engine_settings
from owlcap.inference.overlays import pictures, with_overlays
from owlcap.inference.settings import PolicySettings, find_settings
from owlcap.types import RolloutFailure, Sample, SamplingSettings
from rollout.settings import GenerationRequest


def caption_video(
    model: str | Path,
    video: str | Path,
    *,
    prompt: str | None = None,
    max_new_tokens: int | None = None,
    video_section: VideoSection | None = None,
    motion: MotionSection | None = None,
    overlays: str | Path | None = None,
    note: Callable[[str], None] = lambda _: None,
) -> str:
    """The model's greedy caption of one video file.

    Args:
        model: a Hugging Face folder, or a name on the Hub.
        prompt: asked instead of the question the policy was trained with.
        max_new_tokens: the longest caption; None takes the policy's own setting.
        video_section: how frames are sampled; None takes the policy's own setting.
        motion: what overlays are made with; None takes the policy's own settings.
        overlays: a folder with the clip's overlays, in the order of their names; None makes them where the motion
            pathway is on.
        note: told where a policy that sees overlays captions the video alone.

    Raises:
        VideoError: the file cannot be read as a video.
        DataError: the policy sees overlays, and the clip gives none.
        ModelError: the folder is no policy, or has no motion merger for overlays.
        PromptError: the clip and the question are too long for the model.
        RolloutError: the engine did not start or answer.
    """
    from owlcap.data.video import VideoLoader
    from owlcap.models.load import has_motion, model_folder

    if max_new_tokens is not None and max_new_tokens < 1:
        raise ConfigError(f"max_new_tokens is {max_new_tokens}", allowed="1 or more")
    folder = model_folder(model)
    known = find_settings(folder) or PolicySettings()
    given = pictures(Path(overlays)) if overlays is not None else ()
    motion = motion or known.motion
    if given:
        motion = motion.model_copy(update={"enabled": True})
    settings = replace(known, video=video_section or known.video, motion=motion, prompt=prompt or known.prompt)
    engine = engine_settings(folder, settings, max_new_tokens=max_new_tokens)
    if motion.enabled and not has_motion(folder):
        raise _takes_no_overlays(folder)
    sample = with_overlays(Sample("video", str(video), settings.prompt, "", "", overlays=given), settings.motion)
    if not sample.overlays and has_motion(folder):
        why = "it gives no overlays" if motion.enabled else "motion.enabled=false; enabled=true makes overlays"
        note(f"the policy takes overlays, and this caption is of the video alone ({why})")
    # First: a bad file is told at once, not after the engine's start.
    with VideoLoader(settings.video, settings.motion) as loader:
        clip = loader.load(sample)
    sampling = SamplingSettings(temperature=0.0, max_new_tokens=engine.rollout.max_new_tokens)
    (result,) = draw_in_process(engine, [GenerationRequest(sample, sampling, False)], {sample.id: clip})
    if isinstance(result, RolloutFailure):
        raise getattr(errors, result.error)(result.reason)
    return result.completions[0].text.strip()


def _takes_no_overlays(folder: Path) -> ModelError:
    return ModelError(
        "the checkpoint has no motion merger, so it takes no overlays",
        where=str(folder),
        cure=f"leave out overlays and motion settings, or owlcap model add-motion {folder} OUT and train OUT",
    )
