"""Questions to one judge: asked once, answered to all who ask, kept, counted, and given up in good order."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import Iterator
from typing import Any

import pytest
import stamina

from owlcap.config import CacheSection, JudgeSection
from owlcap.errors import JudgeError
from rewards.cache import ReplyCache
from rewards.chat import Answer, InvalidReply, Question, Usage
from rewards.limits import LocalLimiter
from rewards.openai_chat import OpenAIChat
from tests.judge_server import JudgeServer, Reply, answer, failure

NO_FILE = CacheSection(enabled=False)


def read_number(text: str) -> int:
    if not text.isdecimal():
        raise InvalidReply("not a number")
    return int(text)


def question(prompt: str = "how many?", kind: str = "count", template_hash: str = "t") -> Question[int]:
    return Question(kind, prompt, template_hash, read_number, schema={"type": "object"})


@pytest.fixture
def server() -> Iterator[JudgeServer]:
    server = JudgeServer()
    yield server
    server.released.set()
    server.close()


@pytest.fixture(autouse=True)
def no_waits() -> Iterator[None]:
    """Retries as configured, without the waits between them."""
    with stamina.set_testing(True, attempts=100, cap=True):
        yield


@pytest.fixture
def complaints(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """What asyncio logs, such as a failure that nobody looked at; looked at when the test is over."""
    told: list[str] = []
    yield told
    gc.collect()
    assert [record.getMessage() for record in caplog.records if record.name == "asyncio"] == told


def chat(server: JudgeServer, cache: ReplyCache | None = None, **changes: Any) -> OpenAIChat:
    settings = JudgeSection(kind="openai", model="m", base_urls=(server.url,)).model_copy(update=changes)
    return OpenAIChat(settings, cache or ReplyCache(NO_FILE), LocalLimiter({"judge": settings}), limited_as="judge")


def ask_all(model: OpenAIChat, *questions: Question[int]) -> list[Answer[int]]:
    async def main() -> list[Answer[int]]:
        try:
            return list(await asyncio.gather(*(model.ask(one) for one in questions)))
        finally:
            await model.close()

    return asyncio.run(main())


async def arrival(server: JudgeServer) -> None:
    assert await asyncio.to_thread(server.arrived.wait, 30.0)


def test_equal_questions_at_the_same_time_are_one_request(server: JudgeServer):
    server.replies = [answer("3")]
    model = chat(server)
    assert ask_all(model, *[question()] * 8) == [Answer(3, "chat-1")] * 8
    assert len(server.requests) == 1
    assert (model.usage.num_requests, model.usage.num_cached) == (1, 7)


def test_a_question_asked_again_is_answered_from_memory(server: JudgeServer):
    server.replies = [answer("3")]
    model = chat(server)
    assert ask_all(model, question()) == ask_all(model, question())
    assert len(server.requests) == 1


def test_questions_that_differ_are_asked_apart(server: JudgeServer):
    server.replies = [answer("3")]
    ask_all(chat(server), question(), question("how few?"), question(kind="other"), question(template_hash="u"))
    assert len(server.requests) == 4


def test_a_failed_question_fails_for_all_who_ask_it_and_is_asked_anew_later(server: JudgeServer, complaints: list[str]):
    server.replies = [failure(400), answer("3")]
    model = chat(server)

    async def main() -> list[Answer[int] | BaseException]:
        return await asyncio.gather(*(model.ask(question()) for _ in range(3)), return_exceptions=True)

    outcomes = asyncio.run(main())
    assert [type(outcome) for outcome in outcomes] == [JudgeError] * 3
    assert model.usage == Usage(num_requests=1, num_failed=1)
    assert ask_all(model, question())[0].value == 3


def test_one_who_stops_waiting_does_not_stop_the_others(server: JudgeServer, complaints: list[str]):
    server.replies = [answer("3")]
    server.released.clear()
    model = chat(server)

    async def main() -> list[Answer[int] | BaseException]:
        tasks = [asyncio.ensure_future(model.ask(question())) for _ in range(3)]
        await arrival(server)
        tasks[0].cancel()
        await asyncio.wait(tasks[:1])
        server.released.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    outcomes = asyncio.run(main())
    assert isinstance(outcomes[0], asyncio.CancelledError)
    assert outcomes[1:] == [Answer(3, "chat-1")] * 2
    assert len(server.requests) == 1


def test_the_request_is_given_up_when_the_last_asker_leaves(server: JudgeServer, complaints: list[str]):
    server.replies = [Reply(hang=True)]
    model = chat(server)

    async def main() -> None:
        tasks = [asyncio.ensure_future(model.ask(question())) for _ in range(2)]
        await arrival(server)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert await asyncio.to_thread(server.left.wait, 30.0)

    asyncio.run(main())


def test_who_asks_right_after_the_last_asker_left_gets_an_answer(server: JudgeServer, complaints: list[str]):
    server.replies = [Reply(hang=True), answer("3")]
    model = chat(server)

    async def main() -> Answer[int]:
        task = asyncio.ensure_future(model.ask(question()))
        await arrival(server)
        task.cancel()
        await asyncio.wait([task])
        return await model.ask(question())

    assert asyncio.run(main()).value == 3


def test_closing_with_requests_in_flight_tells_who_waits(server: JudgeServer, complaints: list[str]):
    server.replies = [Reply(hang=True), answer("3")]
    model = chat(server)

    async def main() -> BaseException | Answer[int]:
        task = asyncio.ensure_future(model.ask(question()))
        await arrival(server)
        await model.close()
        (outcome,) = await asyncio.gather(task, return_exceptions=True)
        assert (await model.ask(question())).value == 3  # asking again opens it again
        await model.close()
        return outcome

    outcome = asyncio.run(main())
    assert isinstance(outcome, JudgeError)
    assert "closed" in outcome.what


class BreaksWhenCancelled:
    """A rate limit whose owner goes away while somebody waits for it."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()

    async def admit(self, judge: str, tokens: float) -> None:
        self.reached.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise JudgeError("the rate limit is gone") from None

    async def settle(self, judge: str, extra_tokens: float) -> None:
        pass


