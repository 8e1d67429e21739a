"""All judged rewards in one suite, asking a real HTTP server on the loopback."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pytest

from owlcap.config import CacheSection, JudgeSection, RewardsSection, RewardTerm
from owlcap.types import Choice, RewardBreakdown, Sample, ScoredRollout, Unscored
from rewards.catalogue import judge_calls
from rewards.chat import Question
from rewards.suite import make_suite
from tests.judge_server import JudgeServer, Reply, answer, failure
from tests.unit.rewards.scripted_model import literal

KINDS = {"List the key events": "events", "List the key points": "keypoints", "Split": "units", "Check": "labels"}
SAMPLE = Sample(
    "clip-1",
    "a.mp4",
    "",
    "",
    reference="A girl waves. She sits.",
    questions=(Choice("Who waves?", ("a man", "a girl"), "a girl"),),
)
CAPTION = "A girl waves. A dog barks."


def respond(prompt: str) -> Reply:
    kind = next((kind for start, kind in KINDS.items() if prompt.startswith(start)), None)
    said = literal(Question(kind, prompt, "", str)) if kind else {"1": "none"}
    return answer(json.dumps(said))


@pytest.fixture
def server() -> Iterator[JudgeServer]:
    server = JudgeServer(respond=respond)
    yield server
    server.close()


def settings(server: JudgeServer, *names: str) -> RewardsSection:
    return RewardsSection(
        terms=tuple(RewardTerm(name=name) for name in names),
        judge=JudgeSection(kind="openai", base_urls=(server.url,), model="m", max_tries=1),
        cache=CacheSection(enabled=False),
    )


def score(section: RewardsSection) -> ScoredRollout:
    async def one() -> ScoredRollout:
        suite = make_suite(section)
        try:
            return (await suite.score_group(SAMPLE, [CAPTION]))[0]
        finally:
            await suite.close()

    return asyncio.run(one())


def test_all_of_them_score_one_caption_and_share_what_they_ask(server: JudgeServer):
    section = settings(server, "cser", "autodq", "keypoints", "hallucination", "qa_probe")
    outcome = score(section)
    assert isinstance(outcome, RewardBreakdown)
    assert {name: part.value for name, part in outcome.parts.items()} == {
        "cser": 1.5,  # lenient: nothing is contradicted; one of the reference's two is told
        "autodq": 0.5,
        "keypoints": 0.5,
        "hallucination": 0.0,  # one missed and one hallucinated, of two
        "qa_probe": 0.0,
    }
    assert len(server.requests) == len(set(server.prompts)) < judge_calls(section, num_captions=1, num_references=1)


def test_every_question_sends_its_schema(server: JudgeServer):
    score(settings(server, "autodq", "keypoints", "hallucination", "qa_probe"))
    sent = [request["response_format"]["json_schema"] for request in server.requests]
    assert {schema["name"] for schema in sent} == {"events", "keypoints", "units", "labels", "qa_probe"}
    assert all(schema["strict"] and not schema["schema"]["additionalProperties"] for schema in sent)


@pytest.mark.parametrize("name", ["autodq", "keypoints", "hallucination", "qa_probe"])
@pytest.mark.parametrize(
    "reply", [failure(400), answer("I cannot help."), answer("{}"), answer('{"1": "x"}'), answer(None)]
)
def test_a_server_that_is_of_no_use_leaves_the_caption_unscored(server: JudgeServer, name: str, reply: Reply):
    server.respond = lambda _: reply
    outcome = score(settings(server, name))
    assert isinstance(outcome, Unscored)
    assert outcome.reward == name
