"""`owlcap caption`: one video, captioned greedily.

Captions come from vLLM: `generate` of transformers places text after a video otherwise than the policy was trained.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from owlcap import errors
from owlcap.config import VideoSection
from owlcap.errors import ConfigError
from owlcap.inference.engine import draw_in_process, engine_settings
from owlcap.inference.overlays import with_overlays
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
) -> str:
    """The model's greedy caption of one video file.

    Args:
        model: a Hugging Face folder, or a name on the Hub.
        prompt: asked instead of the question the policy was trained with.
        max_new_tokens: the longest caption; None takes the policy's own setting.
        video_section: how frames are sampled; None takes the policy's own setting.

    Raises:
        VideoError: the file cannot be read as a video.
        DataError: the policy sees overlays, and the clip gives none.
        ModelError: the folder is no policy.
        PromptError: the clip and the question are too long for the model.
        RolloutError: the engine did not start or answer.
    """
    from owlcap.data.video import VideoLoader
    from owlcap.models.load import model_folder

    if max_new_tokens is not None and max_new_tokens < 1:
        raise ConfigError(f"max_new_tokens is {max_new_tokens}", allowed="1 or more")
    folder = model_folder(model)
    known = find_settings(folder) or PolicySettings()
    settings = replace(known, video=video_section or known.video, prompt=prompt or known.prompt)
    engine = engine_settings(folder, settings, max_new_tokens=max_new_tokens)
    sample = with_overlays(Sample("video", str(video), settings.prompt, "", ""), settings.motion)
    # First: a bad file is told at once, not after the engine's start.
    with VideoLoader(settings.video, settings.motion) as loader:
        clip = loader.load(sample)
    sampling = SamplingSettings(temperature=0.0, max_new_tokens=engine.rollout.max_new_tokens)
    (result,) = draw_in_process(engine, [GenerationRequest(sample, sampling, False)], {sample.id: clip})
    if isinstance(result, RolloutFailure):
        raise getattr(errors, result.error)(result.reason)
    return result.completions[0].text.strip()
