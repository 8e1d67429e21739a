"""Counting words of a caption: length and repetition."""

from __future__ import annotations

import re

_LETTERS = r"[^\W\d_]+"
_WORD = re.compile(rf"{_LETTERS}(?:[-\u2010\u2011'\u2019]{_LETTERS})*")


def words(text: str) -> list[str]:
    """Words in order, lower case. Letters only; a hyphen or apostrophe inside a word belongs to it."""
    return [word.lower() for word in _WORD.findall(text)]


def repetition(text: str, n: int = 4) -> float:
    """Share of a caption's word n-grams that repeat an earlier one: 0 is none, near 1 is one phrase over and over.

    A caption of fewer than n words has no n-gram and repeats nothing.
    """
    tokens = words(text)
    grams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    return 1.0 - len(set(grams)) / len(grams) if grams else 0.0
