"""The smallest statements of a caption that was read, each once.

actor   van                  who or what does something         detail
attr    red, onion           a colour, number, material, ...    detail
thing   beard                what is had or named               detail
action  slice, onion         a verb and its object, if any      motion (detail for standing, wearing, ...)
place   push, into, pan      what a preposition adds            as its action
way     dive, left           a direction, a speed, how often    as its action
order   slice > push         where the text states it           motion
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Literal

from owlcap.types import Tag
from rewards.english import tables
from rewards.english.clauses import Caption, Clause
from rewards.english.words import concept, concepts_of, says_nothing

Kind = Literal["actor", "attr", "thing", "action", "place", "way", "order"]


@dataclass(frozen=True, slots=True)
class Statement:
    """One unit. Two with the same kind and parts say the same, whatever their words."""

    kind: Kind
    parts: tuple[str, ...]  # concepts
    text: str
    tag: Tag


def statements(caption: Caption) -> list[Statement]:
    """Units in the order of the text, each once."""
    found: dict[tuple[str, tuple[str, ...]], Statement] = {}
    used = {id(phrase) for clause in caption.clauses for phrase in (clause.subject, *clause.objects)}
    used |= {id(phrase) for clause in caption.clauses for _, phrase in clause.places}
    loose = (
        Statement("thing", (phrase.noun,), phrase.text, "detail")
        for phrase in caption.phrases
        if id(phrase) not in used and not says_nothing(phrase.noun)
    )
    spoken = chain.from_iterable(_of_clause(clause) for clause in caption.clauses)
    for one in chain(spoken, _attributes(caption), _orders(caption), loose):
        found.setdefault((one.kind, one.parts), one)
    described = {part for kind, parts in found if kind == "attr" for part in parts}
    named = {parts[-1] for kind, parts in found if kind in ("actor", "action", "place")}
    # A thing that another unit already names says nothing new.
    return [one for one in found.values() if one.kind != "thing" or one.parts[0] not in described | named]


def _of_clause(clause: Clause) -> Iterator[Statement]:
    verb, said = clause.verb, clause.text
    still = verb in concepts_of(tables.STATIVE_VERBS)
    light = verb in concepts_of(tables.LIGHT_VERBS) or verb == concept("is")
    action: Tag = "detail" if still or light else "motion"
    if clause.subject is not None and not says_nothing(clause.subject.noun):
        yield Statement("actor", (clause.subject.noun,), clause.subject.text, "detail")
    for phrase in clause.objects:
        if light:
            yield Statement("thing", (phrase.noun,), phrase.text, "detail")
        else:
            yield Statement("action", (verb, phrase.noun), f"{said} {phrase.text}", action)
    if not clause.objects and not light:
        yield Statement("action", (verb,), said, action)
    for preposition, phrase in clause.places:
        yield Statement("place", (verb, preposition, phrase.noun), f"{said} {preposition} {phrase.text}", action)
    for direction in clause.directions:
        yield Statement("way", (verb, direction), f"{said} {direction}", action)


def _attributes(caption: Caption) -> Iterator[Statement]:
    for phrase in caption.phrases:
        for meaning, word in phrase.modifiers:
            yield Statement("attr", (meaning, phrase.noun), f"{word} {phrase.text}", "detail")


def _orders(caption: Caption) -> Iterator[Statement]:
    for earlier, later in stated_orders(caption):
        if earlier.event != later.event:
            text = f"{earlier.text}, then {later.text}"
            yield Statement("order", (earlier.event, later.event), text, "motion")


def stated_orders(caption: Caption) -> Iterator[tuple[Clause, Clause]]:
    """Clauses whose order the text states by then, before or after, as (earlier, later)."""
    for last, clause in zip([None, *caption.clauses], caption.clauses, strict=False):
        opening = last is None or last.sentence != clause.sentence
        if clause.marker == "then" and last is not None:
            yield last, clause
        elif clause.marker in ("before", "after") and not opening and last is not None:
            yield (last, clause) if clause.marker == "before" else (clause, last)
        elif last is not None and last.marker in ("before", "after") and _opens(last, caption) and not opening:
            yield (clause, last) if last.marker == "before" else (last, clause)


def _opens(clause: Clause, caption: Caption) -> bool:
    return next(one for one in caption.clauses if one.sentence == clause.sentence) is clause


def times(caption: Caption) -> list[tuple[Clause, int]]:
    """Each clause with its place in time: the text's order, but for before, after and while."""
    line: list[list[Clause]] = []  # clauses of one time together
    held: Clause | None = None  # of "before A, B": A waits for B
    for clause in caption.clauses:
        opening = not line or line[-1][-1].sentence != clause.sentence
        if clause.marker == "before" and opening:
            held = clause
        elif clause.marker == "while" and line:
            line[-1].append(clause)
        elif clause.marker == "after" and not opening:
            line.insert(len(line) - 1, [clause])
        else:
            line.append([clause])
            if held is not None:
                line.append([held])
                held = None
    if held is not None:
        line.append([held])
    return [(clause, time) for time, group in enumerate(line) for clause in group]
