"""Tables made from the vocabulary: every phrase that carries a fact, and which fact it is.

Articles (a, an, the) are left out of the tables, so that "raises the left arm" and "raises left arm" read alike.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from string import Formatter
from typing import Literal

from owlcap.data.toy import vocabulary as words
from owlcap.data.toy.scene import ACTIONS, SIDES

Kind = Literal["action", "background", "people", "side", "marker", "filler"]
ARTICLES = frozenset({"a", "an", "the"})
WORD = re.compile(r"[a-z0-9]+(?:['-][a-z0-9]+)*")


@dataclass(frozen=True, slots=True)
class ActionForm:
    """One way to say an action: "kicks", "kicking" or "kick", and what follows ("with the left leg")."""

    verb: str  # a key of VERBS
    rest: str
    weight: float  # how often the writer takes it

    def third(self) -> str:
        """As in "she kicks with the left leg"."""
        return f"{words.VERBS[self.verb][0]} {self.rest}".strip()

    def gerund(self) -> str:
        """As in "kicking with the left leg"."""
        return f"{words.VERBS[self.verb][1]} {self.rest}".strip()

    def base(self) -> str:
        """As in "to kick with the left leg"."""
        return f"{self.verb} {self.rest}".strip()


def _split(alternatives: str) -> Iterator[tuple[str, float]]:
    for place, text in enumerate(alternatives.split("|")):
        yield text, 2.0 if place == 0 else 1.0


def _forms(patterns: Iterable[tuple[str, str]], side: str) -> tuple[ActionForm, ...]:
    return tuple(
        ActionForm(verb, rest.format(side=side), verb_weight * rest_weight)
        for verbs, rests in patterns
        for verb, verb_weight in _split(verbs)
        for rest, rest_weight in _split(rests)
    )


@cache
def action_forms() -> dict[str, tuple[ActionForm, ...]]:
    """All ways to say each action."""
    forms = {name: _forms(patterns, "") for name, patterns in words.PLAIN_ACTIONS.items()}
    for side in SIDES:
        for name, patterns in words.SIDED_ACTIONS.items():
            forms[name.format(side=side)] = _forms(patterns, side)
    return {name: forms[name] for name in ACTIONS}


def key_of(phrase: str) -> tuple[str, ...]:
    """A phrase as the tables know it: its words without articles."""
    return tuple(word for word in WORD.findall(phrase.lower()) if word not in ARTICLES)


@cache
def phrase_table() -> dict[str, tuple[tuple[tuple[str, ...], Kind, str], ...]]:
    """First word -> (words, kind, value) of every fixed phrase that starts with it, longest first."""
    entries: dict[tuple[str, ...], tuple[Kind, str]] = {}

    def add(phrase: str, kind: Kind, value: str) -> None:
        known = entries.setdefault(key_of(phrase), (kind, value))
        assert known == (kind, value), f"{phrase!r} means {known} and {(kind, value)}"

    for name, forms in action_forms().items():
        for form in forms:
            for phrase in (form.third(), form.gerund(), form.base()):
                add(phrase, "action", name)
    for background, places in words.PLACES.items():
        for _, phrase in places:
            add(phrase, "background", background)
    for people, phrases in words.PEOPLE_PHRASES.items():
        for _, phrase in phrases:
            add(phrase, "people", people)
    for side in SIDES:
        for phrase in words.SIDE_PHRASES:
            add(phrase.format(side=side), "side", side)
    for marker in words.FORWARD_MARKERS:
        add(marker, "marker", "forward")
    add("before", "marker", "before")
    add("after", "marker", "after")
    for phrase in (*words.LEADS, *words.FILLERS_BEFORE, *words.FILLERS_AFTER):
        add(phrase, "filler", "")
    table: dict[str, list[tuple[tuple[str, ...], Kind, str]]] = {}
    for key, (kind, value) in entries.items():
        table.setdefault(key[0], []).append((key, kind, value))
    return {first: tuple(sorted(found, key=lambda entry: -len(entry[0]))) for first, found in table.items()}


@cache
def color_words() -> dict[str, str]:
    """Word -> colour."""
    return {word: color for color, synonyms in words.COLORS.items() for word in synonyms}


@cache
def noun_words() -> dict[str, tuple[str, str]]:
    """Noun -> (slot, kind): shirts and trousers have the kind "", objects their own."""
    nouns: dict[str, tuple[str, str]] = {}
    for noun in words.SHIRT_NOUNS:
        nouns[noun] = ("shirt", "")
    for noun in words.TROUSERS_NOUNS:
        nouns[noun] = ("trousers", "")
    for kind, synonyms in words.OBJECT_NOUNS.items():
        for noun in synonyms:
            nouns[noun] = ("object", kind)
    return nouns


@cache
def glue_words() -> frozenset[str]:
    """Words that hold sentences together and state nothing: those of the templates, without the facts' own words."""
    templates: list[str] = [
        *words.SUBJECTS,
        words.SAME_SUBJECT,
        *words.CLOTHES_TEMPLATES,
        *words.CLOTHES_SENTENCES,
        *words.OBJECT_TEMPLATES,
        *words.PLACE_SENTENCES,
        *words.ORDER_TEMPLATES_2,
        *words.ORDER_TEMPLATES_3,
        *words.LOOSE_TEMPLATES_1,
        *words.LOOSE_TEMPLATES_2,
        *words.LOOSE_TEMPLATES_3,
    ]
    for phrases in (*words.PLACES.values(), *words.PEOPLE_PHRASES.values()):
        for phrase, key in phrases:
            templates.append(phrase.replace(key, " ", 1))
    literal = " ".join(part for template in templates for part, *_ in Formatter().parse(template))
    facts = set(color_words()) | set(noun_words()) | set(SIDES)
    return frozenset({*WORD.findall(literal), "and", "with", "that", "who", "which"} - facts - ARTICLES)
