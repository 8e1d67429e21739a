"""Repetition penalty: minus the share of a caption's word n-grams that repeat an earlier one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from owlcap.config import Section
from owlcap.registry import register
from owlcap.types import Sample, Score
from rewards.judges import Judges
from rewards.options import parse_options
from rewards.text import repetition


class RepetitionOptions(Section):
    """Words of an n-gram, and the share of repeats that costs nothing."""

    n: int = Field(default=4, ge=1)
    free_share: float = Field(default=0.0, ge=0, lt=1)


@register("reward", "repetition")
class RepetitionReward:
    """0 while the share of repeats is at most `free_share`, then falling with it, to near -1."""

    name = "repetition"

    def __init__(self, judges: Judges, options: Mapping[str, Any]) -> None:
        self._options = parse_options(RepetitionOptions, options, reward=self.name)

    async def score_group(self, sample: Sample, captions: Sequence[str]) -> list[Score]:
        """Needs no reference and never fails."""
        free = self._options.free_share
        return [Score(min(0.0, free - repetition(caption, self._options.n))) for caption in captions]
