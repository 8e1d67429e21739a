"""DREAM-1K: events of captions, entailed or not (AutoDQ; Tarsier, arXiv 2407.00634; github bytedance/tarsier,
evaluation/metrics/evaluate_dream_gpt.py).

    events(caption)               1 call; the annotations have the reference's
    reference's events ? caption  1 call     recall    = entailed / all
    caption's events ? reference  1 call     precision = entailed / all
    mean recall and mean precision of each subset -> mean over subsets -> F1 of the two means
    the same over all clips with so many subjects, shots or events, in the script's bins

Everything is lower-cased before it is judged. The published script gives an empty list of events the ratio 1, so that
a caption in which nothing happens has perfect precision. Ours is 0 for the caption's list, and leaves a clip without
reference events out of the recall. Neutral events count in neither ratio.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from owlcap.errors import DataError
from owlcap.evaluation.benchmarks.files import json_lines, wrong_file
from owlcap.evaluation.benchmarks.published_replies import read_dict
from owlcap.evaluation.benchmarks.statistics import mean, plain_mean
from owlcap.evaluation.benchmarks.values import Case, Columns, Cost, Evidence, ItemScore
from rewards.chat import ChatModel, InvalidReply, Question
from rewards.templates import PromptTemplate, load_template, numbered, quoted

NAME = "dream1k"
PREFIX = "DREAM/"
SUBSETS = ("movie_animation", "movie_live_action", "vertical_video", "videvo", "youtube")
RELATIONS = ("entailment", "neutral", "contradiction")
ALLOWED = (
    'rows of DREAM-1k.jsonl: {"idx", "dataset": "DREAM/...", "messages": [..., {"content": [{"reference"}]}], '
    '"extra_info": {"events": [...]}}'
)
BINS: Mapping[str, Mapping[str, float]] = {  # of the clip's counts: the bins' names and the largest count in each
    "subjects": {"0-1": 1, "2": 2, "3": 3, "4+": np.inf},
    "shots": {"0-1": 1, "2": 2, "3": 3, "4+": np.inf},
    "events": {"0-3": 3, "4-5": 5, "6-7": 7, "8+": np.inf},
}
TOKENS_AN_EVENT = 40  # of a reply: the event, its relation and the reason


@dataclass(frozen=True, slots=True)
class DreamCase(Case):
    """A clip of DREAM-1K with the events of its reference; None: they are to be extracted.

    `counts` are the annotations' numbers of subjects, shots and events, as far as they are there.
    """

    events: tuple[str, ...] | None = None
    counts: tuple[tuple[str, int], ...] = ()


def read_cases(path: Path) -> list[DreamCase]:
    """The clips of the annotation file.

    Raises:
        DataError: another benchmark's file, a broken row, an id twice; names file and line.
    """
    cases: dict[str, DreamCase] = {}
    for where, row in json_lines(path, ALLOWED):
        case = _case(row, where)
        if case.id in cases:
            raise DataError(f"the id {case.id!r} occurs twice", where=where, cure="keep one row a clip")
        cases[case.id] = case
    return list(cases.values())


def _case(row: Mapping[str, Any], where: str) -> DreamCase:
    dataset, id_ = row.get("dataset"), row.get("idx")
    if not isinstance(dataset, str) or not dataset.startswith(PREFIX):
        raise wrong_file("DREAM-1K", where, ALLOWED, f'"dataset" does not begin with {PREFIX!r}')
    try:
        parts = [part for message in row["messages"] for part in message["content"]]
        references = [part["reference"] for part in parts if part.get("reference")]
        prompts = [part["text"] for part in parts if part.get("type") == "text" and part.get("text")]
        extra = row.get("extra_info", {})
        events = extra.get("events")
        counts = [(name, extra.get(f"n_{name}")) for name in BINS]
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError("the row has another form", where=where, allowed=ALLOWED) from error
    if not isinstance(id_, int | str) or isinstance(id_, bool) or len(references) != 1:
        raise DataError("a row needs an idx and one reference", where=where, allowed=ALLOWED)
    if events is not None and not (isinstance(events, list) and all(isinstance(one, str) for one in events)):
        raise DataError("extra_info.events is no list of texts", where=where, allowed=ALLOWED)
    return DreamCase(
        id=str(id_),
        group=dataset.removeprefix(PREFIX),
        video=str(row.get("vid", id_)),
        prompt=prompts[0] if prompts else "Describe the video in detail.",
        reference=str(references[0]),
        shared_id=str(id_),
        events=None if events is None else tuple(events),
        counts=tuple((name, count) for name, count in counts if isinstance(count, int)),
    )


class Dream1k:
    """The benchmark. `prompts` is the user's template folder, or None."""

    name = NAME

    def __init__(self, prompts: str | None = None) -> None:
        self._events = load_template("dream_events", frozenset({"caption"}), prompts)
        self._match = load_template("dream_match", frozenset({"caption", "statements"}), prompts)

    def cost(self, case: DreamCase, text: str) -> Cost:
        """Three calls, one more where the reference's events are to be extracted."""
        events = 10 if case.events is None else len(case.events)
        extractions = (1 if text.strip() else 0) + (case.events is None)
        characters = extractions * len(self._events.text) + 2 * len(self._match.text)
        characters += 2 * (len(text) + len(case.reference)) + 40 * (events + 10)
        return Cost(2 + extractions, characters, TOKENS_AN_EVENT * (events + 10) + 15 * 10 * extractions)

    async def judge(self, model: ChatModel, case: DreamCase, text: str) -> ItemScore:
        """See Benchmark."""
        said, truth = text.lower(), case.reference.lower()
        known = self._known(model, case, truth)
        said_events, truth_events = await asyncio.gather(self._extract(model, said), known)
        recalled, precise = await asyncio.gather(
            self._relations(model, truth_events, said), self._relations(model, said_events, truth)
        )
        evidence = [Evidence(f"reference: {event}", found) for event, found in zip(truth_events, recalled, strict=True)]
        evidence += [Evidence(f"caption: {event}", found) for event, found in zip(said_events, precise, strict=True)]
        values = {name: float(count) for name, count in case.counts} | {
            "reference_events": float(len(truth_events)),
            "reference_entailed": float(recalled.count("entailment")),
            "reference_contradicted": float(recalled.count("contradiction")),
            "caption_events": float(len(said_events)),
            "caption_entailed": float(precise.count("entailment")),
            "caption_contradicted": float(precise.count("contradiction")),
        }
        return ItemScore(case.id, case.group, values, text, case.reference, tuple(evidence))

    def finish(self, scores: Sequence[ItemScore]) -> tuple[Sequence[ItemScore], Sequence[str]]:
        """Nothing needs all texts at once."""
        return scores, ()

    async def _known(self, model: ChatModel, case: DreamCase, truth: str) -> tuple[str, ...]:
        return await self._extract(model, truth) if case.events is None else case.events

    async def _extract(self, model: ChatModel, text: str) -> tuple[str, ...]:
        """At most 10 are asked for; as in the script, what the judge lists counts. Of an empty text: none."""
        if not text.strip():
            return ()
        prompt = self._events.render(caption=quoted(text.replace('"', "'")))
        return (await model.ask(_question("dream_events", prompt, self._events, read_events))).value

    async def _relations(self, model: ChatModel, events: Sequence[str], text: str) -> list[str]:
        """An empty text entails nothing; the judge is not asked about it."""
        if not events or not text.strip():
            return ["neutral"] * len(events)
        prompt = self._match.render(caption=quoted(text), statements=numbered(tuple(events)))
        read = partial(read_relations, count=len(events))
        return list((await model.ask(_question("dream_match", prompt, self._match, read))).value)


