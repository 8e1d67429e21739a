"""Several judges on one caption: a majority of labels, and how far the judges are apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

from owlcap.types import Judgement, Label, Unit

Vote = Literal["mean", "median", "majority"]


def majority(judgements: Sequence[Judgement]) -> Judgement:
    """One judgement with the label of each unit that more than half of the judges gave, else "not_mentioned".

    Args:
        judgements: of the same units, in the same order.
    """
    return replace(
        judgements[0],
        predicted_units=_voted([one.predicted_units for one in judgements]),
        reference_units=_voted([one.reference_units for one in judgements]),
        judge="majority",
    )


def spread(judgements: Sequence[Judgement], cser: Sequence[float]) -> Mapping[str, float]:
    """How far judges are apart on one caption.

    `judge_spread` is the largest CSER less the smallest. `judge_disagreement` is the share of units that the judges
    label differently; absent where they did not label the same units.
    """
    metrics = {"judge_spread": max(cser) - min(cser)}
    units = [(*one.predicted_units, *one.reference_units) for one in judgements]
    if len({tuple(unit.text for unit in row) for row in units}) == 1 and units[0]:
        differing = sum(len({unit.label for unit in column}) > 1 for column in zip(*units, strict=True))
        metrics["judge_disagreement"] = differing / len(units[0])
    return metrics


def _voted(rows: Sequence[Sequence[Unit]]) -> tuple[Unit, ...]:
    columns = zip(*rows, strict=True)
    return tuple(replace(column[0], label=_winner([unit.label for unit in column])) for column in columns)


def _winner(labels: Sequence[Label]) -> Label:
    label, votes = Counter(labels).most_common(1)[0]
    return label if 2 * votes > len(labels) else "not_mentioned"
