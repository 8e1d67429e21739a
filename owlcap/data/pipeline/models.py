"""Models of a pipeline: the judge's client, whose errors here speak of the pipelines' own settings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from owlcap.config_data import AskedModelSection
from owlcap.errors import ConfigError, JudgeError
from rewards.cache import ReplyCache
from rewards.chat import Answer, Question
from rewards.limits import RateLimiter
from rewards.openai_chat import OpenAIChat

T = TypeVar("T")


class AskedModel(OpenAIChat):
    """A model by the name that the settings give it, e.g. motion_model.

    Raises:
        ConfigError: see OpenAIChat.
    """

    def __init__(self, name: str, section: AskedModelSection, cache: ReplyCache, limiter: RateLimiter) -> None:
        self._words = {
            "rewards.judge": name,
            "the judge": f"the {name}",
            f"judge {section.model}": f"{name} {section.model}",
        }
        with own_settings(self._words):
            super().__init__(section, cache, limiter, name)

    async def ask(self, question: Question[T]) -> Answer[T]:
        """See ChatModel."""
        with own_settings(self._words):
            return await super().ask(question)

    async def check(self) -> None:
        """See OpenAIChat."""
        with own_settings(self._words):
            await super().check()


@contextmanager
def own_settings(words: dict[str, str]) -> Iterator[None]:
    """Errors of the rewards' parts, with the pipelines' words in place of theirs."""
    try:
        yield
    except (ConfigError, JudgeError) as error:
        parts = {"what": error.what, "where": error.where, "allowed": error.allowed, "cure": error.cure}
        for name, text in parts.items():
            for theirs, ours in words.items():
                text = text.replace(theirs, ours) if text else text
            parts[name] = text
        raise type(error)(
            parts["what"] or "", where=parts["where"], allowed=parts["allowed"], cure=parts["cure"]
        ) from None
