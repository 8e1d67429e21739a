"""A judge's model that answers from a script: a function of the question."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from owlcap.config import JudgeSection, RewardsSection
from owlcap.errors import JudgeError
from owlcap.types import Sample, Score, Unscored
from rewards.base import Reward
from rewards.chat import Answer, InvalidReply, Question, Usage
from rewards.judges import Judges

T = TypeVar("T")
Script = Callable[[Question[Any]], Any]


class ScriptedModel:
    """A ChatModel. The script's text is the reply, anything else is sent as JSON; a JudgeError is raised.

    `asked` holds every question that was sent: equal ones are sent once, and a reply that the question cannot read
    is a JudgeError, as with a real server.
    """

    name = "scripted"
    usage = Usage()

    def __init__(self, script: Script) -> None:
        self._script = script
        self._replies: dict[tuple[str, str], str] = {}
        self.asked: list[Question[Any]] = []

    async def ask(self, question: Question[T]) -> Answer[T]:
        """See ChatModel."""
        key = (question.template_hash, question.prompt)
        if key not in self._replies:
            self.asked.append(question)
            said = self._script(question)
            if isinstance(said, JudgeError):
                raise said
            self._replies[key] = said if isinstance(said, str) else json.dumps(said)
        try:
            return Answer(question.read(self._replies[key]), f"reply-{list(self._replies).index(key) + 1}")
        except InvalidReply as error:
            raise JudgeError(f"no valid reply: {error}") from error

    async def close(self) -> None:
        """See ChatModel."""

    def kinds(self) -> list[str]:
        """Kinds of the questions sent, sorted."""
        return sorted(question.kind for question in self.asked)


def literal(question: Question[Any]) -> Any:
    """A reader who takes everything by the letter.

    A caption's events, key points and units are its sentences. A statement is supported by a caption that has its
    words, and contradicted by one that has "not: " before them.
    """
    if question.kind in ("events", "keypoints"):
        return {question.kind: sentences(caption_of(question))}
    if question.kind == "units":
        return {"motion": sentences(caption_of(question)), "detail": []}
    assert question.kind == "labels"
    return {
        str(number): _label(statement, caption_of(question))
        for number, statement in enumerate(statements_of(question), start=1)
    }


def sentences(caption: str) -> list[str]:
    """The caption's sentences, without their full stops."""
    return [sentence.strip() for sentence in caption.split(".") if sentence.strip()]


def caption_of(question: Question[Any]) -> str:
    """The caption that stands in a prompt."""
    (line,) = (line for line in question.prompt.splitlines() if line.startswith(("CAPTION: ", "REFERENCE: ")))
    return json.loads(line.partition(": ")[2])


def statements_of(question: Question[Any]) -> list[str]:
    """The numbered statements that stand in a prompt."""
    return [json.loads(line.partition(". ")[2]) for line in question.prompt.splitlines() if line[:1].isdigit()]


def judges_of(model: ScriptedModel, **settings: Any) -> Judges:
    """Judges of a run whose model is this one."""
    judge = JudgeSection(kind="openai", base_urls=("http://127.0.0.1:9/v1",), model="m", max_caption_words=50)
    judges = Judges(RewardsSection(judge=judge, **settings))
    vars(judges)["model"] = model
    return judges


def score(reward: Reward, sample: Sample, *captions: str) -> Sequence[Score | Unscored]:
    """What a reward gives captions."""
    return asyncio.run(reward.score_group(sample, captions))


def _label(statement: str, caption: str) -> str:
    if f"not: {statement}" in caption:
        return "contradicted"
    return "supported" if statement in caption else "not_mentioned"
