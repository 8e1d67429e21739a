"""Writes captions of toy scenes from their facts, with varied wording.

`full` states every fact in 25 to 60 words. `brief` is written the way captions on the web are: 12 to 30 words,
some facts left out at random, order not always said, and chatter around it.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from owlcap.data.toy import vocabulary as words
from owlcap.data.toy.phrases import WORD, action_forms
from owlcap.data.toy.scene import Scene, Split
from owlcap.types import Fact

FULL_WORDS = (25, 60)
BRIEF_WORDS = (12, 30)
KEEP_DETAIL = 0.5  # chance of each detail in a brief caption
DROP_ACTION = 0.4  # chance that one action is missing
DROP_ORDER = 0.4  # chance that a brief caption does not say in which order things happen
BRIEF_TRIES = 4  # wordings tried before a detail is dropped to make a caption shorter
CHATTER = 0.3  # chance of chatter even where the caption is long enough without

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Captions:
    """Both captions of a clip, and what the brief one states."""

    full: str
    brief: str
    brief_facts: tuple[Fact, ...]


@dataclass(frozen=True, slots=True)
class _Content:
    """What one caption is to say; None or "" is left out."""

    shirt: str
    trousers: str
    thing: str  # "yellow ball left"
    background: str
    people: str
    actions: tuple[str, ...]
    ordered: bool

    @property
    def details(self) -> tuple[str, ...]:
        """Names of the fields that are details and are to be said."""
        return tuple(name for name in ("shirt", "trousers", "thing", "background", "people") if getattr(self, name))

    def without(self, detail: str) -> _Content:
        """The same, saying nothing of one detail."""
        return replace(self, **{detail: ""})

    def facts(self) -> tuple[Fact, ...]:
        details = {
            "shirt": self.shirt,
            "trousers": self.trousers,
            "object": self.thing,
            "background": self.background,
            "people": self.people,
        }
        pairs = zip(self.actions, self.actions[1:], strict=False) if self.ordered else ()
        return (
            *(Fact(f"{slot}={value}", "detail") for slot, value in details.items() if value),
            *(Fact(f"action={name}", "motion") for name in self.actions),
            *(Fact(f"order={first}>{second}", "motion") for first, second in pairs),
        )


def write_captions(scene: Scene, split: Split, seed: int, index: int) -> Captions:
    """Both captions of a clip; the same arguments always give the same words."""
    rng = random.Random(f"captions/{seed}/{split}/{index}")
    everything = _Content(
        scene.shirt,
        scene.trousers,
        f"{scene.object_color} {scene.object_kind} {scene.object_side}",
        scene.background,
        str(scene.num_people),
        tuple(action.name for action in scene.actions),
        True,
    )
    full = _write_full(everything, rng)
    brief, said = _write_brief(_leave_out(everything, rng), rng)
    return Captions(full, brief, said.facts())


def count_words(text: str) -> int:
    """Words of a caption; a hyphen or an apostrophe inside a word does not divide it."""
    return len(WORD.findall(text.lower()))


def _leave_out(content: _Content, rng: random.Random) -> _Content:
    def maybe(value: str) -> str:
        return value if rng.random() < KEEP_DETAIL else ""

    actions = list(content.actions)
    if rng.random() < DROP_ACTION:
        actions.pop(rng.randrange(len(actions)))
    return _Content(
        maybe(content.shirt),
        maybe(content.trousers),
        maybe(content.thing),
        maybe(content.background),
        maybe(content.people),
        tuple(actions),
        ordered=len(actions) > 1 and rng.random() >= DROP_ORDER,
    )


def _write_full(content: _Content, rng: random.Random) -> str:
    low, high = FULL_WORDS
    while True:
        body = _body(content, rng)
        if count_words(body) < low or rng.random() < 0.2:
            body = f"{rng.choice(words.LEADS)} {body}"
        if low <= count_words(body) <= high:
            return _punctuated(body)


def _write_brief(content: _Content, rng: random.Random) -> tuple[str, _Content]:
    """The text, and what it says: a detail that would make it too long is left out after some tries."""
    low, high = BRIEF_WORDS
    chatter = 1 if rng.random() < CHATTER else 0
    for attempt in itertools.count(1):
        text = _body(content, rng)
        if chatter:
            before = rng.sample(words.FILLERS_BEFORE, rng.randint(0, min(chatter, 2)))
            after = rng.sample(words.FILLERS_AFTER, chatter - len(before))
            text = ". ".join([" ".join([*before, text]), *after])
        if low <= count_words(text) <= high:
            return _punctuated(text), content
        chatter = min(chatter + 1, 3) if count_words(text) < low else 0
        if attempt % BRIEF_TRIES == 0 and count_words(text) > high:
            content = content.without(rng.choice(content.details))
    raise AssertionError("unreachable")


def _body(content: _Content, rng: random.Random) -> str:
    """Sentences about who does what, and about the rest, in one of several plans."""
    clothes = _clothes(content, rng)
    place = rng.choice(words.PLACES[content.background])[0] if content.background else ""
    thing = _thing(content.thing, rng) if content.thing else ""
    people = rng.choice(words.PEOPLE_PHRASES[content.people])[0] if content.people else ""
    subject = rng.choice(words.SUBJECTS)
    before: list[str] = []
    introduction: list[str] = []
    after: list[str] = []
    if clothes and rng.random() < 0.75:
        subject = f"{subject} {_pick(words.CLOTHES_TEMPLATES, rng).format(clothes=clothes)}"
    elif clothes:
        template = rng.choice(words.CLOTHES_SENTENCES)
        introduction.append(template.format(clothes=clothes, subject=subject))
        subject = words.SAME_SUBJECT if "{subject}" in template else subject
    motion = _motion(content, subject, rng)
    if place and (choice := rng.random()) < 0.8:
        motion = f"{motion} {place}" if choice < 0.5 else f"{place}, {motion}"
    elif place:
        after.append(rng.choice(words.PLACE_SENTENCES).format(place=place))
    rest = [text for text in (thing, people) if text]
    rng.shuffle(rest)
    if len(rest) == 2 and rng.random() < 0.6:
        rest = [f"{rest[0]} and {rest[1]}"]
    for text in rest:
        (before if rng.random() < 0.2 else after).append(text)
    return ". ".join([*before, *introduction, motion, *after])


def _clothes(content: _Content, rng: random.Random) -> str:
    parts = []
    if content.shirt:
        parts.append(_articled(f"{_color(content.shirt, rng)} {_pick(words.SHIRT_NOUNS, rng)}"))
    if content.trousers:
        parts.append(f"{_color(content.trousers, rng)} {_pick(words.TROUSERS_NOUNS, rng)}")
    return " and ".join(parts)


def _thing(thing: str, rng: random.Random) -> str:
    color, kind, side = thing.split()
    name = _articled(f"{_color(color, rng)} {_pick(words.OBJECT_NOUNS[kind], rng)}")
    where = _pick(words.SIDE_PHRASES, rng).format(side=side)
    return _pick(words.OBJECT_TEMPLATES, rng).format(thing=name, where=where)


def _motion(content: _Content, subject: str, rng: random.Random) -> str:
    if content.ordered:
        templates = words.ORDER_TEMPLATES_2 if len(content.actions) == 2 else words.ORDER_TEMPLATES_3
    else:
        templates = (words.LOOSE_TEMPLATES_1, words.LOOSE_TEMPLATES_2, words.LOOSE_TEMPLATES_3)[
            len(content.actions) - 1
        ]
    filled = {"subject": subject}
    for letter, name in zip("abc", content.actions, strict=False):
        options = action_forms()[name]
        form = rng.choices(options, [option.weight for option in options])[0]
        filled[f"{letter}_s"] = form.third()
        filled[f"{letter}_ing"] = form.gerund()
    return rng.choice(templates).format(**filled)


def _color(color: str, rng: random.Random) -> str:
    return _pick(words.COLORS[color], rng, first=4.0)


def _pick(options: Sequence[str], rng: random.Random, first: float = 2.0) -> str:
    """One of the options; the first is `first` times as likely as each other."""
    return rng.choices(options, [first] + [1.0] * (len(options) - 1))[0]


def _articled(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _punctuated(text: str) -> str:
    """Capital letters at the start of sentences, and a full stop at the end."""
    return ". ".join(sentence[0].upper() + sentence[1:] for sentence in text.split(". ")) + "."