def test_a_failure_after_all_askers_left_is_no_complaint_of_asyncios(server: JudgeServer, complaints: list[str]):
    async def main() -> None:
        limiter = BreaksWhenCancelled()
        settings = JudgeSection(kind="openai", base_urls=(server.url,))
        model = OpenAIChat(settings, ReplyCache(NO_FILE), limiter, limited_as="judge")
        task = asyncio.ensure_future(model.ask(question()))
        await limiter.reached.wait()
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(main())


def test_an_invalid_reply_is_not_kept(server: JudgeServer):
    server.replies = [answer("three")]
    cache = ReplyCache(NO_FILE)
    with pytest.raises(JudgeError, match="no valid reply in 2 tries; the last: not a number"):
        ask_all(chat(server, cache, max_tries=2), question())
    server.replies = [answer("3")]
    assert ask_all(chat(server, cache), question())[0].value == 3


def test_a_kept_reply_that_can_no_longer_be_read_is_asked_for_again(server: JudgeServer):
    server.replies = [answer("3")]
    cache = ReplyCache(NO_FILE)
    ask_all(chat(server, cache), Question("count", "how many?", "t", lambda text: text, schema={"type": "object"}))
    server.replies = [answer("4")]
    strict = Question("count", "how many?", "t", lambda text: read_number(text.replace("3", "x")), {"type": "object"})
    assert ask_all(chat(server, cache), strict)[0].value == 4
    assert ask_all(chat(server, cache), strict)[0].value == 4
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"model": "n"},
        {"temperature": 0.1},
        {"max_tokens": 7},
        {"extra_body": {"seed": 1}},
        {"structured_output": "json_object"},
        {"structured_output": "none"},
    ],
    ids=str,
)
def test_a_reply_is_kept_for_its_model_and_parameters(server: JudgeServer, change: dict[str, Any]):
    server.replies = [answer("3")]
    cache = ReplyCache(NO_FILE)
    ask_all(chat(server, cache), question())
    ask_all(chat(server, cache, **change), question())
    assert len(server.requests) == 2


def test_another_server_of_the_same_model_finds_the_reply(server: JudgeServer):
    server.replies = [answer("3")]
    cache = ReplyCache(NO_FILE)
    ask_all(chat(server, cache), question())
    assert ask_all(chat(server, cache, base_urls=("http://127.0.0.1:1/v1",)), question())[0].value == 3


def test_structured_output_as_configured(server: JudgeServer):
    server.replies = [answer("3")]
    for how in ("json_schema", "json_object", "none"):
        ask_all(chat(server, structured_output=how), question())
    first, second, third = server.requests
    schema = {"name": "count", "schema": {"type": "object"}, "strict": True}
    assert first["response_format"] == {"type": "json_schema", "json_schema": schema}
    assert second["response_format"] == {"type": "json_object"}
    assert "response_format" not in third


