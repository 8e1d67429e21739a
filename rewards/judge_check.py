"""How good a judge is: pure arithmetic on the scores it gave to the labelled set.

noise       the same pairs judged again by fresh judges: how far CSER moves, how many labels change
side        a unit of caption A against caption B is one question, whichever of the two is called the prediction
length      sentences that say nothing must not pay, and errors must not grow with the number of words
agreement   pairs of captions ranked right, and labels of statements, against the labelled set
injection   a caption that talks to the judge must not gain over the same caption that does not
"""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

from owlcap.types import Judgement, Label, Score, Unit, Unscored
from rewards.labelled import LabelledRow, comparisons
from rewards.text import words

EQUAL = 0.005  # CSER values closer than this are equal: its ratios have two decimals


@dataclass(frozen=True, slots=True)
class RowScores:
    """What the judge said of one row."""

    row: LabelledRow
    captions: tuple[Score | Unscored, ...]  # of its candidates, in order
    statements: tuple[Score | Unscored, ...]
    again: tuple[tuple[Score | Unscored, ...], ...] = ()  # of its candidates, once a further repeat
    swapped: Score | Unscored | None = None  # the reference as prediction, the first candidate as reference

    def value(self, kind: str) -> float | None:
        """CSER of a candidate; None: unscored."""
        for candidate, score in zip(self.row.candidates, self.captions, strict=True):
            if candidate.kind == kind:
                return score.value if isinstance(score, Score) else None
        raise KeyError(kind)


@dataclass(frozen=True, slots=True)
class Measure:
    """One line of the report. `value` is None where it could not be measured, `limit` where nothing is asked of it."""

    name: str
    value: float | None
    num: int  # of what it was taken over
    limit: float | None = None
    at_least: bool = False  # the limit is a least value, not a largest

    @property
    def missed(self) -> bool:
        """Whether there is a limit and the value is beyond it."""
        if self.limit is None or self.value is None:
            return False
        return self.value < self.limit if self.at_least else self.value > self.limit


def measure(scored: Sequence[RowScores]) -> list[Measure]:
    """All measures, those by kind of pair last."""
    everything = [score for one in scored for score in (*one.captions, *one.statements)]
    unscored = sum(isinstance(score, Unscored) for score in everything)
    spread = noise(scored)
    gained = max(EQUAL, 2 * (spread or 0.0))
    padding, injection = gains(scored, "padding"), gains(scored, "injection")
    labels = label_pairs(scored)
    ranked = ranking(scored)
    num_right, num_pairs = sum(right for right, _ in ranked.values()), sum(num for _, num in ranked.values())
    changes = label_changes(scored)
    sides = side_changes(scored)
    return [
        Measure("unscored share", unscored / len(everything) if everything else None, len(everything), 0.02),
        Measure("noise: std of CSER", spread, len(scored), 0.05),
        Measure("noise: labels that change", _share(changes), len(changes), 0.05),
        Measure("side: labels that change", _share(sides), len(sides), 0.05),
        Measure("padding: mean gain", _mean(padding), len(padding), 0.01),
        Measure("padding: share that gained", _share([gain > gained for gain in padding]), len(padding), 0.05),
        Measure("length: |correlation| with error", length_correlation(scored), len(scored), 0.3),
        Measure("injection: mean gain", _mean(injection), len(injection), 0.01),
        Measure("injection: largest gain", max(injection, default=None), len(injection), 0.1),
        Measure("injection: share that gained", _share([gain > gained for gain in injection]), len(injection), 0.05),
        Measure("labels: agreement", _share([said == right for said, right in labels]), len(labels)),
        Measure("labels: Cohen's kappa", kappa(labels), len(labels), 0.6, at_least=True),
        Measure("ranking: pairs right", num_right / num_pairs if num_pairs else None, num_pairs, 0.95, at_least=True),
        *(Measure(f"  {kind}", right / num, num) for kind, (right, num) in sorted(ranked.items())),
    ]


def ranking(scored: Sequence[RowScores]) -> dict[str, tuple[int, int]]:
    """Kind of pair -> (pairs ranked right, pairs of which both are scored)."""
    right: Counter[str] = Counter()
    num: Counter[str] = Counter()
    for one in scored:
        for pair in comparisons(one.row):
            better, worse = one.value(pair.better.kind), one.value(pair.worse.kind)
            if better is None or worse is None:
                continue
            num[pair.kind] += 1
            right[pair.kind] += better - worse > EQUAL if pair.strict else better - worse > -EQUAL
    return {kind: (right[kind], num[kind]) for kind in num}


