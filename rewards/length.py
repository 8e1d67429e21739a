"""Length reward: a value by the number of words (OwlCap section 3.3; thresholds from its released code)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from pydantic import Field, model_validator

from owlcap.config import Section
from owlcap.registry import register
from owlcap.types import Sample, Score
from rewards.judges import Judges
from rewards.options import parse_options
from rewards.text import words


class LengthStep(Section):
    """Captions of min_words to max_words words, both included, get `value`."""

    min_words: int = Field(ge=1)
    max_words: int = Field(ge=1)
    value: float

    @model_validator(mode="after")
    def _ordered(self) -> LengthStep:
        if self.min_words > self.max_words:
            raise ValueError(f"min_words is {self.min_words}, above max_words, {self.max_words}")
        return self


class LengthOptions(Section):
    """Steps that do not overlap, and the value of every other length."""

    steps: tuple[LengthStep, ...] = (
        LengthStep(min_words=100, max_words=300, value=1.0),
        LengthStep(min_words=301, max_words=400, value=0.5),
    )
    otherwise: float = 0.2

    @model_validator(mode="after")
    def _disjoint(self) -> LengthOptions:
        ordered = sorted(self.steps, key=lambda step: step.min_words)
        for shorter, longer in pairwise(ordered):
            if longer.min_words <= shorter.max_words:
                raise ValueError(
                    f"steps {shorter.min_words}-{shorter.max_words} and {longer.min_words}-{longer.max_words} overlap"
                )
        return self


@register("reward", "length")
class LengthReward:
    """Value of the step that a caption's word count falls in. A caption without words gets the lowest value."""

    name = "length"

    def __init__(self, judges: Judges, options: Mapping[str, Any]) -> None:
        self._options = parse_options(LengthOptions, options, reward=self.name)

    async def score_group(self, sample: Sample, captions: Sequence[str]) -> list[Score]:
        """Needs no reference and never fails."""
        return [Score(self.value(caption)) for caption in captions]

    def value(self, caption: str) -> float:
        """Value of one caption."""
        num_words = len(words(caption))
        if num_words == 0:
            return min((self._options.otherwise, *(step.value for step in self._options.steps)))
        for step in self._options.steps:
            if step.min_words <= num_words <= step.max_words:
                return step.value
        return self._options.otherwise