def test_a_kind_that_hosted_servers_would_refuse_is_refused():
    with pytest.raises(ValueError, match="letters, digits"):
        question(kind="how many?")


def test_usage_counts_tries_tokens_and_cost(server: JudgeServer):
    tokens = {"prompt_tokens": 1000, "completion_tokens": 20, "prompt_tokens_details": {"cached_tokens": 900}}
    server.replies = [failure(500), answer("three", usage=tokens), answer("3", usage=tokens)]
    model = chat(server, usd_per_million_input=1.0, usd_per_million_output=10.0)
    ask_all(model, question())
    ask_all(model, question())
    assert model.usage == Usage(
        num_requests=3,
        num_retries=2,
        num_cached=1,
        input_tokens=2000,
        input_tokens_reused=1800,
        output_tokens=40,
        usd=pytest.approx(0.0024),  # 2 * (1000 * 1 + 20 * 10) / 1e6
    )


@pytest.mark.parametrize("usage", [None, "many", {}, {"prompt_tokens": -5, "completion_tokens": "x"}], ids=json.dumps)
def test_a_server_that_tells_no_usage_is_asked_all_the_same(server: JudgeServer, usage: object):
    server.replies = [answer("3", usage=usage)]
    model = chat(server, tokens_per_minute=1e6)
    assert ask_all(model, question())[0].value == 3
    assert model.usage == Usage(num_requests=1)


def test_one_dead_server_of_two_costs_no_answer(server: JudgeServer):
    server.replies = [answer("3")]
    dead = JudgeServer()
    dead.close()
    model = chat(server, base_urls=(dead.url, server.url))
    answers = ask_all(model, *(question(f"how many {number}?") for number in range(20)))
    assert [one.value for one in answers] == [3] * 20
    assert model.usage.num_failed == 0


def test_one_hanging_server_of_two_costs_no_answer(server: JudgeServer):
    server.replies = [Reply(hang=True)]
    good = JudgeServer()
    good.replies = [answer("3")]
    try:
        model = chat(server, base_urls=(server.url, good.url), call_deadline_s=4.0, max_tries=2)
        assert ask_all(model, question())[0].value == 3
    finally:
        good.close()


@pytest.mark.parametrize(
    ("listing", "message"),
    [
        (Reply(json.dumps({"object": "list", "data": [{"id": "m"}, {"id": "n"}]})), None),
        (Reply(json.dumps({"object": "list", "data": []})), None),
        (Reply(json.dumps({"object": "list", "data": [{"id": "n"}]})), 'does not have the model "m"'),
        (failure(401, "who?"), "AuthenticationError.*who"),
        (failure(500), "InternalServerError(.|\n)*cure: start the judge's server, or correct rewards.judge.base_urls"),
        (Reply("<html>", headers={"content-type": "text/html"}), "not JSON"),
        (Reply('{"object": '), "not JSON"),
    ],
)
def test_check_asks_a_server_for_its_models(server: JudgeServer, listing: Reply, message: str | None):
    server.replies = [listing]
    if message is None:
        check(chat(server))
    else:
        with pytest.raises(JudgeError, match=message):
            check(chat(server))
    assert server.requests == [{"path": "/v1/models"}]


@pytest.mark.parametrize("reply", [answer("Hello!"), failure(400, "max_tokens is unknown")])
def test_check_asks_a_server_that_lists_no_models_one_question(server: JudgeServer, reply: Reply):
    server.replies = [failure(404), reply]
    check(chat(server))
    assert [request.get("max_tokens") for request in server.requests] == [None, 1]


def test_check_tells_that_nothing_is_found_at_an_address(server: JudgeServer):
    server.replies = [failure(404)]
    with pytest.raises(JudgeError, match=r"404(.|\n)*cure: check rewards.judge.model and base_urls"):
        check(chat(server))


def test_check_tells_a_server_that_hangs_by_its_address(server: JudgeServer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("rewards.openai_chat.CHECK_S", 0.1)
    server.replies = [Reply(hang=True)]
    with pytest.raises(JudgeError, match="timed out") as error:
        check(chat(server))
    assert server.url in str(error.value.where)
    assert error.value.cure == "start the judge's server, or correct rewards.judge.base_urls"


def check(model: OpenAIChat) -> None:
    async def main() -> None:
        try:
            await model.check()
        finally:
            await model.close()

    asyncio.run(main())
