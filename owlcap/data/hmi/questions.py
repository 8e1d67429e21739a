"""Questions and answers about a clip, from its caption alone, in five categories, open or true-or-false."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from owlcap.config_data import DataPipelineRun, HmiSection
from owlcap.data.pipeline.step import Tools, template_of
from rewards.chat import InvalidReply, Question
from rewards.replies import read_list, read_object, read_text
from rewards.templates import PromptTemplate, quoted

Category = Literal["movement", "interaction", "motivation", "expression", "attributes"]
CATEGORIES: tuple[Category, ...] = get_args(Category)
PUBLISHED_SHARES = {
    "movement": 0.261,
    "interaction": 0.203,
    "motivation": 0.193,
    "expression": 0.174,
    "attributes": 0.169,
}
MODELS = ("writer",)


@dataclass(frozen=True, slots=True)
class Pair:
    """A question with its answer; `answer` is "True" or "False" where the kind is true_false."""

    category: Category
    kind: Literal["open", "true_false"]
    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class Mix:
    """How many questions of each kind one clip gets."""

    num_open: int
    num_true: int
    num_false: int


def mix_of(name: str, hmi: HmiSection) -> Mix:
    """The clip's mix: rounded up or down by chance, so that the shares hold over many clips. By seed and id."""
    draw = random.Random(f"{hmi.seed}:{name}")

    def rounded(value: float) -> int:
        return int(value) + (draw.random() < value - int(value))

    num_open = rounded(hmi.questions_a_clip * hmi.open_share)
    num_statements = hmi.questions_a_clip - num_open
    num_true = rounded(num_statements * hmi.true_share)
    return Mix(num_open, num_true, num_statements - num_true)


class Asking:
    """One caption: its questions."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._prompt = prompts_of(tools.run)["hmi_questions"]

    async def do(self, item: Mapping[str, Any]) -> dict[str, Any]:
        """See Step."""
        mix = mix_of(item["id"], self._tools.run.hmi)
        prompt = self._prompt.render(
            open=str(mix.num_open),
            statements=str(mix.num_true + mix.num_false),
            true=str(mix.num_true),
            caption=quoted(item["caption"]),
        )
        question = Question("questions", prompt, self._prompt.hash, read_pairs)
        pairs = (await self._tools.model("writer").ask(question)).value
        return {
            **item,
            "questions": [asdict(pair) for pair in pairs],
            "writer": self._tools.model("writer").name,
            "prompts": {**item["prompts"], "hmi_questions": self._prompt.hash},
        }


def read_pairs(text: str) -> tuple[Pair, ...]:
    """Questions of a reply {"questions": [{category, question, answer}]}, each once; true and false are booleans.

    Raises:
        InvalidReply: another form, an unknown category, or no question at all.
    """
    pairs: dict[str, Pair] = {}
    for number, found in enumerate(read_list(read_object(text), "questions")):
        if not isinstance(found, dict) or found.get("category") not in CATEGORIES:
            raise InvalidReply(f"questions[{number}] has no category of {', '.join(CATEGORIES)}")
        asked = read_text(found.get("question"), f"questions[{number}].question")
        answer = found.get("answer")
        if isinstance(answer, bool):
            pair = Pair(found["category"], "true_false", asked, str(answer))
        else:
            pair = Pair(found["category"], "open", asked, read_text(answer, f"questions[{number}].answer"))
        pairs.setdefault(" ".join(asked.lower().split()), pair)
    if not pairs:
        raise InvalidReply("no questions")
    return tuple(pairs.values())


def prompts_of(run: DataPipelineRun) -> dict[str, PromptTemplate]:
    """The prompt of this step by name."""
    return {"hmi_questions": template_of(run, "hmi_questions", "open", "statements", "true", "caption")}
