"""Keypoint recall: how many of the ground truth's key points a caption conveys (AVoCaDO, TimeChat-Captioner).

The key points are the row's own, or are taken from the reference caption once; their number, not the judge's reply,
is the denominator. Nothing is deducted for what a caption says besides: give it a reward for that too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from owlcap.config import RewardsSection, Section
from owlcap.registry import register
from owlcap.types import Judgement, Sample, Score, Unit, Unscored
from rewards.chat import Answer
from rewards.events import MATCHING, ask_list, entailed
from rewards.failures import score_each
from rewards.judges import Calls, Judges, check_captions, check_length
from rewards.options import parse_options
from rewards.staged import ask_labels
from rewards.tags import guess_tag
from rewards.templates import load_template

MAX_KEYPOINTS = 20  # taken from a reference


class KeypointOptions(Section):
    """Keypoint recall has no options."""


@register("reward", "keypoints")
class KeypointReward:
    """Share of the key points that each caption of a group conveys. A judge's failure leaves its caption unscored."""

    name = "keypoints"
    per_caption = True

    def __init__(self, judges: Judges, options: Mapping[str, Any]) -> None:
        parse_options(KeypointOptions, options, reward=self.name)
        self._limits = judges.settings.judge
        self._model = judges.model
        self._keypoints = load_template("keypoints", frozenset({"caption", "max_items"}), judges.settings.prompts)
        self._check = load_template("check_reference", MATCHING, judges.settings.prompts)

    @staticmethod
    def calls(settings: RewardsSection) -> Calls:
        """One matching call a prediction; key points of a reference once, where its row has none."""
        return Calls(per_caption=1, per_reference=1)

    async def score_group(self, sample: Sample, captions: Sequence[str]) -> list[Score | Unscored]:
        """All captions against the sample's key points, at the same time."""
        return await score_each(self.name, captions, partial(self._score, sample))

    async def _score(self, sample: Sample, caption: str) -> Score | Unscored:
        truth = await self._truth(sample, caption)
        labels = await ask_labels(self._model, self._check, truth.value, caption)
        units = tuple(Unit(text, guess_tag(text), label) for text, label in zip(truth.value, labels.value, strict=True))
        recall = entailed(units)
        if recall is None:
            return Unscored(self.name, "the reference caption has no key points")
        reply_ids = tuple(answer.reply_id for answer in (truth, labels) if answer.reply_id)
        judgement = Judgement((), units, judge=self._model.name, reply_ids=reply_ids)
        return Score(recall, {"keypoint_recall": recall, "keypoints": float(len(units))}, (judgement,))

    async def _truth(self, sample: Sample, caption: str) -> Answer[tuple[str, ...]]:
        if sample.keypoints:
            check_length("caption", caption, self._limits)
            return Answer(sample.keypoints, "")
        check_captions(caption, sample.reference, self._limits)
        return await ask_list(self._model, "keypoints", self._keypoints, sample.reference, MAX_KEYPOINTS)