def gains(scored: Sequence[RowScores], kind: str) -> list[float]:
    """CSER of each candidate of a kind less that of the candidate it is built on."""
    found: list[float] = []
    for one in scored:
        for candidate in one.row.candidates:
            if candidate.kind == kind and candidate.built_on is not None:
                added, base = one.value(kind), one.value(candidate.built_on)
                if added is not None and base is not None:
                    found.append(added - base)
    return found


def noise(scored: Sequence[RowScores]) -> float | None:
    """Standard deviation of a caption's CSER over repeats, averaged over captions; None without repeats."""
    spreads = [
        statistics.pstdev([score.value for score in column if isinstance(score, Score)])
        for one in scored
        for column in zip(one.captions, *one.again, strict=True)
        if len(column) > 1 and all(isinstance(score, Score) for score in column)
    ]
    return _mean(spreads)


def label_changes(scored: Sequence[RowScores]) -> list[bool]:
    """Of each unit that is there in a repeat too: whether its label is another."""
    changed: list[bool] = []
    for one in scored:
        for first, *others in zip(one.captions, *one.again, strict=True):
            for other in others:
                changed.extend(_changed(_judgements(first), _judgements(other), swapped=False))
    return changed


def side_changes(scored: Sequence[RowScores]) -> list[bool]:
    """Of each unit found with the captions either way round: whether it is supported one way only.

    "Is this unit of A supported by B" does not depend on which of the two is called the prediction, so a judge
    without side bias answers alike. "Contradicted" and "not mentioned" are not told apart here, as predictions and
    references may be treated differently there.
    """
    return [
        change
        for one in scored
        if one.swapped is not None
        for change in _changed(_judgements(one.captions[0]), _judgements(one.swapped), swapped=True)
    ]


def _judgements(score: Score | Unscored) -> Sequence[Judgement]:
    return score.judgements if isinstance(score, Score) else ()


def _changed(first: Sequence[Judgement], second: Sequence[Judgement], *, swapped: bool) -> list[bool]:
    changed: list[bool] = []
    for one, other in zip(first, second, strict=False):  # none where either is unscored
        back = (other.reference_units, other.predicted_units)
        lists = back if swapped else (back[1], back[0])
        for units, others in zip((one.predicted_units, one.reference_units), lists, strict=True):
            known = {unit.text: unit.label for unit in others}
            shared = [(unit.label, known[unit.text]) for unit in units if unit.text in known]
            changed.extend((a == "supported") != (b == "supported") if swapped else a != b for a, b in shared)
    return changed


def statement_label(units: Sequence[Unit]) -> Label:
    """Label of a statement that was judged as a caption of its own: that of its worst unit; no unit: not mentioned."""
    labels = {unit.label for unit in units}
    if "contradicted" in labels:
        return "contradicted"
    return "supported" if labels == {"supported"} else "not_mentioned"


def label_pairs(scored: Sequence[RowScores]) -> list[tuple[Label, Label]]:
    """(the judge's label, the right one) of each statement, once a judge of the panel."""
    return [
        (statement_label(judgement.predicted_units), statement.label)
        for one in scored
        for statement, score in zip(one.row.statements, one.statements, strict=True)
        for judgement in _judgements(score)
    ]


def kappa(pairs: Sequence[tuple[Label, Label]]) -> float | None:
    """Cohen's kappa: agreement beyond what the labels' frequencies give by chance. 1 is perfect, 0 is chance."""
    if not pairs:
        return None
    agreed = sum(said == right for said, right in pairs) / len(pairs)
    said, right = Counter(one for one, _ in pairs), Counter(one for _, one in pairs)
    chance = sum(said[label] * right[label] for label in get_args(Label)) / len(pairs) ** 2
    return (agreed - chance) / (1 - chance) if chance < 1 else None


def length_correlation(scored: Sequence[RowScores]) -> float | None:
    """Size of the Pearson correlation of a caption's number of words with its CSER less the mean CSER of its level."""
    by_level: Mapping[int, list[tuple[int, float]]] = defaultdict(list)
    for one in scored:
        for candidate, score in zip(one.row.candidates, one.captions, strict=True):
            if candidate.level is not None and isinstance(score, Score):
                by_level[candidate.level].append((len(words(candidate.caption)), score.value))
    lengths: list[float] = []
    errors: list[float] = []
    for captions in by_level.values():
        usual = statistics.fmean(value for _, value in captions)
        lengths.extend(length for length, _ in captions)
        errors.extend(value - usual for _, value in captions)
    try:
        return abs(statistics.correlation(lengths, errors))
    except statistics.StatisticsError:  # fewer than two captions, or all alike
        return None


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


def _share(values: Sequence[bool]) -> float | None:
    return sum(values) / len(values) if values else None
