"""Fuzzed replies of a judge through the readers of both protocols, and through the whole reward.

    python benchmarks/judge_fuzz.py [--examples 10000]

Replies are right ones that are cut, doubled, wrapped in text, given wrong labels, types and counts, or random text and
random JSON. Each must be read as what it says or refused as an InvalidReply; a refused one must leave its caption
Unscored. Anything else (another exception, a refused reply that was scored) ends the run with hypothesis's shortest
example. Prints a table and, as the last line, one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections import Counter
from typing import TypeVar

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from owlcap.config import RewardsSection
from owlcap.errors import JudgeError
from owlcap.types import Judgement, Sample, Score, Unscored
from rewards.chat import Answer, InvalidReply, Question, Usage
from rewards.cser import CserReward
from rewards.joint import JointJudge
from rewards.judges import Judges
from rewards.staged import StagedJudge

T = TypeVar("T")
SAMPLE = Sample("clip-1", "", "", "", "A man waves. The shirt is red.")
STATED = st.sampled_from(["a man waves", "the shirt is red", "a dog barks"])
GOOD = st.one_of(
    st.fixed_dictionaries({"motion": st.lists(STATED, max_size=2), "detail": st.lists(STATED, max_size=2)}),
    st.integers(1, 4).map(lambda count: {str(number): "supported" for number in range(1, count + 1)}),
    st.fixed_dictionaries(dict.fromkeys(("Pred_units", "Gt_units"), st.just([{"units": "x", "response": "Yes"}]))),
)
LABELS = st.sampled_from(["supported", "contradicted", "not_mentioned", "Supported", "Yes", "", None, 1, ["supported"]])
TEXT = st.one_of(st.sampled_from(["a man waves", "the shirt is red", "", " "]), st.text(max_size=20))
ODD = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)),
    max_leaves=6,
)
UNITS = st.fixed_dictionaries(
    {"motion": st.lists(TEXT, max_size=3), "detail": st.lists(st.one_of(TEXT, ODD), max_size=3)}
)
NUMBERED = st.dictionaries(st.sampled_from(["1", "2", "3", "4", "01", "x"]), LABELS, max_size=5)
ROW = st.fixed_dictionaries({"units": TEXT, "response": st.sampled_from(["Yes", "No", "yes", None, True])})
JOINT = st.fixed_dictionaries(
    {"Pred_units": st.lists(ROW, max_size=3), "Gt_units": st.lists(st.one_of(ROW, ODD), max_size=3)}
)
UNCHECKED = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example)
AROUND = st.sampled_from(
    ["", "", "<think>so</think>", "<think>", "</think>", "```json\n", "{}", "{", "}", "\x00", "Hm: "]
)


@st.composite
def replies(draw: st.DrawFn) -> str:
    """One reply's text."""
    text = json.dumps(draw(st.one_of(GOOD, GOOD, UNITS, NUMBERED, JOINT, ODD)))
    if draw(st.integers(0, 3)) == 0:
        text = text[: draw(st.integers(0, len(text)))]
    return draw(
        st.one_of(st.just(text), st.just(text), st.builds("{}{}{}".format, AROUND, st.just(text), AROUND), st.text())
    )


class Scripted:
    """A model that gives these replies in turn; None stands for a right one."""

    name, usage = "fuzz", Usage()

    def __init__(self, said: list[str | None]) -> None:
        self._said = said
        self.num_refused = 0

    async def ask(self, question: Question[T]) -> Answer[T]:
        """See ChatModel; a reply that cannot be read is the JudgeError that it is after all tries."""
        fuzzed = self._said.pop(0)
        text = right(question) if fuzzed is None else fuzzed
        try:
            return Answer(question.read(text), "reply")
        except InvalidReply as error:
            self.num_refused += 1
            raise JudgeError(str(error)) from error

    async def close(self) -> None:
        """Nothing is open."""


def right(question: Question[T]) -> str:
    """A valid reply."""
    if question.kind == "units":
        return '{"motion":["a man waves"],"detail":["the shirt is red"]}'
    if question.kind == "joint":
        return '{"Pred_units":[{"units":"x","response":"Yes"}],"Gt_units":[{"units":"x","response":"Yes"}]}'
    count = len(question.schema["properties"]) if question.schema else 0
    return json.dumps({str(number): "supported" for number in range(1, count + 1)})


def main() -> None:
    """Fuzz both protocols."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=10_000, help="of each protocol")
    examples = parser.parse_args().examples
    figures = {mode: fuzz(mode, examples) for mode in ("joint", "staged")}
    print("| protocol | examples | scored | unscored | replies refused | refused and scored | crashes |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for mode, f in figures.items():
        print(f"| {mode} | {f['examples']} | {f['scored']} | {f['unscored']} | {f['refused']} | 0 | 0 |")
    print(json.dumps({"benchmark": "judge_fuzz", "figures": figures}))


def fuzz(mode: str, num_examples: int) -> Counter[str]:
    """Counts of what became of the examples."""
    counts: Counter[str] = Counter()

    @settings(max_examples=num_examples, deadline=None, database=None, suppress_health_check=UNCHECKED)
    @given(st.lists(st.one_of(st.none(), replies()), min_size=4, max_size=4))
    def one(said: list[str | None]) -> None:
        check(mode, counts, said)

    one()
    return counts


def check(mode: str, counts: Counter[str], said: list[str | None]) -> None:
    """Score one caption by these replies."""
    model = Scripted(list(said))
    judge = JointJudge(model) if mode == "joint" else StagedJudge(model, model)
    reward = CserReward(Judges(RewardsSection()), {}, members=(judge,))
    (outcome,) = asyncio.run(reward.score_group(SAMPLE, ["A man sits."]))
    assert isinstance(outcome, Unscored) == bool(model.num_refused), outcome
    if isinstance(outcome, Score):
        assert 0.0 <= outcome.value <= 2.0
        assert all(isinstance(judgement, Judgement) and judgement.reference_units for judgement in outcome.judgements)
    counts["examples"] += 1
    counts["refused"] += model.num_refused
    counts["scored" if isinstance(outcome, Score) else "unscored"] += 1


if __name__ == "__main__":
    main()
