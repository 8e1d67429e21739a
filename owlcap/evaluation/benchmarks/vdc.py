"""VDC with VDCscore: questions answered from the caption alone (AuroraCap, arXiv 2410.03051; github rese1f/aurora,
post_eval/process_vdc_result.py).

    answer(question; caption)                    1 call a question
    right answer ? answer -> yes or no, 0 to 5   1 call a question
    accuracy and score of a video = means over its questions -> of a category = means over its videos
    -> headline = plain mean over the five categories

The published script leaves out of a category's means every video whose accuracy or score is 0, and counts only the
exact word "yes". Ours keeps all videos, and reads "Yes" as yes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from owlcap.errors import ConfigError, DataError, JudgeError
from owlcap.evaluation.benchmarks.answers import OUTPUT_TOKENS, AnswerCheck
from owlcap.evaluation.benchmarks.files import json_lines, wrong_file
from owlcap.evaluation.benchmarks.statistics import mean, plain_mean
from owlcap.evaluation.benchmarks.values import Case, Columns, Cost, Evidence, ItemScore
from rewards.chat import ChatModel, InvalidReply, Question
from rewards.replies import THINK_CLOSE
from rewards.templates import load_template, quoted

NAME = "vdc"
ALLOWED = 'rows of a category\'s file: {"video id": [{"question": "...", "answer": "..."}, ...]}'
PROMPTS = {  # what a model is asked where it makes the captions; the published script draws from lists of its own
    "camera": "Describe the camera work of the video: shots, angles, movements and transitions.",
    "short": "Describe the video in one sentence.",
    "background": "Describe the background of the video: place, objects, weather and time of day.",
    "main_object": "Describe the main subject of the video: looks, actions, position and movements.",
    "detailed": "Describe the video in detail.",
}
CATEGORIES = tuple(PROMPTS)
ANSWER_TOKENS = 20


@dataclass(frozen=True, slots=True)
class VdcCase(Case):
    """A video in one category, with its questions and their answers."""

    questions: tuple[tuple[str, str], ...] = ()


def annotation_files(given: Sequence[Path]) -> dict[str, Path]:
    """Files by category: those given, and those of a folder. The name of a file says which category it is.

    Raises:
        ConfigError: a file of no category or two files of one.
    """
    files: dict[str, Path] = {}
    for path in (file for one in given for file in (sorted(one.glob("*.jsonl")) if one.is_dir() else [one])):
        category = next((name for name in CATEGORIES if name in path.stem), None)
        if category is None:
            if path in given:
                raise ConfigError(
                    "the file's name has no category of VDC", where=str(path), allowed=", ".join(CATEGORIES)
                )
            continue
        if category in files:
            raise ConfigError(f"two files of the category {category}", where=f"{files[category]}, {path}")
        files[category] = path
    if not files:
        where = ", ".join(map(str, given))
        raise ConfigError("no annotations of VDC", where=where, allowed=f"*.jsonl named after {', '.join(CATEGORIES)}")
    return {category: files[category] for category in CATEGORIES if category in files}


def read_cases(files: Mapping[str, Path]) -> tuple[list[VdcCase], list[str]]:
    """The videos of all categories, and notes on ids that a file has twice: as in the script, the last one counts.

    Raises:
        DataError: another benchmark's file, or a broken row; names file and line.
    """
    cases: list[VdcCase] = []
    notes = [f"absent: the category {name}" for name in CATEGORIES if name not in files]
    for category, path in files.items():
        found: dict[str, VdcCase] = {}
        repeated: list[str] = []
        for where, row in json_lines(path, ALLOWED):
            for video, questions in row.items():
                if video in found:
                    repeated.append(video)
                found[video] = _case(category, video, questions, where)
        if repeated:
            notes.append(f"{path.name}: ids that occur twice, the last one counts: {', '.join(repeated)}")
        cases += found.values()
    return cases, notes


def _case(category: str, video: str, questions: Any, where: str) -> VdcCase:
    if not isinstance(questions, list):
        raise wrong_file("VDC", where, ALLOWED, f"the value of {video!r} is no list of questions")
    try:
        pairs = tuple((question["question"], question["answer"]) for question in questions)
    except (TypeError, KeyError) as error:
        raise wrong_file("VDC", where, ALLOWED, f"a question of {video!r} lacks question or answer") from error
    if not all(isinstance(text, str) for pair in pairs for text in pair):
        raise DataError("question and answer must be texts", where=where, allowed=ALLOWED)
    return VdcCase(f"{category}/{video}", category, video, PROMPTS[category], "", video, pairs)


class Vdc:
    """The benchmark. `prompts` is the user's template folder, or None."""

    name = NAME

    def __init__(self, prompts: str | None = None) -> None:
        self._answer = load_template("answer", frozenset({"caption", "question"}), prompts)
        self._check = AnswerCheck(prompts)

    def cost(self, case: VdcCase, text: str) -> Cost:
        """Two calls a question; an empty caption is not asked about."""
        count = len(case.questions) if text.strip() else 0
        fixed = len(self._answer.text) + len(text) + self._check.num_characters + 100
        asked = sum(2 * len(question) + len(answer) for question, answer in case.questions)
        return Cost(2 * count, count * fixed + (asked if count else 0), count * (ANSWER_TOKENS + OUTPUT_TOKENS))

    async def judge(self, model: ChatModel, case: VdcCase, text: str) -> ItemScore:
        """See Benchmark. An empty caption answers nothing: accuracy and score are 0."""
        if not case.questions:
            raise JudgeError("the annotation has no questions")
        if not text.strip():
            return self._score(case, text, [(False, False, 0.0)] * len(case.questions), ())
        rows = await asyncio.gather(*(self._ask(model, text, *pair) for pair in case.questions))
        return self._score(case, text, [row[0] for row in rows], [row[1] for row in rows])

    def finish(self, scores: Sequence[ItemScore]) -> tuple[Sequence[ItemScore], Sequence[str]]:
        """Nothing needs all texts at once."""
        return scores, ()

    async def _ask(
        self, model: ChatModel, caption: str, question: str, right: str
    ) -> tuple[tuple[bool, bool, float], Evidence]:
        prompt = self._answer.render(caption=quoted(caption), question=quoted(question))
        given = (await model.ask(Question("answer", prompt, self._answer.hash, read_answer))).value
        verdict = await self._check.check(model, question, right, given)
        evidence = Evidence(f"{question} {right} | {given}", f"{'yes' if verdict.agrees else 'no'} {verdict.score:g}")
        return (verdict.agrees, verdict.said_yes, verdict.score), evidence

    def _score(
        self, case: VdcCase, text: str, found: Sequence[tuple[bool, bool, float]], evidence: Iterable[Evidence]
    ) -> ItemScore:
        names = ("accuracy", "accuracy_exact_yes", "score")
        values = {name: sum(one[place] for one in found) / len(found) for place, name in enumerate(names)}
        return ItemScore(case.id, case.group, values | {"questions": float(len(found))}, text, "", tuple(evidence))


