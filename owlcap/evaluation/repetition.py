"""How much a caption repeats itself: a figure that no reference is needed for."""

from __future__ import annotations

import re

NGRAM = 4
_WORD = re.compile("\\w+(?:['\u2019-]\\w+)*")


def repetition(caption: str, n: int = NGRAM) -> float:
    """Share of a caption's word n-grams that already occurred in it: 0 none, towards 1 a loop.

    Captions shorter than n + 1 words cannot repeat an n-gram and give 0.
    """
    words = [word.lower() for word in _WORD.findall(caption)]
    grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    if len(grams) < 2:
        return 0.0
    return 1.0 - len(set(grams)) / len(grams)
