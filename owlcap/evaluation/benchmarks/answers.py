"""Is an answer right? The question that VDC and HMI-Bench ask their judge: {"pred": yes or no, "score": 0 to 5}."""

from __future__ import annotations

import math
from dataclasses import dataclass

from owlcap.evaluation.benchmarks.published_replies import read_dict
from rewards.chat import ChatModel, InvalidReply, Question
from rewards.templates import load_template, quoted

MAX_SCORE = 5.0
OUTPUT_TOKENS = 20  # of a verdict


@dataclass(frozen=True, slots=True)
class Verdict:
    """A judge's comparison of two answers. `said_yes` is exact, as the published script compares it."""

    agrees: bool
    said_yes: bool
    score: float  # 0 to 5


class AnswerCheck:
    """Compares answers with the correct ones. `prompts` is the user's template folder, or None."""

    def __init__(self, prompts: str | None = None) -> None:
        self._template = load_template("answer_check", frozenset({"question", "answer", "given"}), prompts)

    @property
    def num_characters(self) -> int:
        """Of the prompt without its values."""
        return len(self._template.text)

    async def check(self, model: ChatModel, question: str, answer: str, given: str) -> Verdict:
        """Ask the judge.

        Raises:
            JudgeError: from the model.
        """
        prompt = self._template.render(question=quoted(question), answer=quoted(answer), given=quoted(given))
        asked = Question("answer_check", prompt, self._template.hash, read_verdict)
        return (await model.ask(asked)).value


def read_verdict(text: str) -> Verdict:
    """The verdict of a reply.

    Raises:
        InvalidReply: another form, pred neither yes nor no, a score outside 0 to 5.
    """
    reply = read_dict(text)
    pred, score = reply.get("pred"), reply.get("score")
    if not isinstance(pred, str) or pred.strip().lower() not in ("yes", "no"):
        raise InvalidReply(f"pred is {str(pred)[:40]!r}, not yes or no")
    try:
        value = float(score) if isinstance(score, int | float | str) and not isinstance(score, bool) else math.nan
    except ValueError:
        value = math.nan
    if not 0.0 <= value <= MAX_SCORE:
        raise InvalidReply(f"score is {str(score)[:40]!r}, not a number from 0 to 5")
    return Verdict(pred.strip().lower() == "yes", pred == "yes", value)
