"""A group as the page shows it: captions from the highest reward to the lowest, with their units marked."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from owlcap.evaluation.run_report.choosing import Chosen, rewards_of
from owlcap.evaluation.run_report.frames import Strip
from owlcap.evaluation.run_report.marks import Span, Stretch, find_predicted, find_reference, stretches
from owlcap.types import Judgement, Label, Tag, Unit
from rl.step import CompletionRow, GroupRow

MAX_CHARACTERS = 20_000  # of a caption or a reference
MAX_UNITS = 200  # of one list
MAX_REPLY = 4_000  # characters


@dataclass(frozen=True, slots=True)
class UnitView:
    """One unit in a list; `placed` says whether it is marked in the text."""

    number: int
    text: str
    tag: Tag
    label: Label
    placed: bool


@dataclass(frozen=True, slots=True)
class Reply:
    """A judge's reply; None where its text is not kept any more."""

    id: str
    text: str | None


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one judge said of a caption for one reward."""

    reward: str
    judge: str
    units: tuple[UnitView, ...]
    reference_units: tuple[UnitView, ...]
    reference: tuple[Stretch, ...]
    num_units_cut: int  # beyond MAX_UNITS, of both lists
    replies: tuple[Reply, ...]


@dataclass(frozen=True, slots=True)
class CaptionView:
    """One caption. The units marked in its text are those of the first evidence that has any."""

    number: int  # its place in the group, from 1
    row: CompletionRow
    text: tuple[Stretch, ...]
    marked: tuple[UnitView, ...]
    num_cut: int  # characters beyond MAX_CHARACTERS
    evidence: tuple[Evidence, ...]
    kinds: tuple[str, ...]  # "supported-motion" and so on, of its own units: what the filters ask for


@dataclass(frozen=True, slots=True)
class GroupView:
    """One group of captions."""

    row: GroupRow
    kinds: tuple[str, ...]
    strip: Strip
    reference: str
    captions: tuple[CaptionView, ...]
    mean: float | None
    spread: float | None  # standard deviation of the rewards


def reply_ids(chosen: Iterable[Chosen]) -> set[str]:
    """Of every judge's reply that the groups rest on."""
    return {
        id
        for one in chosen
        for completion in one.row.completions
        for part in completion.parts.values()
        for judgement in part.judgements
        for id in judgement.reply_ids
    }


def group_view(chosen: Chosen, strip: Strip, replies: Mapping[str, str]) -> GroupView:
    """Everything that is shown of a group."""
    row = chosen.row
    reference = row.reference[:MAX_CHARACTERS]
    captions = [_caption(number, one, reference, replies) for number, one in enumerate(row.completions, 1)]
    captions.sort(key=lambda one: (one.row.reward is None, -(one.row.reward or 0.0)))
    rewards = rewards_of(row)
    return GroupView(
        row=row,
        kinds=chosen.kinds,
        strip=strip,
        reference=reference,
        captions=tuple(captions),
        mean=statistics.fmean(rewards) if rewards else None,
        spread=statistics.stdev(rewards) if len(rewards) > 1 else None,
    )


def _caption(number: int, row: CompletionRow, reference: str, replies: Mapping[str, str]) -> CaptionView:
    text = row.text[:MAX_CHARACTERS]
    judged = [(name, judgement) for name, part in row.parts.items() for judgement in part.judgements]
    found = [find_predicted(text, judgement)[:MAX_UNITS] for _, judgement in judged]
    evidence = [
        _evidence(name, judgement, spans, reference, replies)
        for (name, judgement), spans in zip(judged, found, strict=True)
    ]
    marked, spans = next(
        ((one.units, spans) for one, spans in zip(evidence, found, strict=True) if one.units), ((), ())
    )
    kinds = {f"{unit.label}-{unit.tag}" for one in evidence for unit in one.units}
    return CaptionView(
        number=number,
        row=row,
        text=stretches(text, spans),
        marked=marked,
        num_cut=len(row.text) - len(text),
        evidence=tuple(evidence),
        kinds=tuple(sorted(kinds)),
    )


def _evidence(
    reward: str, judgement: Judgement, spans: Sequence[Span | None], reference: str, replies: Mapping[str, str]
) -> Evidence:
    reference_spans = find_reference(reference, judgement)[:MAX_UNITS]
    num_units = len(judgement.predicted_units) + len(judgement.reference_units)
    return Evidence(
        reward=reward,
        judge=judgement.judge,
        units=_units(judgement.predicted_units, spans),
        reference_units=_units(judgement.reference_units, reference_spans),
        reference=stretches(reference, reference_spans),
        num_units_cut=num_units - len(spans) - len(reference_spans),
        replies=tuple(_reply(id, replies) for id in dict.fromkeys(judgement.reply_ids)),
    )


def _reply(id: str, replies: Mapping[str, str]) -> Reply:
    text = replies.get(id)
    return Reply(id, None if text is None else text[:MAX_REPLY])


def _units(units: Sequence[Unit], spans: Sequence[Span | None]) -> tuple[UnitView, ...]:
    return tuple(
        UnitView(number, unit.text, unit.tag, unit.label, span is not None)
        for number, (unit, span) in enumerate(zip(units, spans, strict=False), 1)  # spans: as many as are shown
    )
