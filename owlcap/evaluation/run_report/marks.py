"""Where in a caption its units stand, so that they can be marked there.

A judge words units in its own way. A unit that stands in the caption word for word is marked there. Of any other, the
words that mean the same are looked for, sentence by sentence, and the shortest stretch that has the most of them is
marked, if that is at least half. A unit that is found nowhere has no mark: nothing is guessed. The toy world's judge
reads units like "shirt=red" out of the text, and reading it again gives the words.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from owlcap.data.toy.lexicon import parse
from owlcap.types import Judgement
from rewards.english.words import concept

WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)*")
SENTENCE_END = re.compile(r"[.!?;\n]")
FILLERS = """
a an the is are was were be been being has have had do does did it its he his him she her they their them there
this that these those who which what of in on at to by with from for into onto and or as while then
"""
SAYS_LITTLE = frozenset(FILLERS.split())
LEAST_SHARE = 0.5  # of a unit's words

Span = tuple[int, int]  # first character, and the one after the last


@dataclass(frozen=True, slots=True)
class Stretch:
    """A piece of a caption and the units said there, the closest-fitting first."""

    text: str
    units: tuple[int, ...]


def find_units(caption: str, units: Sequence[str], judge: str = "") -> tuple[Span | None, ...]:
    """Where each unit stands in the caption, None where it is not found."""
    quotes = {unit.fact: unit.text for unit in parse(caption).units} if judge == "lexical-toy" else {}
    sentences = _sentences(caption)
    return tuple(_find(caption, quotes.get(unit, unit), sentences) for unit in units)


def find_predicted(caption: str, judgement: Judgement) -> tuple[Span | None, ...]:
    """Where the units that a judge read in a caption stand."""
    return find_units(caption, [unit.text for unit in judgement.predicted_units], judgement.judge)


def find_reference(reference: str, judgement: Judgement) -> tuple[Span | None, ...]:
    """Where the units that a judge read in a reference stand."""
    return find_units(reference, [unit.text for unit in judgement.reference_units], judgement.judge)


def stretches(caption: str, spans: Sequence[Span | None]) -> tuple[Stretch, ...]:
    """The caption cut at the ends of all spans. The texts of the stretches together are the caption."""
    placed = sorted((end - start, number) for number, span in enumerate(spans) if span for start, end in [span])
    cuts = sorted({0, len(caption), *(end for span in spans if span for end in span)})
    pieces = []
    for first, last in pairwise(cuts):
        here = (number for _, number in placed if (span := spans[number]) and span[0] <= first and last <= span[1])
        pieces.append(Stretch(caption[first:last], tuple(here)))
    return tuple(pieces)


def _sentences(caption: str) -> list[list[tuple[str, Span]]]:
    """Concepts of the words that say something, with their places, sentence by sentence."""
    ends = [match.start() for match in SENTENCE_END.finditer(caption)]
    sentences: list[list[tuple[str, Span]]] = [[] for _ in range(len(ends) + 1)]
    place = 0
    for match in WORD.finditer(caption):
        while place < len(ends) and ends[place] < match.start():
            place += 1
        word = match.group().lower()
        if word not in SAYS_LITTLE:
            sentences[place].append((concept(word), match.span()))
    return sentences


def _find(caption: str, unit: str, sentences: list[list[tuple[str, Span]]]) -> Span | None:
    text = unit.strip().strip(".")
    if text and (exact := re.search(rf"(?<!\w){re.escape(text)}(?!\w)", caption, re.IGNORECASE)):
        return exact.span()
    wanted = {concept(word) for match in WORD.finditer(unit) if (word := match.group().lower()) not in SAYS_LITTLE}
    best: tuple[int, int, Span] | None = None  # words found, characters to spare, where
    for sentence in sentences:
        hits = [(meaning, span) for meaning, span in sentence if meaning in wanted]
        for first, (_, (start, _)) in enumerate(hits):
            seen: set[str] = set()
            for meaning, (_, end) in hits[first:]:
                if meaning not in seen:
                    seen.add(meaning)
                    candidate = (len(seen), start - end, (start, end))
                    best = candidate if best is None or candidate[:2] > best[:2] else best
    return best[2] if best and best[0] >= LEAST_SHARE * len(wanted) else None
