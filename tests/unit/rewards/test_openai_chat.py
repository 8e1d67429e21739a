"""The OpenAI-compatible judge against a real HTTP server on the loopback that misbehaves on demand."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import openai
import pytest
import stamina
import uvicorn

from owlcap.config import CacheSection, CserSection, JudgeSection, RewardsSection, RewardTerm
from owlcap.errors import ConfigError, JudgeError
from owlcap.types import Judgement, RewardBreakdown, Sample, Unscored
from rewards.judges import Judges
from rewards.openai_chat import _backoff
from rewards.suite import make_suite

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


@dataclass(frozen=True)
class Reply:
    """What the server does with one request."""

    body: str = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    hang: bool = False  # until the client gives up
    cut: bool = False  # promise more bytes than are sent


def answer(text: str | None, finish_reason: str = "stop") -> Reply:
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": finish_reason}
    body = {"id": "chat-1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
    return Reply(json.dumps(body))


def failure(status: int, message: str = "no", **headers: str) -> Reply:
    return Reply(json.dumps({"error": {"message": message}}), status, headers)


class JudgeServer:
    """Plays a list of replies, the last one for ever, and keeps the requests."""

    def __init__(self, barrier: threading.Barrier | None = None) -> None:
        self.barrier = barrier  # answers wait until so many requests are there
        self.replies: list[Reply] = []
        self.requests: list[dict[str, Any]] = []
        self.authorization: list[str] = []
        self.in_flight = self.most_in_flight = 0
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self._socket.listen()  # from here on connections wait instead of being refused
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/v1"
        config = uvicorn.Config(self._app, interface="asgi3", lifespan="off", log_level="critical")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]})
        self._thread.start()

    def close(self) -> None:
        self._server.should_exit = self._server.force_exit = True
        self._thread.join()

    async def _app(
        self,
        scope: dict[str, Any],
        receive: Callable[[], Awaitable[dict[str, Any]]],
        send: Callable[[dict[str, Any]], Awaitable[None]],
    ) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        self.requests.append(json.loads(body))
        self.authorization.append(dict(scope["headers"])[b"authorization"].decode())
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            while reply.hang and (await receive())["type"] != "http.disconnect":
                pass
            data = reply.body.encode("utf-8", "surrogatepass")
            headers = {"content-type": "application/json", "content-length": str(len(data) + 99 * reply.cut)}
            pairs = [(name.encode(), value.encode()) for name, value in (headers | reply.headers).items()]
            if self.barrier is not None:
                await asyncio.to_thread(self.barrier.wait, 30.0)
            await send({"type": "http.response.start", "status": reply.status, "headers": pairs})
            await send({"type": "http.response.body", "body": data})
        finally:
            self.in_flight -= 1


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


@pytest.mark.parametrize(("status", "cure"), [(400, ""), (401, "OWLCAP_JUDGE_API_KEY"), (404, "judge.model")])
def test_a_fault_of_the_request_is_not_tried_again(server: JudgeServer, status: int, cure: str):
    with pytest.raises(JudgeError) as caught:
        ask(server, failure(status))
    assert len(server.requests) == 1
    assert cure in (caught.value.cure or "")


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
    assert "no valid reply within 0.5 s; the last try: APIConnectionError" in caught.value.what
    assert "start the judge's server" in (caught.value.cure or "")
    assert server.url in (caught.value.where or "")


@pytest.mark.parametrize(
    ("headers", "wait"), [({"retry-after": "7"}, 7.0), ({"retry-after": "soon"}, True), ({}, True)]
)
def test_the_servers_own_wait_is_kept(headers: dict[str, str], wait: float | bool):
    response = SimpleNamespace(status_code=429, headers=headers, request=None)
    assert _backoff(openai.RateLimitError("busy", response=cast(Any, response), body=None)) == wait


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


def test_no_server_is_a_config_error():
    with pytest.raises(ConfigError, match="no judge server"):
        make_suite(RewardsSection(judge=JudgeSection(kind="openai", base_urls=())))


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