def read_answer(text: str) -> str:
    """The answer of a reply, without thinking before it.

    Raises:
        InvalidReply: it is empty.
    """
    answer = text.rpartition(THINK_CLOSE)[2].strip()
    if not answer:
        raise InvalidReply("an empty answer")
    return answer


def figures(table: Columns) -> dict[str, float | None]:
    """Ours: all videos count."""
    return _aggregate(table, "accuracy", drop_zeros=False)


def official_figures(table: Columns) -> dict[str, float | None]:
    """The script's: videos with accuracy 0 or score 0 are dropped."""
    return _aggregate(table, "accuracy_exact_yes", drop_zeros=True)


def official_counts(values: Mapping[str, Any]) -> Any:
    """Whether the script takes a video into its means, by its values; of columns, one for each video."""
    return (values["accuracy_exact_yes"] != 0) & (values["score"] != 0)


def _aggregate(table: Columns, accuracy: str, *, drop_zeros: bool) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for group, values in table.items():
        kept = official_counts(values) if drop_zeros else np.full(len(values["score"]), True)
        found[f"{group}/accuracy"] = mean(values[accuracy][kept])
        found[f"{group}/score"] = mean(values["score"][kept])
    means = {name: plain_mean([found[f"{group}/{name}"] for group in table]) for name in ("accuracy", "score")}
    return means | found