def _question(kind: str, prompt: str, template: PromptTemplate, read: Any) -> Question[tuple[str, ...]]:
    return Question(kind=kind, prompt=prompt, template_hash=template.hash, read=read)


def read_events(text: str) -> tuple[str, ...]:
    """Events of a reply {"events": [text, ...]}.

    Raises:
        InvalidReply: another form.
    """
    events = read_dict(text).get("events")
    if not isinstance(events, list) or not all(isinstance(event, str) for event in events):
        raise InvalidReply("events is no list of texts")
    return tuple(events)


def read_relations(text: str, *, count: int) -> tuple[str, ...]:
    """Relations of a reply {"events": [{"event", "relationship", "reason"}, ...]}, one an event.

    Raises:
        InvalidReply: another form, another number of events, an unknown relation.
    """
    events = read_dict(text).get("events")
    if not isinstance(events, list) or len(events) != count:
        raise InvalidReply(f"{len(events) if isinstance(events, list) else 'no'} events for {count}")
    found = [str(event.get("relationship")).strip().lower() if isinstance(event, dict) else "" for event in events]
    odd = [relation for relation in found if relation not in RELATIONS]
    if odd:
        raise InvalidReply(f"a relationship is {odd[0][:40]!r}, not one of {', '.join(RELATIONS)}")
    return tuple(found)


def figures(table: Columns) -> dict[str, float | None]:
    """Ours: no events said is precision 0; a reference without events has no recall; F1 of two zeros is 0."""
    return _aggregate(table, empty_recall=np.nan, empty_precision=0.0, f1_of_zeros=0.0)


def official_figures(table: Columns) -> dict[str, float | None]:
    """The script's: an empty list has ratio 1; F1 of two zeros is not a number."""
    return _aggregate(table, empty_recall=1.0, empty_precision=1.0, f1_of_zeros=None)


def splits(scores: Sequence[ItemScore]) -> list[list[ItemScore]]:
    """The items grouped anew by the bin of each count, such as "shots 2", as in the script's further tables."""
    return [
        [
            replace(score, group=f"{name} {next(bin for bin, most in bins.items() if score.values[name] <= most)}")
            for score in scores
            if name in score.values
        ]
        for name, bins in BINS.items()
    ]


def _aggregate(
    table: Columns, *, empty_recall: float, empty_precision: float, f1_of_zeros: float | None
) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for group, values in sorted(table.items()):
        recall = _ratio(values["reference_entailed"], values["reference_events"], empty_recall)
        precision = _ratio(values["caption_entailed"], values["caption_events"], empty_precision)
        found |= _three(f"{group}/", mean(recall), mean(precision), f1_of_zeros)
    recalls, precisions = ([found[f"{group}/{name}"] for group in table] for name in ("recall", "precision"))
    return _three("", plain_mean(recalls), plain_mean(precisions), f1_of_zeros) | found


def _ratio(entailed: np.ndarray, events: np.ndarray, empty: float) -> np.ndarray:
    return np.where(events > 0, entailed / np.maximum(events, 1), empty)


def _three(
    prefix: str, recall: float | None, precision: float | None, of_zeros: float | None
) -> dict[str, float | None]:
    if recall is None or precision is None:
        f1 = None
    else:
        f1 = 2 * recall * precision / (recall + precision) if recall + precision else of_zeros
    return {f"{prefix}f1": f1, f"{prefix}recall": recall, f"{prefix}precision": precision}
