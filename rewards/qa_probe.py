"""QA probe: multiple-choice questions of the row, answered from the caption only (CapRL, arXiv 2509.22647).

A model that cannot see the video answers what the caption tells it. "The caption does not say" is an answer, and a
wrong one. Options are shuffled, always in the same way for the same question, so that no letter is favoured.
"""

from __future__ import annotations

import json
import random
import string
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from owlcap.config import RewardsSection, Section
from owlcap.registry import register
from owlcap.types import Choice, Judgement, Label, Sample, Score, Unit, Unscored
from rewards.chat import InvalidReply, Question
from rewards.failures import score_each
from rewards.judges import Calls, Judges, check_length
from rewards.options import parse_options
from rewards.staged import object_schema, read_numbered
from rewards.tags import guess_tag
from rewards.templates import load_template, quoted

NO_ANSWER = "none"  # the caption does not say


class QaProbeOptions(Section):
    """The probe has no options."""


@register("reward", "qa_probe")
class QaProbeReward:
    """Share of the sample's questions answered right from each caption of a group; all in one call a caption."""

    name = "qa_probe"
    per_caption = True

    def __init__(self, judges: Judges, options: Mapping[str, Any]) -> None:
        parse_options(QaProbeOptions, options, reward=self.name)
        self._limits = judges.settings.judge
        self._model = judges.model
        self._template = load_template("qa_probe", frozenset({"questions", "caption"}), judges.settings.prompts)

    @staticmethod
    def calls(settings: RewardsSection) -> Calls:
        """One a caption."""
        return Calls(per_caption=1)

    async def score_group(self, sample: Sample, captions: Sequence[str]) -> list[Score | Unscored]:
        """All captions at the same time; a sample without questions leaves all of them unscored."""
        if not sample.questions:
            return [Unscored(self.name, "the row has no questions")] * len(captions)
        questions = tuple(shuffled(question) for question in sample.questions)
        return await score_each(self.name, captions, partial(self._score, questions))

    async def _score(self, questions: tuple[Choice, ...], caption: str) -> Score:
        check_length("caption", caption, self._limits)
        answer = await self._model.ask(
            Question(
                kind="qa_probe",
                prompt=self._template.render(questions=_listed(questions), caption=quoted(caption)),
                template_hash=self._template.hash,
                read=partial(read_answers, questions=questions),
                schema=object_schema(
                    {
                        str(number): {"type": "string", "enum": [*_letters(question), NO_ANSWER]}
                        for number, question in enumerate(questions, start=1)
                    }
                ),
            )
        )
        units = tuple(_unit(question, said) for question, said in zip(questions, answer.value, strict=True))
        accuracy = sum(unit.label == "supported" for unit in units) / len(units)
        unanswered = sum(unit.label == "not_mentioned" for unit in units) / len(units)
        judgement = Judgement((), units, judge=self._model.name, reply_ids=(answer.reply_id,))
        return Score(accuracy, {"qa_accuracy": accuracy, "qa_unanswered": unanswered}, (judgement,))


def shuffled(question: Choice) -> Choice:
    """The question with its options in an order that depends on its content alone, not on the row's order."""
    options = sorted(question.options)
    random.Random(json.dumps([question.question, options])).shuffle(options)
    return replace(question, options=tuple(options))


def read_answers(text: str, *, questions: Sequence[Choice]) -> tuple[str | None, ...]:
    """The option chosen for each question; None where the caption does not say.

    Raises:
        InvalidReply: no JSON object, a number that is missing or extra, an answer that is no letter of its question.
    """
    return tuple(
        _option(value, question, number)
        for number, (value, question) in enumerate(
            zip(read_numbered(text, count=len(questions)), questions, strict=True), start=1
        )
    )


def _option(value: object, question: Choice, number: int) -> str | None:
    if value == NO_ANSWER:
        return None
    letters = _letters(question)
    if not isinstance(value, str) or value not in letters:
        raise InvalidReply(f"answer {number} is {value!r}, not one of {', '.join(letters)}, {NO_ANSWER}")
    return question.options[letters.index(value)]


def _letters(question: Choice) -> list[str]:
    return list(string.ascii_uppercase[: len(question.options)])


def _listed(questions: Sequence[Choice]) -> str:
    lines: list[str] = []
    for number, question in enumerate(questions, start=1):
        lines.append(f"{number}. {quoted(question.question)}")
        lines += [
            f"   {letter}. {quoted(option)}"
            for letter, option in zip(_letters(question), question.options, strict=True)
        ]
    return "\n".join(lines)


def _unit(question: Choice, said: str | None) -> Unit:
    """The evidence of one question: what was answered and whether it is right."""
    right: Label = "supported" if said == question.answer else "contradicted"
    text = f"{question.question} {said or NO_ANSWER}"
    return Unit(text, guess_tag(question.question), "not_mentioned" if said is None else right)
