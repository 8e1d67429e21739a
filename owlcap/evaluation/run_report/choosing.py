"""Which steps and which groups of a run are shown: a long run has more captions than a page can hold."""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from owlcap.errors import ConfigError
from rl.step import GroupRow

STEPS = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?")
KINDS = {
    "best": "best of its step",
    "worst": "worst of its step",
    "spread": "widest spread of its step",
    "unscored": "has unscored captions",
    "failed": "gave no captions",
}


@dataclass(frozen=True, slots=True)
class Chosen:
    """A group to show, and why: names of KINDS, none where it only fills the step up."""

    row: GroupRow
    kinds: tuple[str, ...]


def parse_steps(text: str) -> tuple[range, ...]:
    """Ranges of steps from "1,50,100-120".

    Raises:
        ConfigError: it has another form.
    """
    matches = [STEPS.fullmatch(part.strip()) for part in text.split(",")]
    ranges = [range(int(one[1]), int(one[2] or one[1]) + 1) for one in matches if one]
    if len(ranges) < len(matches) or not all(ranges):
        raise ConfigError(
            f"not a list of steps: {text!r}", where="--steps", allowed="steps and ranges of steps: 1,50,100-120"
        )
    return tuple(ranges)


def spread_out(steps: Sequence[int], count: int) -> tuple[int, ...]:
    """So many of the steps at even distances, the first and the last among them."""
    if len(steps) <= count:
        return tuple(steps)
    if count == 1:
        return (steps[-1],)
    return tuple(steps[round(i * (len(steps) - 1) / (count - 1))] for i in range(count))


def rewards_of(row: GroupRow) -> list[float]:
    """Rewards of the captions that have one."""
    return [one.reward for one in row.completions if one.reward is not None]


def choose_groups(rows: Sequence[GroupRow], count: int) -> tuple[Chosen, ...]:
    """At most so many groups of a step: best, worst, widest, one with unscored captions, a failed one, then others."""
    kinds: dict[int, list[str]] = {}
    scored = [(rewards_of(row), place) for place, row in enumerate(rows) if rewards_of(row)]
    if scored:
        means = [(statistics.fmean(rewards), place) for rewards, place in scored]
        kinds.setdefault(max(means, key=lambda one: one[0])[1], []).append("best")
        kinds.setdefault(min(means, key=lambda one: one[0])[1], []).append("worst")
        spreads = [(statistics.pstdev(rewards), place) for rewards, place in scored]
        kinds.setdefault(max(spreads, key=lambda one: one[0])[1], []).append("spread")
    for place, row in enumerate(rows):
        if row.failure is not None:
            kinds.setdefault(place, []).append("failed")
        elif len(rewards_of(row)) < len(row.completions):
            kinds.setdefault(place, []).append("unscored")
    rank = {kind: number for number, kind in enumerate(KINDS)}
    # One of each kind before a second of any.
    seen: dict[str, int] = {}
    order: list[tuple[int, int, int]] = []
    for place in range(len(rows)):
        kind = kinds.get(place, [""])[0]
        order.append((seen.get(kind, 0) if kind else len(rows), rank.get(kind, len(rank)), place))
        seen[kind] = seen.get(kind, 0) + 1
    return tuple(Chosen(rows[place], tuple(kinds.get(place, ()))) for _, _, place in sorted(order)[:count])
