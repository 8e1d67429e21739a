"""The OpenAI-compatible judge against a real HTTP server on the loopback that misbehaves on demand."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import stamina

from owlcap.config import CacheSection, CserSection, JudgeSection, RewardsSection, RewardTerm
from owlcap.errors import ConfigError, JudgeError
from owlcap.types import Judgement, RewardBreakdown, Sample, Unscored
from rewards.judges import Judges
from rewards.suite import make_suite
from tests.judge_server import JudgeServer, Reply, answer, failure

ANSWER = json.dumps(
    {
        "Pred_units": [
            {"units": "a man waves", "response": "Yes", "tag": "motion"},
            {"units": "the shirt is blue", "response": "No", "tag": "detail"},
        ],
        "Gt_units": [{"units": "a man waves", "response": "Yes", "tag": "motion"}],
    }
)
KEY = "sk-loopback-secret"


@pytest.fixture
def server() -> Iterator[JudgeServer]:
    server = JudgeServer()
    yield server
    server.close()


@pytest.fixture(autouse=True)
def no_waits() -> Iterator[None]:
    """Retries as configured, without the waits between them."""
    with stamina.set_testing(True, attempts=100, cap=True):
        yield


def joint(settings: JudgeSection) -> Judges:
    """The judge of these settings, asked by the joint protocol: one request a pair of captions."""
    return Judges(RewardsSection(judge=settings, cser=CserSection(mode="joint"), cache=CacheSection(enabled=False)))


def ask(server: JudgeServer, *replies: Reply, predicted: str = "A man waves.", **changes: Any) -> Judgement:
    server.replies = list(replies)
    settings = JudgeSection(kind="openai", model="m", base_urls=(server.url,)).model_copy(update=changes)

    async def once() -> Judgement:
        judges = joint(settings)
        try:
            return await judges.members[0].judge(predicted, "A man waves at the camera.")
        finally:
            await judges.close()

    return asyncio.run(once())


def test_a_good_reply_becomes_a_judgement(server: JudgeServer):
    judgement = ask(server, answer(f"<think>hm {{}}</think>\n{ANSWER}"))
    assert [unit.label for unit in judgement.predicted_units] == ["supported", "contradicted"]
    assert (judgement.judge, judgement.reply_ids) == ("m", ("chat-1",))


def test_the_request_carries_the_captions_and_the_settings(server: JudgeServer):
    ask(server, answer(ANSWER), temperature=0.25, max_tokens=99)
    (request,) = server.requests
    assert (request["model"], request["temperature"], request["max_tokens"]) == ("m", 0.25, 99)
    (message,) = request["messages"]
    assert '"A man waves."' in message["content"]
    assert '"A man waves at the camera."' in message["content"]


@pytest.mark.parametrize(
    "bad",
    [
        answer("I would rather not."),
        answer(ANSWER[:-5]),
        answer(json.dumps({"Pred_units": [], "Gt_units": []})),
        answer("<think>never ending"),
        answer(None),
        answer(ANSWER, finish_reason="length"),
        Reply('{"choices": []}'),
        Reply('{"choices": ["what"]}'),
        Reply("[]"),
        Reply('{"id": "a'),
        Reply("<html>busy</html>", headers={"content-type": "text/html"}),
        Reply("[" * 100_000),
        failure(500),
        failure(503),
        failure(429),
        failure(429, **{"retry-after": "1"}),
        failure(408),
        Reply(ANSWER, cut=True),
    ],
    ids=lambda reply: f"{reply.status} {reply.body[-40:]}",
)
def test_a_passing_fault_is_tried_again(server: JudgeServer, bad: Reply):
    assert ask(server, bad, bad, answer(ANSWER)).reply_ids == ("chat-1",)
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (answer("no JSON here"), "no valid reply in 3 tries; the last: no JSON object"),
        (failure(500, "out of memory"), "InternalServerError.*out of memory"),
        (failure(429), "RateLimitError"),
    ],
)
def test_a_lasting_fault_is_a_judge_error_after_all_tries(server: JudgeServer, bad: Reply, message: str):
    with pytest.raises(JudgeError, match=message):
        ask(server, bad, max_tries=3)
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("status", "message", "cure"),
    [
        (400, "unknown field", "rewards.judge.structured_output to json_object or none"),
        (400, "max_tokens is not supported with this model", "rewards.judge.max_tokens=null"),
        (400, "temperature does not support 0.7 with this model", "rewards.judge.temperature=null"),
        (400, "maximum context length is 4096, max_tokens is 8192", "lower rewards.judge.max_tokens"),
        (422, "response_format is not known", "rewards.judge.structured_output"),
        (401, "no", "OWLCAP_JUDGE_API_KEY"),
        (403, "no", "OWLCAP_JUDGE_API_KEY"),
        (404, "no", "rewards.judge.model"),
    ],
)
def test_a_fault_of_the_request_is_not_tried_again_and_names_its_cure(
    server: JudgeServer, status: int, message: str, cure: str
):
    with pytest.raises(JudgeError) as caught:
        ask(server, failure(status, message))
    assert len(server.requests) == 1
    assert cure in (caught.value.cure or "")
    assert message in caught.value.what
    assert server.url in (caught.value.where or "")


def test_a_servers_long_message_is_cut(server: JudgeServer):
    with pytest.raises(JudgeError) as caught:
        ask(server, failure(400, "x" * 100_000))
    assert len(str(caught.value)) < 1000


def test_settings_that_are_null_are_not_sent(server: JudgeServer):
    ask(server, answer(ANSWER), temperature=None, max_tokens=None, extra_body={"max_completion_tokens": 9})
    (request,) = server.requests
    assert not {"temperature", "max_tokens"} & request.keys()
    assert request["max_completion_tokens"] == 9


def test_a_lone_surrogate_in_a_reply_is_replaced(server: JudgeServer):
    rows = [{"units": "a man \ud800 waves", "response": "Yes"}]
    judgement = ask(server, answer(json.dumps({"Pred_units": rows, "Gt_units": rows})))
    assert judgement.predicted_units[0].text == "a man ? waves"


def test_a_hanging_try_leaves_time_for_another(server: JudgeServer):
    assert ask(server, Reply(hang=True), answer(ANSWER), call_deadline_s=4.0).reply_ids == ("chat-1",)


def test_all_tries_share_one_deadline(server: JudgeServer):
    with pytest.raises(JudgeError, match=r"no valid reply within 0\.5 s"):
        ask(server, Reply(hang=True), call_deadline_s=0.5, max_tries=100)
    assert len(server.requests) < 5


def test_a_server_that_is_not_there_is_named_with_the_cure(server: JudgeServer):
    server.close()
    with pytest.raises(JudgeError) as caught:
        ask(server, answer(ANSWER), call_deadline_s=0.5)
    assert "no valid reply within 0.5 s; the last problem: APIConnectionError" in caught.value.what
    assert "start the judge's server" in (caught.value.cure or "")
    assert server.url in (caught.value.where or "")


@pytest.mark.parametrize("predicted", ["", "\ud800 broken \x00 text", "</think> $reference {", "跳舞 " * 2000])
def test_odd_captions_reach_the_server(server: JudgeServer, predicted: str):
    assert ask(server, answer(ANSWER), predicted=predicted).predicted_units


def test_the_key_comes_from_the_environment_and_stays_out_of_messages(
    server: JudgeServer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MY_JUDGE_KEY", KEY)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-somebody-elses")
    with pytest.raises(JudgeError) as caught:
        ask(server, failure(401, f"bad key {KEY}"), api_key_env="MY_JUDGE_KEY")
    assert server.authorization == [f"Bearer {KEY}"]
    assert KEY not in str(caught.value)
    assert "bad key ***" in str(caught.value)


def test_the_key_stays_out_of_logs_when_a_server_repeats_it(
    server: JudgeServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setenv("OWLCAP_JUDGE_API_KEY", KEY)
    with caplog.at_level("DEBUG"):
        ask(
            server, failure(500, f"key {KEY} is over its limit"), answer(ANSWER), breaker_failures=1, breaker_rest_s=0.1
        )
    assert caplog.records
    assert not [record for record in caplog.records if KEY in str(vars(record)) or KEY in record.getMessage()]


def test_without_a_key_none_is_sent_from_elsewhere(server: JudgeServer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("OWLCAP_JUDGE_API_KEY", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-somebody-elses")
    ask(server, answer(ANSWER))
    assert server.authorization == ["Bearer none"]


def ask_many(num_calls: int, concurrency: int, *servers: JudgeServer) -> None:
    for server in servers:
        server.replies = [answer(ANSWER)]
    urls = tuple(server.url for server in servers)

    async def many() -> None:
        judges = joint(JudgeSection(kind="openai", base_urls=urls, concurrency=concurrency, max_tries=1))
        await asyncio.gather(*(judges.members[0].judge(f"{i} men wave.", "A man waves.") for i in range(num_calls)))
        await judges.close()

    try:
        asyncio.run(many())
    finally:
        for server in servers:
            server.close()


def test_as_many_calls_as_allowed_are_in_flight_and_no_more():
    server = JudgeServer(threading.Barrier(4))
    ask_many(24, 4, server)
    assert server.most_in_flight == 4


def test_calls_go_to_the_server_with_the_fewest_in_flight():
    barrier = threading.Barrier(2)
    servers = JudgeServer(barrier), JudgeServer(barrier)
    ask_many(12, 2, *servers)
    assert [server.most_in_flight for server in servers] == [1, 1]


def test_a_judge_works_in_one_event_loop_after_another(server: JudgeServer):
    server.replies = [answer(ANSWER)]
    judge = joint(JudgeSection(kind="openai", base_urls=(server.url,))).members[0]
    for number in range(2):
        assert asyncio.run(judge.judge(f"{number} men wave.", "A man waves.")).reply_ids == ("chat-1",)
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("urls", "message"),
    [
        ((), "no judge server"),
        (("127.0.0.1:8000/v1",), "is no address of a server"),
        (("http://user:secret@127.0.0.1:8000/v1",), "holds a password"),
    ],
)
def test_servers_that_cannot_be_are_config_errors(urls: tuple[str, ...], message: str):
    with pytest.raises(ConfigError, match=message):
        make_suite(RewardsSection(judge=JudgeSection(kind="openai", base_urls=urls), cache=CacheSection(enabled=False)))


def test_a_key_that_no_header_can_carry_is_refused_without_being_shown(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OWLCAP_JUDGE_API_KEY", "sk-sécret")
    with pytest.raises(ConfigError, match="OWLCAP_JUDGE_API_KEY") as caught:
        make_suite(RewardsSection(judge=JudgeSection(kind="openai"), cache=CacheSection(enabled=False)))
    assert "sk-" not in str(caught.value)


def test_through_the_suite_a_failed_call_is_unscored_and_never_zero(server: JudgeServer):
    server.replies = [answer(ANSWER), failure(400)]
    judge = JudgeSection(kind="openai", base_urls=(server.url,), concurrency=1)
    suite = make_suite(
        RewardsSection(
            terms=(RewardTerm(name="cser"),),
            judge=judge,
            cser=CserSection(mode="joint"),
            cache=CacheSection(enabled=False),
        )
    )
    sample = Sample(id="a", video="a.mp4", prompt="", caption="", reference="A man waves at the camera.")

    async def both() -> tuple[RewardBreakdown | Unscored, ...]:
        scores = await suite.score_group(sample, ["A man waves.", "Two men wave."])
        await suite.close()
        return scores

    scored, unscored = asyncio.run(both())
    assert isinstance(scored, RewardBreakdown)
    assert scored.total == 1.5  # correctness 1/2, completeness 1/1
    assert isinstance(unscored, Unscored)
    assert "BadRequestError" in unscored.reason
