"""A step of a pipeline: what is done with one clip, and the tools it has for it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from owlcap.config import VideoSection
from owlcap.config_data import AskedModelSection, DataPipelineRun
from owlcap.data.pipeline.clips import Clip
from owlcap.data.pipeline.shown import show, timing
from owlcap.data.video import VideoLoader
from owlcap.types import VideoClip
from rewards.cache import ReplyCache
from rewards.chat import InvalidReply, Media, Question, Usage
from rewards.limits import LocalLimiter, RateLimiter
from rewards.openai_chat import OpenAIChat
from rewards.templates import PromptTemplate, load_template

PROMPTS = Path(__file__).parent / "prompts"
DECODER_THREADS = 4  # that wait for decoder processes


class Step(Protocol):
    """Turns one clip, and what earlier steps found about it, into one record. Lives in an actor."""

    async def do(self, item: Mapping[str, Any]) -> dict[str, Any]:
        """The record: JSON values.

        Raises:
            JudgeError: a model gave no answer: the clip is tried again in the next run.
            DataError: the clip cannot be used.
        """
        ...


class Tools:
    """The models and the eyes of the steps in one process.

    Args:
        models: by the names that the settings give them.
        limiter: of their rates, shared with other processes; None: one of this process's own.
    """

    def __init__(
        self, run: DataPipelineRun, models: Mapping[str, AskedModelSection], limiter: RateLimiter | None = None
    ) -> None:
        self.run = run
        limiter = limiter or LocalLimiter(models)
        self._cache = ReplyCache(run.cache)
        self._chats = {
            name: OpenAIChat(model, self._cache, limiter, name, section=name) for name, model in models.items()
        }
        self._loaders: dict[str, VideoLoader] = {}

    def model(self, name: str) -> OpenAIChat:
        """The model of that name."""
        return self._chats[name]

    @property
    def usage(self) -> Usage:
        """What all models were asked since the start."""
        return sum((chat.usage for chat in self._chats.values()), Usage())

    async def write(self, model: str, template: PromptTemplate, media: Sequence[Media] = (), **values: str) -> str:
        """Free text by a model.

        Raises:
            JudgeError: from the model.
        """
        question = Question(
            kind="text",
            prompt=template.render(**values),
            template_hash=template.hash,
            read=read_prose,
            media=tuple(media),
        )
        return (await self._chats[model].ask(question)).value

    async def decode(self, clip: Clip, video: VideoSection) -> VideoClip:
        """Frames of a clip.

        Raises:
            VideoError: from the decoder.
        """
        key = video.model_dump_json()
        if key not in self._loaders:
            self._loaders[key] = VideoLoader(video)
        return await asyncio.to_thread(self._loaders[key].load, clip.sample)

    async def see(self, clip: Clip) -> tuple[tuple[Media, ...], str]:
        """What a model is shown of a clip, and what that is in words.

        Raises:
            VideoError: the clip cannot be read.
        """
        shown = self.run.shown
        frames = await self.decode(clip, shown.video)
        is_whole = clip.start_s is None and clip.end_s is None
        media = await asyncio.to_thread(partial(show, frames, clip.video, is_whole, shown))
        told = timing(frames, clip.start_s or 0.0) if media[0].kind == "image_url" else "the whole video"
        return media, told

    async def close(self) -> None:
        """Close connections, the cache and decoders."""
        for chat in self._chats.values():
            await chat.close()
        self._cache.close()
        for loader in self._loaders.values():
            loader.close()


def template_of(run: DataPipelineRun, name: str, *placeholders: str) -> PromptTemplate:
    """A prompt of the pipelines: the user's or the project's own.

    Raises:
        ConfigError: from reading it.
    """
    return load_template(name, frozenset(placeholders), run.prompts, PROMPTS)


def asked(run: DataPipelineRun, names: Sequence[str]) -> list[tuple[str, str, float | None]]:
    """What answers of models depend on, for the key of records."""
    models: list[AskedModelSection] = [getattr(run, name) for name in names]
    return [(name, model.model, model.temperature) for name, model in zip(names, models, strict=True)]


def read_prose(text: str) -> str:
    """A reply's text without the thinking before it.

    Raises:
        InvalidReply: nothing is left.
    """
    told = text.rpartition("</think>")[2].strip()
    if not told or "<think>" in told:
        raise InvalidReply("the reply has no text")
    return told
