"""The offline judge: reads captions of the toy world by its own lexicon. No model, no server, always the same answer.

It is the embedded default for the demo, tests and dry runs, and knows nothing but the toy world: a reference that
it cannot mostly read is a JudgeError, not a low score. Labels are the lexicon's, with two rules of a judge on top:

- A predicted action, or order of actions, that the reference lacks is contradicted: a reference tells the whole
  sequence. Were such an order "not mentioned", "then bows, then bows" would pay under lenient matching.
- What a prediction says that cannot be read is a contradicted unit of every few words, so that padding and
  gibberish cost correctness. A reference's unread fragments are left out: nobody can be asked to cover them.
"""

from __future__ import annotations

from owlcap.data.toy.lexicon import ParsedCaption, ParsedUnit, agreement, parse
from owlcap.errors import JudgeError
from owlcap.types import Judgement, Label, Unit

UNREAD_WORDS = 8  # words of one unread unit; about as many as a readable statement has


class LexicalJudge:
    """Judge of toy captions."""

    async def judge(self, predicted: str, reference: str) -> Judgement:
        """Units of both captions, each labelled against the whole other one. About 0.3 ms.

        Raises:
            JudgeError: the reference is not a caption of the toy world.
        """
        said, truth = parse(predicted), parse(reference)
        _check_readable(truth, reference)
        predicted_units = tuple(_unit(unit, _against_reference(unit, truth)) for unit in said.units)
        unread_units = tuple(Unit(text, "detail", "contradicted") for text in _unread(said))
        reference_units = tuple(_unit(unit, agreement(unit, said)) for unit in truth.units)
        return Judgement((*predicted_units, *unread_units), reference_units, judge="lexical")


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


def _check_readable(truth: ParsedCaption, reference: str) -> None:
    num_unread = sum(len(fragment.split()) for fragment in truth.unread)
    if truth.units and 2 * num_unread <= len(reference.split()):
        return
    shown = reference if len(reference) <= 80 else reference[:80] + "..."
    raise JudgeError(
        "the lexical judge knows the toy world only and cannot read this reference caption",
        where=f'"{shown}"' if shown.strip() else "an empty reference",
        cure="set rewards.judge.kind=openai and rewards.judge.base_urls to a judge's server",
    )


def _unit(unit: ParsedUnit, label: Label) -> Unit:
    return Unit(unit.fact, unit.tag, label)
