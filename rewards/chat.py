"""Questions to a language model: the one way in which rewards talk to a judge's model."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Generic, Literal, Protocol, TypeVar

T = TypeVar("T")
KIND = re.compile(r"[A-Za-z0-9_-]{1,64}")  # what hosted servers allow as the name of a schema


class InvalidReply(ValueError):
    """A reply that is not what the question asks for; asking again may help."""


@dataclass(frozen=True, slots=True)
class Media:
    """A picture or a video that is shown with a question, in the form that OpenAI-compatible servers take.

    Attributes:
        kind: the part's type; video_url is known to vLLM, image_url to all multimodal servers.
        url: an address that the server may fetch, or "data:image/jpeg;base64,...".
    """

    kind: Literal["image_url", "video_url"]
    url: str

    @property
    def part(self) -> dict[str, Any]:
        """The part of a message's content."""
        return {"type": self.kind, self.kind: {"url": self.url}}

    @property
    def hash(self) -> str:
        """Of what is shown."""
        return hashlib.sha256(f"{self.kind} {self.url}".encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Question(Generic[T]):
    """A prompt, the form its answer must have, and how the answer is read.

    Attributes:
        kind: what is asked, e.g. "units"; letters, digits, _ and -. Questions of one kind and prompt are one question.
        prompt: the rendered template.
        template_hash: of the template it was rendered from; part of the cache key.
        read: turns a reply's text into a value; raises InvalidReply.
        schema: JSON schema of the answer; None asks for free text (the joint protocol, which may think first).
        media: shown before the prompt, to models that see.
    """

    kind: str
    prompt: str
    template_hash: str
    read: Callable[[str], T]
    schema: Mapping[str, Any] | None = None
    media: tuple[Media, ...] = ()

    @property
    def content(self) -> Any:
        """The user message's content: text, or parts where something is shown."""
        if not self.media:
            return self.prompt
        return [*(one.part for one in self.media), {"type": "text", "text": self.prompt}]

    def __post_init__(self) -> None:
        if not KIND.fullmatch(self.kind):
            raise ValueError(f"the kind of a question is {self.kind!r}; allowed: up to 64 letters, digits, _ and -")


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """A question's value, with the id of the server's reply that it was read from."""

    value: T
    reply_id: str


@dataclass(frozen=True, slots=True)
class Usage:
    """What was asked and what it cost, since a model was made. Sums and differences are field by field."""

    num_requests: int = 0  # sent to a server, tries included
    num_retries: int = 0  # of these, second and later tries
    num_failed: int = 0  # questions that ended in a JudgeError
    num_cached: int = 0  # questions answered without a request
    input_tokens: int = 0
    input_tokens_reused: int = 0  # of these, found in the server's prefix cache, where it says so
    output_tokens: int = 0
    usd: float = 0.0

    def __add__(self, other: Usage) -> Usage:
        return Usage(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def __sub__(self, other: Usage) -> Usage:
        return Usage(*(getattr(self, f.name) - getattr(other, f.name) for f in fields(self)))


class ChatModel(Protocol):
    """A language model that answers questions; `rewards.openai_chat.OpenAIChat` is one."""

    @property
    def name(self) -> str:
        """As it is shown beside a judgement."""
        ...

    @property
    def usage(self) -> Usage:
        """Since it was made."""
        ...

    async def ask(self, question: Question[T]) -> Answer[T]:
        """The answer; equal questions are asked once.

        Raises:
            JudgeError: the model cannot be reached, or gave no valid reply in all tries.
        """
        ...

    async def close(self) -> None:
        """Release connections; asking again opens new ones."""
        ...
