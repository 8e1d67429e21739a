"""Saved captions scored again, without a model: `owlcap score`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from owlcap.errors import DataError
from owlcap.types import RewardBreakdown, Sample, ScoredRollout
from rewards.suite import RewardSuite

ALLOWED = '{"id", "reference", "caption"}, with "captions": [...], or a run\'s rollouts row (completions[].text)'


@dataclass(frozen=True, slots=True)
class SavedGroup:
    """Captions of one clip, as saved."""

    id: str
    reference: str
    captions: tuple[str, ...]


def read_groups(path: Path) -> list[SavedGroup]:
    """The groups of a JSONL file; rollouts rows of failed prompts are left out.

    Raises:
        DataError: the file cannot be read, or a row has another form; names file and line.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the captions cannot be read: {error}", where=str(path)) from error
    groups = [_group(line, f"{path}:{number}") for number, line in enumerate(lines, 1) if line.strip()]
    groups = [group for group in groups if group.captions]
    if not groups:
        raise DataError("there are no captions", where=str(path), allowed=f"one a line: {ALLOWED}")
    return groups


async def score_groups(
    suite: RewardSuite, groups: Sequence[SavedGroup], each: Callable[[int, tuple[ScoredRollout, ...]], None]
) -> None:
    """Score all groups at the same time and close the suite; `each` gets a group's place and scores as they come.

    Raises:
        RewardError: a reward broke its contract.
    """
    import asyncio

    async def one(place: int, group: SavedGroup) -> None:
        sample = Sample(group.id, video="", prompt="", caption=group.reference, reference=group.reference)
        each(place, await suite.score_group(sample, group.captions))

    try:
        async with asyncio.TaskGroup() as tasks:
            for place, group in enumerate(groups):
                tasks.create_task(one(place, group))
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from failed
    finally:
        await suite.close()


def result_row(group: SavedGroup, scores: Sequence[ScoredRollout]) -> str:
    """A group's results with their evidence, one line of JSON."""
    results = [
        {"caption": caption, "unscored": None, **asdict(score)}
        if isinstance(score, RewardBreakdown)
        else {"caption": caption, "total": None, "unscored": f"{score.reward}: {score.reason}"}
        for caption, score in zip(group.captions, scores, strict=True)
    ]
    return json.dumps({"id": group.id, "reference": group.reference, "results": results}, ensure_ascii=False)


def summary(scores: Sequence[ScoredRollout]) -> str:
    """Means with standard errors over captions, and the reasons of the unscored."""
    scored = [score for score in scores if isinstance(score, RewardBreakdown)]
    columns: dict[str, list[float]] = {}
    for score in scored:
        parts = {f"reward/{name}": part.value for name, part in score.parts.items()}
        for name, value in {"total": score.total, **parts, **score.metrics}.items():
            columns.setdefault(name, []).append(value)
    width = max((len(name) for name in columns), default=0)
    lines = [f"{name:<{width}}  {_figure(values)}  n={len(values)}" for name, values in columns.items()]
    lines.append(f"{len(scored)} of {len(scores)} captions scored")
    reasons = Counter(f"{score.reward}: {score.reason}" for score in scores if not isinstance(score, RewardBreakdown))
    return "\n".join([*lines, *(f"unscored, {count}: {reason}" for reason, count in reasons.most_common())])


def _figure(values: Sequence[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:.3f}"
    return f"{fmean(values):.3f} ± {stdev(values) / len(values) ** 0.5:.3f}"


def _group(line: str, where: str) -> SavedGroup:
    try:
        row = json.loads(line)
        id, reference = row["id"], row["reference"]
        captions = list(_captions(row))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError("the row has another form", where=where, allowed=ALLOWED) from error
    if not all(isinstance(text, str) for text in (id, reference, *captions)):
        raise DataError("id, reference and captions must be strings", where=where, allowed=ALLOWED)
    return SavedGroup(id, reference, tuple(captions))


def _captions(row: dict[str, Any]) -> Iterator[Any]:
    if "completions" in row:
        completions = row["completions"]
        if not isinstance(completions, list):
            raise TypeError
        yield from (completion["text"] for completion in completions)
    elif "captions" in row:
        captions = row["captions"]
        if not isinstance(captions, list):
            raise TypeError
        yield from captions
    else:
        yield row["caption"]
