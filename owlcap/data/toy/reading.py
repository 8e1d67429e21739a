"""Token-level reading of toy captions: tokens, phrases, repeated fragments, and the order of actions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

from owlcap.data.toy.phrases import ARTICLES, WORD, color_words, glue_words, noun_words, phrase_table

COPULAS = frozenset({"is", "of", "in"})  # "the shirt is red", "a shirt of red"
REPEAT_LENGTH = 5  # words: a run of so many that was there before is a repeated fragment
LONGEST_PADDING = 8  # words that state nothing, one after the other, within a sentence; captions have up to 7
LONGEST_LOOP = 3  # words, within a sentence: "and then and then" is a loop of two

# A word, the end of a sentence, or anything else that is not punctuation inside a sentence.
TOKEN = re.compile(rf"({WORD.pattern})|([.!?;\n])|[^\s\w.,:;!?'\"()-]+|[^\W\da-z]+|_+", re.IGNORECASE | re.ASCII)


class Token(NamedTuple):
    """A word, where it stands in the text, and the number of its sentence."""

    word: str
    start: int
    end: int
    sentence: int


class Item(NamedTuple):
    """A phrase that was understood: tokens `first` to `last` (exclusive) of the caption."""

    kind: str  # a phrases.Kind, or shirt, trousers, object
    value: str
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Reading:
    """A caption's tokens without articles, what was understood, and which tokens were not.

    `unknown` holds words that nobody knows and words that pad a sentence without stating anything.
    """

    tokens: tuple[Token, ...]
    items: tuple[Item, ...]
    unknown: tuple[int, ...]


def tokenize(text: str) -> list[Token]:
    """Words of a text in lower case; odd characters count as words that nobody knows."""
    tokens: list[Token] = []
    sentence = 0
    for match in TOKEN.finditer(text):
        if match.group(2):
            sentence += 1
        else:
            tokens.append(Token(match.group().lower(), match.start(), match.end(), sentence))
    return tokens


def read(tokens: Sequence[Token]) -> Reading:
    """Find the phrases of a caption from left to right, always the longest that fits within a sentence."""
    kept = tuple(token for token in tokens if token.word not in ARTICLES)
    words = tuple(token.word for token in kept)
    table, glue = phrase_table(), glue_words()
    items: list[Item] = []
    unknown: list[int] = []
    padding: dict[int, list[int]] = {}  # of each sentence
    place = 0
    while place < len(kept):
        item = None
        for key, kind, value in table.get(words[place], ()):
            end = place + len(key)
            if words[place:end] == key and kept[end - 1].sentence == kept[place].sentence:
                item = Item(kind, value, place, end)
                break
        item = item or _thing(words, kept, place)
        if item is not None:
            items.append(item)
            place = item.last
            continue
        if words[place] in glue:
            padding.setdefault(kept[place].sentence, []).append(place)
        else:
            unknown.append(place)
        place += 1
    for places in padding.values():
        for first, last in runs(places):
            if last - first > LONGEST_PADDING:
                unknown.extend(range(first, last))
    return Reading(kept, tuple(items), tuple(unknown))


def _thing(words: Sequence[str], tokens: Sequence[Token], place: int) -> Item | None:
    """A coloured thing ("red shirt", "shirt is red"), or an object without its colour."""
    colors, nouns = color_words(), noun_words()

    def word(offset: int) -> str:
        at = place + offset
        return words[at] if at < len(words) and tokens[at].sentence == tokens[place].sentence else ""

    color, noun, length = colors.get(word(0)), nouns.get(word(1)), 2
    if color is None:
        noun = nouns.get(word(0))
        color, length = (colors.get(word(2)), 3) if word(1) in COPULAS else (None, 1)
    if noun is None:
        return None
    slot, kind = noun
    if color is None:
        return Item(slot, kind, place, place + 1) if kind else None
    return Item(slot, f"{color} {kind}".strip(), place, place + length)


def repeated_spans(tokens: Sequence[Token]) -> list[tuple[int, int]]:
    """Token spans (first, exclusive last) that say again what was just said, or a sentence or long run said before."""
    words = [token.word for token in tokens]
    again = [False] * len(words)
    for length in range(1, LONGEST_LOOP + 1):
        for place in range(length, len(words) - length + 1):
            same = words[place : place + length] == words[place - length : place]
            if same and tokens[place - length].sentence == tokens[place + length - 1].sentence:
                again[place : place + length] = [True] * length
    seen: dict[tuple[str, ...], int] = {}
    for place in range(len(words) - REPEAT_LENGTH + 1):
        run = tuple(words[place : place + REPEAT_LENGTH])
        if seen.setdefault(run, place) + REPEAT_LENGTH <= place:
            again[place : place + REPEAT_LENGTH] = [True] * REPEAT_LENGTH
    sentences: set[tuple[str, ...]] = set()
    for _, group in groupby(range(len(words)), key=lambda place: tokens[place].sentence):
        places = list(group)
        sentence = tuple(words[place] for place in places)
        if sentence in sentences:
            again[places[0] : places[-1] + 1] = [True] * len(places)
        sentences.add(sentence)
    return runs([place for place, said in enumerate(again) if said])


def runs(places: Sequence[int]) -> list[tuple[int, int]]:
    """Ascending places joined into spans (first, exclusive last): [1, 2, 5] -> [(1, 3), (5, 6)]."""
    spans: list[tuple[int, int]] = []
    for place in places:
        if spans and spans[-1][1] == place:
            spans[-1] = (spans[-1][0], place + 1)
        else:
            spans.append((place, place + 1))
    return spans


def temporal_pairs(reading: Reading) -> list[tuple[Item, Item]]:
    """Action mentions with a stated order, as (earlier, later).

    "A, then B", "A before B", "A. After that, B", "after A, B" and "before B, A" all give (A, B);
    "B after A" too. "A and B" gives nothing.
    """
    pairs: list[tuple[Item, Item]] = []
    latest: Item | None = None  # the action that the next marker continues from
    opened: tuple[str, Item] | None = None  # "after A" or "before A", ahead of the action it relates to
    marker = ""
    acted = -1  # the last sentence with an action so far
    for item in reading.items:
        sentence = reading.tokens[item.first].sentence
        if item.kind == "marker":
            marker = f"opening {item.value}" if acted != sentence and item.value != "forward" else item.value
        if item.kind != "action":
            continue
        acted = sentence
        if marker.startswith("opening"):
            opened = (marker.removeprefix("opening "), item)
            marker = ""
            continue
        pair: tuple[Item, Item] | None = None
        if opened is not None:
            pair = (opened[1], item) if opened[0] == "after" else (item, opened[1])
            opened = None
            latest = item
        elif latest is not None and marker:
            pair = (item, latest) if marker == "after" else (latest, item)
            latest = latest if marker == "after" else item
        else:
            latest = item
        if pair is not None and pair[0].value != pair[1].value:
            pairs.append(pair)
        marker = ""
    return pairs
