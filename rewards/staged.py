"""The staged protocol: units of each caption once, then one matching call a direction.

    units(reference)            once a caption, remembered: every rollout of a group is measured against the same list
    units(predicted)            once a caption
    predicted units ? reference     supported | contradicted | not mentioned, each by its number
    reference units ? predicted

What all rollouts of a group share stands first in each prompt, so that a server's prefix cache can reuse it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, get_args

from owlcap.types import Judgement, Label, Tag, Unit
from rewards.chat import Answer, ChatModel, InvalidReply, Question
from rewards.replies import read_list, read_object, read_text
from rewards.templates import PromptTemplate, load_template, numbered, quoted
from rewards.text import words

MIN_UNITS_ALLOWED = 8  # in a reply's schema, which otherwise allows one unit a word of the caption
CHARACTERS_A_UNIT = 5  # or one for so many characters: not every language writes spaces
MAX_UNIT_LENGTH = 200  # characters, in the schema: an unbounded string need not end
LABELS: tuple[Label, ...] = get_args(Label)


@dataclass(frozen=True, slots=True)
class Statement:
    """A unit that has no label yet."""

    text: str
    tag: Tag


class StagedJudge:
    """Splits captions by one model and labels units by another, which may be the same.

    Args:
        splitter: gives the units. The members of a panel share it, so that they label the same units.
        labeller: gives the labels, and the judgement its name.
        prompts: the user's template folder, or None.
    """

    def __init__(self, splitter: ChatModel, labeller: ChatModel, prompts: str | None = None) -> None:
        self._splitter, self._labeller = splitter, labeller
        self._units = load_template("units", frozenset({"caption"}), prompts)
        matching = frozenset({"caption", "statements"})
        self._check_predicted = load_template("check_predicted", matching, prompts)
        self._check_reference = load_template("check_reference", matching, prompts)

    async def judge(self, predicted: str, reference: str) -> Judgement:
        """Both unit lists, labelled.

        Raises:
            JudgeError: from the models.
        """
        (said, said_labels), (truth, truth_labels) = await asyncio.gather(
            self._check(predicted, reference, self._check_predicted, required=False),
            self._check(reference, predicted, self._check_reference, required=True),
        )
        answers = (said, truth, said_labels, truth_labels)
        return Judgement(
            predicted_units=_labelled(said.value, said_labels.value),
            reference_units=_labelled(truth.value, truth_labels.value),
            judge=self._labeller.name,
            reply_ids=tuple(answer.reply_id for answer in answers if answer.reply_id),
        )

    async def _check(
        self, caption: str, other: str, template: PromptTemplate, *, required: bool
    ) -> tuple[Answer[tuple[Statement, ...]], Answer[tuple[Label, ...]]]:
        """Units of a caption and their labels against the other one."""
        units = await self._split(caption, required=required)
        return units, await ask_labels(self._labeller, template, [one.text for one in units.value], other)

    async def _split(self, caption: str, *, required: bool) -> Answer[tuple[Statement, ...]]:
        if not caption.strip():
            return Answer((), "")
        return await self._splitter.ask(
            Question(
                kind="units",
                prompt=self._units.render(caption=quoted(caption)),
                template_hash=self._units.hash,
                read=partial(read_statements, required=required),
                schema=units_schema(max(MIN_UNITS_ALLOWED, len(words(caption)), len(caption) // CHARACTERS_A_UNIT)),
            )
        )


async def ask_labels(
    model: ChatModel, template: PromptTemplate, statements: Sequence[str], caption: str
) -> Answer[tuple[Label, ...]]:
    """One label a statement, against the whole caption. No statements are not asked about.

    Args:
        template: check_predicted or check_reference.

    Raises:
        JudgeError: from the model.
    """
    if not statements:
        return Answer((), "")
    return await model.ask(
        Question(
            kind="labels",
            prompt=template.render(caption=quoted(caption), statements=numbered(tuple(statements))),
            template_hash=template.hash,
            read=partial(read_labels, count=len(statements)),
            schema=labels_schema(len(statements)),
        )
    )


def units_schema(max_units: int) -> Mapping[str, Any]:
    """JSON schema of {"motion": [...], "detail": [...]}."""
    return object_schema(dict.fromkeys(get_args(Tag), list_schema(max_units)))


def list_schema(max_items: int) -> Mapping[str, Any]:
    """JSON schema of a list of short texts."""
    items = {"type": "string", "minLength": 1, "maxLength": MAX_UNIT_LENGTH}
    return {"type": "array", "maxItems": max_items, "items": items}


def labels_schema(count: int) -> Mapping[str, Any]:
    """JSON schema of {"1": label, ..., "count": label}."""
    return object_schema({str(number): {"type": "string", "enum": list(LABELS)} for number in range(1, count + 1)})


def read_statements(text: str, *, required: bool) -> tuple[Statement, ...]:
    """Units of a reply, each once: saying a thing twice must not make it count twice.

    Args:
        required: whether a caption without units is invalid (a reference) or an answer (a prediction).

    Raises:
        InvalidReply: no JSON object, a list that is missing, a unit that is no text.
    """
    reply = read_object(text)
    statements: dict[str, Statement] = {}
    for tag in get_args(Tag):
        for index, unit in enumerate(read_list(reply, tag)):
            said = read_text(unit, f"{tag}[{index}]")
            statements.setdefault(" ".join(said.lower().rstrip(" .").split()), Statement(said, tag))
    if required and not statements:
        raise InvalidReply("no units")
    return tuple(statements.values())


def read_labels(text: str, *, count: int) -> tuple[Label, ...]:
    """Labels 1 to `count` of a reply.

    Raises:
        InvalidReply: no JSON object, a number without a label or beyond `count`, an unknown label.
    """
    return tuple(_label(value, number) for number, value in enumerate(read_numbered(text, count=count), start=1))


def read_numbered(text: str, *, count: int) -> list[object]:
    """What a reply of the form {"1": ..., "2": ...} gives the numbers 1 to `count`.

    Raises:
        InvalidReply: no JSON object, a number that is missing or beyond `count`.
    """
    reply = read_object(text)
    wanted = [str(number) for number in range(1, count + 1)]
    odd = sorted(set(wanted) ^ set(reply))
    if odd:
        raise InvalidReply(f"{len(reply)} labels for {count} statements; missing or extra: {', '.join(odd[:5])}")
    return [reply[number] for number in wanted]


def _label(value: object, number: int) -> Label:
    for label in LABELS:
        if value == label:
            return label
    raise InvalidReply(f"label {number} is {repr(value)[:40]}, not one of {', '.join(LABELS)}")


def _labelled(statements: Sequence[Statement], labels: Sequence[Label]) -> tuple[Unit, ...]:
    return tuple(Unit(one.text, one.tag, label) for one, label in zip(statements, labels, strict=True))


def object_schema(properties: Mapping[str, Any]) -> Mapping[str, Any]:
    """JSON schema of an object with exactly these properties."""
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }
