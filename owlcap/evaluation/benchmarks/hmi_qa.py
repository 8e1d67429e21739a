"""HMI-Bench, questions about the videos: open ones, whose answers a judge compares, and true/false ones.

Source: M-ACM (arXiv 2510.24767): 8,647 open and 2,537 true/false questions. More true/false statements are true than
false, so that always saying "true" looks good: balanced accuracy is the mean of the accuracies on the true and on the
false ones. A question is taken for a true/false one when its right answer begins with True or False (our reading).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from owlcap.errors import DataError
from owlcap.evaluation.benchmarks.answers import OUTPUT_TOKENS, AnswerCheck
from owlcap.evaluation.benchmarks.files import json_array, wrong_file
from owlcap.evaluation.benchmarks.statistics import mean, plain_mean
from owlcap.evaluation.benchmarks.values import Case, Columns, Cost, Evidence, ItemScore
from rewards.chat import ChatModel

NAME = "hmi-bench-qa"
OPEN, TRUE_FALSE = "open", "true_false"
LISTS = ("QA", "qa", "qa_pairs", "questions")
ALLOWED = 'HMI-Bench-QA.json: [{"video": "videos/...", "QA": [{"question": "...", "answer": "..."}, ...]}, ...]'
FIRST_WORD = re.compile(r"\W*([^\W\d_]+)")
TRUE_WORDS, FALSE_WORDS = ("true", "yes", "correct", "right"), ("false", "no", "incorrect", "wrong")


@dataclass(frozen=True, slots=True)
class QaCase(Case):
    """One question about a video; `reference` is the right answer."""

    question: str = ""


def read_cases(path: Path) -> tuple[list[QaCase], list[str]]:
    """The questions of HMI-Bench-QA.json, their ids "video#1", "video#2", ...; and notes on videos without questions.

    Raises:
        DataError: another file, a broken row, a video twice; names file and item.
    """
    cases: list[QaCase] = []
    seen: set[str] = set()
    notes: list[str] = []
    for where, row in json_array(path, ALLOWED):
        video = row.get("video")
        questions = next((row[name] for name in LISTS if name in row), None)
        if not isinstance(video, str) or not isinstance(questions, list):
            raise wrong_file("HMI-Bench (questions)", where, ALLOWED, "the item lacks video or its list of questions")
        if video in seen:
            raise DataError(f"the video {video!r} occurs twice", where=where, cure="keep one item a video")
        seen.add(video)
        if not questions:
            notes.append(f"absent: questions of {video} ({where})")
        cases += [_case(video, number, question, where) for number, question in enumerate(questions, 1)]
    if not cases:
        raise DataError("no video has a question", where=str(path), allowed=ALLOWED)
    return cases, notes


def _case(video: str, number: int, row: Any, where: str) -> QaCase:
    fields: Mapping[str, Any] = row if isinstance(row, dict) else {}
    question, answer = fields.get("question"), fields.get("answer")
    if not isinstance(question, str) or not isinstance(answer, str):
        raise DataError(f"question {number} lacks question or answer", where=where, allowed=ALLOWED)
    id_ = f"{video}#{number}"
    if (right := _first_word(answer)) in ("true", "false"):
        prompt = f"{question}\nAnswer with the one word true or false."
        return QaCase(id_, TRUE_FALSE, video, prompt, right, id_, question)
    return QaCase(id_, OPEN, video, f"{question}\nAnswer with a short sentence.", answer, id_, question)


class HmiQa:
    """The benchmark. `prompts` is the user's template folder, or None."""

    name = NAME

    def __init__(self, prompts: str | None = None) -> None:
        self._check = AnswerCheck(prompts)

    def cost(self, case: QaCase, text: str) -> Cost:
        """One call for an open question, none for a true/false one or an empty answer."""
        if case.group == TRUE_FALSE or not text.strip():
            return Cost()
        characters = self._check.num_characters + len(case.question) + len(case.reference) + len(text)
        return Cost(1, characters, OUTPUT_TOKENS)

    async def judge(self, model: ChatModel, case: QaCase, text: str) -> ItemScore:
        """See Benchmark. An answer that says neither true nor false is wrong, and so is an empty one."""
        if case.group == TRUE_FALSE:
            said = said_truth(text)
            values = {"correct": float(said == (case.reference == "true")), "truth": float(case.reference == "true")}
            verdict = "neither true nor false" if said is None else str(said).lower()
        elif not text.strip():
            values, verdict = {"correct": 0.0, "score": 0.0}, "empty"
        else:
            found = await self._check.check(model, case.question, case.reference, text)
            values = {"correct": float(found.agrees), "score": found.score}
            verdict = f"{'yes' if found.agrees else 'no'} {found.score:g}"
        evidence = (Evidence(case.question, verdict),)
        return ItemScore(case.id, case.group, values, text, case.reference, evidence)

    def finish(self, scores: Sequence[ItemScore]) -> tuple[Sequence[ItemScore], Sequence[str]]:
        """Nothing needs all texts at once."""
        return scores, ()


def said_truth(answer: str) -> bool | None:
    """What an answer says of a statement: its first word decides."""
    word = _first_word(answer)
    return True if word in TRUE_WORDS else False if word in FALSE_WORDS else None


def _first_word(text: str) -> str:
    found = FIRST_WORD.match(text)
    return found[1].lower() if found else ""


def figures(table: Columns) -> dict[str, float | None]:
    """Accuracy of all questions, of each kind, and balanced accuracy of the true/false ones."""
    found: dict[str, float | None] = {}
    if table:
        found["accuracy"] = mean(np.concatenate([values["correct"] for values in table.values()]))
    if OPEN in table:
        found |= {f"{OPEN}/accuracy": mean(table[OPEN]["correct"]), f"{OPEN}/score": mean(table[OPEN]["score"])}
    if TRUE_FALSE in table:
        correct, truth = table[TRUE_FALSE]["correct"], table[TRUE_FALSE]["truth"]
        sides = [mean(correct[truth == side]) for side in (1.0, 0.0)]
        balanced = None if None in sides else plain_mean(sides)
        names = ("accuracy", "accuracy_on_true", "accuracy_on_false", "balanced_accuracy")
        values = (mean(correct), *sides, balanced)
        found |= {f"{TRUE_FALSE}/{name}": value for name, value in zip(names, values, strict=True)}
    return found
