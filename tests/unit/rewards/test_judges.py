"""The judges of a suite: which there are, which cannot be, and what they share."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from owlcap.config import CacheSection, CserSection, JudgeSection, RewardsSection, RewardTerm
from owlcap.errors import ConfigError, JudgeError
from owlcap.types import RewardBreakdown, Sample, Score
from rewards.cache import cache_stats
from rewards.chat import Usage
from rewards.cser import score_judgements
from rewards.joint import JointJudge
from rewards.judges import Judges, check_captions, judge_sections
from rewards.lexical import LexicalJudge
from rewards.staged import StagedJudge
from rewards.suite import make_suite
from tests.judge_server import JudgeServer, Reply, answer

OPENAI = JudgeSection(kind="openai", base_urls=("http://127.0.0.1:9/v1",))
REFERENCE = "A person in a red shirt waves."  # of the toy world, so that the lexical judge can read it
YES = {"units": "a person waves", "response": "Yes", "tag": "motion"}


def rewards(**changes: Any) -> RewardsSection:
    return RewardsSection(terms=(RewardTerm(name="cser"),), **{"cache": CacheSection(enabled=False), **changes})


@pytest.fixture
def server() -> Iterator[JudgeServer]:
    server = JudgeServer()
    server.replies = [answer(json.dumps({"Pred_units": [YES], "Gt_units": [YES]}))]
    yield server
    server.close()


def test_the_default_judge_is_the_lexical_one_and_answers_no_questions():
    judges = Judges(rewards())
    assert [type(member) for member in judges.members] == [LexicalJudge]
    assert judges.usage == Usage()
    with pytest.raises(ConfigError, match="needs a language model") as caught:
        _ = judges.model
    assert caught.value.where == "rewards.judge.kind"


@pytest.mark.parametrize(("mode", "kind"), [("staged", StagedJudge), ("joint", JointJudge)])
def test_the_mode_names_the_protocol(mode: Any, kind: type):
    judges = Judges(rewards(judge=OPENAI, cser=CserSection(mode=mode)))
    assert [type(member) for member in judges.members] == [kind]
    assert judges.model is judges.model


def test_judges_are_known_by_their_place():
    panel = (OPENAI, OPENAI)
    assert list(judge_sections(rewards(judge=OPENAI, panel=panel))) == ["judge", "panel-1", "panel-2"]


OTHER = OPENAI.model_copy(update={"model": "other"})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"judge": OPENAI, "panel": (OTHER,), "cser": CserSection(mode="joint")}, "label the same units"),
        ({"panel": (OTHER,)}, "label the same units"),
    ],
    ids=["joint", "kinds"],
)
def test_a_majority_of_judges_with_units_of_their_own_is_refused(settings: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        Judges(rewards(panel_vote="majority", **settings))
    Judges(rewards(panel_vote="median", **settings))


def test_a_panel_of_one_and_the_same_judge_is_refused_and_seeds_tell_them_apart():
    with pytest.raises(ConfigError, match="one and the same reply") as caught:
        Judges(rewards(judge=OPENAI, panel=(OPENAI.model_copy(update={"base_urls": ("http://elsewhere/v1",)}),)))
    assert "seed" in (caught.value.cure or "")
    seeds = tuple(OPENAI.model_copy(update={"extra_body": {"seed": seed}}) for seed in (1, 2))
    assert len(Judges(rewards(judge=OPENAI, panel=seeds)).members) == 3


def test_a_panel_member_that_forgets_its_kind_is_refused():
    with pytest.raises(ConfigError, match="judge 1 of the panel names a model, but its kind is lexical"):
        Judges(rewards(judge=OPENAI, panel=(JudgeSection(model="other"),)))


def test_a_panel_of_the_lexical_judge_and_a_model(server: JudgeServer):
    judge = JudgeSection(kind="openai", model="m", base_urls=(server.url,))
    suite = make_suite(rewards(panel=(judge,), cser=CserSection(mode="joint")))
    sample = Sample(id="a", video="a.mp4", prompt="", caption="", reference=REFERENCE)

    async def main() -> Any:
        try:
            return await suite.score_group(sample, [REFERENCE])
        finally:
            await suite.close()

    (score,) = asyncio.run(main())
    assert isinstance(score, RewardBreakdown)
    judgements = score.parts["cser"].judgements
    assert [judgement.reply_ids for judgement in judgements] == [(), ("chat-1",)]
    each = [cast(Score, score_judgements([judgement], CserSection())).value for judgement in judgements]
    assert score.total == pytest.approx(sum(each) / 2)
    assert "judge_disagreement" not in score.metrics  # they split captions in their own ways
    assert suite.usage.num_requests == 1


def test_two_suites_of_a_process_share_the_file_and_nothing_else(server: JudgeServer, tmp_path: Path):
    judge = JudgeSection(kind="openai", model="m", base_urls=(server.url,))
    cache = CacheSection(path=str(tmp_path / "judge.sqlite"))
    settings = rewards(judge=judge, cser=CserSection(mode="joint"), cache=cache)
    first, second = make_suite(settings), make_suite(settings)
    sample = Sample(id="a", video="a.mp4", prompt="", caption="", reference=REFERENCE)

    async def main() -> None:
        await first.score_group(sample, ["A person waves."])
        await first.close()
        await second.score_group(sample, ["A person waves."])
        await second.close()

    asyncio.run(main())
    assert (first.usage.num_requests, first.usage.num_cached) == (1, 0)
    assert (second.usage.num_requests, second.usage.num_cached) == (0, 1)
    assert cache_stats(tmp_path / "judge.sqlite").by_model == {"m": 1}


def test_check_asks_every_judges_server(server: JudgeServer):
    server.replies = [Reply(json.dumps({"object": "list", "data": [{"id": "m"}]}))]
    known = JudgeSection(kind="openai", model="m", base_urls=(server.url,))
    unknown = known.model_copy(update={"model": "n"})

    async def check(judges: Judges) -> None:
        try:
            await judges.check()
        finally:
            await judges.close()

    asyncio.run(check(Judges(rewards(judge=known))))
    asyncio.run(check(Judges(rewards())))
    with pytest.raises(JudgeError, match='does not have the model "n"'):
        asyncio.run(check(Judges(rewards(judge=known, panel=(unknown,)))))


@pytest.mark.parametrize(
    ("predicted", "reference", "message"),
    [
        ("A man.", " ", "reference caption is empty"),
        ("word " * 101, "A man.", "the caption has 101 words"),
        ("A man.", "word " * 101, "the reference caption has 101 words"),
        ("跳舞" * 1000, "A man.", "the caption has 166 words"),
    ],
)
def test_captions_that_no_judge_should_be_asked_about(predicted: str, reference: str, message: str):
    judge = JudgeSection(max_caption_words=100)
    check_captions("", "A man.", judge)
    with pytest.raises(JudgeError, match=message):
        check_captions(predicted, reference, judge)
