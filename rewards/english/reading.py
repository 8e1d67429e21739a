"""From text to clauses: what a caption says, in the words' own order. Table look-ups and local rules, no model.

    text -> sentences -> tagged tokens -> noun phrases and clauses

A clause is one verb with its subject, its objects, what its prepositions add, and directions. Any text can be read;
sentences that are not English are returned as `unread`, sentences about the film itself are left out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from rewards.english import tables
from rewards.english.clauses import Caption, add_sentence
from rewards.english.tagging import is_function, tag
from rewards.english.words import concept, instructs, known_words, says_nothing, stem

MAX_SENTENCE = 60  # words; a longer one is read in parts
UNREAD_WORDS = 8  # words of one unread unit, as in the toy judge
MIN_KNOWN_SHARE = 0.3  # of a sentence's words; below it is not English

_SENTENCE = re.compile(r"[.!?;:\n\r]+(?=\s|$)|\n")
_TOKEN = re.compile(r"[^\W\d_]+(?:[-'][^\W\d_]+)*|\d+|[,()]|[^\s\w]|\w")
_IDIOMS = tuple(
    (re.compile(rf"\b{idiom}\b", re.IGNORECASE), meaning)
    for idiom, meaning in (
        ("from (?:the )?left to (?:the )?right", "to the right"),
        ("from (?:the )?right to (?:the )?left", "to the left"),
        ("(?:gets?|rises?) to (?:his|her|its|their) feet", "stands up"),
        ("gets? (?:back )?up", "stands up"),
        ("takes? a seat", "sits down"),
        ("takes? out", "removes"),
        ("at the same time", ""),
        ("team mate", "teammate"),
    )
)
_PUNCTUATION = re.compile(r"[^\w{}\[\]<>|\\]+$")
_MARKUP = re.compile(r"[{}\[\]<>|\\]")


def read(text: str) -> Caption:
    """Read any text; never raises. About 0.3 ms for 40 words."""
    text = text.replace("\u2019", "'")
    for idiom, meaning in _IDIOMS:
        text = idiom.sub(meaning, text)
    caption = Caption()
    heard: set[tuple[str, ...]] = set()  # a sentence said again says nothing
    for sentence in _SENTENCE.split(text):
        found = _TOKEN.findall(sentence)
        for start in range(0, len(found), MAX_SENTENCE):
            part = tuple(word.lower() for word in found[start : start + MAX_SENTENCE])
            if part not in heard:
                heard.add(part)
                _read_sentence(part, caption)
    return caption


def _read_sentence(raw: Sequence[str], caption: Caption) -> None:
    words = [word for word in raw if word[0].isalnum() or word == ","]
    spoken = [word for word in words if word != ","]
    if not _is_english(spoken) or _instructs(raw, spoken):
        for start in range(0, len(raw), UNREAD_WORDS):
            piece = " ".join(raw[start : start + UNREAD_WORDS])
            if any(not _PUNCTUATION.match(word) for word in raw[start : start + UNREAD_WORDS]):
                caption.unread.append(piece)
        return
    content = [concept(word) for word in spoken if not (is_function(word) or word in tables.ADVERBS)]
    if all(says_nothing(one) for one in content):
        return
    add_sentence(tag(words), caption)


def _is_english(words: Sequence[str]) -> bool:
    """Whether enough of the words are known; names and rare nouns may be unknown, most small words are not."""
    if not words:
        return False
    known = sum(
        is_function(word) or word in tables.ADVERBS or word in tables.NUMBERS or stem(word) in known_words()
        for word in words
    )
    return known >= MIN_KNOWN_SHARE * len(words)


def _instructs(raw: Sequence[str], words: Sequence[str]) -> bool:
    """Whether a sentence speaks to a judge: markup, or at least two of a judge's words and a third of its content."""
    if any(_MARKUP.match(word) for word in raw):
        return True
    content = [concept(word) for word in words if not is_function(word) or word in ("you", "your")]
    hits = sum(instructs(one) for one in content)
    return hits >= 2 and 3 * hits >= len(content)
