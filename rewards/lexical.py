"""The offline judge: no model, no server, always the same answer. The embedded default of tests, demo and dry runs.

A reference that the toy world's lexicon reads to the last word is judged by it ("lexical-toy"), any other by rules of
plain English ("lexical-english", rewards/english; its limits are told in docs/lexical-judge.md). A reference that
neither can read is a JudgeError, not a low score. In the toy world labels are the lexicon's, with two rules of a judge
on top:

- A predicted action, or order of actions, that the reference lacks is contradicted: a reference tells the whole
  sequence. Were such an order "not mentioned", "then bows, then bows" would pay under lenient matching.
- What a prediction says that cannot be read is a contradicted unit of every few words, so that padding and
  gibberish cost correctness.
"""

from __future__ import annotations

from owlcap.data.toy.lexicon import ParsedCaption, ParsedUnit, agreement, parse
from owlcap.errors import JudgeError
from owlcap.types import Judgement, Label, Unit
from rewards.english import judge_english
from rewards.english.reading import UNREAD_WORDS


class LexicalJudge:
    """Judge of captions in plain English, and of the toy world's."""

    async def judge(self, predicted: str, reference: str) -> Judgement:
        """Units of both captions, each labelled against the whole other one. About 0.3 ms (toy) or 1 ms (English).

        Raises:
            JudgeError: nothing in the reference can be read.
        """
        truth = parse(reference)
        if truth.units and not truth.unread:
            return _judge_toy(predicted, truth)
        predicted_units, reference_units = judge_english(predicted, reference)
        if not reference_units:
            shown = reference if len(reference) <= 80 else reference[:80] + "..."
            raise JudgeError(
                "the lexical judge reads plain English only and finds no statement in this reference caption",
                where=f'"{shown}"' if shown.strip() else "an empty reference",
                cure="set rewards.judge.kind=openai and rewards.judge.base_urls to a judge's server",
            )
        return Judgement(predicted_units, reference_units, judge="lexical-english")


def _judge_toy(predicted: str, truth: ParsedCaption) -> Judgement:
    said = parse(predicted)
    predicted_units = tuple(_unit(unit, _against_reference(unit, truth)) for unit in said.units)
    unread_units = tuple(Unit(text, "detail", "contradicted") for text in _unread(said))
    reference_units = tuple(_unit(unit, agreement(unit, said)) for unit in truth.units)
    return Judgement((*predicted_units, *unread_units), reference_units, judge="lexical-toy")


def _against_reference(unit: ParsedUnit, truth: ParsedCaption) -> Label:
    label = agreement(unit, truth)
    tells_whole_sequence = unit.slot in ("action", "order") and truth.values(unit.slot)
    return "contradicted" if label == "not_mentioned" and tells_whole_sequence else label


def _unread(caption: ParsedCaption) -> list[str]:
    """Unread fragments, long ones cut: a thousand words of gibberish are more than one false statement."""
    pieces: list[str] = []
    for fragment in caption.unread:
        tokens = fragment.split()
        pieces.extend(" ".join(tokens[i : i + UNREAD_WORDS]) for i in range(0, len(tokens), UNREAD_WORDS))
    return pieces


def _unit(unit: ParsedUnit, label: Label) -> Unit:
    return Unit(unit.fact, unit.tag, label)
