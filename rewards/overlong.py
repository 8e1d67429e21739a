"""Overlong penalty: a linear decay above a number of words (DAPO's soft overlong punishment, arXiv 2503.14476).

DAPO counts tokens up to the sampling limit; this counts words, so that it does not depend on the tokenizer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field, model_validator

from owlcap.config import Section
from owlcap.registry import register
from owlcap.types import Sample, Score
from rewards.judges import Judges
from rewards.options import parse_options
from rewards.text import words


class OverlongOptions(Section):
    """Up to free_words costs nothing, max_words and more cost 1."""

    free_words: int = Field(default=300, ge=0)
    max_words: int = Field(default=400, ge=1)

    @model_validator(mode="after")
    def _ordered(self) -> OverlongOptions:
        if self.free_words >= self.max_words:
            raise ValueError(f"free_words is {self.free_words}, not below max_words, {self.max_words}")
        return self


@register("reward", "overlong")
class OverlongReward:
    """0 up to `free_words` words, -1 from `max_words` words on, linear between."""

    name = "overlong"

    def __init__(self, judges: Judges, options: Mapping[str, Any]) -> None:
        self._options = parse_options(OverlongOptions, options, reward=self.name)

    async def score_group(self, sample: Sample, captions: Sequence[str]) -> list[Score]:
        """Needs no reference and never fails."""
        return [Score(self.value(caption)) for caption in captions]

    def value(self, caption: str) -> float:
        """Value of one caption."""
        free, most = self._options.free_words, self._options.max_words
        return max(-1.0, min(0.0, (free - len(words(caption))) / (most - free)))
