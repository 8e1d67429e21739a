"""HMI-Bench, captions: metrics against the reference, and five respects that a judge rates from 0 to 10.

Source: M-ACM (arXiv 2510.24767); its scale is not published: 0 to 10 is our reading. Overall is the plain mean of the
five means.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from owlcap.errors import DataError
from owlcap.evaluation.benchmarks.files import json_array, wrong_file
from owlcap.evaluation.benchmarks.statistics import mean, plain_mean
from owlcap.evaluation.benchmarks.text_metrics import add_text_values, text_figures
from owlcap.evaluation.benchmarks.values import Case, Columns, Cost, Evidence, ItemScore
from rewards.chat import ChatModel, InvalidReply, Question
from rewards.replies import read_object
from rewards.staged import object_schema
from rewards.templates import load_template, quoted

NAME = "hmi-bench"
DIMENSIONS = ("details", "interaction", "motivation", "micro_expression", "attributes")
MAX_RATING = 10
ALLOWED = 'HMI-Bench.json: [{"video": "videos/...", "caption": "..."}, ...]'
PROMPT = "Describe the person's movements in the video in detail."
OUTPUT_TOKENS = 50


def read_cases(path: Path) -> list[Case]:
    """The clips of HMI-Bench.json.

    Raises:
        DataError: another file, a broken row, a video twice; names file and item.
    """
    cases: dict[str, Case] = {}
    for where, row in json_array(path, ALLOWED):
        video, caption = row.get("video"), row.get("caption")
        if not isinstance(video, str) or not isinstance(caption, str) or not caption.strip():
            raise wrong_file("HMI-Bench", where, ALLOWED, "the item lacks video or caption")
        if video in cases:
            raise DataError(f"the video {video!r} occurs twice", where=where, cure="keep one item a video")
        cases[video] = Case(video, "captions", video, PROMPT, caption, video)
    return list(cases.values())


class HmiCaptions:
    """The benchmark. `prompts` is the user's template folder, or None."""

    name = NAME

    def __init__(self, prompts: str | None = None) -> None:
        self._template = load_template("motion_dimensions", frozenset({"reference", "caption"}), prompts)

    def cost(self, case: Case, text: str) -> Cost:
        """One call; none for an empty caption."""
        if not text.strip():
            return Cost()
        return Cost(1, len(self._template.text) + len(text) + len(case.reference), OUTPUT_TOKENS)

    async def judge(self, model: ChatModel, case: Case, text: str) -> ItemScore:
        """See Benchmark. An empty caption is rated 0 throughout."""
        nothing: dict[str, float] = dict.fromkeys(DIMENSIONS, 0.0)
        ratings = await self._ask(model, case, text) if text.strip() else nothing
        evidence = tuple(Evidence(name, f"{value:g} of {MAX_RATING}") for name, value in ratings.items())
        return ItemScore(case.id, case.group, ratings, text, case.reference, evidence)

    def finish(self, scores: Sequence[ItemScore]) -> tuple[Sequence[ItemScore], Sequence[str]]:
        """Caption metrics, some of which need all captions."""
        return add_text_values(scores)

    async def _ask(self, model: ChatModel, case: Case, text: str) -> dict[str, float]:
        prompt = self._template.render(reference=quoted(case.reference), caption=quoted(text))
        rating = {"type": "integer", "minimum": 0, "maximum": MAX_RATING}
        schema = object_schema(dict.fromkeys(DIMENSIONS, rating))
        asked = Question("motion_dimensions", prompt, self._template.hash, read_ratings, schema)
        return (await model.ask(asked)).value


def read_ratings(text: str) -> dict[str, float]:
    """The five ratings of a reply.

    Raises:
        InvalidReply: one is missing, or no number from 0 to 10.
    """
    reply = read_object(text)
    found: dict[str, float] = {}
    for name in DIMENSIONS:
        value = reply.get(name)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= MAX_RATING:
            raise InvalidReply(f"{name} is {str(value)[:40]!r}, not a number from 0 to {MAX_RATING}")
        found[name] = float(value)
    return found


def figures(table: Columns) -> dict[str, float | None]:
    """Overall, the five means, and the caption metrics."""
    (values,) = table.values() or ({},)
    means = {name: mean(values[name]) for name in DIMENSIONS if name in values}
    return {"overall": plain_mean(list(means.values())), **means, **text_figures(table)}
