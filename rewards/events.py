"""Events of captions, and which of them the other caption entails (AutoDQ of Tarsier, arXiv 2407.00634).

    events(reference), events(predicted)     once a caption, at most MAX_EVENTS
    predicted events ? reference             supported (entailed) | contradicted | not mentioned (neutral)
    reference events ? predicted

The prompts' text is ours; the definition of an event is that of the published DREAM-1K script.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

from owlcap.types import Judgement, Label, Unit
from rewards.chat import Answer, ChatModel, InvalidReply, Question
from rewards.replies import read_list, read_object, read_text
from rewards.staged import ask_labels, list_schema, object_schema
from rewards.templates import PromptTemplate, load_template, quoted

MAX_EVENTS = 10
MATCHING = frozenset({"caption", "statements"})  # placeholders of check_predicted and check_reference


class EventJudge:
    """A judge whose units are events; all of them are tagged motion.

    Args:
        prompts: the user's template folder, or None.
    """

    def __init__(self, model: ChatModel, prompts: str | None = None) -> None:
        self._model = model
        self._events = load_template("events", frozenset({"caption", "max_items"}), prompts)
        self._check_predicted = load_template("check_predicted", MATCHING, prompts)
        self._check_reference = load_template("check_reference", MATCHING, prompts)

    async def judge(self, predicted: str, reference: str, reference_events: Sequence[str] | None = None) -> Judgement:
        """Events of both captions, labelled.

        Args:
            reference_events: known ones, as DREAM-1K has them; None extracts them.

        Raises:
            JudgeError: from the model.
        """
        (said, said_labels), (truth, truth_labels) = await asyncio.gather(
            self._check(predicted, reference, self._check_predicted),
            self._check(reference, predicted, self._check_reference, known=reference_events),
        )
        answers = (said, truth, said_labels, truth_labels)
        return Judgement(
            predicted_units=_labelled(said.value, said_labels.value),
            reference_units=_labelled(truth.value, truth_labels.value),
            judge=self._model.name,
            reply_ids=tuple(answer.reply_id for answer in answers if answer.reply_id),
        )

    async def extract(self, caption: str) -> Answer[tuple[str, ...]]:
        """The caption's events, each once; none where nothing happens.

        Raises:
            JudgeError: from the model.
        """
        return await ask_list(self._model, "events", self._events, caption, MAX_EVENTS)

    async def _check(
        self, caption: str, other: str, template: PromptTemplate, known: Sequence[str] | None = None
    ) -> tuple[Answer[tuple[str, ...]], Answer[tuple[Label, ...]]]:
        """Events of a caption and their labels against the other one."""
        events = await self.extract(caption) if known is None else Answer(tuple(known), "")
        return events, await ask_labels(self._model, template, events.value, other)


async def ask_list(
    model: ChatModel, key: str, template: PromptTemplate, caption: str, max_items: int
) -> Answer[tuple[str, ...]]:
    """Short statements that a caption makes, as {"key": [...]}, each once. An empty caption is not asked about.

    Args:
        template: with the placeholders caption and max_items.

    Raises:
        JudgeError: from the model.
    """
    if not caption.strip():
        return Answer((), "")
    return await model.ask(
        Question(
            kind=key,
            prompt=template.render(caption=quoted(caption), max_items=str(max_items)),
            template_hash=template.hash,
            read=partial(read_items, key=key, max_items=max_items),
            schema=object_schema({key: list_schema(max_items)}),
        )
    )


def read_items(text: str, *, key: str, max_items: int) -> tuple[str, ...]:
    """Statements of a reply, each once: saying a thing twice must not make it count twice.

    Raises:
        InvalidReply: no JSON object, no list under `key`, too many items, an item that is no text.
    """
    items = read_list(read_object(text), key)
    if len(items) > max_items:
        raise InvalidReply(f"{len(items)} {key}, more than {max_items}")
    statements: dict[str, str] = {}
    for index, item in enumerate(items):
        said = read_text(item, f"{key}[{index}]")
        statements.setdefault(" ".join(said.lower().rstrip(" .").split()), said)
    return tuple(statements.values())


def entailed(statements: Sequence[Unit]) -> float | None:
    """Share of statements that are supported, not rounded; None where there are none."""
    if not statements:
        return None
    return sum(one.label == "supported" for one in statements) / len(statements)


def _labelled(events: Sequence[str], labels: Sequence[Label]) -> tuple[Unit, ...]:
    return tuple(Unit(event, "motion", label) for event, label in zip(events, labels, strict=True))
